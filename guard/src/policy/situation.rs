//! What all rules look at in one tick.

use std::time::Duration;

use super::flood::FloodSeen;
use super::limits::Limits;
use super::memory::MemoryNow;
use super::obstacle::Obstacle;
use super::plan::{Change, Setting};
use super::pressure::passes_mark;
use super::sizing::Sizing;
use crate::config::Policy;
use crate::model::Estimate;
use crate::observe::{Timeout, Timeouts};

/// Up to this the outlook shows what a change of a timeout does.
pub(super) const SHORT: Duration = Duration::from_mins(10);

/// The estimate, the bounds, and what follows from both.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation<'a> {
    pub(super) estimate: &'a Estimate,
    pub(super) policy: &'a Policy,
    pub(super) limits: &'a Limits,
    pub(super) sizing: &'a Sizing,
    pub(super) memory: &'a MemoryNow,
    pub(super) flood: Option<FloodSeen>,
    /// The highest max there may be now, and what sets it.
    pub(super) highest: u64,
    pub(super) obstacle: Obstacle,
    /// The highest max until it is known what a surge is.
    pub(super) surge: Option<u64>,
    /// Open connections by which they become more, a second, over the last half hour.
    pub(super) piling: f64,
}

impl Situation<'_> {
    /// The entries that there would be `after` from now with these timeouts, if max were no obstacle: what the load asks
    /// for.
    pub(super) fn demand(&self, after: Duration, timeouts: &Timeouts) -> u64 {
        self.estimate.outlook.count(after, timeouts, 0)
    }

    /// The same with the timeouts in force. Hours ahead it is what piles up that counts: an outlook of minutes, drawn out
    /// so far, would be anything.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    pub(super) fn demand_in_force(&self, after: Duration) -> u64 {
        if after <= SHORT {
            self.demand(self.foresight(after), &self.estimate.timeouts)
        } else {
            self.estimate.table.count.saturating_add((self.piling * after.as_secs_f64()) as u64)
        }
    }

    /// Whether so many entries pass the mark of the highest max.
    pub(super) fn passes_highest(&self, entries: u64) -> bool {
        passes_mark(entries, self.highest, self.policy.table.high_water)
    }

    /// The timeouts in force, but this one.
    pub(super) fn timeouts_with(&self, timeout: Timeout, seconds: u64) -> Timeouts {
        let mut timeouts = self.estimate.timeouts.clone();
        timeouts.insert(timeout, seconds);
        timeouts
    }

    /// By how many more, and by how many fewer entries there will be after some time with this change than without it. Hours
    /// ahead it is what it is at the end of what an outlook shows.
    pub(super) fn effect(&self, change: &Change, after: Duration) -> (u64, u64) {
        let after = self.foresight(after.min(SHORT));
        let (max, timeouts) = (self.estimate.table.max, &self.estimate.timeouts);
        let count = |timeouts: &Timeouts, max| self.estimate.outlook.count(after, timeouts, max);
        let with = match change.setting {
            Setting::Timeout(timeout) => count(&self.timeouts_with(timeout, change.new), max),
            Setting::Max => count(timeouts, change.new),
            Setting::Buckets => return (0, 0),
        };
        let without = count(timeouts, max);
        (with.saturating_sub(without), without.saturating_sub(with))
    }

    /// How far ahead it makes sense to look. Without hooks all that is known of what comes is the count's growth, and a
    /// few entries more or less in one second are thousands in an hour.
    pub(super) fn foresight(&self, wanted: Duration) -> Duration {
        if self.estimate.destroy_rate.is_some() { wanted } else { wanted.min(self.policy.table.horizon) }
    }
}

/// The value of a setting as the estimate's sample read it; `None` where this kernel does not have it.
pub(super) fn in_force(estimate: &Estimate, setting: Setting) -> Option<u64> {
    match setting {
        Setting::Max => Some(estimate.table.max),
        Setting::Buckets => Some(estimate.table.buckets),
        Setting::Timeout(timeout) => estimate.timeouts.get(&timeout).copied(),
    }
}
