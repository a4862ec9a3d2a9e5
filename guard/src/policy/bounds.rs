//! The last look at a plan before it is carried out. Knows nothing of how plans are made: whatever the rules do, only what
//! passes here becomes [`Approved`], and only that can be carried out.

use std::time::Duration;

use thiserror::Error;

use super::limits::{Limits, has_headroom, table_bytes};
use super::plan::{Change, Plan, Setting};
use crate::figures::{bytes, grouped, time};
use crate::model::ResizeCost;
use crate::observe::{TableReading, Timeouts};

/// The changes of a plan that passed [`check`]. Nothing else makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct Approved {
    changes: Vec<Change>,
}

impl Approved {
    /// What to write, in this order.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }
}

/// Why a plan is not carried out; nothing of it is. The table may have moved since the plan was made, so that the next
/// tick's plan passes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// 0 means "no limit" before Linux 6.19.
    #[error("{} would be set to 0", .0.sysctl())]
    Zero(Setting),
    /// The policy leaves this timeout alone, or this kernel does not have it.
    #[error("{} is not the guard's to change", .0.sysctl())]
    NotOurs(Setting),
    /// Two changes of one setting.
    #[error("{} would be set twice in one plan", .0.sysctl())]
    Twice(Setting),
    /// The setting is not what the plan took it for.
    #[error("{} is {} now, not {} as the plan took it for: somebody else set it", setting.sysctl(), grouped(*.found), grouped(*.planned))]
    Moved {
        /// Which.
        setting: Setting,
        /// The value the plan starts from.
        planned: u64,
        /// The value read now.
        found: u64,
    },
    /// Outside the policy's bounds: a value found out of bounds may stay, but not be moved to another one outside.
    #[error("{} would be {}, out of its bounds of {} to {}", setting.sysctl(), grouped(*.new), grouped(*.floor), grouped(*.ceiling))]
    OutOfBounds {
        /// Which.
        setting: Setting,
        /// The value to write.
        new: u64,
        /// Lowest value allowed.
        floor: u64,
        /// Highest value allowed.
        ceiling: u64,
    },
    /// Entries at max and buckets together, as they would be after the plan.
    #[error("entries at max and buckets would take {}, over the memory limit of {}", bytes(*.needed), bytes(*.limit))]
    OverMemory {
        /// Bytes needed.
        needed: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// Without a max no memory limit can be kept.
    #[error("max is 0 (no limit), so the memory limit cannot be kept")]
    Unlimited,
    /// New flows would be refused at once, or at the next gust.
    #[error(
        "max would be lowered to {}, which leaves no room above the {} entries in use for a tenth more (1,024 at least)",
        grouped(*.new), grouped(*.count)
    )]
    BelowCount {
        /// The value to write.
        new: u64,
        /// Entries now.
        count: u64,
    },
    /// A resize downwards costs a stall and brings longer chains.
    #[error("buckets would be lowered from {} to {}", grouped(*.old), grouped(*.new))]
    BucketsLowered {
        /// The value now.
        old: u64,
        /// The value to write.
        new: u64,
    },
    /// The kernel would round the value up, past what was checked.
    #[error("{} buckets are not a multiple of {}; the kernel would take more", grouped(*.new), grouped(*.step))]
    Uneven {
        /// The value to write.
        new: u64,
        /// Buckets in a page.
        step: u64,
    },
    /// All conntrack packets would wait for too long, at an hour that is not in the policy's window for that.
    #[error("a resize would stall {}, over the limit of {}", time(*.stall), time(*.limit))]
    Stall {
        /// Estimated with the entries there are now.
        stall: Duration,
        /// The policy's limit.
        limit: Duration,
    },
}

/// The settings as they are now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// max, buckets and the count.
    pub table: TableReading,
    /// The timeouts; one that is not there may not be changed from anything.
    pub timeouts: Timeouts,
    /// Time since midnight, UTC.
    pub time_of_day: Duration,
}

/// Checks every change of `plan` by itself and all of them together, against the table as it is now: read `found` afresh
/// just before writing. What an entry costs, in bytes and in a resize's stall, is as measured on this host.
pub fn check(
    plan: &Plan,
    limits: &Limits,
    found: &InForce,
    entry_bytes: u64,
    resize_cost: ResizeCost,
) -> Result<Approved, Violation> {
    let mut after = found.table;
    for (index, change) in plan.changes.iter().enumerate() {
        if plan.changes[..index].iter().any(|earlier| earlier.setting == change.setting) {
            return Err(Violation::Twice(change.setting));
        }
        check_value(change, limits, found)?;
        match change.setting {
            Setting::Max => {
                check_max(change, &found.table)?;
                after.max = change.new;
            }
            Setting::Buckets => {
                check_buckets(change, limits, found, resize_cost)?;
                after.buckets = change.new;
            }
            // Its range is all there is to check.
            Setting::Timeout(_) => {}
        }
    }
    // A shorter timeout takes no memory, so it may come where the limit is not kept already.
    if plan.changes.iter().any(|change| !matches!(change.setting, Setting::Timeout(_))) {
        if after.max == 0 {
            return Err(Violation::Unlimited);
        }
        let needed = table_bytes(after.max, entry_bytes, after.buckets);
        // Where the limit is not kept as found, a step towards it may come, and nothing else.
        let comes_in = found.table.max > 0 && needed < table_bytes(found.table.max, entry_bytes, found.table.buckets);
        if needed > limits.memory && !comes_in {
            return Err(Violation::OverMemory { needed, limit: limits.memory });
        }
    }
    Ok(Approved { changes: plan.changes.clone() })
}

