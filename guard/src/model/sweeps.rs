//! When the kernel frees what has expired.
//!
//! An entry whose time has run out stays in the table, and in its count, until a lookup meets it or `gc_worker` sweeps the
//! table, every 1 to 60 s. On a quiet table most of what expires goes in those sweeps, so the count climbs for a minute
//! and then falls by a third: what came to its end in between is freed at once.

use std::time::Duration;

use super::average::Average;
use super::outlook::AFTER;

/// Memory of how many entries are freed.
const MEMORY: Duration = Duration::from_mins(1);
/// A sweep frees so many times what is freed on average, and this share of the table.
const TIMES: f64 = 2.5;
const SHARE: f64 = 0.02;
/// `GC_SCAN_EXPIRED_MAX` is 64000 / HZ in each jiffy.
const FREED_A_SECOND: f64 = 64_000.0;
/// Sweeps that are further apart are no sweeps (`GC_SCAN_INTERVAL_MAX` is 60 s), or nothing expired in between; seconds.
const LONGEST: f64 = 75.0;

/// How entries stay after their time has run out, until a lookup meets them or a sweep comes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Lingering {
    /// Seconds between two sweeps; 0 where what expires goes at once.
    gap: f64,
    /// The share of them that lookups meet in a second.
    met: f64,
}

impl Lingering {
    /// Seconds on average.
    pub(super) fn mean(self) -> f64 {
        let Self { gap, met } = self;
        let by_then = met * gap;
        // Between two sweeps those that expire at any time wait for half of it, less what lookups meet before.
        if by_then < 1e-3 { gap / 2.0 } else { (1.0 + (-by_then).exp_m1() / by_then) / met }
    }

    /// The same where entries have so many seconds left on average: `gc_worker` comes again after that time (1 s at least),
    /// so that shorter timeouts bring it sooner. Where it comes sooner anyway, it is for a reason not known here.
    pub(super) fn where_left(self, seconds: f64) -> Self {
        Self { gap: self.gap.min(seconds.max(1.0)), ..self }
    }
}

/// The sweeps seen.
#[derive(Clone, Debug)]
pub(super) struct Sweeps {
    /// Entries freed a second.
    usual: Average,
    /// What lookups freed a second between sweeps, and how many were there to be freed.
    met: Average,
    dead: Average,
    /// When the last one ended.
    last: Option<f64>,
    /// Seconds between the last two.
    gap: Option<f64>,
    /// Since when one is under way, and what it freed so far.
    sweeping: Option<(f64, f64)>,
}

impl Sweeps {
    pub(super) fn new() -> Self {
        let average = Average::new(MEMORY);
        Self { usual: average, met: average, dead: average, last: None, gap: None, sweeping: None }
    }

    /// Takes in what was freed in an interval that ended now, of a table with so many entries, `dead` of them expired
    /// before. Answers with whether a sweep, or what looked like one, ended with the interval before.
    pub(super) fn add(&mut self, now: f64, interval: Duration, freed: f64, count: f64, dead: f64) -> bool {
        let seconds = interval.as_secs_f64();
        let usual = self.usual.mean();
        let expected = usual * seconds;
        let many = freed > TIMES * expected + 5.0 * expected.max(1.0).sqrt() && freed > SHARE * count;
        let possible = freed <= (usual + FREED_A_SECOND) * seconds.max(1.0);
        let (began, so_far) = self.sweeping.unwrap_or((now - seconds, 0.0));
        self.usual.add(freed / seconds, interval);
        if many && possible && self.usual.seen() > 0.1 {
            self.sweeping = Some((began, so_far + freed));
            if now - began <= 2.0 * (so_far + freed) / FREED_A_SECOND + 3.0 {
                return false;
            }
            // What goes on for longer than a sweep could is none: more entries end than before.
            self.usual = Average::new(MEMORY);
        } else if self.sweeping.is_some() && freed < expected {
            let at = now - seconds;
            self.gap = self.last.map(|last| at - last).filter(|gap| *gap <= LONGEST);
            self.last = Some(at);
        } else if self.sweeping.is_none() {
            self.met.add(freed / seconds, interval);
            self.dead.add(dead, interval);
        }
        self.sweeping.take().is_some()
    }

    /// Whether one is under way.
    pub(super) fn under_way(&self) -> bool {
        self.sweeping.is_some()
    }

    /// Seconds between them, where they come regularly.
    pub(super) fn gap(&self, now: f64) -> Option<f64> {
        self.gap.zip(self.last).and_then(|(gap, last)| (now - last <= 1.25 * gap + 5.0).then_some(gap))
    }

