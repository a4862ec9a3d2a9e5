//! The table from now on, step by step: what comes, what runs out, and what of that is freed when.

use super::outlook::{AFTER, Outlook, ended};
use super::reaping::{Old, Reaping};
use super::sweeps::FREED_A_SECOND;
use crate::observe::{Timeout, Timeouts};

const ALL: usize = Timeout::ALL.len();

/// Steps of a table with room, and of one that has none: what is admitted at each moment then hangs on what was before.
/// And the shortest of them, seconds.
const STEPS: f64 = 12.0;
const STEPS_IF_FULL: f64 = 64.0;
const SHORTEST: f64 = 0.25;
/// After so many sweeps the next ones are as far apart as the last: how far hardly changes any more, and they are many.
const PLANNED: u32 = 4;
/// In a step with more sweeps than this, what runs out in it is freed in it.
const SWEEPS: u32 = 64;

/// The course that one outlook takes under some timeouts and one max.
pub(super) struct Course<'a> {
    outlook: &'a Outlook,
    /// Those of which some come, and how many these are.
    kinds: [New; ALL],
    known: usize,
    max: f64,
}

/// New entries of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct New {
    share: f64,
    open: f64,
    timeout: f64,
}

impl<'a> Course<'a> {
    /// A timeout that is not among these stays as it is; an infinite `max` is none.
    pub(super) fn new(outlook: &'a Outlook, timeouts: &Timeouts, max: f64) -> Self {
        let (mut kinds, mut known) = ([New::default(); ALL], 0);
        for (index, share) in outlook.shares.iter().enumerate().filter(|(_, share)| **share > 0.0) {
            let seconds = timeouts.get(&Timeout::ALL[index]).map(|seconds| *seconds as f64);
            let timeout = seconds.unwrap_or(outlook.in_force[index]);
            kinds[known] = New { share: *share, open: outlook.open[index], timeout };
            known += 1;
        }
        Self { outlook, kinds, known, max }
    }

    /// Entries after so many seconds, and the most that there are until then.
    pub(super) fn run(&self, after: f64) -> (f64, f64) {
        let Outlook { count, drift, .. } = *self.outlook;
        let mut reaping = self.outlook.reaping;
        let limited = self.max.is_finite();
        let step = (after / if limited { STEPS_IF_FULL } else { STEPS }).max(SHORTEST);
        let mut came = Came { offered: self.offered(), step, admitted: limited.then(|| vec![0.0]) };
        let (mut planned, mut interval, mut known_old) = (0, 0.0, None);
        let (mut from, mut all, mut run_out, mut old, mut most) = (0.0, count, 0.0, 0.0, count);
        while from < after - 1e-9 {
            let to = (from + step).min(after);
            let seconds = to - from;
            let offered = self.offered() * seconds;
            let old_until_now = ended(&self.outlook.ends, to);
            let until_now = self.run_out(&came, to).max(run_out);
            let expired = old_until_now - old + until_now - run_out;
            (old, run_out) = (old_until_now, until_now);
            let freed = reaping.pass(from, to, expired, self.offered(), |at| {
                if planned < PLANNED {
                    let old = known_old.get_or_insert_with(|| self.old());
                    (planned, interval) = (planned + 1, self.planned(old, at));
                }
                interval
            });
            let at_most = self.max.max(all);
            all = (all + drift * seconds - freed).min(at_most);
            let room = (self.max - all).max(0.0);
            // Who finds the table full takes the places of those whose time has run out.
            let in_place = (offered - room).clamp(0.0, reaping.dead.max(0.0));
            reaping.dead -= in_place;
            let admitted = offered.min(room + in_place);
            // Of the largest numbers the last digits are lost.
            all = (all + admitted - in_place).min(at_most);
            came.admit(admitted);
            most = most.max(all);
            from = to;
        }
        (all, most)
    }

    fn offered(&self) -> f64 {
        self.outlook.inserts + self.outlook.refused
    }

    fn kinds(&self) -> impl Iterator<Item = &New> {
        self.kinds.iter().take(self.known)
    }

    /// Of the new ones, those whose time has run out at `at`.
    fn run_out(&self, came: &Came, at: f64) -> f64 {
        self.kinds().map(|kind| kind.share * came.until(at - kind.open - kind.timeout)).sum()
    }

    /// Those that are there now.
    fn old(&self) -> Old<'a> {
        let Outlook { count, ref ends, ref reaping, .. } = *self.outlook;
        Old::new(ends, (count - reaping.dead - ends[AFTER.len() - 1]).max(0.0))
    }

    /// Seconds after which `gc_worker` sweeps again, as it plans by the time that entries have left after so many.
    fn planned(&self, old: &Old<'_>, at: f64) -> f64 {
        let rate = self.offered();
        let mut mean = old.mean(at);
        let mut known = 0.0;
        for kind in self.kinds() {
            known += kind.share;
            mean.add_new(kind.share * rate, at, kind.open, kind.timeout);
        }
        mean.add_new((1.0 - known).max(0.0) * rate, at, 0.0, f64::INFINITY);
        mean.interval()
    }
}

/// How many new ones came until when.
struct Came {
    /// A second.
    offered: f64,
    step: f64,
    /// By the end of each step, where not all are admitted.
    admitted: Option<Vec<f64>>,
}

