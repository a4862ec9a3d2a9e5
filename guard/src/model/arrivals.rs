//! How many entries came when, and how many of them are left.

use std::collections::VecDeque;
use std::ops::Range;

/// Kept second by second for so long, seconds: the longest of the timeouts that end most entries, and then some.
const FINE_FOR: f64 = 600.0;
const FINE: f64 = 1.0;
/// Beyond that, in steps of so many seconds.
const COARSE: f64 = 30.0;
/// The oldest, seconds: 3 h. What lives longer is an open connection, and those end when they like.
const KEPT: f64 = 10_800.0;

/// What ended is kept apart by so many of the kinds of entries ([`Lane`]).
pub(super) const LANES: usize = 3;

/// A kind whose ends are kept apart.
pub(super) type Lane = Option<usize>;

/// The entries that came in the last hours, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrivals {
    coarse: VecDeque<Cohort>,
    fine: VecDeque<Cohort>,
}

/// Entries that came in one span of time, seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cohort {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) came: f64,
    pub(super) left: f64,
    /// Of those gone, the ones of each lane.
    gone: [f64; LANES],
}

impl Cohort {
    /// The part of it that came in that span.
    fn overlap(&self, from: f64, to: f64) -> f64 {
        if self.to <= self.from {
            return 0.0;
        }
        ((self.to.min(to) - self.from.max(from)) / (self.to - self.from)).max(0.0)
    }

    /// Takes in the one that came after it.
    fn join(&mut self, next: &Self) {
        self.to = next.to;
        self.came += next.came;
        self.left += next.left;
        for (all, gone) in self.gone.iter_mut().zip(next.gone) {
            *all += gone;
        }
    }

    fn take(&mut self, entries: f64, lane: Lane) {
        self.left -= entries;
        if let Some(gone) = lane.and_then(|lane| self.gone.get_mut(lane)) {
            *gone += entries;
        }
    }
}

impl Arrivals {
    /// So many came in a span that begins where the last one ended.
    pub(super) fn add(&mut self, from: f64, to: f64, came: f64) {
        let new = Cohort { from, to, came, left: came, gone: [0.0; LANES] };
        match self.fine.back_mut() {
            Some(last) if last.to - last.from < FINE => last.join(&new),
            _ => self.fine.push_back(new),
        }
        while let Some(old) = self.fine.pop_front_if(|cohort| to - cohort.to > FINE_FOR) {
            match self.coarse.back_mut() {
                Some(last) if last.to - last.from < COARSE => last.join(&old),
                _ => self.coarse.push_back(old),
            }
        }
        while self.coarse.pop_front_if(|cohort| to - cohort.to > KEPT).is_some() {}
    }

    /// From when on arrivals are known; `None` before the first.
    pub(super) fn since(&self) -> Option<f64> {
        self.coarse.front().or(self.fine.front()).map(|cohort| cohort.from)
    }

    /// All of them.
    pub(super) fn cohorts(&self) -> impl DoubleEndedIterator<Item = &Cohort> {
        self.coarse.iter().chain(&self.fine)
    }

    /// How many of those that came in that span are left; with a lane, or ended in it.
    pub(super) fn left(&self, from: f64, to: f64, lane: Lane) -> f64 {
        let gone = |cohort: &Cohort| lane.and_then(|lane| cohort.gone.get(lane)).copied().unwrap_or_default();
        let within = |cohorts| VecDeque::range(cohorts, range(cohorts, from, to));
        let all = within(&self.coarse).chain(within(&self.fine));
        all.map(|cohort| cohort.overlap(from, to) * (cohort.left + gone(cohort))).sum()
    }

    /// So many of those that came in that span are gone. What is more than are left of them had come before: it stayed
    /// open for longer.
    pub(super) fn take(&mut self, from: f64, to: f64, gone: f64, lane: Lane) {
        let left = self.left(from, to, None);
        let share = if left > 0.0 { (gone / left).min(1.0) } else { 0.0 };
        for cohorts in [&mut self.coarse, &mut self.fine] {
            for cohort in cohorts.range_mut(range(cohorts, from, to)) {
                cohort.take(share * cohort.overlap(from, to) * cohort.left, lane);
            }
        }
        let mut rest = gone - left;
        if rest <= 0.0 {
            return;
        }
        let older = self.fine.iter_mut().rev().chain(self.coarse.iter_mut().rev()).filter(|cohort| cohort.to <= from);
        for cohort in older {
            let taken = cohort.left.min(rest);
            cohort.take(taken, lane);
            rest -= taken;
            if rest <= 0.0 {
                return;
            }
        }
    }

