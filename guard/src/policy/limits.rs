//! The policy's bounds on the host at hand: the numbers that no plan may pass.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::{self, Bounds, MemoryLimit, Policy, Window};
use crate::figures::{bytes, grouped};
use crate::observe::{TableReading, Timeout, Timeouts};

/// The ceiling of max and of buckets where the policy sets none.
const DEFAULT_CEILING: u64 = 4_194_304;
/// `struct hlist_nulls_head`: one pointer.
pub(super) const BUCKET_BYTES: u64 = 8;
/// Entries that a table is left free for, unless a tenth of max is less.
const HEADROOM: u64 = 1_024;
/// `struct nf_conn` is never smaller on 64 bits; guards against an entry size that was read as 0.
const SMALLEST_ENTRY: u64 = 256;

/// What the policy is applied to: the settings as the operator left them (where an earlier guard changed them, the
/// originals in its journal), the rest as found when the guard started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The table as found.
    pub table: TableReading,
    /// `MemTotal`, bytes.
    pub memory_total: u64,
    /// Bytes one entry takes.
    pub entry_bytes: u64,
    /// Bytes of a memory page; the kernel rounds the number of buckets up to a page of them.
    pub page_bytes: u64,
    /// The timeouts as found.
    pub timeouts: Timeouts,
}

impl Host {
    /// The number of buckets is a multiple of this.
    pub(crate) fn bucket_step(&self) -> u64 {
        (self.page_bytes / BUCKET_BYTES).max(1)
    }
}

/// Effective limits: every bound a number, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries that `nf_conntrack_max` may be set to.
    pub max: Range,
    /// `nf_conntrack_max` as the operator left it: where calm leads back to, as far as the bounds let it.
    pub found_max: u64,
    /// Buckets that `nf_conntrack_buckets` may be set to.
    pub buckets: Range,
    /// Bytes that entries at max and buckets may take together.
    pub memory: u64,
    /// The longest estimated stall of a resize.
    pub max_stall: Duration,
    /// Hours of the day (UTC) in which it may be longer.
    pub resize_window: Option<Window>,
    /// Buckets are chosen in multiples of this, so that the kernel's rounding does not lift them over a bound.
    pub bucket_step: u64,
    /// Seconds that each timeout may be set to: from the policy's floor up to what was found. Where both are the same it
    /// is not shortened, but what an earlier guard or an earlier policy shortened comes back. A timeout that is not here
    /// is left alone.
    pub timeouts: BTreeMap<Timeout, Range>,
}

/// Lowest and highest value that may be chosen, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Lowest; never 0 and never above the ceiling.
    pub floor: u64,
    /// Highest.
    pub ceiling: u64,
}

/// The policy cannot be kept on this host.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LimitsError {
    /// The memory limit is below what entries and buckets take already.
    #[error(
        "table.memory-limit is {} here, but {} entries and {} buckets take {} already; set table.memory-limit to \
         \"{}MiB\" or more, or make the table smaller first",
        bytes(*.limit), grouped(*.count), grouped(*.buckets), bytes(*.in_use), .in_use.div_ceil(1 << 20)
    )]
    MemoryInUse {
        /// Bytes allowed.
        limit: u64,
        /// Bytes in use.
        in_use: u64,
        /// Entries now.
        count: u64,
        /// Buckets now.
        buckets: u64,
    },
    /// A share of an unknown amount.
    #[error(
        "table.memory-limit is a share of the host's memory, which is not known (no MemTotal in /proc/meminfo); set \
         table.memory-limit in bytes, such as \"512MiB\""
    )]
    MemoryUnknown,
}

