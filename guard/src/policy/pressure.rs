//! How hard the load presses on max.

use super::refusals::Refusals;
use crate::config::Policy;
use crate::model::Estimate;
use crate::observe::TableReading;

/// What is above this share of the mark is still near it: a load that swings around the mark is one matter, not many, and
/// nothing is taken back that would bring the table nearer than this. A quarter is more than the forecast of a steady
/// load swings (its rates are averages over 1 s and 30 s).
pub(super) const NEAR: f64 = 0.75;

/// Whether, and when, the table is short of room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// It is not.
    None,
    /// The load will ask for more than the highest max there may be.
    Foreseen,
    /// The forecast passes the high-water mark.
    Coming,
    /// The count is past the mark, or new flows are refused.
    Now,
}

/// The load against the high-water mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pressure {
    pub(super) level: Level,
    /// Whether the mark is near, or flows were refused not long ago.
    pub(super) near: bool,
    /// Entries that max has to hold.
    pub(super) reach: u64,
}

impl Pressure {
    pub(super) fn new(estimate: &Estimate, policy: &Policy, refusals: &Refusals) -> Self {
        let &TableReading { max, count, .. } = &estimate.table;
        // What was refused needs more than all of max.
        let refused = if refusals.now > 0 { max } else { 0 };
        let reach = estimate.forecast.max(count).max(refused);
        let mark = policy.table.high_water;
        if max == 0 {
            // No limit is never reached.
            return Self { level: Level::None, near: false, reach };
        }
        let level = if refusals.now > 0 || passes_mark(count, max, mark) {
            Level::Now
        } else if passes_mark(reach, max, mark) {
            Level::Coming
        } else {
            Level::None
        };
        Self { level, near: refusals.lately || passes_mark(reach, max, mark * NEAR), reach }
    }

    /// Whether max is to be raised now.
    pub(super) fn is_on(&self) -> bool {
        matches!(self.level, Level::Coming | Level::Now)
    }

    /// The same, when it is foreseen that room will be short.
    pub(super) fn foreseen(self, short: bool) -> Self {
        if short && self.level == Level::None { Self { level: Level::Foreseen, ..self } } else { self }
    }
}

pub(super) fn passes_mark(reach: u64, max: u64, mark: f64) -> bool {
    reach as f64 > max as f64 * mark
}
