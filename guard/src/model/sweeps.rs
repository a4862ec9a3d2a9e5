//! When the kernel frees what has expired.
//!
//! An entry whose time has run out stays in the table, and in its count, until a lookup meets it or `gc_worker` sweeps the
//! table, every 1 to 60 s. On a quiet table most of what expires goes in those sweeps, so the count climbs for a minute
//! and then falls by a third: what came to its end in between is freed at once.

use std::time::Duration;

use super::average::Average;
use super::reaping::{Reaping, met};

/// Memory of how many entries are freed.
const MEMORY: Duration = Duration::from_mins(1);
/// A sweep frees so many times what is freed on average, and this share of the table.
const TIMES: f64 = 2.5;
const SHARE: f64 = 0.02;
/// Or as many as this share of what had run out.
const MOST: f64 = 0.5;
/// `GC_SCAN_EXPIRED_MAX` is 64000 / HZ in each jiffy.
pub(super) const FREED_A_SECOND: f64 = 64_000.0;
/// Sweeps that are further apart are no sweeps (`GC_SCAN_INTERVAL_MAX` is 60 s), or nothing expired in between; seconds.
const LONGEST: f64 = 75.0;
/// A tick is this long at most, seconds, where nothing holds it up.
const FIRST: f64 = 1.0;
/// Entries that are freed sooner than this after their time has run out, seconds on average, are freed at once.
const AT_ONCE: f64 = 1.0;
/// By this share of the time between two the second may be late.
const LATE: f64 = 0.1;
/// Sweeps may come so many times sooner or later than `gc_worker` of Linux 5.19 plans them: older kernels plan otherwise.
const RATIO: (f64, f64) = (0.25, 4.0);
/// That is learnt over so many sweeps, and within this of what is planned it is as planned.
const LEARNT: f64 = 8.0;
const AS_PLANNED: (f64, f64) = (0.67, 1.5);

/// What an interval shows of a sweep.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Swept {
    /// Entries freed because their time had run out.
    pub(super) freed: f64,
    /// Entries there before.
    pub(super) count: f64,
    /// Those of them whose time had run out.
    pub(super) dead: f64,
    /// As many of these as lookups meet.
    pub(super) met: f64,
    /// So many seconds after the last sweep `gc_worker` planned the next one.
    pub(super) planned: f64,
}

/// The sweeps seen.
#[derive(Clone, Debug)]
pub(super) struct Sweeps {
    /// Entries freed a second.
    usual: Average,
    /// How many were there to be freed, between sweeps.
    dead: Average,
    /// When the last one began.
    last: Option<f64>,
    /// How much later or sooner they come than planned.
    ratio: f64,
    /// Since when one is under way, and what it freed so far.
    sweeping: Option<(f64, f64)>,
}

impl Sweeps {
    pub(super) fn new() -> Self {
        let average = Average::new(MEMORY);
        Self { usual: average, dead: average, last: None, ratio: 1.0, sweeping: None }
    }

    /// Takes in what was freed in an interval that ended now. Answers with whether a sweep, or what looked like one, ended
    /// with the interval before.
    pub(super) fn add(&mut self, now: f64, interval: Duration, table: &Swept) -> bool {
        let &Swept { freed, count, dead, met, planned } = table;
        let seconds = interval.as_secs_f64();
        let usual = self.usual.mean();
        let expected = (usual * seconds).max(met);
        let many =
            freed > TIMES * expected + 5.0 * expected.max(1.0).sqrt() && (freed > SHARE * count || freed > MOST * dead);
        let possible = freed <= (usual + FREED_A_SECOND) * seconds.max(1.0);
        let (began, so_far) = self.sweeping.unwrap_or((now - seconds, 0.0));
        self.usual.add(freed / seconds, interval);
        if many && possible && self.usual.seen() > 0.1 {
            self.sweeping = Some((began, so_far + freed));
            if now - began <= 2.0 * (so_far + freed) / FREED_A_SECOND + 3.0 {
                return false;
            }
            // What goes on for longer than a sweep could is none: more entries end than before.
            (self.usual, self.sweeping) = (Average::new(MEMORY), None);
            return !self.are_seen(now);
        } else if self.sweeping.is_some() && freed < expected {
            // It began in the first interval in which it freed anything, and the next one is planned from there.
            let at = f64::midpoint(began, (began + FIRST).min(now - seconds));
            if let Some(gap) = self.last.map(|last| at - last).filter(|gap| *gap <= LONGEST) {
                let ratio = (gap / planned.max(1.0)).clamp(RATIO.0, RATIO.1);
                self.ratio += (ratio - self.ratio) / LEARNT;
            }
            self.last = Some(at);
        } else if self.sweeping.is_none() {
            self.dead.add(dead, interval);
        }
        self.sweeping.take().is_some()
    }

