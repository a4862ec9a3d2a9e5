//! What the kernel says about its conntrack table, in the network namespace of the calling thread. Read here and not
//! through the guard, so that the guard is not its own judge.

use std::fs;
use std::io;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Serialize;

const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const BUCKETS: &str = "/proc/sys/net/netfilter/nf_conntrack_buckets";
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const STATISTICS: &str = "/proc/thread-self/net/stat/nf_conntrack";

/// `nf_conntrack_max` and `nf_conntrack_buckets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// Entries the table may hold.
    pub max: u64,
    /// Buckets of the hash table.
    pub buckets: u64,
}

impl Settings {
    /// Reads both.
    pub fn read() -> Result<Self> {
        Ok(Self { max: read_number(MAX)?, buckets: read_number(BUCKETS)? })
    }

    /// Writes both and reads them back. Works in the initial network namespace only; the kernel rounds buckets up to a
    /// multiple of 512.
    pub fn write(self) -> Result<()> {
        for (path, value) in [(MAX, self.max), (BUCKETS, self.buckets)] {
            fs::write(path, value.to_string()).with_context(|| format!("{path}: cannot write {value}"))?;
        }
        let found = Self::read()?;
        if found != self {
            bail!("wrote {self:?}, the kernel took {found:?}");
        }
        Ok(())
    }
}

/// `nf_conntrack_count`: entries now, of this namespace.
pub fn count() -> Result<u64> {
    read_number(COUNT)
}

/// Deletes all entries of this namespace (`conntrack -F`).
pub fn flush() -> Result<()> {
    let output = Command::new("conntrack").arg("-F").output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => anyhow::anyhow!("`conntrack` is not here: install the package conntrack"),
        _ => error.into(),
    })?;
    if !output.status.success() {
        bail!("`conntrack -F` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// One reading of `/proc/net/stat/nf_conntrack`: 32-bit counters that wrap, one row a possible CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics {
    names: Vec<String>,
    rows: Vec<Vec<u32>>,
}

/// What happened to new flows between two readings, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Drops {
    /// New flows dropped because the table was full and nothing could be evicted (or memory ran out): `drop` without lost
    /// clashes.
    pub table_full: u64,
    /// New flows dropped because their chain was too long: `chainlength` (`chaintoolong` in the kernel).
    pub chain_too_long: u64,
    /// New flows dropped because another one took their tuple (`nf_ct_resolve_clash`): `insert_failed` without long chains.
    pub clash_lost: u64,
    /// Existing entries evicted to make room: `early_drop`. No new flow was lost by it.
    pub evicted: u64,
}

impl Drops {
    /// New flows dropped, whatever the cause.
    pub fn new_flows(&self) -> u64 {
        self.table_full + self.chain_too_long + self.clash_lost
    }
}

impl Statistics {
    /// Reads the statistics of this namespace.
    pub fn read() -> Result<Self> {
        let text = fs::read_to_string(STATISTICS).with_context(|| {
            format!(
                "{STATISTICS}: cannot read (nf_conntrack not loaded, or a kernel without CONFIG_NF_CONNTRACK_PROCFS)"
            )
        })?;
        Self::parse(&text).with_context(|| STATISTICS.to_owned())
    }

    fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines();
        let names: Vec<String> = lines.next().context("no header")?.split_whitespace().map(str::to_owned).collect();
        let mut rows = Vec::new();
        for line in lines {
            let row: Vec<u32> = line
                .split_whitespace()
                .map(|field| u32::from_str_radix(field, 16).with_context(|| format!("`{field}` is no hex number")))
                .collect::<Result<_>>()?;
            if row.len() != names.len() {
                bail!("a row has {} fields, the header {}", row.len(), names.len());
            }
            rows.push(row);
        }
        Ok(Self { names, rows })
    }

    /// Whether this kernel has such a column.
    pub fn has(&self, column: &str) -> bool {
        self.names.iter().any(|name| name == column)
    }

    /// What a column counted since `earlier`; 0 where this kernel has no such column.
    pub fn since(&self, earlier: &Self, column: &str) -> u64 {
        let Some(index) = self.names.iter().position(|name| name == column) else { return 0 };
        let pairs = self.rows.iter().zip(&earlier.rows);
        pairs.map(|(now, then)| u64::from(now[index].wrapping_sub(then[index]))).sum()
    }

    /// New flows dropped and entries evicted since `earlier`, by cause.
    pub fn drops_since(&self, earlier: &Self) -> Drops {
        let counted = |column| self.since(earlier, column);
        // A chain too long counts as insert_failed too; a lost clash as insert_failed and as drop (nf_conntrack_core.c).
        let chain_too_long = counted("chainlength");
        let clash_lost = counted("insert_failed").saturating_sub(chain_too_long);
        let table_full = counted("drop").saturating_sub(clash_lost);
        Drops { table_full, chain_too_long, clash_lost, evicted: counted("early_drop") }
    }
}

fn read_number(path: &str) -> Result<u64> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("{path}: cannot read; is the module nf_conntrack loaded? `modprobe nf_conntrack`"))?;
    text.trim().parse().with_context(|| format!("{path}: `{}` is no number", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "entries clashres invalid chainlength insert_failed drop early_drop";

    fn statistics(rows: &str) -> Statistics {
        Statistics::parse(&format!("{HEADER}\n{rows}")).unwrap()
    }

    #[test]
    fn causes_are_told_apart_over_all_cpus_and_past_a_wrap() {
        let before = statistics("10 0 0 1 2 ffffffff 5\n10 0 0 0 0 0 0\n");
        // 3 chains too long, 2 clashes lost, 0x10 = 16 drops of which 2 were the clashes, 1 eviction.
        let after = statistics("20 0 0 2 5 d 6\n20 0 0 2 2 2 0\n");
        let expected = Drops { table_full: 14, chain_too_long: 3, clash_lost: 2, evicted: 1 };
        assert_eq!(after.drops_since(&before), expected);
        assert_eq!(expected.new_flows(), 19);
    }

    #[test]
    fn a_missing_column_counts_nothing() {
        let text = "entries drop\n00000001 00000003\n";
        let after = Statistics::parse(text).unwrap();
        let before = Statistics::parse("entries drop\n00000001 00000001\n").unwrap();
        assert_eq!(after.drops_since(&before), Drops { table_full: 2, ..Drops::default() });
    }

    #[test]
    fn a_broken_table_is_an_error_that_names_the_field() {
        let error = Statistics::parse("entries drop\n1 xyz\n").unwrap_err();
        assert_eq!(error.to_string(), "`xyz` is no hex number");
        assert_eq!(Statistics::parse("entries drop\n1\n").unwrap_err().to_string(), "a row has 1 fields, the header 2");
        assert_eq!(Statistics::parse("").unwrap_err().to_string(), "no header");
    }
}
