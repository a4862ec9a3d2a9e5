//! Chain lengths at insert over the last seconds, beside what an even hash makes of the same load.

use std::collections::VecDeque;
use std::time::Duration;

use super::poisson::{Expected, Load};
use super::{ChainStats, Skew};
use crate::observe::{Chains, Sample};

/// Chains are judged over so long: with one insert in 64 measured, a single tick sees too few.
const WINDOW: Duration = Duration::from_secs(10);
/// Ticks within this are kept together.
const PART: Duration = Duration::from_secs(1);

/// An even hash brings a chain as long as the longest less often than once in so many windows; one longer is skew.
const RARE: f64 = 1e-6;
/// The load is known from counters that are read at other moments than the chains: below these it is no finding that
/// the mean is higher.
const UNACCOUNTED_SHARE: f64 = 1.5;
const UNACCOUNTED_ENTRIES: f64 = 1.0;
const UNACCOUNTED_SIGMAS: f64 = 5.0;

/// What the last seconds showed.
#[derive(Clone, Debug, Default)]
pub(super) struct RecentChains {
    parts: VecDeque<Part>,
    previous: Option<Reading>,
}

/// Ticks of one second.
#[derive(Clone, Debug)]
struct Part {
    began: Duration,
    /// Chains measured, by length.
    counts: Vec<u64>,
    loads: Vec<Load>,
}

/// What the next sample is compared with.
#[derive(Clone, Debug)]
struct Reading {
    at: Duration,
    one_in: u64,
    /// Both directions together.
    counts: Vec<u64>,
    /// Tuples a bucket.
    load: f64,
}

impl RecentChains {
    /// Takes in the next sample, with so many entries in the table; `None` when no chain was measured in the window. Counters that went backwards (the
    /// programs were loaded anew) begin a new window.
    pub fn add(&mut self, sample: &Sample, entries: u64) -> Option<ChainStats> {
        let Some(chains) = sample.hooks.as_ref().and_then(|hooks| hooks.chains.as_ref()) else {
            *self = Self::default();
            return None;
        };
        let buckets = sample.table.buckets;
        let load = if buckets == 0 { 0.0 } else { 2.0 * entries as f64 / buckets as f64 };
        let now = Reading { at: sample.at, one_in: chains.one_in, counts: merged(chains), load };
        let fresh = match &self.previous {
            Some(before) if before.one_in == now.one_in && before.at <= now.at => {
                differences(&before.counts, &now.counts)
            }
            _ => None,
        };
        match (&self.previous, fresh) {
            (Some(before), Some(fresh)) => {
                let load = Load { from: before.load, to: now.load, chains: sum(&fresh) };
                self.keep(now.at, fresh, load);
            }
            _ => self.parts.clear(),
        }
        self.previous = Some(now);
        self.stats(chains.one_in)
    }

    fn keep(&mut self, now: Duration, fresh: Vec<u64>, load: Load) {
        match self.parts.back_mut() {
            Some(part) if now.saturating_sub(part.began) < PART => {
                for (all, new) in part.counts.iter_mut().zip(fresh) {
                    *all = all.saturating_add(new);
                }
                part.loads.push(load);
            }
            _ => self.parts.push_back(Part { began: now, counts: fresh, loads: vec![load] }),
        }
        while self.parts.front().is_some_and(|part| now.saturating_sub(part.began) > WINDOW) {
            self.parts.pop_front();
        }
    }

    fn stats(&self, one_in: u64) -> Option<ChainStats> {
        let places = self.parts.front()?.counts.len();
        let mut counts = vec![0_u64; places];
        let mut loads = Vec::new();
        for part in &self.parts {
            for (all, new) in counts.iter_mut().zip(&part.counts) {
                *all = all.saturating_add(*new);
            }
            loads.extend_from_slice(&part.loads);
        }
        let measured: u128 = counts.iter().map(|count| u128::from(*count)).sum();
        if measured == 0 {
            return None;
        }
        let expected = Expected::new(&loads, 1.0, places);
        let mean = mean_cut_at(&counts, places);
        Some(ChainStats {
            one_in,
            measured: u64::try_from(measured).unwrap_or(u64::MAX),
            mean,
            p50: quantile(&counts, measured, 50),
            p99: quantile(&counts, measured, 99),
            max: counts.iter().rposition(|count| *count > 0).map_or(0, |length| length as u64),
            expected_mean: expected.mean,
            expected_p99: expected.quantile(0.99),
            skew: skew(&counts, measured, mean, &expected, &loads),
        })
    }
}