impl Came {
    fn admit(&mut self, entries: f64) {
        if let Some(admitted) = &mut self.admitted {
            admitted.push(admitted.last().copied().unwrap_or_default() + entries);
        }
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the number of steps")]
    fn until(&self, at: f64) -> f64 {
        if at <= 0.0 {
            return 0.0;
        }
        let Some(admitted) = &self.admitted else { return self.offered * at };
        let index = (at / self.step) as usize;
        if let (Some(before), Some(behind)) = (admitted.get(index), admitted.get(index + 1)) {
            return before + (behind - before) * (at / self.step).fract();
        }
        // In the step that is being worked out.
        let last = admitted.len() - 1;
        admitted[last] + self.offered * (at - last as f64 * self.step).max(0.0)
    }
}

impl Reaping {
    /// Nothing is known to linger: what runs out goes at once.
    fn goes_at_once(&self) -> bool {
        self.next.is_none()
    }

    /// From `from` to `to` so many run out, while so many new flows come a second. Answers with how many are freed.
    fn pass(&mut self, from: f64, to: f64, runs_out: f64, flows: f64, mut interval: impl FnMut(f64) -> f64) -> f64 {
        if self.goes_at_once() {
            let freed = self.dead + runs_out;
            self.dead = 0.0;
            return freed;
        }
        let (mut from, rate) = (from, runs_out / (to - from));
        let (mut freed, mut sweeps) = (0.0, 0);
        while let Some(sweep) = self.next.filter(|next| *next < to) {
            let sweep = sweep.max(from);
            sweeps += 1;
            if sweeps > SWEEPS {
                freed += self.dead + rate * (to - from);
                (self.dead, self.next) = (0.0, Some(to));
                return freed;
            }
            freed += self.meet(sweep - from, rate, flows);
            // Where more has run out than it may free until the next one, the rest stays.
            let gap = (interval(sweep) * self.ratio).max(1.0);
            let swept = self.dead.min(FREED_A_SECOND * gap);
            self.dead -= swept;
            freed += swept;
            from = sweep;
            self.next = Some(sweep + gap);
        }
        freed + self.meet(to - from, rate, flows)
    }

    /// What lookups meet: each meets the same share of what is there.
    fn meet(&mut self, seconds: f64, rate: f64, flows: f64) -> f64 {
        let met = self.met * flows;
        let before = self.dead + rate * seconds;
        let stays = (-met * seconds).exp();
        let mean = if met * seconds < 1e-6 { 1.0 } else { (1.0 - stays) / (met * seconds) };
        self.dead = self.dead * stays + rate * seconds * mean;
        before - self.dead
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// 1,300 entries, of which 100 have run out and ten more do each second for a minute; a sweep in 20 s.
    fn swept() -> Outlook {
        let reaping = Reaping { dead: 100.0, met: 0.0, next: Some(20.0), ratio: 1.0 };
        Outlook { count: 1_300.0, ends: AFTER.map(|after| 10.0 * after.min(60.0)), reaping, ..Outlook::default() }
    }

    fn after(outlook: &Outlook, seconds: u64, max: u64) -> u64 {
        outlook.count(Duration::from_secs(seconds), &Timeouts::new(), max)
    }

    #[test]
    fn what_has_run_out_is_freed_by_the_next_sweep() {
        let outlook = swept();
        assert_eq!([0, 15, 19].map(|seconds| after(&outlook, seconds, 0)), [1_300; 3]);
        let then = after(&outlook, 21, 0);
        assert!(then.abs_diff(1_000) <= 10, "{then}");
    }

    #[test]
    fn no_sweep_frees_more_than_it_may() {
        let mut outlook = swept();
        outlook.reaping.dead = 1e7;
        outlook.count = 2e7;
        let freed = 20_000_000 - after(&outlook, 22, 0);
        // 60 s until the next sweep, at most.
        assert!((64_000..=60 * 64_000).contains(&freed), "{freed}");
    }

    #[test]
    fn lookups_meet_it_sooner() {
        let mut outlook = swept();
        (outlook.reaping.met, outlook.inserts) = (0.01, 100.0);
        // One a second meets 63 % of it.
        let then = after(&outlook, 10, 0);
        assert!(then.abs_diff(1_300 - 190 + 1_000) <= 10, "{then}");
    }

    #[test]
    fn who_finds_the_table_full_is_not_there_later() {
        let mut outlook = Outlook { count: 1_000.0, inserts: 60.0, refused: 40.0, ..Outlook::default() };
        outlook.ends = AFTER.map(|after| 10.0 * after.min(100.0));
        outlook.shares[Timeout::Udp as usize] = 1.0;
        outlook.in_force[Timeout::Udp as usize] = 30.0;
        // What is there goes at 10 a second, so as many come in; from 30 s on they go too.
        assert_eq!(after(&outlook, 20, 1_000), 1_000);
        assert!(after(&outlook, 200, 0).abs_diff(3_000) <= 60, "all that is offered: {}", after(&outlook, 200, 0));
        assert_eq!(after(&outlook, 20, 500), 800, "nothing is let in above max");
    }
}
