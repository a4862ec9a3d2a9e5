//! From one sample to the next: where the table is going.

use std::time::Duration;

use super::chains::RecentChains;
use super::cohorts::Cohorts;
use super::ends::Icmp;
use super::entries::Entries;
use super::estimate::Estimate;
use super::load::Loads;
use super::outlook::Outlook;
use super::rates::Rates;
use super::readings::Readings;
use super::stall::{ResizeCost, Stalled};
use super::states::{self, states};
use crate::observe::{Sample, TableFull, TableReading};

/// What a census found says for so long what comes now.
const SEEN_NOW: Duration = Duration::from_secs(30);

/// What is remembered from sample to sample.
#[derive(Clone, Debug)]
pub struct Model {
    horizon: Duration,
    readings: Readings,
    rates: Rates,
    cohorts: Cohorts,
    entries: Entries,
    chains: RecentChains,
    loads: Loads,
    resize_cost: ResizeCost,
    previous: Option<Sample>,
}

impl Model {
    /// Looks so far ahead from now on: the horizon of a policy that was reloaded.
    pub fn look_ahead(&mut self, horizon: Duration) {
        self.horizon = horizon;
    }

    /// A model that has seen nothing; `horizon` is how far its forecasts look ahead (`table.horizon`).
    pub fn new(horizon: Duration) -> Self {
        Self {
            horizon,
            readings: Readings::default(),
            rates: Rates::new(),
            cohorts: Cohorts::new(horizon),
            entries: Entries::default(),
            chains: RecentChains::default(),
            loads: Loads::new(false),
            resize_cost: ResizeCost::default(),
            previous: None,
        }
    }

    /// Takes in the next sample. What cannot be (a time that does not advance, a counter that went backwards, a jump no
    /// traffic makes) is no evidence and leaves the rates as they are; the estimate says so (`doubts`).
    pub fn observe(&mut self, sample: &Sample) -> Estimate {
        let (step, doubts) = self.readings.next(sample, Icmp::of(sample.census.as_ref()));
        if let Some(step) = &step {
            self.rates.add(step);
            if !step.counts_flows {
                self.cohorts = Cohorts::new(self.horizon);
            }
            if let Some(flow) = &step.flows {
                self.cohorts.look(states::fresh(sample, SEEN_NOW), sample.table.count);
                self.cohorts.add(flow, step.interval, sample.table, &sample.timeouts);
            }
            let counted = sample.census.as_ref().map_or(0, |census| self.count_at(census.at, sample));
            self.loads.add(sample, counted, step, &self.cohorts);
        }
        for event in sample.hooks.iter().flat_map(|hooks| &hooks.resizes) {
            self.resize_cost.learn(event, self.count_at(event.at, sample));
        }
        let growth = self.rates.growth();
        let (insert_rate, insert_rate_long) = self.rates.inserts();
        let (destroy_rate, destroy_rate_long) = self.rates.destroys();
        let outlook = self.outlook(sample);
        // What is expected is quick to believe in a surge. A raise waits until it has lasted for a moment.
        let expected = if self.cohorts.rate_has_held() { outlook.count(self.horizon, &sample.timeouts, 0) } else { 0 };
        let previous = self.previous.replace(sample.clone());
        let entries = self.entries.known(sample);
        Estimate {
            at: sample.at,
            table: sample.table,
            insert_rate,
            destroy_rate,
            insert_rate_long,
            destroy_rate_long,
            growth,
            forecast: forecast(sample.table.count, growth, self.horizon).max(expected),
            outlook,
            time_to_full: time_to_full(&sample.table, growth),
            table_full_hooked: sample.hooks.as_ref().is_some_and(|hooks| hooks.table_full.is_some()),
            table_full: previous.as_ref().map_or(0, |earlier| table_full(earlier, sample)),
            entries,
            chains: self.chains.add(sample, entries),
            resize_cost: self.resize_cost,
            resized: sample.hooks.iter().flat_map(|hooks| &hooks.resizes).filter_map(Stalled::by).next_back(),
            resize_stall: self.resize_cost.stall(sample.table.count),
            entry_bytes: sample.entry_bytes,
            timeouts: sample.timeouts.clone(),
            states: states(sample, &self.cohorts),
            steady: destroy_rate.and_then(|_| self.cohorts.steady()).map(whole),
            load: self.loads.load(sample.table.count),
            look_within: self.loads.look_within(self.cohorts.wants_look()),
            memory: sample.memory,
            flowtables: sample.flowtables,
            time_of_day: sample.time_of_day,
            doubts,
        }
    }

    /// The count at a time between the last two samples.
    fn count_at(&self, at: Duration, now: &Sample) -> u64 {
        let Some(before) = &self.previous else { return now.table.count };
        let seconds = |time: Duration| time.saturating_sub(before.at).as_secs_f64();
        let part = (seconds(at) / seconds(now.at).max(1e-9)).min(1.0);
        let count = before.table.count as f64;
        whole(count + part * (now.table.count as f64 - count))
    }

    fn outlook(&self, sample: &Sample) -> Outlook {
        if self.rates.destroys().0.is_some() {
            self.cohorts.outlook(sample.table.count)
        } else {
            Outlook::growing(sample.table.count, self.rates.expected_growth())
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, and NaN becomes 0")]
fn whole(entries: f64) -> u64 {
    entries.round() as u64
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, however absurd the growth")]
fn forecast(count: u64, growth: f64, horizon: Duration) -> u64 {
    count.saturating_add((growth.max(0.0) * horizon.as_secs_f64()).ceil() as u64)
}

fn time_to_full(table: &TableReading, growth: f64) -> Option<Duration> {
    if table.max == 0 {
        return None;
    }
    let free = table.max.saturating_sub(table.count);
    if free == 0 {
        return Some(Duration::ZERO);
    }
    // Growth so slow that the time does not fit a Duration is no growth.
    (growth > 0.0).then(|| Duration::try_from_secs_f64(free as f64 / growth).ok()).flatten()
}

fn table_full(earlier: &Sample, later: &Sample) -> u64 {
    if let Some((before, after)) = by_hook(earlier, later) {
        return after.refused.saturating_sub(before.refused);
    }
    let by_statistics = earlier.stats.totals().zip(later.stats.totals());
    by_statistics.map_or(0, |(before, after)| after.refused_since(before))
}

/// What `early_drop` found, at both samples.
fn by_hook(earlier: &Sample, later: &Sample) -> Option<(TableFull, TableFull)> {
    earlier.hooks.as_ref()?.table_full.zip(later.hooks.as_ref()?.table_full)
}
