//! How many entries there will be, if the timeouts were these.

use std::time::Duration;

use super::course::Course;
use super::ends::PerTimeout;
use super::reaping::Reaping;
#[cfg(test)]
use crate::observe::Timeout;
use crate::observe::Timeouts;

/// Points in time up to which the ends of the entries that are there are worked out, seconds from now. What is asked for
/// between two lies on the line between them; after the last, none of them ends any more.
pub(super) const AFTER: [f64; 32] = [
    0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0, 75.0, 90.0, 120.0,
    150.0, 180.0, 240.0, 300.0, 360.0, 450.0, 600.0, 900.0, 1_200.0, 1_800.0, 2_700.0, 3_600.0,
];

/// The table's entries and what is expected of them, as of one sample.
///
/// Entries are cohorts. Those that are there keep the end that their last packet gave them: how many end until when
/// follows from how many came when. New ones come at the present rate, each kind ends after its timeout, and the kinds
/// come in the shares seen so far. So a timeout that changes now changes what happens from one timeout on, not before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outlook {
    /// Entries now.
    pub(super) count: f64,
    /// New entries expected, a second.
    pub(super) inserts: f64,
    /// Entries of those there now whose time will have run out at [`AFTER`], besides those whose time has.
    pub(super) ends: [f64; AFTER.len()],
    /// The share of the new entries that each timeout will end. What is missing to 1 outlives every outlook.
    pub(super) shares: PerTimeout,
    /// Seconds for which the entries of each timeout stay open before it begins to run.
    pub(super) open: PerTimeout,
    /// What has run out, and how it is freed.
    pub(super) reaping: Reaping,
    /// New flows refused, a second: the load asks for room for them too.
    pub(super) refused: f64,
    /// The timeouts in force, seconds.
    pub(super) in_force: PerTimeout,
    /// Entries a second by which the count moves for reasons unknown: all of its growth where there are no hooks.
    pub(super) drift: f64,
    /// Entries by which earlier expectations fell short at the horizon.
    pub(super) correction: f64,
    /// Seconds; beyond it the correction is no larger.
    pub(super) horizon: f64,
}

impl Outlook {
    /// Of a table of which no more is known than its count and by how many entries a second that grows.
    pub fn growing(count: u64, growth: f64) -> Self {
        Self { count: count as f64, drift: if growth.is_finite() { growth } else { 0.0 }, ..Self::default() }
    }

    /// The count expected `after` from now if the timeouts (seconds) were these from now on, and `max` that; a timeout
    /// that is not among them stays as it is. With a `max` of 0 there is no limit. A table that is above `max` takes in
    /// nothing, but loses none of its entries for that.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, and is never NaN here")]
    pub fn count(&self, after: Duration, timeouts: &Timeouts, max: u64) -> u64 {
        let after = after.as_secs_f64();
        let correction = if self.horizon > 0.0 { self.correction * (after / self.horizon).min(1.0) } else { 0.0 };
        let max = if max == 0 { f64::INFINITY } else { max as f64 };
        let course = |max| Course::new(self, timeouts, max).run(after);
        let (free, full) = course(f64::INFINITY);
        // A limit adds no entry, however much sooner it has what ran out freed.
        let count = if full > max { course(max).0.min(free) } else { free };
        (count + correction).clamp(0.0, count.max(max).max(0.0)).round() as u64
    }
}

/// How many will have ended after so many seconds, of the ends until [`AFTER`].
pub(super) fn ended(ends: &[f64; AFTER.len()], after: f64) -> f64 {
    let next = AFTER.partition_point(|point| *point <= after);
    let at = |index: usize| (AFTER[index], ends[index]);
    let (from, before) = next.checked_sub(1).map_or((0.0, 0.0), at);
    if next == AFTER.len() {
        return before;
    }
    let (to, behind) = at(next);
    before + (behind - before) * (after - from) / (to - from)
}

#[cfg(test)]
impl Outlook {
    /// At rest: so many entries a second of each kind come, and each ends after its timeout (seconds).
    pub(crate) fn at_rest(kinds: &[(Timeout, f64, u64)]) -> Self {
        let inserts: f64 = kinds.iter().map(|(_, rate, _)| rate).sum();
        let mut outlook = Self { inserts, ..Self::default() };
        for (timeout, rate, seconds) in kinds {
            let (index, seconds) = (*timeout as usize, *seconds as f64);
            outlook.shares[index] = rate / inserts;
            outlook.in_force[index] = seconds;
            outlook.count += rate * seconds;
            for (ends, after) in outlook.ends.iter_mut().zip(AFTER) {
                *ends += rate * after.min(seconds);
            }
        }
        outlook
    }
}
