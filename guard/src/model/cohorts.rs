//! Entries by when they came and by the timeout that will end them.
//!
//! Each cohort (the entries of one second) is followed: what ends by a timeout is taken off the cohort that came one
//! timeout before, so that it is known how many of each are left, and of those that came to a timeout how many it ended.
//! The shares so learnt say how what is left of each cohort will end, and when. In a steady state this is Little's law:
//! entries there = rate at which they end × time they stay; the rate is what the hook on `nf_conntrack_free` counts and
//! the time is the timeout, so the entries follow without looking at one of them.

mod ahead;
mod found;

use std::time::Duration;

use self::ahead::Ahead;
use super::arrivals::{Arrivals, Lane};
use super::average::Average;
use super::correction::{Correction, Flows};
use super::ends::PerTimeout;
use super::eras::{Era, Eras, Span};
use super::kinds::Kind;
use super::outlook::ended;
use super::pace::Pace;
use super::readings::Flow;
use super::reaping::{Mean, met_by};
use super::sweeps::{Sweeps, Swept};
use crate::observe::{TableReading, Timeout, Timeouts};

/// From this share of the entries on, ends of one interval that nothing brought about may be a clearing (`conntrack -F`, an
/// address deleted), not timeouts.
const CLEARED: f64 = 0.25;
/// A sweep leaves what came this short a time ago, seconds, or a shortest timeout ago; a clearing does not leave half of it.
const YOUNG: f64 = 5.0;
/// What is left of a cohort is worth so little at least when it stands for all of it.
const LEAST: f64 = 0.01;
/// Of so large a share of what comes it must be known how it ends before it can be said where the count will settle: the rest
/// may stay for days.
const ACCOUNTED: f64 = 0.9;
/// Memory of how many are refused.
const REFUSED: Duration = Duration::from_secs(5);
const ALL: usize = Timeout::ALL.len();

/// Everything that came and went, on a clock that only evidence advances.
#[derive(Clone, Debug)]
pub(super) struct Cohorts {
    /// Seconds.
    now: f64,
    arrivals: Arrivals,
    pace: Pace,
    kinds: Vec<Kind>,
    eras: Eras,
    /// The kinds that were seen, by when they end, and what their shares are.
    order: Vec<Ending>,
    sweeps: Sweeps,
    /// What has happened since the last sweep, or in the last interval where there are none.
    batch: Batch,
    /// What is expected of the entries that are there.
    ahead: Ahead,
    /// And of the table within the horizon, uncorrected.
    expected: Flows,
    correction: Correction,
    /// The share of what comes that a fresh census found to wait for each timeout.
    found: PerTimeout,
    /// Of which it could not tell whether they wait there or pass.
    passing: [bool; ALL],
    /// When the last census was made, and the rate at which entries came then.
    census_at: Option<Duration>,
    looked_at: f64,
    /// How much longer the entries' time left is than the cohorts have it.
    left_longer: f64,
    /// Entries that were there before all that is known to have come.
    before: Option<f64>,
    /// As last read.
    table: TableReading,
    /// New flows refused, a second.
    refused: Average,
}

/// Ends that belong together: what expired in this time was freed in it.
#[derive(Clone, Debug, Default)]
struct Batch {
    from: f64,
    inserts: f64,
    ends: PerTimeout,
}

/// The share of all that come that one timeout ends.
#[derive(Clone, Copy, Debug)]
struct Ending {
    timeout: Timeout,
    share: f64,
}

/// Entries that came in one span, as seen by the timeout that is due for them.
#[derive(Clone, Copy, Debug)]
struct Due {
    from: f64,
    to: f64,
    /// As many as came, by those that are left: the kinds that ended sooner had their share of them.
    came: f64,
}

impl Cohorts {
    /// `horizon`: for how far ahead the expectations correct themselves.
    pub(super) fn new(horizon: Duration) -> Self {
        Self {
            now: 0.0,
            arrivals: Arrivals::default(),
            pace: Pace::new(),
            kinds: Timeout::ALL.iter().map(|_| Kind::new()).collect(),
            eras: Eras::default(),
            order: Vec::new(),
            sweeps: Sweeps::new(),
            batch: Batch::default(),
            ahead: Ahead::default(),
            expected: Flows::default(),
            correction: Correction::new(horizon),
            found: [0.0; ALL],
            passing: [false; ALL],
            census_at: None,
            looked_at: 0.0,
            left_longer: 1.0,
            before: None,
            table: TableReading::default(),
            refused: Average::new(REFUSED),
        }
    }