    /// Whether one is under way.
    pub(super) fn under_way(&self) -> bool {
        self.sweeping.is_some()
    }

    /// When the last one began.
    pub(super) fn last(&self) -> Option<f64> {
        self.last
    }

    /// Whether they come regularly.
    pub(super) fn are_seen(&self, now: f64) -> bool {
        self.last.is_some_and(|last| now - last <= LONGEST)
    }

    /// What frees the `dead`, in a table of so many buckets in which the next sweep was planned `planned` seconds after the
    /// last.
    pub(super) fn reaping(&self, now: f64, dead: f64, buckets: u64, planned: f64) -> Reaping {
        let lingers = self.are_seen(now) || self.dead.mean() > AT_ONCE * self.usual.mean().max(1.0);
        let as_planned = (AS_PLANNED.0..AS_PLANNED.1).contains(&self.ratio);
        let ratio = if as_planned { 1.0 } else { self.ratio };
        let each = (planned * ratio).max(1.0);
        let next = match self.last {
            Some(last) => {
                let next = last + each - now;
                // A sweep takes its time. One that stays away frees so little that it is not seen.
                if next < -LATE * each { next.rem_euclid(each) } else { next.max(0.0) }
            }
            None => each / 2.0,
        };
        Reaping { dead, met: met(buckets), next: lingers.then_some(next), ratio }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn table(freed: f64, count: f64, dead: f64, planned: f64) -> Swept {
        Swept { freed, count, dead, met: 0.0, planned }
    }

    /// Ten expire each second, and are freed every 30 s, planned so far apart; then `quiet` seconds more.
    fn swept(planned: f64, quiet: u32) -> (Sweeps, f64) {
        let (mut sweeps, mut now, mut dead) = (Sweeps::new(), 0.0, 0.0);
        let mut ended = 0;
        for second in 1..=120 + quiet {
            (now, dead) = (f64::from(second), dead + 10.0);
            let before = dead;
            let freed = if second % 30 == 0 { std::mem::take(&mut dead) } else { 0.0 };
            ended += u32::from(sweeps.add(now, SECOND, &table(freed, 1_000.0, before, planned)));
        }
        assert!((3..=4).contains(&ended), "{ended}");
        (sweeps, now)
    }

    #[test]
    fn the_next_sweep_comes_when_it_was_planned() {
        let (sweeps, now) = swept(30.0, 10);
        let reaping = sweeps.reaping(now, 100.0, 1_000, 30.0);
        assert_eq!((reaping.next, reaping.dead), (Some(19.5), 100.0));
        let sooner = sweeps.reaping(now, 100.0, 1_000, 15.0).next;
        assert_eq!(sooner, Some(4.5), "with less time left");
        assert_eq!(sweeps.reaping(now + 21.0, 100.0, 1_000, 30.0).next, Some(0.0), "a little late");
        assert_eq!(sweeps.reaping(now + 25.0, 100.0, 1_000, 30.0).next, Some(24.5), "it passed unseen");
    }

    #[test]
    fn a_kernel_that_plans_otherwise_is_learnt() {
        let (sweeps, now) = swept(10.0, 10);
        let ratio = sweeps.reaping(now, 0.0, 1_000, 10.0).ratio;
        assert!((1.5..=3.0).contains(&ratio), "{ratio}");
    }

    #[test]
    fn a_rate_that_stays_high_is_no_sweep() {
        let (mut sweeps, now) = swept(30.0, 10);
        let high = table(2_000.0, 50_000.0, 0.0, 30.0);
        assert!((1..40).all(|second| !sweeps.add(now + f64::from(second), SECOND, &high)), "{sweeps:?}");
        assert!(!sweeps.under_way());
        // Where sweeps were never seen, what belongs together ends with it.
        let mut sweeps = Sweeps::new();
        for second in 1..60 {
            sweeps.add(f64::from(second), SECOND, &table(10.0, 1_000.0, 0.0, 30.0));
        }
        assert!((60..100).any(|second| sweeps.add(f64::from(second), SECOND, &high)), "{sweeps:?}");
    }

    #[test]
    fn where_nothing_lingers_entries_go_when_their_time_runs_out() {
        let mut sweeps = Sweeps::new();
        for second in 1..60 {
            sweeps.add(f64::from(second), SECOND, &table(10.0, 1_000.0, 0.0, 30.0));
        }
        assert_eq!(sweeps.reaping(60.0, 7.0, 1_000, 30.0).next, None);
        assert!(!sweeps.are_seen(60.0));
    }
}