impl Limits {
    /// Fills in what the policy leaves open. Fails when the memory limit is below what is in use already.
    pub fn new(policy: &Policy, host: &Host) -> Result<Self, LimitsError> {
        let memory = match policy.table.memory_limit {
            MemoryLimit::Bytes(limit) => limit,
            MemoryLimit::Percent(_) if host.memory_total == 0 => return Err(LimitsError::MemoryUnknown),
            MemoryLimit::Percent(share) => share_of(share, host.memory_total),
        };
        let TableReading { max, buckets, .. } = host.table;
        let limits = Self {
            max: Range::new(policy.table.max, max),
            found_max: max,
            buckets: Range::new(policy.hash.buckets, buckets),
            memory,
            max_stall: policy.hash.max_stall,
            resize_window: policy.hash.resize_window,
            bucket_step: host.bucket_step(),
            timeouts: timeout_ranges(&policy.timeouts, &host.timeouts),
        };
        limits.hold(&host.table, host.entry_bytes)?;
        Ok(limits)
    }

    /// Whether the memory limit is kept by what is in use now.
    pub fn hold(&self, table: &TableReading, entry_bytes: u64) -> Result<(), LimitsError> {
        let (limit, &TableReading { buckets, count, .. }) = (self.memory, table);
        let in_use = table_bytes(count, entry_bytes, buckets);
        if in_use > limit { Err(LimitsError::MemoryInUse { limit, in_use, count, buckets }) } else { Ok(()) }
    }
}

/// A timeout that is at its floor or below it as found may only come back to what was found.
fn timeout_ranges(policy: &config::Timeouts, found: &Timeouts) -> BTreeMap<Timeout, Range> {
    let ranges = found.iter().filter(|(_, found)| **found > 0).map(|(timeout, &found)| {
        let floor = if policy.shorten { policy.floor(*timeout).clamp(1, found) } else { found };
        (*timeout, Range { floor, ceiling: found })
    });
    ranges.collect()
}

impl Range {
    fn new(bounds: Bounds, found: u64) -> Self {
        let ceiling = bounds.ceiling.unwrap_or_else(|| DEFAULT_CEILING.max(found).max(bounds.floor.unwrap_or(0)));
        // A value found above the ceiling is no floor: there would be nothing left to choose.
        let floor = bounds.floor.unwrap_or(found).clamp(1, ceiling.max(1));
        Self { floor, ceiling: ceiling.max(1) }
    }

    /// Whether the value may be chosen.
    pub fn contains(&self, value: u64) -> bool {
        (self.floor..=self.ceiling).contains(&value)
    }
}

/// Whether this max has room for so many entries and a tenth more, 1024 or a tenth of a small table at least: a lower one would
/// refuse new flows at the next gust. 0 is no limit.
pub(crate) fn has_headroom(entries: u64, max: u64) -> bool {
    max == 0 || entries.checked_add(headroom(entries, max)).is_some_and(|all| all <= max)
}

/// Entries that are left free beside so many.
pub(crate) fn headroom(entries: u64, max: u64) -> u64 {
    (entries / 10).max(HEADROOM.min(max / 10)).max(1)
}

/// Bytes that so many entries and buckets take together.
pub(crate) fn table_bytes(entries: u64, entry_bytes: u64, buckets: u64) -> u64 {
    entries.saturating_mul(entry_cost(entry_bytes)).saturating_add(buckets.saturating_mul(BUCKET_BYTES))
}

