//! From what is left of each cohort to what is expected of the table.

use super::{ALL, Cohorts, LEAST};
use crate::model::arrivals::Cohort;
use crate::model::correction::Flows;
use crate::model::ends::PerTimeout;
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

impl Cohorts {
    /// Goes through what is left of each cohort: by which timeout, in how many seconds, how many will expire; those that
    /// have expired and were not freed when the batch began have less than 0 to go. What came before all memory expires
    /// as it does now, until all of it has that this timeout can end.
    fn each_end(&self, mut end: impl FnMut(Timeout, f64, f64)) {
        let freed_at = self.batch.from - self.now;
        let mut after = [0.0; ALL];
        for cohort in self.arrivals.cohorts() {
            // Those of the kinds that have ended are gone, so what is left is of the others.
            let mut others = 1.0;
            for (after, ending) in after.iter_mut().zip(&self.order) {
                *after = self.time_left(cohort, ending.timeout);
                others -= if *after <= freed_at { ending.share } else { 0.0 };
            }
            for (after, ending) in after.iter().zip(&self.order).filter(|(after, _)| **after > freed_at) {
                end(ending.timeout, *after, cohort.left * (ending.share / others.max(LEAST)).min(1.0));
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

    /// Seconds until the middle of a cohort comes to this end.
    fn time_left(&self, cohort: &Cohort, timeout: Timeout) -> f64 {
        let quiet = f64::midpoint(cohort.from, cohort.to) + self.kinds[timeout as usize].open();
        quiet + self.eras.seconds_at(quiet, timeout) - self.now
    }

    pub(super) fn look_ahead(&self) -> Ahead {
        let (mut held, mut until, mut expired) = ([0.0; ALL], [0.0; AFTER.len()], 0.0);
        self.each_end(|timeout, after, entries| {
            held[timeout as usize] += entries;
            if after <= 0.0 {
                expired += entries;
            } else if let Some(ends) = until.get_mut(AFTER.partition_point(|point| *point < after)) {
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