fn merged(chains: &Chains) -> Vec<u64> {
    let places = chains.original.len().max(chains.reply.len());
    let at = |counts: &[u64], length: usize| counts.get(length).copied().unwrap_or(0);
    (0..places).map(|length| at(&chains.original, length).saturating_add(at(&chains.reply, length))).collect()
}

fn differences(earlier: &[u64], later: &[u64]) -> Option<Vec<u64>> {
    if earlier.len() != later.len() {
        return None;
    }
    later.iter().zip(earlier).map(|(new, old)| new.checked_sub(*old)).collect()
}

fn sum(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
}

/// The shortest length that at least `percent` of the chains do not exceed.
fn quantile(counts: &[u64], measured: u128, percent: u128) -> u64 {
    let mut seen = 0_u128;
    for (count, length) in counts.iter().zip(0_u64..) {
        seen += u128::from(*count);
        if seen.saturating_mul(100) >= measured.saturating_mul(percent) {
            return length;
        }
    }
    counts.len() as u64
}

/// The mean if chains longer than `cut` counted as `cut`.
fn mean_cut_at(counts: &[u64], cut: usize) -> f64 {
    let (mut all, mut entries) = (0.0, 0.0);
    for (length, count) in counts.iter().enumerate() {
        all += *count as f64;
        entries += length.min(cut) as f64 * *count as f64;
    }
    entries / all
}

/// Whether the lengths are none that an even hash makes of this load.
fn skew(counts: &[u64], measured: u128, mean: f64, expected: &Expected, loads: &[Load]) -> Option<Skew> {
    let measured_chains = measured as f64;
    let longest = counts.iter().rposition(|count| *count > 0)?;
    let rare = |expected: &Expected| measured_chains * expected.at_least(longest) < RARE;
    let sigma = (expected.mean.max(1.0) / measured_chains).sqrt();
    let unaccounted = mean > UNACCOUNTED_SHARE * expected.mean + UNACCOUNTED_ENTRIES
        && mean > expected.mean + UNACCOUNTED_SIGMAS * sigma;
    if !unaccounted && !rare(expected) {
        return None;
    }
    if expected.mean <= 0.0 {
        // Nothing to scale.
        return unaccounted.then_some(Skew::Unaccounted);
    }
    // The load may be higher than is known. Half of the chains tell it, however long the others are: an attack on the hash of one
    // direction leaves the other's as they should be.
    let cut = usize::try_from(quantile(counts, measured, 50)).unwrap_or(usize::MAX).max(1);
    let typical = fitted(loads, counts.len(), cut, mean_cut_at(counts, cut));
    if rare(&typical) { Some(Skew::LongChains) } else { unaccounted.then_some(Skew::Unaccounted) }
}

/// The loads scaled up, never down, until the mean below the cut is this one.
fn fitted(loads: &[Load], places: usize, cut: usize, wanted: f64) -> Expected {
    let reaches = |scale: f64| Expected::new(loads, scale, places).mean_cut_at(cut) >= wanted;
    let (mut low, mut high) = (1.0, 1.0);
    // Lengths end at the histogram's last place, so not every mean can be reached.
    while !reaches(high) && high < 1e12 {
        (low, high) = (high, high * 2.0);
    }
    for _ in 0..20 {
        let middle = f64::midpoint(low, high);
        if reaches(middle) { high = middle } else { low = middle }
    }
    Expected::new(loads, high, places)
}

#[cfg(test)]
mod tests;