    /// Takes in what came and went in an interval, and the count and the timeouts at its end.
    pub(super) fn add(&mut self, flow: &Flow, interval: Duration, table: TableReading, timeouts: &Timeouts) {
        let seconds = interval.as_secs_f64();
        let count = table.count;
        let before = self.now;
        self.table = table;
        self.now += seconds;
        if self.eras.remember(self.now, timeouts) {
            self.correction.forget();
        }
        self.arrivals.add(before, self.now, flow.inserts);
        self.pace.add(flow.inserts / seconds, interval);
        self.refused.add(flow.refused / seconds, interval);

        let were_there = count as f64 + flow.destroys;
        self.before.get_or_insert((were_there - flow.inserts).max(0.0));
        let unexpected = flow.destroys - self.ahead.dead - ended(&self.ahead.until, seconds);
        if unexpected > CLEARED * were_there && (count as f64) < self.young() / 2.0 {
            // What went at once will not end later, and says nothing on how the others will end.
            self.arrivals.thin(flow.destroys);
            self.batch = Batch { from: self.now, ..Batch::default() };
            self.ahead = self.look_ahead(count);
            self.correction.forget();
            return;
        }
        let by_timeout = Timeout::ALL.map(|timeout| flow.ends.of(timeout));
        let freed = by_timeout.iter().sum();
        let Ahead { dead, planned, .. } = self.ahead;
        let met = dead * met_by(flow.inserts + flow.refused, table.buckets);
        if self.sweeps.add(self.now, interval, &Swept { freed, count: were_there, dead, met, planned }) {
            self.learn(before);
        }
        self.batch.inserts += flow.inserts;
        for (all, ends) in self.batch.ends.iter_mut().zip(by_timeout) {
            *all += ends;
        }
        if !self.sweeps.are_seen(self.now) && !self.sweeps.under_way() {
            self.learn(self.now);
        }
        // Evicted, deleted, or of a state that no timeout belongs to.
        self.arrivals.thin((flow.destroys - freed).max(0.0));
        self.order = self.endings();
        self.ahead = self.look_ahead(count);
        self.expected = self.expected(self.correction.horizon());
        self.correction.add(self.now, Flows { inserts: flow.inserts, ends: freed }, self.expected);
    }

    /// Entries that came too short a time ago to have expired.
    fn young(&self) -> f64 {
        let shortest = self.eras.in_force().iter().copied().fold(f64::INFINITY, f64::min);
        let age = if shortest.is_finite() { shortest.max(YOUNG) } else { YOUNG };
        self.arrivals.left(self.now - age, self.now, None)
    }

    /// What the batch that ends here says.
    fn learn(&mut self, until: f64) {
        let batch = std::mem::replace(&mut self.batch, Batch { from: until, ..Batch::default() });
        if until <= batch.from {
            return;
        }
        for timeout in self.by_end() {
            if batch.ends[timeout as usize] > 0.0 || self.kinds[timeout as usize].is_known() {
                self.end(timeout, &batch, until);
            }
        }
    }

    /// So many ended by this timeout in the batch.
    fn end(&mut self, timeout: Timeout, batch: &Batch, until: f64) {
        let seconds = until - batch.from;
        let ends = batch.ends[timeout as usize];
        let lane = lane(timeout);
        let due = |open, lane| self.due(timeout, open, batch.from, until, lane);
        let tried = lane.is_some().then(|| Kind::TRIED.map(|open| self.came(&due(open, lane))));
        let tried =
            tried.and_then(|tried| tried.iter().all(Option::is_some).then(|| tried.map(Option::unwrap_or_default)));
        let due = due(self.kinds[timeout as usize].open(), None);
        let all: f64 = due.iter().map(|due| due.came).sum();
        for one in &due {
            // Where nothing is left the older ones pay, see `take`.
            let part = if all > 0.0 { one.came / all } else { 1.0 / due.len() as f64 };
            self.arrivals.take(one.from, one.to, part * ends, lane);
        }
        let a_second = |entries: f64| entries / seconds;
        let (due, tried) = (self.came(&due).map(a_second), tried.map(|tried| tried.map(a_second)));
        let interval = Duration::from_secs_f64(seconds);
        self.kinds[timeout as usize].add(interval, a_second(batch.inserts), a_second(ends), due, tried);
    }

    /// What this timeout was due for in that span, if its entries stayed open for so long. Those that it ended already
    /// count as left if they were kept apart in this lane.
    fn due(&self, timeout: Timeout, open: f64, from: f64, until: f64, lane: Lane) -> Vec<Due> {
        let spans = self.eras.came_for(timeout, open, from, until).into_iter();
        let due = spans.map(|Span { era, from, to }| {
            let left = self.arrivals.left(from, to, lane);
            Due { from, to, came: left / (1.0 - self.ended_before(timeout, open, era)).max(LEAST) }
        });
        due.collect()
    }