    /// So many are gone, of any age: evicted, or deleted.
    pub(super) fn thin(&mut self, gone: f64) {
        let left: f64 = self.cohorts().map(|cohort| cohort.left).sum();
        if gone <= 0.0 && left > 0.0 {
            return;
        }
        let share = if left > gone { 1.0 - gone / left } else { 0.0 };
        for cohort in self.coarse.iter_mut().chain(&mut self.fine) {
            cohort.left *= share;
        }
    }
}

/// Where those are that have a part in that span.
fn range(cohorts: &VecDeque<Cohort>, from: f64, to: f64) -> Range<usize> {
    let first = cohorts.partition_point(|cohort| cohort.to <= from);
    first..cohorts.partition_point(|cohort| cohort.from < to).max(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `rate` inserts a second, read four times a second.
    fn fill(arrivals: &mut Arrivals, from: f64, seconds: u32, rate: f64) {
        for quarter in 0..4 * seconds {
            let at = from + f64::from(quarter) / 4.0;
            arrivals.add(at, at + 0.25, rate / 4.0);
        }
    }

    fn close(found: f64, expected: f64) -> bool {
        (found - expected).abs() < 1e-6 * expected.max(1.0)
    }

    #[test]
    fn what_came_is_found_again_at_any_edge() {
        let mut arrivals = Arrivals::default();
        fill(&mut arrivals, 100.0, 60, 10.0);
        fill(&mut arrivals, 160.0, 60, 1_000.0);
        for (from, to, came) in [
            (100.0, 160.0, 600.0),
            (159.0, 160.5, 510.0),
            (219.9, 220.0, 100.0),
            (220.0, 230.0, 0.0),
            (90.0, 101.0, 10.0),
            (20.0, 10.0, 0.0),
        ] {
            let found = arrivals.left(from, to, None);
            assert!(close(found, came), "{from} to {to}: {found}");
        }
        assert_eq!((arrivals.since(), Arrivals::default().since()), (Some(100.0), None));
    }

    #[test]
    fn what_is_taken_is_gone_from_there_and_then_from_before() {
        let mut arrivals = Arrivals::default();
        fill(&mut arrivals, 0.0, 10, 100.0);
        arrivals.take(5.0, 6.0, 60.0, Some(1));
        assert!(close(arrivals.left(5.0, 6.0, None), 40.0));
        arrivals.take(5.0, 6.0, 190.0, None);
        assert!(close(arrivals.left(5.0, 6.0, None), 0.0));
        assert!(close(arrivals.left(3.0, 5.0, None), 50.0), "{arrivals:?}");
        assert!(close(arrivals.left(5.0, 6.0, Some(1)), 60.0) && close(arrivals.left(3.0, 6.0, Some(0)), 50.0));
        arrivals.take(5.0, 6.0, 1e9, None);
        assert!(close(arrivals.left(0.0, 10.0, None), 400.0), "what came later is not touched");
        arrivals.thin(100.0);
        assert!(close(arrivals.left(0.0, 10.0, None), 300.0));
        arrivals.thin(1e9);
        assert!(close(arrivals.left(0.0, 10.0, None), 0.0));
    }

    #[test]
    fn the_memory_is_bounded_and_loses_nothing_younger() {
        let mut arrivals = Arrivals::default();
        fill(&mut arrivals, 0.0, 20_000, 10.0);
        let cohorts = arrivals.cohorts().count();
        assert!(cohorts * size_of::<Cohort>() < 60_000, "{cohorts} cohorts");
        for (from, to) in [(10_000.0, 20_000.0), (15_000.0, 15_007.0), (19_395.0, 19_405.0)] {
            let found = arrivals.left(from, to, None);
            assert!(close(found, 10.0 * (to - from)), "{from} to {to}: {found}");
        }
        assert!(arrivals.since().unwrap() > 9_000.0);
    }
}
