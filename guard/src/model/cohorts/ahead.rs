//! From what is left of each cohort to what is expected of the table.

use super::{ALL, Cohorts, Ending, LEAST};
use crate::model::correction::Flows;
use crate::model::course::Course;
use crate::model::ends::PerTimeout;
use crate::model::eras::OverTime;
use crate::model::outlook::{AFTER, Outlook};
use crate::model::reaping::Old;
use crate::observe::{Timeout, Timeouts};

/// The ends of the entries that are there.
#[derive(Clone, Debug, Default)]
pub(super) struct Ahead {
    /// Those whose time will have run out at [`AFTER`].
    pub(super) until: [f64; AFTER.len()],
    /// In all, by what ends them.
    pub(super) held: PerTimeout,
    /// Those whose time has run out, not freed yet.
    pub(super) dead: f64,
    /// How many seconds after the last sweep `gc_worker` planned the next one; after a sweep now, where none was seen.
    pub(super) planned: f64,
    /// When that sweep began.
    pub(super) swept: Option<f64>,
    /// What it would plan now, before a census was asked.
    pub(super) would_plan: f64,
}

/// The way of one cohort after the other, oldest first, to one end.
struct Way<'a> {
    ending: Ending,
    /// Seconds from start to last packet.
    open: f64,
    timeout: OverTime<'a>,
    /// Seconds until the middle of the cohort comes to the end.
    after: f64,
}

impl<'a> Way<'a> {
    fn new(cohorts: &'a Cohorts, ending: Ending) -> Self {
        let open = cohorts.kinds[ending.timeout as usize].open();
        Self { ending, open, timeout: cohorts.eras.over_time(ending.timeout), after: 0.0 }
    }

    fn follow(&mut self, middle: f64, now: f64) {
        let quiet = middle + self.open;
        self.after = quiet + self.timeout.seconds_at(quiet) - now;
    }
}

impl Cohorts {
    /// Goes through what is left of each cohort: by which timeout, in how many seconds, how many will expire; those
    /// that have expired and were not freed when the batch began have less than 0 to go. What came before all memory
    /// expires as it does now, until all of it has that this timeout can end.
    fn each_end(&self, mut end: impl FnMut(Timeout, f64, f64)) {
        let freed_at = self.batch.from - self.now;
        let mut ways: Vec<Way<'_>> = self.order.iter().map(|ending| Way::new(self, *ending)).collect();
        for cohort in self.arrivals.cohorts() {
            // Those of the kinds that have ended are gone, so what is left is of the others.
            let mut others = 1.0;
            let middle = f64::midpoint(cohort.from, cohort.to);
            for way in &mut ways {
                way.follow(middle, self.now);
                others -= if way.after <= freed_at { way.ending.share } else { 0.0 };
            }
            let others = others.max(LEAST);
            for Way { ending, after, .. } in ways.iter().filter(|way| way.after > freed_at) {
                let entries = cohort.left * (ending.share / others).min(1.0);
                end(ending.timeout, *after, entries);
            }
        }
        let known_for = self.now - self.arrivals.since().unwrap_or(self.now);
        let in_force = self.eras.in_force();
        for ending in &self.order {
            let kind = &self.kinds[ending.timeout as usize];
            let unknown = in_force[ending.timeout as usize] + kind.open() - known_for;
            if unknown > freed_at {
                let entries = unknown.min(0.0) * kind.ends() - freed_at * kind.ends();
                end(ending.timeout, freed_at / 2.0, entries);
            }
            let mut from = 0.0;
            for to in AFTER {
                let seconds = to.min(unknown) - from;
                if seconds > 0.0 {
                    let middle = f64::midpoint(from, to.min(unknown));
                    end(ending.timeout, middle, seconds * kind.ends());
                }
                from = to;
            }
            if unknown > from {
                end(ending.timeout, unknown, (unknown - from) * kind.ends());
            }
        }
    }

    pub(super) fn look_ahead(&self, count: u64) -> Ahead {
        let (mut held, mut until, mut expired) = ([0.0; ALL], [0.0; AFTER.len()], 0.0);
        // Of one timeout, one end comes soon after the other.
        let mut points = [0; ALL];
        self.each_end(|timeout, after, entries| {
            held[timeout as usize] += entries;
            if after <= 0.0 {
                expired += entries;
                return;
            }
            let point = &mut points[timeout as usize];
            while *point > 0 && AFTER[*point - 1] >= after {
                *point -= 1;
            }
            while AFTER.get(*point).is_some_and(|at| *at < after) {
                *point += 1;
            }
            if let Some(ends) = until.get_mut(*point) {
                *ends += entries;
            }
        });
        let mut all = 0.0;
        for ends in &mut until {
            all += *ends;
            *ends = all;
        }
        let dead = (expired - self.batch.ends.iter().sum::<f64>()).max(0.0);
        let lasting = (count as f64 - dead - all).max(0.0);
        // `gc_worker` plans the next sweep when it has done one.
        let swept = self.sweeps.last();
        let would_plan = Old::new(&until, lasting).mean(0.0).interval();
        let as_before = self.ahead.swept == swept && swept.is_some();
        let planned = if as_before { self.ahead.planned } else { would_plan * self.left_longer };
        Ahead { until, held, dead, planned, swept, would_plan }
    }

    /// What is expected to come and to end within so many seconds, uncorrected.
    pub(super) fn expected(&self, seconds: f64) -> Flows {
        let inserts = self.pace.rate() * seconds;
        // Who is refused does not come.
        let outlook = Outlook { refused: 0.0, ..self.uncorrected() };
        let (count, _) = Course::new(&outlook, &Timeouts::new(), f64::INFINITY).run(seconds);
        Flows { inserts, ends: (outlook.count + inserts - count).max(0.0) }
    }

    /// What is expected of a table with so many entries.
    pub(in crate::model) fn outlook(&self, count: u64) -> Outlook {
        let (correction, horizon) = (self.correction.of(self.expected), self.correction.horizon());
        Outlook { count: count as f64, correction, horizon, ..self.uncorrected() }
    }

    fn uncorrected(&self) -> Outlook {
        let mut shares = [0.0; ALL];
        for ending in &self.order {
            shares[ending.timeout as usize] = ending.share;
        }
        let Ahead { until, dead, planned, .. } = self.ahead;
        Outlook {
            count: self.table.count as f64,
            inserts: self.pace.rate(),
            refused: self.refused.mean().max(0.0),
            ends: until,
            shares,
            open: Timeout::ALL.map(|timeout| self.kinds[timeout as usize].open()),
            reaping: self.sweeps.reaping(self.now, dead, self.table.buckets, planned),
            in_force: self.eras.in_force(),
            drift: 0.0,
            correction: 0.0,
            horizon: 0.0,
        }
    }
}