fn check_value(change: &Change, limits: &Limits, found: &InForce) -> Result<(), Violation> {
    let &Change { setting, old, new, .. } = change;
    let (now, range) = match setting {
        Setting::Max => (found.table.max, limits.max),
        Setting::Buckets => (found.table.buckets, limits.buckets),
        Setting::Timeout(timeout) => {
            let range = limits.timeouts.get(&timeout).copied();
            (found.timeouts.get(&timeout).copied().unwrap_or(0), range.ok_or(Violation::NotOurs(setting))?)
        }
    };
    if new == 0 {
        return Err(Violation::Zero(setting));
    }
    if old != now {
        return Err(Violation::Moved { setting, planned: old, found: now });
    }
    if !range.contains(new) {
        return Err(Violation::OutOfBounds { setting, new, floor: range.floor, ceiling: range.ceiling });
    }
    Ok(())
}

fn check_max(change: &Change, found: &TableReading) -> Result<(), Violation> {
    // A found 0 is no limit, so any number is lower.
    let lowered = change.new < found.max || found.max == 0;
    if lowered && !has_headroom(found.count, change.new) {
        return Err(Violation::BelowCount { new: change.new, count: found.count });
    }
    Ok(())
}

fn check_buckets(change: &Change, limits: &Limits, found: &InForce, cost: ResizeCost) -> Result<(), Violation> {
    if change.new < found.table.buckets {
        return Err(Violation::BucketsLowered { old: found.table.buckets, new: change.new });
    }
    let step = limits.bucket_step.max(1);
    if !change.new.is_multiple_of(step) {
        return Err(Violation::Uneven { new: change.new, step });
    }
    let stall = cost.stall(found.table.count);
    let in_window = limits.resize_window.is_some_and(|window| window.contains(found.time_of_day));
    if stall > limits.max_stall && !in_window {
        return Err(Violation::Stall { stall, limit: limits.max_stall });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::limits::Range;
    use super::*;
    use crate::config::Window;
    use crate::observe::Timeout;

    const LIMITS: Limits = Limits {
        max: Range { floor: 1_000, ceiling: 100_000 },
        found_max: 1_000,
        buckets: Range { floor: 1_024, ceiling: 65_536 },
        memory: 32 << 20,
        max_stall: Duration::from_millis(20),
        resize_window: None,
        bucket_step: 512,
        timeouts: BTreeMap::new(),
    };
    const FOUND: TableReading = TableReading { max: 8_192, buckets: 2_048, count: 2_000 };

    fn in_force(table: &TableReading) -> InForce {
        InForce { table: *table, ..InForce::default() }
    }

    fn verdict(changes: &[Change], found: &TableReading) -> Result<usize, Violation> {
        let plan = Plan { changes: changes.to_vec(), ..Plan::default() };
        check(&plan, &LIMITS, &in_force(found), 320, ResizeCost::default()).map(|approved| approved.changes().len())
    }

    fn max(new: u64) -> Result<usize, Violation> {
        verdict(&[Change::bare(Setting::Max, FOUND.max, new)], &FOUND)
    }

    fn buckets(new: u64) -> Result<usize, Violation> {
        verdict(&[Change::bare(Setting::Buckets, FOUND.buckets, new)], &FOUND)
    }

    #[test]
    fn what_keeps_within_everything_passes() {
        assert_eq!(verdict(&[], &FOUND), Ok(0));
        assert_eq!((max(100_000), max(2_222), buckets(65_536)), (Ok(1), Ok(1), Ok(1)));
    }

    #[test]
    fn each_bound_refuses_by_itself() {
        assert_eq!(max(0), Err(Violation::Zero(Setting::Max)));
        let out = |setting, new, range: Range| {
            Err(Violation::OutOfBounds { setting, new, floor: range.floor, ceiling: range.ceiling })
        };
        assert_eq!(max(100_001), out(Setting::Max, 100_001, LIMITS.max));
        assert_eq!(max(999), out(Setting::Max, 999, LIMITS.max));
        assert_eq!(max(2_221), Err(Violation::BelowCount { new: 2_221, count: 2_000 }));
        assert_eq!(buckets(66_048), out(Setting::Buckets, 66_048, LIMITS.buckets));
        assert_eq!(buckets(1_536), Err(Violation::BucketsLowered { old: 2_048, new: 1_536 }));
        assert_eq!(buckets(4_100), Err(Violation::Uneven { new: 4_100, step: 512 }));
    }

    #[test]
    fn a_plan_made_for_another_table_is_refused() {
        let stale = Change::bare(Setting::Max, 4_096, 16_384);
        let moved = Violation::Moved { setting: Setting::Max, planned: 4_096, found: 8_192 };
        assert_eq!(verdict(&[stale], &FOUND), Err(moved));
        let twice = [Change::bare(Setting::Max, 8_192, 16_384), Change::bare(Setting::Max, 8_192, 32_768)];
        assert_eq!(verdict(&twice, &FOUND), Err(Violation::Twice(Setting::Max)));
    }

    #[test]
    fn memory_is_counted_for_both_settings_together() {
        let small = TableReading { max: 100_000, ..FOUND };
        let fits = [Change::bare(Setting::Buckets, 2_048, 65_536)];
        assert_eq!(verdict(&fits, &small), Ok(1));
        let plan = Plan { changes: fits.to_vec(), ..Plan::default() };
        let tight = Limits { memory: 32_200_000, ..LIMITS };
        let over = Violation::OverMemory { needed: 32_524_288, limit: 32_200_000 };
        assert_eq!(check(&plan, &tight, &in_force(&small), 320, ResizeCost::default()), Err(over));
    }

    #[test]
    fn a_max_found_out_of_bounds_may_only_come_in() {
        let above = TableReading { max: 300_000, ..FOUND };
        let set = |new| verdict(&[Change::bare(Setting::Max, 300_000, new)], &above);
        assert!(matches!(set(400_000), Err(Violation::OutOfBounds { .. })));
        assert!(matches!(set(200_000), Err(Violation::OutOfBounds { .. })));
        assert_eq!(set(100_000), Ok(1));
        let unlimited = TableReading { max: 0, ..FOUND };
        assert_eq!(verdict(&[Change::bare(Setting::Buckets, 2_048, 4_096)], &unlimited), Err(Violation::Unlimited));
    }

    #[test]
    fn where_the_memory_limit_is_not_kept_a_step_towards_it_may_come() {
        let over = TableReading { max: 90_000, ..FOUND };
        let tight = Limits { memory: 10 << 20, ..LIMITS };
        let set = |new| {
            let plan = Plan { changes: vec![Change::bare(Setting::Max, 90_000, new)], ..Plan::default() };
            check(&plan, &tight, &in_force(&over), 320, ResizeCost::default()).map(|approved| approved.changes().len())
        };
        assert_eq!(set(45_000), Ok(1));
        assert!(matches!(set(91_000), Err(Violation::OverMemory { .. })));
    }

    #[test]
    fn a_resize_that_stalls_too_long_is_refused_however_it_was_planned() {
        let busy = TableReading { max: 90_000, count: 50_000, ..FOUND };
        let stall = Violation::Stall { stall: Duration::from_millis(35), limit: LIMITS.max_stall };
        let resize = [Change::bare(Setting::Buckets, 2_048, 4_096)];
        assert_eq!(verdict(&resize, &busy), Err(stall.clone()));
        let hour = |hour| Duration::from_hours(hour);
        let limits = Limits { resize_window: Some(Window { from: hour(2), to: hour(4) }), ..LIMITS };
        let plan = Plan { changes: resize.to_vec(), ..Plan::default() };
        let at = |time_of_day| {
            let found = InForce { table: busy, time_of_day, ..InForce::default() };
            check(&plan, &limits, &found, 320, ResizeCost::default()).map(|approved| approved.changes().len())
        };
        assert_eq!((at(hour(3)), at(hour(4))), (Ok(1), Err(stall)));
    }

    #[test]
    fn a_timeout_keeps_to_its_range_and_needs_no_memory() {
        let setting = Setting::Timeout(Timeout::TcpTimeWait);
        let range = Range { floor: 30, ceiling: 120 };
        let limits = Limits { memory: 1, timeouts: BTreeMap::from([(Timeout::TcpTimeWait, range)]), ..LIMITS };
        let timeouts = Timeouts::from([(Timeout::TcpTimeWait, 120)]);
        let found = InForce { table: FOUND, timeouts, ..InForce::default() };
        let set = |limits: &Limits, new| {
            let plan = Plan { changes: vec![Change::bare(setting, 120, new)], ..Plan::default() };
            check(&plan, limits, &found, 320, ResizeCost::default()).map(|approved| approved.changes().len())
        };
        assert_eq!((set(&limits, 30), set(&limits, 119)), (Ok(1), Ok(1)));
        let out = |new| Err(Violation::OutOfBounds { setting, new, floor: 30, ceiling: 120 });
        assert_eq!(
            (set(&limits, 29), set(&limits, 121), set(&limits, 0)),
            (out(29), out(121), Err(Violation::Zero(setting)))
        );
        assert_eq!(set(&LIMITS, 60), Err(Violation::NotOurs(setting)));
    }

    #[test]
    fn a_violation_reads_well() {
        let line = max(100_001).unwrap_err().to_string();
        assert_eq!(line, "nf_conntrack_max would be 100,001, out of its bounds of 1,000 to 100,000");
    }
}
