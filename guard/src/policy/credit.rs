//! How many entries may come before the table must be looked at again, whatever the time.

use super::pressure::passes_mark;
use crate::config::{Mode, Policy};
use crate::model::Estimate;

/// Of the inserts as they come now, a credit lasts at least so long, seconds: what is near the mark and stays there wakes the
/// guard 200 times a second and not for each entry.
const SHORTEST: f64 = 0.005;
/// No credit is smaller: inserts that a CPU may make before it sees a new grant.
const SMALLEST: u64 = 64;

/// Entries that each of `cpus` may insert until the count could be past the high-water mark of `max`, which is in force now;
/// `unseen` of them have come since the estimate's sample. `None`: no wake-up, because nothing would come of it, as
/// `max_blocked` says of the plan made from the estimate, or because no limit is set.
///
/// Every CPU gets the same share, since any of them may get all the load; one that has spent its share finds out what the
/// others left. Entries that end meanwhile make room that the next grant counts.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates at both ends")]
pub fn credit(
    estimate: &Estimate,
    policy: &Policy,
    max_blocked: bool,
    max: u64,
    unseen: u64,
    cpus: u64,
) -> Option<u64> {
    if policy.mode != Mode::Enforce || max_blocked || max == 0 {
        return None;
    }
    let mark = max as f64 * policy.table.high_water;
    let count = estimate.table.count.saturating_add(unseen);
    // The first that passes it.
    let room =
        if passes_mark(count, max, policy.table.high_water) { 0 } else { (mark as u64 - count).saturating_add(1) };
    let shortest = (estimate.insert_rate.unwrap_or(0.0) * SHORTEST) as u64;
    let cpus = cpus.max(1);
    Some((room / cpus).max(shortest / cpus).max(SMALLEST))
}

#[cfg(test)]
mod tests {
    use super::super::tests::estimate;
    use super::*;

    fn of(count: u64, max: u64, unseen: u64, cpus: u64) -> Option<u64> {
        credit(&estimate(count, max, 0.0), &Policy::default(), false, max, unseen, cpus)
    }

    #[test]
    fn the_entry_that_passes_the_mark_is_the_last_of_it() {
        let spent = of(10_000, 65_536, 0, 1).unwrap();
        let mark = Policy::default().table.high_water;
        assert!(passes_mark(10_000 + spent, 65_536, mark) && !passes_mark(10_000 + spent - 1, 65_536, mark));
        assert_eq!(of(10_000, 65_536, 5_000, 1), Some(spent - 5_000), "what has come since is taken off");
    }

    #[test]
    fn the_cpus_share_it_and_none_gets_less_than_it_notices() {
        assert_eq!(of(0, 100_000, 0, 8), Some(10_000));
        assert_eq!(of(79_999, 100_000, 0, 8), Some(SMALLEST));
        assert_eq!(of(99_999, 100_000, 0, 1), Some(SMALLEST));
        assert_eq!(of(0, 100_000, 0, 0), of(0, 100_000, 0, 1));
        assert_eq!(of(u64::MAX, u64::MAX, u64::MAX, u64::MAX), Some(SMALLEST));
    }

    #[test]
    fn a_busy_host_near_the_mark_does_not_wake_the_guard_for_each_entry() {
        let mut busy = estimate(79_999, 100_000, 0.0);
        busy.insert_rate = Some(800_000.0);
        assert_eq!(credit(&busy, &Policy::default(), false, 100_000, 0, 4), Some(1_000));
    }

    #[test]
    fn nobody_is_woken_where_nothing_would_come_of_it() {
        let (near, mut policy) = (estimate(1_000, 1_000, 100.0), Policy::default());
        assert_eq!(credit(&near, &policy, true, 1_000, 0, 1), None);
        assert_eq!(of(1_000, 0, 0, 1), None, "no limit is never reached");
        policy.mode = Mode::Advise;
        assert_eq!(credit(&near, &policy, false, 1_000, 0, 1), None);
    }
}