/// Bytes to reckon with for one entry.
pub(super) fn entry_cost(entry_bytes: u64) -> u64 {
    entry_bytes.max(SMALLEST_ENTRY)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a u64, never negative")]
fn share_of(percent: f64, total: u64) -> u64 {
    (total as f64 * (percent / 100.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_needs_a_tenth_more_but_1024_or_a_tenth_of_max_at_least() {
        assert!(!has_headroom(64_513, 65_536) && has_headroom(59_000, 65_536));
        assert!(has_headroom(921, 1_024) && !has_headroom(923, 1_024) && has_headroom(0, 1_024));
        assert!(has_headroom(u64::MAX, 0) && !has_headroom(u64::MAX, u64::MAX) && !has_headroom(1, 1));
    }

    const HOST: Host = Host {
        timeouts: Timeouts::new(),
        table: TableReading { max: 65_536, buckets: 16_384, count: 100 },
        memory_total: 4 << 30,
        entry_bytes: 320,
        page_bytes: 4096,
    };

    fn bounds(floor: Option<u64>, ceiling: Option<u64>) -> Bounds {
        Bounds { floor, ceiling }
    }

    #[test]
    fn the_defaults_are_what_was_found_and_four_million() {
        let limits = Limits::new(&Policy::default(), &HOST).unwrap();
        assert_eq!(limits.max, Range { floor: 65_536, ceiling: 4_194_304 });
        assert_eq!(limits.buckets, Range { floor: 16_384, ceiling: 4_194_304 });
        assert_eq!(limits.memory, 429_496_729);
        assert_eq!(limits.bucket_step, 512);
    }

    #[test]
    fn what_was_found_above_the_default_ceiling_is_the_ceiling() {
        assert_eq!(Range::new(Bounds::default(), 9_000_000), Range { floor: 9_000_000, ceiling: 9_000_000 });
        assert_eq!(Range::new(bounds(Some(5_000_000), None), 100), Range { floor: 5_000_000, ceiling: 5_000_000 });
    }

    #[test]
    fn the_operators_ceiling_stands_though_more_was_found() {
        assert_eq!(Range::new(bounds(None, Some(1_000)), 9_000), Range { floor: 1_000, ceiling: 1_000 });
        assert_eq!(Range::new(bounds(Some(10), Some(1_000)), 9_000), Range { floor: 10, ceiling: 1_000 });
    }

    #[test]
    fn no_limit_found_is_no_floor_of_zero() {
        assert_eq!(Range::new(Bounds::default(), 0), Range { floor: 1, ceiling: 4_194_304 });
    }

    #[test]
    fn timeouts_go_from_their_floor_to_what_was_found() {
        let found = Timeouts::from([(Timeout::TcpTimeWait, 120), (Timeout::UdpStream, 90), (Timeout::Icmp, 0)]);
        let host = Host { timeouts: found, ..HOST };
        let mut policy = Policy::default();
        let range = |floor, ceiling| Range { floor, ceiling };
        let ranges = Limits::new(&policy, &host).unwrap().timeouts;
        // 90 s are below the floor of 120: not to be shortened, not to be moved further out either.
        let expected = [(Timeout::TcpTimeWait, range(30, 120)), (Timeout::UdpStream, range(90, 90))];
        assert_eq!(ranges, BTreeMap::from(expected));
        policy.timeouts.shorten = false;
        assert_eq!(Limits::new(&policy, &host).unwrap().timeouts[&Timeout::TcpTimeWait], range(120, 120));
    }

    #[test]
    fn a_memory_limit_below_what_is_in_use_says_what_to_write() {
        let mut policy = Policy::default();
        policy.table.memory_limit = MemoryLimit::Bytes(1 << 20);
        let host = Host { table: TableReading { count: 12_000, ..HOST.table }, ..HOST };
        let error = Limits::new(&policy, &host).unwrap_err();
        assert_eq!(
            error.to_string(),
            "table.memory-limit is 1.0 MiB here, but 12,000 entries and 16,384 buckets take 3.8 MiB already; set \
             table.memory-limit to \"4MiB\" or more, or make the table smaller first"
        );
    }

    #[test]
    fn a_share_of_unknown_memory_is_refused_and_bytes_are_not() {
        let host = Host { memory_total: 0, ..HOST };
        assert_eq!(Limits::new(&Policy::default(), &host), Err(LimitsError::MemoryUnknown));
        let mut policy = Policy::default();
        policy.table.memory_limit = MemoryLimit::Bytes(1 << 30);
        assert_eq!(Limits::new(&policy, &host).unwrap().memory, 1 << 30);
    }
}
