//! The kernel's own statistics of this network namespace: `/proc/net/stat/nf_conntrack`, hexadecimal, one row for each
//! CPU (`ct_cpu_seq_show` in nf_conntrack_standalone.c), or the same from ctnetlink (`ctnetlink_ct_stat_cpu_fill_info`)
//! where that file is not there, empty or not to be read.

use std::fs;
use std::path::Path;

use super::{Error, StatTotals, Statistics};
use crate::kernel::ctnetlink::{Presence, Socket, stat, told};

/// Where the file is below the root.
pub const FILE: &str = "proc/net/stat/nf_conntrack";

/// What is summed, in the order of [`Row`]: the column of the file and the attribute of ctnetlink.
const COLUMNS: [(&str, u16); 7] = [
    ("drop", stat::DROP),
    ("early_drop", stat::EARLY_DROP),
    ("insert_failed", stat::INSERT_FAILED),
    ("chainlength", stat::CHAIN_TOO_LONG),
    ("clashres", stat::CLASH_RESOLVE),
    ("invalid", stat::INVALID),
    ("icmp_error", stat::ERROR),
];

/// One CPU's counters.
type Row = [u32; COLUMNS.len()];

/// Reads the rows, sums them and unwraps them: each cell is a 32-bit counter that starts again at 0.
#[derive(Debug, Default)]
pub struct Stats {
    ctnetlink: Option<Socket>,
    presence: Presence,
    last: Vec<Row>,
    totals: [u64; COLUMNS.len()],
}

impl Stats {
    /// Counts from 0 at the first reading; `presence` says whether ctnetlink may be asked.
    pub fn new(presence: Presence) -> Self {
        Self { presence, ..Self::default() }
    }

    /// Reads what came since the last reading; the first reading counts from 0. Both sources tell the same counters, so a
    /// change from one to the other is no jump.
    pub fn read(&mut self, root: &Path) -> Statistics {
        let why = match read_file(root) {
            Ok(rows) => return Statistics::Proc(self.add(rows)),
            Err(error) => error.to_string(),
        };
        match self.ask(root) {
            Ok(rows) => Statistics::Ctnetlink { totals: self.add(rows), why },
            Err(and) => Statistics::Missing { why: format!("{why}; ctnetlink: {and}") },
        }
    }

    /// The same from ctnetlink.
    fn ask(&mut self, root: &Path) -> Result<Vec<Row>, String> {
        if !self.presence.is_there(root) {
            self.ctnetlink = None;
            return Err("no nf_conntrack_netlink is seen (`modprobe nf_conntrack_netlink` brings them)".to_owned());
        }
        let socket = match self.ctnetlink.take() {
            Some(socket) => socket,
            None => Socket::open().map_err(|error| error.to_string())?,
        };
        let rows =
            socket.statistics(COLUMNS.map(|(_, attribute)| attribute)).map_err(|error| told(error).to_string())?;
        // A socket that failed is not asked again.
        self.ctnetlink = Some(socket);
        Ok(rows)
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
        let [drop, early_drop, insert_failed, chain_too_long, clash_resolved, invalid, icmp_error] = self.totals;
        StatTotals { drop, early_drop, insert_failed, chain_too_long, clash_resolved, invalid, icmp_error }
    }
}

fn read_file(root: &Path) -> Result<Vec<Row>, Error> {
    let path = root.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(Error::Read { path, source }),
    };
    parse(&text).map_err(|item| Error::Content { path, item })
}

/// By the header's names: column 8 was `delete_list` until 5.14 and is `chainlength` since, and new ones may come.
fn parse(text: &str) -> Result<Vec<Row>, String> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split_ascii_whitespace().collect();
    let places = COLUMNS.map(|(column, _)| header.iter().position(|name| *name == column));
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
                "0000001b  00000006 00000000 00000000 00000002 00000000 00000000 00000003 00000000 00000004 {drop} {early} 7 \
                 0 0 0 0\n"
            )
        };
        HEADER.to_owned() + &rows.iter().map(row).collect::<String>()
    }

    #[test]
    fn cells_are_found_by_name_and_read_as_hexadecimal() {
        assert_eq!(parse(&text(&[("000000ff", "00000010")])).unwrap(), [[255, 16, 4, 3, 6, 2, 7]]);
        let old = text(&[("1", "0")]).replace("chainlength", "delete_list");
        assert_eq!(parse(&old).unwrap(), [[1, 0, 4, 0, 6, 2, 7]], "before 5.15 there is no such column");
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

    #[test]
    fn without_both_the_reasons_of_both_are_told() {
        let root = tempfile::tempdir().unwrap();
        let missing = Stats::default().read(root.path());
        assert_eq!(missing.totals(), None);
        let why = missing.why().unwrap();
        assert!(why.contains(FILE) && why.contains("modprobe nf_conntrack_netlink"), "{why}");
        fs::create_dir_all(root.path().join("proc/net/stat")).unwrap();
        fs::write(root.path().join(FILE), "").unwrap();
        // A file that a container's runtime masks reads empty.
        let why = Stats::default().read(root.path()).why().unwrap().to_owned();
        assert!(why.contains("no column \"drop\""), "{why}");
    }
}
