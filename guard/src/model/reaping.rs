//! How the kernel frees what has run out: lookups that meet it, and `gc_worker`, which plans each sweep by the time that
//! entries have left.

use super::outlook::{AFTER, ended};
use super::states::all;
use crate::observe::Census;

/// `GC_SCAN_INTERVAL_MIN` and `GC_SCAN_INTERVAL_MAX`, seconds.
const INTERVAL: (f64, f64) = (1.0, 60.0);
/// `GC_SCAN_INTERVAL_CLAMP`: what an entry's time counts for at most, seconds.
const CLAMP: f64 = 300.0;
/// `GC_SCAN_INTERVAL_INIT` has the weight of so many entries (`GC_SCAN_INITIAL_COUNT`).
const INITIAL: f64 = 100.0;

/// What has run out and was not freed yet, and what will free it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Reaping {
    /// Entries.
    pub(super) dead: f64,
    /// The share of them that the first packet of a new flow meets.
    pub(super) met: f64,
    /// Seconds until the next sweep; `None` where nothing that has run out stays.
    pub(super) next: Option<f64>,
    /// Sweeps are so many times as far apart as `gc_worker` plans them.
    pub(super) ratio: f64,
}

/// The share of what has run out that the first packet of a new flow meets: each entry is in two chains, and that packet
/// walks one to its end.
pub(super) fn met(buckets: u64) -> f64 {
    if buckets > 0 { (2.0 / buckets as f64).min(1.0) } else { 0.0 }
}

/// The same of so many flows.
pub(super) fn met_by(flows: f64, buckets: u64) -> f64 {
    -(-flows * met(buckets)).exp_m1()
}

/// The next sweep that `gc_worker` would plan by the time left that a census found in a table of so many entries.
pub(super) fn planned_by(census: &Census, count: u64) -> f64 {
    let each = count as f64 / (all(census) as f64).max(1.0);
    let mut mean = Mean::default();
    for state in census.by.values().filter(|state| state.entries > 0) {
        let entries = state.entries as f64;
        mean.add(entries * each, state.seconds_left as f64 / entries);
    }
    mean.interval()
}

impl Reaping {
    /// Seconds that an entry stays on average after its time has run out, where so many new flows come a second and sweeps
    /// are planned so far apart.
    pub(super) fn lingering(&self, flows: f64, planned: f64) -> f64 {
        if self.next.is_none() {
            return 0.0;
        }
        let (met, gap) = (self.met * flows, (planned * self.ratio).max(1.0));
        let by_then = met * gap;
        // Those that run out at any time between two sweeps wait for half of it, less what lookups meet before.
        if by_then < 1e-3 { gap / 2.0 } else { (1.0 + (-by_then).exp_m1() / by_then) / met }
    }
}

/// The time that entries have left.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mean {
    entries: f64,
    left: f64,
}

/// Those that are there now, by when their time runs out, and those whose time never does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Old<'a> {
    runs_out: &'a [f64; AFTER.len()],
    lasting: f64,
    /// The sum of the time that they spend alive up to [`AFTER`].
    spent: [f64; AFTER.len()],
}

impl<'a> Old<'a> {
    pub(super) fn new(runs_out: &'a [f64; AFTER.len()], lasting: f64) -> Self {
        let (mut spent, mut all, mut from, mut before) = ([0.0; AFTER.len()], 0.0, 0.0, runs_out[AFTER.len() - 1]);
        for ((spent, to), run_out) in spent.iter_mut().zip(AFTER).zip(runs_out) {
            let alive = runs_out[AFTER.len() - 1] - run_out;
            all += (to - from) * f64::midpoint(before, alive);
            (*spent, from, before) = (all, to, alive);
        }
        Self { runs_out, lasting, spent }
    }

    fn alive(&self, at: f64) -> f64 {
        self.runs_out[AFTER.len() - 1] - ended(self.runs_out, at)
    }

    fn spent(&self, until: f64) -> f64 {
        let next = AFTER.partition_point(|point| *point <= until);
        let (from, before) = next.checked_sub(1).map_or((0.0, 0.0), |last| (AFTER[last], self.spent[last]));
        before + (until - from) * f64::midpoint(self.alive(from), self.alive(until))
    }

    /// The time that those have left whose time has not run out after so many seconds.
    pub(super) fn mean(&self, at: f64) -> Mean {
        // The sum of what each has left, CLAMP at most, is what is alive at each moment until then.
        let left = self.spent(at + CLAMP) - self.spent(at);
        Mean { entries: self.alive(at) + self.lasting, left: left + CLAMP * self.lasting }
    }
}

impl Mean {
    /// So many more that have so many seconds left.
    pub(super) fn add(&mut self, entries: f64, left: f64) {
        self.entries += entries;
        self.left += entries * left.clamp(INTERVAL.0, CLAMP);
    }

    /// And of those that come from now on, so many a second.
    pub(super) fn add_new(&mut self, rate: f64, at: f64, open: f64, timeout: f64) {
        let open = open.min(at);
        let waiting = (at - open).min(timeout);
        // Those that came last have the most left.
        let clamped = (timeout - CLAMP).clamp(0.0, waiting);
        let rest = waiting - clamped;
        let begins = timeout.min(CLAMP);
        self.entries += rate * (open + waiting);
        self.left += rate * (open * begins + clamped * CLAMP + rest * (begins - rest / 2.0));
    }

    /// Seconds until the next sweep, as `gc_worker` plans it.
    pub(super) fn interval(self) -> f64 {
        let all = INITIAL + self.entries.max(0.0);
        ((INTERVAL.1 * INITIAL + self.left.max(0.0)) / all).clamp(INTERVAL.0, INTERVAL.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) -> bool {
        (found - expected).abs() < 0.06 * expected.max(1.0)
    }

    #[test]
    fn a_sweep_is_planned_by_the_time_that_entries_have_left() {
        // A thousand a second, each for 30 s: 15 s are left on average.
        let mut steady = Mean::default();
        steady.add_new(1_000.0, 200.0, 0.0, 30.0);
        assert!(close(steady.interval(), 15.0), "{steady:?}");
        let old = Old::new(&AFTER.map(|after| 1_000.0 * after.min(30.0)), 0.0).mean(0.0);
        assert!(close(old.interval(), 15.0), "{old:?}");
        let half = Old::new(&AFTER.map(|after| 1_000.0 * after.min(30.0)), 0.0).mean(15.0);
        assert!(close(half.interval(), 7.5), "{half:?}");
        let lasting = Old::new(&[0.0; AFTER.len()], 50_000.0).mean(0.0);
        assert!(close(lasting.interval(), 60.0), "{lasting:?}");
        assert!(close(Mean::default().interval(), 60.0));
        let mut open = Mean::default();
        open.add_new(1_000.0, 10.0, 10.0, 30.0);
        assert!(close(open.interval(), 30.0), "{open:?}");
    }

    #[test]
    fn between_sweeps_entries_wait_for_half_of_it_or_for_a_lookup() {
        let reaping = |met| Reaping { dead: 0.0, met, next: Some(5.0), ratio: 1.0 };
        assert!(close(reaping(0.0).lingering(1_000.0, 30.0), 15.0));
        assert!(close(reaping(1e-3).lingering(1_000.0, 30.0), 0.967));
        assert!(Reaping::default().lingering(1_000.0, 30.0).abs() < 1e-9);
        assert!(close(met_by(500.0, 1_000), 0.632) && met(0).abs() < 1e-9);
    }
}
