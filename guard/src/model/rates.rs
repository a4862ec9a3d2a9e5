//! How fast the table fills.

use std::time::Duration;

use super::average::Average;
use crate::observe::{Destroys, Sample};

/// Memory of the average that must see a surge within a tick or two.
const SHORT: Duration = Duration::from_secs(1);
/// Memory of the average that outlasts the pauses of a surge, and sees slow growth through the noise.
const LONG: Duration = Duration::from_secs(30);
/// No host opens or closes this many flows a second; a difference that says so comes from a counter that was reset or
/// misread, not from traffic.
const ABSURD: f64 = 1e8;

/// Running averages over all samples so far.
#[derive(Clone, Debug)]
pub(super) struct Rates {
    base: Option<Base>,
    growth_short: Average,
    growth_long: Average,
    insert: Option<Average>,
    destroy: Option<Average>,
}

/// What the next sample is compared with.
#[derive(Clone, Copy, Debug)]
struct Base {
    at: Duration,
    count: u64,
    /// Inserts and destroys so far; `None` without either hook.
    totals: Option<(u64, u64)>,
}

impl Rates {
    pub(super) fn new() -> Self {
        Self {
            base: None,
            growth_short: Average::new(SHORT),
            growth_long: Average::new(LONG),
            insert: None,
            destroy: None,
        }
    }

    pub(super) fn add(&mut self, sample: &Sample) {
        let now = Base {
            at: sample.at,
            count: sample.table.count,
            totals: sample
                .hooks
                .as_ref()
                .and_then(|hooks| hooks.inserts.zip(hooks.destroys.as_ref().map(Destroys::all))),
        };
        let Some(base) = self.base else {
            self.base = Some(now);
            return;
        };
        if now.at == base.at {
            // The same moment twice tells nothing about time: let the next sample speak for both.
            return;
        }
        self.base = Some(now);
        let Some(interval) = now.at.checked_sub(base.at) else {
            return;
        };
        let by_count = rate(signed(now.count, base.count), interval);
        let by_hooks = match (base.totals, now.totals) {
            (Some(before), Some(after)) => self.add_hooks(before, after, interval),
            _ => None,
        };
        // The hooks see every flow; the count only its balance at two moments. Where the hooks just came, went or were
        // loaded anew, the count is still evidence.
        if let Some(growth) = by_hooks.or(by_count) {
            self.growth_short.add(growth, interval);
            self.growth_long.add(growth, interval);
        }
        if now.totals.is_none() {
            self.insert = None;
            self.destroy = None;
        }
    }

    /// Takes in both totals and answers with the growth between them; `None` where they are no evidence.
    fn add_hooks(&mut self, before: (u64, u64), after: (u64, u64), interval: Duration) -> Option<f64> {
        let inserted = rate(i128::from(after.0.checked_sub(before.0)?), interval)?;
        let destroyed = rate(i128::from(after.1.checked_sub(before.1)?), interval)?;
        for (average, rate) in [(&mut self.insert, inserted), (&mut self.destroy, destroyed)] {
            if let Some(average) = average {
                average.add(rate, interval);
            } else {
                // Shown to people from the second sample on: start at what is seen, not at 0.
                let mut first = Average::new(SHORT);
                first.add(rate, Duration::MAX);
                *average = Some(first);
            }
        }
        Some(inserted - destroyed)
    }

    /// Entries a second; the larger of the two averages: quick to see growth, slow to forget it.
    pub(super) fn growth(&self) -> f64 {
        self.growth_short.value().max(self.growth_long.value())
    }

    pub(super) fn insert(&self) -> Option<f64> {
        self.insert.map(|average| average.value().max(0.0))
    }

    pub(super) fn destroy(&self) -> Option<f64> {
        self.destroy.map(|average| average.value().max(0.0))
    }
}

fn signed(later: u64, earlier: u64) -> i128 {
    i128::from(later) - i128::from(earlier)
}

/// Events a second, or `None` where no traffic can have made them.
fn rate(difference: i128, interval: Duration) -> Option<f64> {
    let rate = difference as f64 / interval.as_secs_f64();
    (rate.is_finite() && rate.abs() <= ABSURD).then_some(rate)
}