    /// For how long what has expired stays.
    pub(super) fn lingering(&self, now: f64) -> Lingering {
        Lingering { gap: self.gap(now).unwrap_or(0.0), met: self.met() }
    }

    /// The share of the dead that lookups meet in a second.
    fn met(&self) -> f64 {
        if self.dead.mean() > 1.0 { (self.met.mean() / self.dead.mean()).min(1.0) } else { 0.0 }
    }

    /// From what expires until [`AFTER`] (`dead` have already), what is freed until then.
    pub(super) fn freed(&self, now: f64, dead: f64, expiring: &[f64; AFTER.len()]) -> [f64; AFTER.len()] {
        let Some((gap, last)) = self.gap(now).zip(self.last) else { return expiring.map(|expired| dead + expired) };
        let met = self.met();
        let mut sweep = (last + gap - now).max(0.1);
        let (mut dead, mut from, mut before) = (dead, 0.0, 0.0);
        let mut freed = [0.0; AFTER.len()];
        let mut all = 0.0;
        for ((freed, to), expired) in freed.iter_mut().zip(AFTER).zip(expiring) {
            let (mut new, mut span) = (expired - before, to - from);
            while sweep <= to {
                // All that expired until then goes at once.
                let part = if to > from { (sweep - from) / (to - from) } else { 1.0 };
                let until_then = new * part.clamp(0.0, 1.0);
                all += dead + until_then;
                (dead, new, span, from) = (0.0, new - until_then, to - sweep, sweep);
                sweep += gap.max(1.0);
            }
            let reaped = (dead + new / 2.0) * -(-met * span).exp_m1();
            all += reaped;
            dead = (dead + new - reaped).max(0.0);
            (from, before, *freed) = (to, *expired, all);
        }
        freed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Ten expire each second, and are freed every 30 s; then `quiet` seconds more.
    fn swept(quiet: u32) -> (Sweeps, f64) {
        let (mut sweeps, mut now, mut dead) = (Sweeps::new(), 0.0, 0.0);
        let mut ended = 0;
        for second in 1..=120 + quiet {
            (now, dead) = (f64::from(second), dead + 10.0);
            let freed = if second % 30 == 0 { std::mem::take(&mut dead) } else { 0.0 };
            ended += u32::from(sweeps.add(now, SECOND, freed, 1_000.0, dead));
        }
        assert!((3..=4).contains(&ended), "{ended}");
        (sweeps, now)
    }

    #[test]
    fn what_expires_is_freed_by_the_next_sweep() {
        let (sweeps, now) = swept(10);
        assert!(sweeps.gap(now).is_some_and(|gap| (gap - 30.0).abs() < 1e-9), "{sweeps:?}");
        let expiring = AFTER.map(|after| 10.0 * after);
        let freed = sweeps.freed(now, 100.0, &expiring);
        let at = |seconds: f64| freed[AFTER.iter().position(|after| (after - seconds).abs() < 1e-9).unwrap()];
        assert!(at(15.0).abs() < 1e-6, "{freed:?}");
        assert!((at(20.0) - 300.0).abs() < 1.0 && (at(40.0) - 300.0).abs() < 1.0, "{freed:?}");
        assert!((at(50.0) - 600.0).abs() < 1.0, "{freed:?}");
    }

    #[test]
    fn a_rate_that_stays_high_is_no_sweep() {
        let (mut sweeps, now) = swept(10);
        let ended: Vec<bool> =
            (1..40).map(|second| sweeps.add(now + f64::from(second), SECOND, 2_000.0, 50_000.0, 0.0)).collect();
        assert_eq!(ended.iter().position(|ended| *ended), Some(3), "{ended:?}");
        assert!(!sweeps.under_way());
    }

    #[test]
    fn where_nothing_is_swept_entries_go_when_they_expire() {
        let (sweeps, now) = (Sweeps::new(), 100.0);
        let freed = sweeps.freed(now, 7.0, &AFTER);
        assert!(freed.iter().zip(AFTER).all(|(freed, after)| (freed - after - 7.0).abs() < 1e-9));
        let (mut sweeps, now) = swept(10);
        for second in 1..60 {
            sweeps.add(now + f64::from(second), SECOND, 10.0, 1_000.0, 0.0);
        }
        assert_eq!(sweeps.gap(now + 59.0), None, "they have ceased");
    }
}
