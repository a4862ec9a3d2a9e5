//! How fast the table fills.

use std::time::Duration;

use super::average::Average;
use super::readings::Step;

/// Memory of the average that must see a surge within a tick or two.
const SHORT: Duration = Duration::from_secs(1);
/// Memory of the average that outlasts the pauses of a surge, and sees slow growth through the noise.
const LONG: Duration = Duration::from_secs(30);
/// Running averages over all samples so far.
#[derive(Clone, Debug)]
pub(super) struct Rates {
    growth: Horizons,
    inserts: Option<Horizons>,
    destroys: Option<Horizons>,
}

/// One rate on two horizons.
#[derive(Clone, Copy, Debug)]
struct Horizons {
    short: Average,
    long: Average,
}

impl Horizons {
    fn new() -> Self {
        Self { short: Average::new(SHORT), long: Average::new(LONG) }
    }

    fn add(&mut self, rate: f64, interval: Duration) {
        self.short.add(rate, interval);
        self.long.add(rate, interval);
    }
}

impl Rates {
    pub(super) fn new() -> Self {
        Self { growth: Horizons::new(), inserts: None, destroys: None }
    }

    pub(super) fn add(&mut self, step: &Step) {
        let seconds = step.interval.as_secs_f64();
        if !step.counts_inserts {
            self.inserts = None;
        }
        if !step.counts_flows {
            self.destroys = None;
        }
        if let Some(inserts) = step.inserts {
            self.inserts.get_or_insert_with(Horizons::new).add(inserts / seconds, step.interval);
        }
        let by_hooks = step.flows.as_ref().map(|flow| {
            self.destroys.get_or_insert_with(Horizons::new).add(flow.destroys / seconds, step.interval);
            (flow.inserts - flow.destroys) / seconds
        });
        // The hooks see every flow; the count only its balance at two moments. Where the hooks just came, went or were
        // loaded anew, the count is still evidence.
        if let Some(growth) = by_hooks.or(step.growth) {
            self.growth.add(growth, step.interval);
        }
    }

    /// Entries a second; the larger of the two averages: quick to see growth, slow to forget it. A single interval is weak
    /// evidence to both.
    pub(super) fn growth(&self) -> f64 {
        self.growth.short.value().max(self.growth.long.value())
    }

    /// Entries a second by which the count grows as far as can be told, neither quick nor slow.
    pub(super) fn expected_growth(&self) -> f64 {
        self.growth.short.mean()
    }

    /// Entries that come, a second: the short horizon, then the long one.
    pub(super) fn inserts(&self) -> (Option<f64>, Option<f64>) {
        means(self.inserts)
    }

    /// Entries that go, where those that come are known too.
    pub(super) fn destroys(&self) -> (Option<f64>, Option<f64>) {
        means(self.destroys)
    }
}

fn means(horizons: Option<Horizons>) -> (Option<f64>, Option<f64>) {
    horizons.map_or((None, None), |horizons| (Some(horizons.short.mean()), Some(horizons.long.mean())))
}
