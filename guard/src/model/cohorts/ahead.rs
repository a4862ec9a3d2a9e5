//! From what is left of each cohort to what is expected of the table.

use super::{ALL, Cohorts, Ending, LEAST};
use crate::model::correction::Flows;
use crate::model::ends::PerTimeout;
use crate::model::eras::OverTime;
use crate::model::outlook::{AFTER, Outlook, ended};
use crate::observe::Timeout;

/// The ends of the entries that are there.
#[derive(Clone, Debug, Default)]
pub(super) struct Ahead {
    /// Until [`AFTER`].
    pub(super) until: [f64; AFTER.len()],
    /// In all, by what ends them.
    pub(super) held: PerTimeout,
    /// Those whose time has run out, not freed yet.
    pub(super) dead: f64,
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
    /// Goes through what is left of each cohort: by which timeout, in how many seconds, how many will expire; those that
    /// have expired and were not freed when the batch began have less than 0 to go. What came before all memory expires
    /// as it does now, until all of it has that this timeout can end.
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
                end(ending.timeout, *after, cohort.left * (ending.share / others).min(1.0));
            }
        }
        let known_for = self.now - self.arrivals.since().unwrap_or(self.now);
        let in_force = self.eras.in_force();
        for ending in &self.order {
            let kind = &self.kinds[ending.timeout as usize];
            let unknown = in_force[ending.timeout as usize] + kind.open() - known_for;
            if unknown > freed_at {
                end(ending.timeout, freed_at / 2.0, unknown.min(0.0) * kind.ends() - freed_at * kind.ends());
            }
            let mut from = 0.0;
            for to in AFTER {
                let seconds = to.min(unknown) - from;
                if seconds > 0.0 {
                    end(ending.timeout, f64::midpoint(from, to.min(unknown)), seconds * kind.ends());
                }
                from = to;
            }
            if unknown > from {
                end(ending.timeout, unknown, (unknown - from) * kind.ends());
            }
        }
    }

    pub(super) fn look_ahead(&self) -> Ahead {
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
        Ahead { until: self.sweeps.freed(self.now, dead, &until), held, dead }
    }

    /// What is expected to come and to end within so many seconds, uncorrected.
    pub(super) fn expected(&self, seconds: f64) -> Flows {
        let (inserts, in_force) = (self.pace.rate(), self.eras.in_force());
        let new_ends = self.order.iter().map(|ending| {
            let stays = in_force[ending.timeout as usize] + self.open(ending.timeout);
            ending.share * inserts * (seconds - stays).max(0.0)
        });
        Flows { inserts: inserts * seconds, ends: ended(&self.ahead.until, seconds) + new_ends.sum::<f64>() }
    }

    /// What is expected of a table with so many entries.
    pub(in crate::model) fn outlook(&self, count: u64) -> Outlook {
        let mut shares = [0.0; ALL];
        for ending in &self.order {
            shares[ending.timeout as usize] = ending.share;
        }
        let horizon = self.correction.horizon();
        Outlook {
            count: count as f64,
            inserts: self.pace.rate(),
            ends: self.ahead.until,
            shares,
            open: Timeout::ALL.map(|timeout| self.kinds[timeout as usize].open()),
            lingering: self.sweeps.lingering(self.now),
            in_force: self.eras.in_force(),
            drift: 0.0,
            correction: self.correction.of(self.expected(horizon)),
            horizon,
        }
    }
}
