//! How far max and buckets can go together under the memory limit. Depends on nothing that moves from tick to tick but
//! the settings themselves, so that the targets stand still.

use super::limits::{BUCKET_BYTES, Limits, entry_cost};
use crate::observe::TableReading;

/// Entries at the ceiling for each bucket. Each entry sits in two chains, so the mean chain is twice this, 4; measured
/// natively that costs a new flow a few per cent more than a table twice as wide.
pub(crate) const ENTRIES_PER_BUCKET: u64 = 2;
/// Buckets get no more than this part of the memory limit, whatever their bounds allow: the rest is for entries.
const BUCKETS_PART_OF_MEMORY: u64 = 8;

/// The largest sizes that fit each other, the bounds and the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizing {
    /// The highest max, with the buckets of `buckets` (or those there are, if more) taken off the memory.
    pub(super) entries: u64,
    /// Whether the memory, not the ceiling, sets `entries`.
    pub(super) memory_binds: bool,
    /// Buckets for `entries`: the target of the presize. 0 where no number of buckets is within the bounds.
    pub(super) buckets: u64,
}

impl Sizing {
    pub(super) fn new(limits: &Limits, table: &TableReading, entry_bytes: u64) -> Self {
        let entry = entry_cost(entry_bytes);
        let with_buckets = entry.saturating_add(BUCKET_BYTES / ENTRIES_PER_BUCKET);
        let wished = limits.max.ceiling.min(limits.memory / with_buckets);
        let buckets = buckets_for(wished, limits);
        // Memory is kept for the target even while a stall forbids the resize: else max could take it all, and the
        // chains would stay long for good.
        let bucket_bytes = buckets.max(table.buckets).saturating_mul(BUCKET_BYTES);
        let by_memory = limits.memory.saturating_sub(bucket_bytes) / entry;
        let entries = limits.max.ceiling.min(by_memory);
        Self { entries, memory_binds: by_memory < limits.max.ceiling, buckets }
    }
}

fn buckets_for(entries: u64, limits: &Limits) -> u64 {
    let step = limits.bucket_step.max(1);
    let memory_part = limits.memory / (BUCKETS_PART_OF_MEMORY * BUCKET_BYTES);
    let highest = round_down(limits.buckets.ceiling.min(memory_part), step);
    let wished = entries.div_ceil(ENTRIES_PER_BUCKET).max(limits.buckets.floor);
    let buckets = round_up(wished, step).min(highest);
    if buckets < limits.buckets.floor { 0 } else { buckets }
}

pub(super) fn round_down(value: u64, step: u64) -> u64 {
    value - value % step
}

fn round_up(value: u64, step: u64) -> u64 {
    value.checked_next_multiple_of(step).unwrap_or_else(|| round_down(value, step))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::super::limits::Range;
    use super::*;

    const FOUND: TableReading = TableReading { max: 65_536, buckets: 16_384, count: 0 };

    fn limits(max_ceiling: u64, buckets: Range, memory: u64) -> Limits {
        Limits {
            max: Range { floor: 1, ceiling: max_ceiling },
            found_max: 1_000,
            buckets,
            memory,
            max_stall: Duration::from_millis(20),
            resize_window: None,
            bucket_step: 512,
            timeouts: BTreeMap::new(),
        }
    }

    const WIDE: Range = Range { floor: 1, ceiling: 4_194_304 };

    #[test]
    fn half_a_bucket_for_each_entry_at_the_ceiling() {
        let sizing = Sizing::new(&limits(1_000_000, WIDE, 1 << 40), &FOUND, 320);
        assert_eq!(sizing, Sizing { entries: 1_000_000, memory_binds: false, buckets: 500_224 });
    }

    #[test]
    fn under_the_memory_limit_both_shrink_together() {
        let sizing = Sizing::new(&limits(4_194_304, WIDE, 100 << 20), &FOUND, 320);
        assert!(sizing.memory_binds);
        assert_eq!(sizing.buckets, 162_304);
        assert!(sizing.entries * 320 + sizing.buckets * 8 <= 100 << 20);
        assert!(sizing.entries.abs_diff(2 * sizing.buckets) < 1_024, "{sizing:?}");
    }

    #[test]
    fn rounding_never_passes_the_ceiling() {
        let narrow = Range { floor: 1, ceiling: 100_000 };
        assert_eq!(Sizing::new(&limits(4_194_304, narrow, 1 << 40), &FOUND, 320).buckets, 99_840);
        let below_a_page = Range { floor: 1, ceiling: 300 };
        assert_eq!(Sizing::new(&limits(4_194_304, below_a_page, 1 << 40), &FOUND, 320).buckets, 0);
    }

    #[test]
    fn a_floor_beyond_the_memory_leaves_nothing_to_choose() {
        let high = Range { floor: 1 << 20, ceiling: 1 << 22 };
        assert_eq!(Sizing::new(&limits(65_536, high, 10 << 20), &FOUND, 320).buckets, 0);
    }

    #[test]
    fn extremes_saturate() {
        let everything = Range { floor: u64::MAX, ceiling: u64::MAX };
        let sizing = Sizing::new(&limits(u64::MAX, everything, u64::MAX), &FOUND, u64::MAX);
        assert!(sizing.entries <= 1, "{sizing:?}");
    }
}
