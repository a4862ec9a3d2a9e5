//! The gateway's side over time: one sample of everything, in columns.

use std::time::Duration;

use anyhow::Result;
use bench::conntrack::{self, Settings, Statistics};
use nix::unistd::Pid;
use serde::Serialize;

use crate::memory::{Entries, Usage};
use crate::watch::Sums;

/// Columns of equal length; each only where it was measured. Drops, evictions and connections count from the load's start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Series {
    /// Milliseconds since the load's start.
    pub at_ms: Vec<u64>,
    /// `nf_conntrack_count`
    pub count: Vec<u64>,
    /// `nf_conntrack_max`
    pub max: Vec<u64>,
    /// `nf_conntrack_buckets`
    pub buckets: Vec<u64>,
    /// New flows dropped because the table was full.
    pub table_full: Vec<u64>,
    /// New flows dropped because their chain was too long.
    pub chain_too_long: Vec<u64>,
    /// New flows dropped because another took their tuple.
    pub clash_lost: Vec<u64>,
    /// Entries evicted to make room.
    pub evicted: Vec<u64>,
    /// Bytes of entries and buckets: the allocator's objects, in use or not.
    pub memory_bytes: Vec<u64>,
    /// Of the load: what went all the way.
    pub made: Vec<u64>,
    /// Of the load: what failed.
    pub failed: Vec<u64>,
    /// CPU time of the alternative's program since the load's start, milliseconds; empty where it has none.
    pub program_cpu_ms: Vec<u64>,
    /// Its resident memory, KiB.
    pub program_resident_kib: Vec<u64>,
}

/// A change of the number of buckets between two samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Resized {
    /// When it was seen, milliseconds since the load's start.
    pub at_ms: u64,
    /// Buckets before.
    pub from: u64,
    /// Buckets after.
    pub to: u64,
}

/// What samples are counted from.
pub(super) struct Origin {
    statistics: Statistics,
    program: Option<(Pid, u64)>,
}

impl Origin {
    /// The statistics and the program's CPU time as of now.
    pub fn now(program: Option<Pid>) -> Result<Self> {
        let program = program.map(|pid| anyhow::Ok((pid, Usage::read(pid)?.cpu_ms))).transpose()?;
        Ok(Self { statistics: Statistics::read()?, program })
    }
}

impl Series {
    /// Adds a sample of now.
    pub fn sample(&mut self, at: Duration, origin: &Origin, sums: Sums) -> Result<()> {
        let settings = Settings::read()?;
        let drops = Statistics::read()?.drops_since(&origin.statistics);
        if let Some((pid, before)) = origin.program {
            let usage = Usage::read(pid)?;
            self.program_cpu_ms.push(usage.cpu_ms.saturating_sub(before));
            self.program_resident_kib.push(usage.resident_kib);
        }
        for (column, value) in [
            (&mut self.at_ms, u64::try_from(at.as_millis()).unwrap_or(u64::MAX)),
            (&mut self.count, conntrack::count()?),
            (&mut self.max, settings.max),
            (&mut self.buckets, settings.buckets),
            (&mut self.table_full, drops.table_full),
            (&mut self.chain_too_long, drops.chain_too_long),
            (&mut self.clash_lost, drops.clash_lost),
            (&mut self.evicted, drops.evicted),
            (&mut self.memory_bytes, Entries::read()?.bytes_with(settings.buckets)),
            (&mut self.made, sums.made),
            (&mut self.failed, sums.failed),
        ] {
            column.push(value);
        }
        Ok(())
    }

    /// New flows dropped until each sample, whatever the cause.
    pub fn dropped(&self) -> Vec<u64> {
        let causes = self.table_full.iter().zip(&self.chain_too_long).zip(&self.clash_lost);
        causes.map(|((full, long), clash)| full + long + clash).collect()
    }

    /// Changes of the number of buckets.
    pub fn resized(&self) -> Vec<Resized> {
        let pairs = self.buckets.windows(2).zip(self.at_ms.iter().skip(1));
        let changed = pairs.filter(|(pair, _)| pair[0] != pair[1]);
        changed.map(|(pair, &at_ms)| Resized { at_ms, from: pair[0], to: pair[1] }).collect()
    }

    /// The mean of a column over the time until `end`: each sample stands for the time since the one before.
    pub fn mean_until(&self, end: Duration, column: &[u64]) -> Option<u64> {
        let end = u64::try_from(end.as_millis()).unwrap_or(u64::MAX);
        let times = || self.at_ms.iter().map(|&at_ms| at_ms.min(end));
        let last = u128::from(times().next_back()?);
        let spans = std::iter::once(0).chain(times()).zip(times()).map(|(before, now)| now.saturating_sub(before));
        let sum: u128 = spans.zip(column).map(|(span, &value)| u128::from(span) * u128::from(value)).sum();
        u64::try_from(sum.checked_div(last)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_weighted_by_time_and_end_with_the_load() {
        let series = Series { at_ms: vec![100, 200, 1000], ..Series::default() };
        let mean = |end| series.mean_until(Duration::from_millis(end), &[10, 20, 100]);
        assert_eq!(mean(9_000), Some((100 * 10 + 100 * 20 + 800 * 100) / 1000));
        assert_eq!(mean(400), Some((100 * 10 + 100 * 20 + 200 * 100) / 400));
        assert_eq!(mean(150), Some((100 * 10 + 50 * 20) / 150));
        assert_eq!(Series::default().mean_until(Duration::from_secs(1), &[]), None);
    }

    #[test]
    fn resizes_are_changes_of_the_number_of_buckets() {
        let series = Series { at_ms: vec![1, 2, 3, 4], buckets: vec![512, 512, 1024, 512], ..Series::default() };
        let all = series.resized();
        assert_eq!(all, [Resized { at_ms: 3, from: 512, to: 1024 }, Resized { at_ms: 4, from: 1024, to: 512 }]);
    }

    #[test]
    fn all_causes_are_new_flows_dropped_and_evictions_are_not() {
        let series = Series {
            table_full: vec![1, 2],
            chain_too_long: vec![0, 3],
            clash_lost: vec![4, 4],
            evicted: vec![9, 9],
            ..Series::default()
        };
        assert_eq!(series.dropped(), [5, 9]);
    }
}
