//! The kernel's own statistics: `/proc/net/stat/nf_conntrack`, hexadecimal, one row for each CPU, this network
//! namespace's only (`ct_cpu_seq_show` in nf_conntrack_standalone.c).

use std::fs;
use std::path::Path;

use super::{Error, StatTotals};

/// Where the file is below the root.
pub const FILE: &str = "proc/net/stat/nf_conntrack";

/// The columns that are summed, in the order of [`Row`].
const COLUMNS: [&str; 5] = ["drop", "early_drop", "insert_failed", "chainlength", "invalid"];

type Row = [u32; COLUMNS.len()];

/// Sums the rows and unwraps them: each cell is a 32-bit counter that starts again at 0.
#[derive(Debug, Default)]
pub struct Stats {
    last: Vec<Row>,
    totals: [u64; COLUMNS.len()],
}

impl Stats {
    /// Reads the file below `root` and adds what came since the last reading; the first reading counts from 0.
    pub fn read(&mut self, root: &Path) -> Result<StatTotals, Error> {
        let path = root.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(Error::Read { path, source }),
        };
        let rows = parse(&text).map_err(|item| Error::Content { path, item })?;
        Ok(self.add(rows))
    }

    fn add(&mut self, rows: Vec<Row>) -> StatTotals {
        // A CPU that was not there before starts from what it says now: its past is not this tick's.
        if !self.last.is_empty() {
            for (now, before) in rows.iter().zip(&self.last) {
                for ((total, now), before) in self.totals.iter_mut().zip(now).zip(before) {
                    *total += u64::from(now.wrapping_sub(*before));
                }
            }
        }
        self.last = rows;
        let [drop, early_drop, insert_failed, chain_too_long, invalid] = self.totals;
        StatTotals { drop, early_drop, insert_failed, chain_too_long, invalid }
    }
}

/// By the header's names: column 8 was `delete_list` until 5.14 and is `chainlength` since, and new ones may come.
fn parse(text: &str) -> Result<Vec<Row>, String> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split_ascii_whitespace().collect();
    let places = COLUMNS.map(|column| header.iter().position(|name| *name == column));
    if places[0].is_none() {
        return Err("the header has no column \"drop\"".to_owned());
    }
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split_ascii_whitespace().collect();
            let mut row = Row::default();
            for (value, place) in row.iter_mut().zip(places) {
                let Some(place) = place else { continue };
                let cell = cells.get(place).ok_or_else(|| format!("a row of {} cells: {line:?}", cells.len()))?;
                *value = u32::from_str_radix(cell, 16).map_err(|_| format!("not hexadecimal: {cell:?}"))?;
            }
            Ok(row)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop \
                          early_drop icmp_error  expect_new expect_create expect_delete search_restart\n";

    fn text(rows: &[(&str, &str)]) -> String {
        let row = |(drop, early): &(&str, &str)| {
            format!(
                "0000001b  00000000 00000000 00000000 00000002 00000000 00000000 00000003 00000000 00000004 {drop} {early} 0 0 0 0 0\n"
            )
        };
        HEADER.to_owned() + &rows.iter().map(row).collect::<String>()
    }

    #[test]
    fn cells_are_found_by_name_and_read_as_hexadecimal() {
        assert_eq!(parse(&text(&[("000000ff", "00000010")])).unwrap(), [[255, 16, 4, 3, 2]]);
        let old = text(&[("1", "0")]).replace("chainlength", "delete_list");
        assert_eq!(parse(&old).unwrap(), [[1, 0, 4, 0, 2]], "before 5.15 there is no such column");
    }

    #[test]
    fn the_first_reading_is_the_origin_and_wrapping_is_no_jump() {
        let mut stats = Stats::default();
        let mut add = |rows: &[(&str, &str)]| stats.add(parse(&text(rows)).unwrap());
        assert_eq!(add(&[("fffffffe", "5"), ("1", "0")]), StatTotals::default());
        let totals = add(&[("3", "6"), ("2", "0")]);
        assert_eq!((totals.drop, totals.early_drop), (5 + 1, 1));
        let totals = add(&[("3", "6"), ("2", "0"), ("ffff", "ffff")]);
        assert_eq!((totals.drop, totals.early_drop), (6, 1), "a CPU that came later brings no past");
    }

    #[test]
    fn what_is_not_the_kernels_format_is_an_error() {
        assert!(parse("").is_err());
        assert!(parse("a b\n1 2\n").is_err());
        assert!(parse(&text(&[("zz", "0")])).unwrap_err().contains("zz"));
        assert!(parse(&(HEADER.to_owned() + "1 2 3\n")).is_err());
    }
}
