//! Entries by when they came and by the timeout that will end them.
//!
//! Little's law ties the three figures of a steady state together: entries there = rate at which they end × time they
//! stay. The time is the timeout, the rate is what the hook on `nf_conntrack_free` counts, so the entries follow without
//! looking at one of them.

use std::collections::VecDeque;
use std::time::Duration;

use super::average::Average;
use super::ends::PerTimeout;
use super::history::{Came, History};
use super::outlook::{AFTER, Outlook};
use super::readings::Flow;
use crate::observe::{Timeout, Timeouts};

/// Memory of the rate that new entries are expected to come at, and of the quicker one that shows a surge or its end.
const QUICK: Duration = Duration::from_secs(1);
const STEADY: Duration = Duration::from_secs(5);
/// Memory of what is learnt about each kind of entry.
const SLOW: Duration = Duration::from_mins(1);
/// From this difference on, as a share of the steadier rate, the quicker one counts.
const SURGE: f64 = 0.1;
/// From this share of the entries on, ends of one interval that nothing brought about are a clearing (`conntrack -F`, an
/// address deleted), not timeouts.
const CLEARED: f64 = 0.25;
/// Changes of timeouts that are remembered; entries from before the oldest count as its own.
const ERAS: usize = 12;

/// Everything that came and went, on a clock that only evidence advances.
#[derive(Clone, Debug)]
pub(super) struct Cohorts {
    /// Seconds.
    now: f64,
    history: History,
    eras: VecDeque<Era>,
    /// On the heap: the guard's one future holds the model.
    kinds: Box<[Kind; Timeout::ALL.len()]>,
    inserts_now: Average,
    inserts: Average,
}

/// A time in which the timeouts stood still.
#[derive(Clone, Debug)]
struct Era {
    since: f64,
    timeouts: [u64; Timeout::ALL.len()],
}

/// The entries that one timeout ends.
#[derive(Clone, Copy, Debug)]
struct Kind {
    /// Ends a second.
    ends: Average,
    /// Ends a second, in the time in which it is known what came one timeout before.
    matched: Average,
    /// What came one timeout before, a second.
    came: Average,
}

impl Default for Kind {
    fn default() -> Self {
        Self { ends: Average::new(SLOW), matched: Average::new(SLOW), came: Average::new(SLOW) }
    }
}

impl Cohorts {
    pub(super) fn new() -> Self {
        Self {
            now: 0.0,
            history: History::default(),
            eras: VecDeque::new(),
            kinds: Box::default(),
            inserts_now: Average::new(QUICK),
            inserts: Average::new(STEADY),
        }
    }

    /// Takes in what came and went in an interval, and the count and the timeouts at its end.
    pub(super) fn add(&mut self, flow: &Flow, interval: Duration, count: u64, timeouts: &Timeouts) {
        let seconds = interval.as_secs_f64();
        let before = self.now;
        let were_there = count as f64 + flow.destroys;
        let unexpected = flow.destroys - self.ends_between(before, before + seconds);
        self.now += seconds;
        self.history.add(self.now, seconds, flow.inserts);
        self.inserts_now.add(flow.inserts / seconds, interval);
        self.inserts.add(flow.inserts / seconds, interval);
        self.remember(timeouts);
        if unexpected > CLEARED * were_there {
            // What went at once will not end later, and says nothing on how the others will end.
            self.history.thin(1.0 - unexpected / were_there);
            return;
        }
        for timeout in Timeout::ALL {
            let came = self.due(timeout, before, self.now);
            let ends = flow.ends.of(timeout) / seconds;
            let kind = &mut self.kinds[timeout as usize];
            kind.ends.add(ends, interval);
            if came.unknown <= 0.0 {
                kind.matched.add(ends, interval);
                kind.came.add(came.entries / seconds, interval);
            }
        }
    }

    /// Ends expected in that span of the entries that are there, whatever ends them.
    fn ends_between(&self, from: f64, to: f64) -> f64 {
        let shares = self.shares();
        Timeout::ALL.iter().map(|timeout| self.ends_of(*timeout, shares[*timeout as usize], from, to)).sum()
    }

    /// The same of those that one timeout ends: its share of what came one timeout before; where that is not known, it
    /// goes on as it does now.
    fn ends_of(&self, timeout: Timeout, share: f64, from: f64, to: f64) -> f64 {
        let rate = self.ends(timeout);
        if share <= 0.0 && rate <= 0.0 {
            return 0.0;
        }
        let due = self.due(timeout, from, to);
        share * due.entries + rate * due.unknown
    }