    /// All of them, if all is known.
    fn came(&self, due: &[Due]) -> Option<f64> {
        let since = self.arrivals.since().unwrap_or(self.now);
        due.iter().all(|due| due.from >= since).then(|| due.iter().map(|due| due.came).sum())
    }

    /// The share of what came in this era that other timeouts end before this one does.
    fn ended_before(&self, timeout: Timeout, open: f64, era: &Era) -> f64 {
        let stays = era.seconds(timeout) + open;
        let sooner = |ending: &&Ending| {
            let other = era.seconds(ending.timeout) + self.kinds[ending.timeout as usize].open();
            // As in `by_end`.
            other < stays || other <= stays && ending.timeout < timeout
        };
        let others = self.order.iter().filter(|ending| ending.timeout != timeout);
        others.filter(sooner).map(|ending| ending.share).sum()
    }

    /// All kinds, in the order in which a cohort comes to their ends.
    fn by_end(&self) -> [Timeout; ALL] {
        let (in_force, mut order) = (self.eras.in_force(), Timeout::ALL);
        let stays = |timeout: Timeout| in_force[timeout as usize] + self.kinds[timeout as usize].open();
        order.sort_by(|a, b| stays(*a).total_cmp(&stays(*b)));
        order
    }

    fn endings(&self) -> Vec<Ending> {
        let found = |timeout: Timeout| self.found[timeout as usize];
        let known = |timeout: &Timeout| self.kinds[*timeout as usize].is_known() || found(*timeout) > 0.0;
        // What is there is known before the first of it ends: what was learnt of earlier ends has the rest.
        let all_found: f64 = self.found.iter().sum();
        let looked = all_found > 0.0;
        let mut rest = (1.0 - all_found).max(0.0);
        let endings = self.by_end().into_iter().filter(known).map(|timeout| {
            let found = found(timeout) / all_found.max(1.0);
            // What does not stay open first would have been found.
            let would_be_found = lane(timeout).is_none() && !self.passing[timeout as usize];
            let hidden = if looked && would_be_found { 0.0 } else { rest };
            let more = (self.kinds[timeout as usize].share(0.0) - found).clamp(0.0, hidden);
            rest -= more;
            Ending { timeout, share: found + more }
        });
        endings.collect()
    }

    /// Whether new entries have come at the present rate for long enough to act on it.
    pub(super) fn rate_has_held(&self) -> bool {
        self.pace.has_held()
    }

    /// Entries that end by this timeout, a second.
    pub(super) fn ends(&self, timeout: Timeout) -> f64 {
        self.kinds[timeout as usize].ends()
    }

    /// Entries whose time has run out and that were not freed yet.
    pub(super) fn dead(&self) -> f64 {
        self.ahead.dead
    }

    /// Entries there that this timeout will end.
    pub(super) fn held(&self, timeout: Timeout) -> f64 {
        self.ahead.held[timeout as usize]
    }

    /// Entries that came within the time of this timeout; `None` when that is longer than anything is known.
    pub(super) fn came_within(&self, timeout: Timeout) -> Option<f64> {
        let since = self.arrivals.since()?;
        let from = self.now - self.eras.in_force()[timeout as usize];
        let came = self.arrivals.cohorts().filter(|cohort| cohort.from >= from).map(|cohort| cohort.came);
        (since <= from).then(|| came.sum())
    }

    /// Entries at which the count would settle if they went on coming as they do; `None` as long as it is not known how most
    /// of them end.
    pub(super) fn steady(&self) -> Option<f64> {
        let accounted: f64 = self.order.iter().map(|ending| ending.share).sum();
        if accounted < ACCOUNTED {
            return None;
        }
        let (rate, in_force) = (self.pace.rate(), self.eras.in_force());
        let mut mean = Mean::default();
        let stays = self.order.iter().map(|ending| {
            let (open, timeout) = (self.kinds[ending.timeout as usize].open(), in_force[ending.timeout as usize]);
            mean.add_new(ending.share * rate, open + timeout, open, timeout);
            ending.share * (open + timeout)
        });
        let live = rate * stays.sum::<f64>();
        let reaping = self.sweeps.reaping(self.now, 0.0, self.table.buckets, mean.interval());
        Some(live + rate * reaping.lingering(rate, mean.interval()))
    }
}

/// The kinds whose entries may stay open for long before their timeout runs: it is learnt for how long.
fn lane(timeout: Timeout) -> Lane {
    [Timeout::TcpTimeWait, Timeout::TcpClose, Timeout::UdpStream].iter().position(|kind| *kind == timeout)
}

#[cfg(test)]
mod tests;
