//! Growth or flood: whether more room would serve flows, or feed entries that nobody answers.
//!
//! No sign is enough by itself. Where replies take another way (asymmetric routing) live flows look unanswered for ever,
//! so it is the *change* against this host's own calm that counts; and they live on, while what a flood leaves behind is
//! gone one timeout later. Every surge evicts when the table is full. So a flood is all of this together: many more new
//! entries than in calm, most of what came on top of calm unanswered, far more so than in calm, and no more of them than
//! came lately.
//!
//! How many come is known at once, what they are only when somebody has looked at the entries. Until then it is a surge.

use std::time::Duration;

use super::average::Average;
use super::cohorts::Cohorts;
use super::estimate::Load;
use super::readings::Step;
use super::states::{FRESH, fresh};
use super::unanswered::{Calm, Seen, differs, unanswered};
use crate::observe::{Census, Sample, Timeout};

/// Memory of what calm is like.
const CALM: Duration = Duration::from_mins(10);
/// So much calm must have been seen before anything can differ from it.
const KNOWN: Duration = Duration::from_secs(20);
/// Memory of how the entries that went were.
const QUICK: Duration = Duration::from_secs(10);
/// A flow that began so long ago would have been answered: a round trip and a retransmission.
const ANSWER: Duration = Duration::from_secs(2);
/// It began between two looks. At rest they are further apart, and nobody knows when in between: it counts as no older.
const LOOK: Duration = Duration::from_secs(1);
/// If no look at the entries has told for so long what a surge is, none will soon: what is not known is growth.
const PATIENCE: Duration = Duration::from_secs(5);
/// Nobody but the flood itself ends it: it must have been over for so long.
const OVER: Duration = Duration::from_secs(30);
/// How soon the entries should be looked at again: in a surge, and in a flood or a surge of which nobody knows for long.
const AT_ONCE: Duration = Duration::from_millis(500);
const OFTEN: Duration = Duration::from_secs(2);

/// What shows a surge: new entries a second where they are counted, else the count.
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
    /// Where inserts are not counted another figure shows a surge, and what was learnt of the one says nothing of the other.
    counts_inserts: bool,
    /// In calm: the pressure, the entries, and the unanswered share of the entries and of those that went.
    calm_pressure: Average,
    calm_count: Average,
    calm_census: Average,
    calm_ends: Average,
    /// Calm seen so far.
    calm_for: Duration,
    /// Entries that went, and those of them that were unanswered, a second.
    went: Average,
    unanswered: Average,
    /// The census that was taken into account last, and the unanswered share that it found.
    census: Option<(Duration, f64)>,
    /// What it showed of the surge, while there is one.
    seen: Option<Seen>,
    /// Since when there are far more new entries than in calm.
    surge: Option<Duration>,
    /// Since when the signs of a flood are gone, while there is one.
    over_since: Option<Duration>,
    load: Load,
}

impl Loads {
    pub(super) fn new(counts_inserts: bool) -> Self {
        Self {
            counts_inserts,
            calm_pressure: Average::new(CALM),
            calm_count: Average::new(CALM),
            calm_census: Average::new(CALM),
            calm_ends: Average::new(CALM),
            calm_for: Duration::ZERO,
            went: Average::new(QUICK),
            unanswered: Average::new(QUICK),
            census: None,
            seen: None,
            surge: None,
            over_since: None,
            load: Load::Growth,
        }
    }

    /// Takes in the next interval; `counted` entries were there when the sample's census was taken.
    pub(super) fn add(&mut self, sample: &Sample, counted: u64, step: &Step, cohorts: &Cohorts) {
        if self.counts_inserts != step.counts_inserts {
            *self = Self::new(step.counts_inserts);
        }
        let seconds = step.interval.as_secs_f64();
        if let Some(flow) = &step.flows {
            self.went.add(flow.destroys / seconds, step.interval);
            self.unanswered.add(flow.unanswered / seconds, step.interval);
        }
        let pressure = match step.inserts {
            Some(inserts) => Pressure { now: inserts / seconds, surge: 3.0, least: 50.0, none: 1.5 },
            None if step.counts_inserts => return,
            None => Pressure { now: sample.table.count as f64, surge: 1.5, least: 1_000.0, none: 1.2 },
        };
        let calm = self.calm_pressure.mean();
        let known = self.calm_for >= KNOWN;
        let surge = known && pressure.now > pressure.least && pressure.now > pressure.surge * calm;
        let no_surge = pressure.now <= pressure.least || pressure.now <= pressure.none * calm;
        let lasts = !no_surge || step.full;
        if known && (surge || step.full) {
            self.surge.get_or_insert(sample.at.saturating_sub(step.interval.min(LOOK)));
        } else if !lasts && !matches!(self.load, Load::Flood { .. }) {
            (self.surge, self.seen) = (None, None);
        }

        let new = self.look(sample, counted, cohorts);
        let seen = self.seen(sample, cohorts);
        self.load = match (self.load, self.surge) {
            (Load::Flood { .. }, _) => self.go_on(sample, seen, lasts),
            (_, Some(since)) => self.judge(sample, seen, since),
            (_, None) => Load::Growth,
        };
        let unusual = self.census.zip(self.calm_census.known()).is_some_and(|((_, share), calm)| differs(share, calm));
        if self.load == Load::Growth && !unusual && !step.full {
            self.calm_pressure.add(pressure.now, step.interval);
            if no_surge || !known {
                self.learn(sample.table.count, step.interval, new);
            }
        }
    }