    fn remember(&mut self, timeouts: &Timeouts) {
        let timeouts =
            Timeout::ALL.map(|timeout| timeouts.get(&timeout).copied().unwrap_or_else(|| timeout.kernel_default()));
        if self.eras.back().is_none_or(|era| era.timeouts != timeouts) {
            self.eras.push_back(Era { since: self.now, timeouts });
        }
        if self.eras.len() > ERAS {
            self.eras.pop_front();
        }
    }

    /// What came one timeout before that span: an entry keeps the timeout of the time it came in.
    fn due(&self, timeout: Timeout, from: f64, to: f64) -> Came {
        let mut all = Came::default();
        for (index, era) in self.eras.iter().enumerate() {
            let seconds = era.timeouts[timeout as usize] as f64;
            let since = if index == 0 { f64::NEG_INFINITY } else { era.since };
            let until = self.eras.get(index + 1).map_or(self.now, |next| next.since);
            let came = self.history.came((from - seconds).max(since), (to - seconds).min(until));
            all.entries += came.entries;
            all.unknown += came.unknown;
        }
        all
    }

    /// The timeouts in force, seconds.
    fn in_force(&self) -> PerTimeout {
        self.eras.back().map_or([0.0; Timeout::ALL.len()], |era| era.timeouts.map(|seconds| seconds as f64))
    }

    /// Entries that end by this timeout, a second.
    pub(super) fn ends(&self, timeout: Timeout) -> f64 {
        self.kinds[timeout as usize].ends.mean()
    }

    /// Entries there that this timeout will end.
    pub(super) fn held(&self, timeout: Timeout) -> f64 {
        self.ends_of(timeout, self.shares()[timeout as usize], self.now, f64::INFINITY)
    }

    /// Entries that came within the time of this timeout; `None` when that is longer than anything is known.
    pub(super) fn came_within(&self, timeout: Timeout) -> Option<f64> {
        let seconds = self.eras.back()?.timeouts[timeout as usize] as f64;
        let came = self.history.came(self.now - seconds, self.now);
        (came.unknown <= 0.0).then_some(came.entries)
    }

    /// Entries at which the count would settle if they went on coming as they do.
    pub(super) fn steady(&self) -> f64 {
        let (shares, in_force) = (self.shares(), self.in_force());
        self.expected_inserts() * shares.iter().zip(in_force).map(|(share, seconds)| share * seconds).sum::<f64>()
    }

    /// The share of the new entries that each timeout ends. Where it is known what came one timeout ago, that is what
    /// ends now beside it; until then, what ends now beside what comes now.
    fn shares(&self) -> PerTimeout {
        let coming = self.inserts.mean();
        let mut shares = self.kinds.map(|kind| {
            let ratio = |ends: f64, came: f64| if ends <= 0.0 { 0.0 } else { (ends / came).min(1.0) };
            // A few seconds of it say more than any amount of the latter.
            let known = (8.0 * kind.matched.seen()).min(1.0);
            known * ratio(kind.matched.mean(), kind.came.mean()) + (1.0 - known) * ratio(kind.ends.mean(), coming)
        });
        let all: f64 = shares.iter().sum();
        if all > 1.0 {
            for share in &mut shares {
                *share /= all;
            }
        }
        shares
    }

    /// New entries expected, a second.
    pub(super) fn expected_inserts(&self) -> f64 {
        let (quick, steady) = (self.inserts_now.mean(), self.inserts.mean());
        // Arrivals that depend on nothing scatter by the root of their number.
        let noise = 3.0 * steady.max(quick).sqrt();
        if (quick - steady).abs() > SURGE * steady + noise { quick } else { steady }
    }

    /// What is expected of a table with so many entries.
    pub(super) fn outlook(&self, count: u64) -> Outlook {
        let shares = self.shares();
        let mut ends = [0.0; AFTER.len()];
        for timeout in Timeout::ALL {
            for (ends, after) in ends.iter_mut().zip(AFTER) {
                *ends += self.ends_of(timeout, shares[timeout as usize], self.now, self.now + after);
            }
        }
        let inserts = self.expected_inserts();
        Outlook { count: count as f64, inserts, ends, shares, in_force: self.in_force(), drift: 0.0 }
    }
}

#[cfg(test)]
mod tests;
