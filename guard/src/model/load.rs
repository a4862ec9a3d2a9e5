//! Growth or flood: whether more room would serve flows, or feed entries that nobody answers.
//!
//! No sign is enough by itself. Where replies take another way (asymmetric routing) live flows look unanswered for ever,
//! so it is the *change* against this host's own calm that counts; and they live on, while what a flood leaves behind is
//! gone one timeout later. Every surge evicts when the table is full. So a flood is all of this together: many more new
//! entries than in calm, most entries unanswered, far more so than in calm, and no more of them than came lately.

use std::time::Duration;

use super::average::Average;
use super::cohorts::Cohorts;
use super::estimate::Load;
use super::readings::Step;
use super::states::{FRESH, all, fresh};
use crate::observe::{Census, Sample, Timeout};

/// Memory of what calm is like.
const CALM: Duration = Duration::from_mins(10);
/// So much calm must have been seen before anything can differ from it.
const KNOWN: Duration = Duration::from_secs(20);
/// Memory of how the entries that went were.
const QUICK: Duration = Duration::from_secs(10);
/// A flood: at least this share of the entries is unanswered, and by so much more than in calm.
const UNANSWERED: f64 = 0.5;
const MORE: f64 = 0.25;
/// Nobody but the flood itself ends it: it must have been over for so long.
const OVER: Duration = Duration::from_secs(30);

/// What shows a surge: new entries a second where the hooks are, else the count.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pressure {
    now: f64,
    /// So many times that of calm is a surge, and so much at least.
    surge: f64,
    least: f64,
    /// At most so many times that of calm is none.
    none: f64,
}

/// What is remembered of the load.
#[derive(Clone, Debug)]
pub(super) struct Loads {
    /// Without hooks another figure shows a surge, and what was learnt of the one says nothing of the other.
    hooked: bool,
    /// The pressure in calm.
    calm_pressure: Average,
    /// The unanswered share in calm, of the entries and of those that went.
    calm_census: Average,
    calm_ends: Average,
    /// Calm seen so far.
    calm_for: Duration,
    /// Entries that went, and those of them that were unanswered, a second.
    went: Average,
    unanswered: Average,
    /// The census that was taken into account last.
    census_at: Option<Duration>,
    /// Since when the signs of a flood are gone, while there is one.
    over_since: Option<Duration>,
    load: Load,
}

/// What is unanswered now.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Unanswered {
    share: f64,
    sources: u64,
    /// The share in calm.
    calm: f64,
}

impl Loads {
    pub(super) fn new(hooked: bool) -> Self {
        Self {
            hooked,
            calm_pressure: Average::new(CALM),
            calm_census: Average::new(CALM),
            calm_ends: Average::new(CALM),
            calm_for: Duration::ZERO,
            went: Average::new(QUICK),
            unanswered: Average::new(QUICK),
            census_at: None,
            over_since: None,
            load: Load::Growth,
        }
    }

    /// Takes in the next interval.
    pub(super) fn add(&mut self, sample: &Sample, step: &Step, cohorts: &Cohorts) {
        if self.hooked != step.hooked {
            *self = Self::new(step.hooked);
        }
        let seconds = step.interval.as_secs_f64();
        if let Some(flow) = &step.flows {
            self.went.add(flow.destroys / seconds, step.interval);
            self.unanswered.add(flow.unanswered / seconds, step.interval);
        }
        let pressure = match &step.flows {
            Some(flow) => Pressure { now: flow.inserts / seconds, surge: 3.0, least: 50.0, none: 1.5 },
            None if step.hooked => return,
            None => Pressure { now: sample.table.count as f64, surge: 1.5, least: 1_000.0, none: 1.2 },
        };
        let calm = self.calm_pressure.mean();
        let known = self.calm_for >= KNOWN;
        let surge = known && pressure.now > pressure.least && pressure.now > pressure.surge * calm;
        let no_surge = pressure.now <= pressure.least || pressure.now <= pressure.none * calm;

        let census = fresh(sample, FRESH);
        let by_census = census.and_then(|census| by_census(census, sample.table.count, cohorts));
        // The census sees the entries that are there, the ends only those of a timeout ago.
        let unanswered = match by_census {
            Some((share, sources)) => self.calm_census.known().map(|calm| Unanswered { share, sources, calm }),
            None => self.share_of_ends().zip(self.calm_ends.known()).map(|(share, calm)| Unanswered {
                share,
                sources: 0,
                calm,
            }),
        };
        let unusual = unanswered.filter(|seen| seen.share >= UNANSWERED && seen.share >= seen.calm + MORE);

        self.load = match (self.load, unusual) {
            (Load::Growth, Some(seen)) if known && (surge || step.full) => seen.flood(),
            (Load::Flood { .. }, Some(seen)) if !no_surge || step.full => {
                self.over_since = None;
                seen.flood()
            }
            (Load::Flood { .. }, _) if !self.is_over(sample.at) => self.load,
            _ => {
                self.over_since = None;
                Load::Growth
            }
        };
        if self.load == Load::Growth && unusual.is_none() && !step.full {
            self.calm_pressure.add(pressure.now, step.interval);
            if no_surge || !known {
                self.learn(census, step.interval, by_census);
            }
        }
    }

    pub(super) fn load(&self) -> Load {
        self.load
    }

    /// Whether the signs have been gone for long enough; asked while they are.
    fn is_over(&mut self, now: Duration) -> bool {
        let since = *self.over_since.get_or_insert(now);
        now.checked_sub(since).is_none_or(|time| time >= OVER)
    }

    /// What calm is like.
    fn learn(&mut self, census: Option<&Census>, interval: Duration, by_census: Option<(f64, u64)>) {
        self.calm_for = self.calm_for.saturating_add(interval);
        if let Some(share) = self.share_of_ends() {
            self.calm_ends.add(share, interval);
        }
        let at = census.map(|census| census.at);
        if let Some((share, _)) = by_census
            && at != self.census_at
        {
            // One census stands for the time until the next.
            self.calm_census.add(share, FRESH);
            self.census_at = at;
        }
    }

    /// The share of what went that nobody answered; `None` where hardly anything goes.
    fn share_of_ends(&self) -> Option<f64> {
        (self.went.mean() >= 1.0).then(|| (self.unanswered.mean() / self.went.mean()).min(1.0))
    }
}

impl Unanswered {
    fn flood(self) -> Load {
        Load::Flood { unreplied: self.share, sources: self.sources }
    }
}

/// The share of the entries that is without a reply, or whose SYN/ACK nobody acknowledged (SYN_RECV): the answer to a
/// forged source; and their sources.
///
/// What is unanswered and older than its timeout lives by its packets, so of each kind no more than came in that time is
/// a flood's.
fn by_census(census: &Census, count: u64, cohorts: &Cohorts) -> Option<(f64, u64)> {
    let looked_at = all(census) as f64;
    if looked_at <= 0.0 {
        return None;
    }
    let each_stands_for = (count as f64 / looked_at).max(1e-9);
    let unanswered = census.by.iter().map(|(timeout, state)| {
        let entries = if *timeout == Timeout::TcpSynRecv { state.entries } else { state.unreplied } as f64;
        cohorts.came_within(*timeout).map_or(entries, |came| entries.min(came / each_stands_for))
    });
    Some(((unanswered.sum::<f64>() / looked_at).min(1.0), census.unreplied_sources))
}

#[cfg(test)]
mod tests;