    /// In a table of so many entries: of those of a flood that has paused, some may be gone.
    pub(super) fn load(&self, count: u64) -> Load {
        match self.load {
            Load::Flood { unreplied, entries, sources } => {
                Load::Flood { unreplied, entries: entries.min(count), sources }
            }
            load => load,
        }
    }

    /// How soon the entries should be looked at again; `None`: at leisure. `others`: whether those that come now are others
    /// than were looked at.
    pub(super) fn look_within(&self, others: bool) -> Option<Duration> {
        let told = self.surge.is_none() || self.seen.is_some_and(|seen| seen.tells);
        match self.load {
            Load::Surge => Some(AT_ONCE),
            _ if others => Some(AT_ONCE),
            Load::Growth if told => None,
            Load::Growth | Load::Flood { .. } => Some(OFTEN),
        }
    }

    /// Takes in the census, if it is a new one; answers with the unanswered share of all entries.
    fn look(&mut self, sample: &Sample, counted: u64, cohorts: &Cohorts) -> Option<f64> {
        let new = |census: &&Census| self.census.is_none_or(|(at, _)| at != census.at);
        let census = fresh(sample, FRESH).filter(new)?;
        let share = unanswered(census, counted, cohorts);
        self.census = Some((census.at, share));
        self.seen = self.surge.filter(|since| census.at >= *since).and_then(|_| {
            let calm = Calm { entries: self.calm_count.mean(), unanswered: self.calm_census.known()? };
            Some(Seen::new(census, counted, share, calm))
        });
        Some(share)
    }

    /// What is known of the surge: from a look at the entries, or where that is not to be had from how those were that
    /// went.
    fn seen(&self, sample: &Sample, cohorts: &Cohorts) -> Option<Seen> {
        let since = self.surge?;
        let fresh = self.seen.filter(|seen| sample.at.saturating_sub(seen.at) <= FRESH);
        if fresh.is_some() || self.is_awaited(sample, since) {
            return fresh;
        }
        let (share, calm) = self.share_of_ends().zip(self.calm_ends.known())?;
        let entries = cohorts.held(Timeout::TcpSynSent) + cohorts.held(Timeout::TcpSynRecv);
        Seen::by_ends(sample, share, calm, entries)
    }

    /// What a surge is, as far as it is known.
    fn judge(&self, sample: &Sample, seen: Option<Seen>, since: Duration) -> Load {
        match seen {
            Some(seen) if seen.is_unanswered() && seen.at.saturating_sub(since) >= ANSWER => seen.flood(sample),
            // Too young for an answer.
            Some(seen) if seen.is_unanswered() => Load::Surge,
            Some(seen) if seen.tells => Load::Growth,
            _ if self.is_awaited(sample, since) => Load::Surge,
            // For good or until a later look tells more.
            _ => Load::Growth,
        }
    }

    /// What a flood has become. `lasts`: whether there still are more new entries than in calm.
    fn go_on(&mut self, sample: &Sample, seen: Option<Seen>, lasts: bool) -> Load {
        if let Some(seen) = seen.filter(|seen| lasts && seen.lasts) {
            self.over_since = None;
            return seen.flood(sample);
        }
        let since = *self.over_since.get_or_insert(sample.at);
        if sample.at.checked_sub(since).is_some_and(|time| time < OVER) {
            return self.load;
        }
        (self.over_since, self.surge, self.seen) = (None, None, None);
        Load::Growth
    }

    /// Whether a look at the entries is to be expected that tells what the surge is.
    fn is_awaited(&self, sample: &Sample, since: Duration) -> bool {
        let may_look = sample.census.is_some() && self.calm_census.known().is_some();
        may_look && sample.at.saturating_sub(since) < PATIENCE
    }

    /// What calm is like. `new`: what a census has found since the last tick.
    fn learn(&mut self, count: u64, interval: Duration, new: Option<f64>) {
        self.calm_for = self.calm_for.saturating_add(interval);
        self.calm_count.add(count as f64, interval);
        if let Some(share) = self.share_of_ends() {
            self.calm_ends.add(share, interval);
        }
        if let Some(share) = new {
            // One census stands for the time until the next.
            self.calm_census.add(share, FRESH);
        }
    }

    /// The share of what went that nobody answered; `None` where hardly anything goes.
    fn share_of_ends(&self) -> Option<f64> {
        (self.went.mean() >= 1.0).then(|| (self.unanswered.mean() / self.went.mean()).min(1.0))
    }
}

#[cfg(test)]
mod tests;
