//! What is learnt about the entries that one timeout ends: how many of those that came it ends, and how long they stay
//! open before it begins to run.

use std::time::Duration;

use super::average::Average;

/// Memory of what is learnt.
const MEMORY: Duration = Duration::from_mins(1);
/// From this share of the ends on, a foretelling is wrong; below, one is as good as another.
const WRONG: f64 = 0.05;
/// Seconds between an entry's start and its last packet that are tried.
const OPEN: [f64; 6] = [0.0, 3.0, 8.0, 20.0, 45.0, 100.0];
/// Memory of how well each of them does. Only a rate that changes tells one from another.
const TRIED: Duration = Duration::from_mins(5);
/// Another one has to do so much better.
const BETTER: f64 = 0.8;

/// The entries that one timeout ends.
#[derive(Clone, Debug)]
pub(super) struct Kind {
    /// Ends a second.
    ends: Average,
    /// Entries that come, of all kinds, a second.
    came: Average,
    /// Ends a second beside those that could have ended, in the time in which it is known how many those were.
    matched: Average,
    due: Average,
    tried: [Tried; OPEN.len()],
    /// Which of them holds.
    open: usize,
}

/// How well ends are foretold by what came one timeout and so many seconds ago.
#[derive(Clone, Copy, Debug)]
struct Tried {
    came: Average,
    error: Average,
}

impl Kind {
    /// The seconds for which its entries may stay open that are tried.
    pub(super) const TRIED: [f64; OPEN.len()] = OPEN;

    pub(super) fn new() -> Self {
        let average = Average::new(MEMORY);
        let tried = Tried { came: average, error: Average::new(TRIED) };
        Self { ends: average, came: average, matched: average, due: average, tried: [tried; OPEN.len()], open: 0 }
    }

    /// Whether it was ever seen to end an entry.
    pub(super) fn is_known(&self) -> bool {
        self.ends.value() > 0.0
    }

    /// Takes in what came and what ended, a second. `due`: what came one timeout and [`Kind::open`] ago, if that is known.
    /// `then`: the same for each of [`Kind::TRIED`].
    pub(super) fn add(
        &mut self,
        interval: Duration,
        came: f64,
        ends: f64,
        due: Option<f64>,
        then: Option<[f64; OPEN.len()]>,
    ) {
        if let Some(then) = then {
            self.try_all(interval, ends, then);
        }
        self.ends.add(ends, interval);
        self.came.add(came, interval);
        if let Some(due) = due {
            self.matched.add(ends, interval);
            self.due.add(due, interval);
        }
    }

    fn try_all(&mut self, interval: Duration, ends: f64, then: [f64; OPEN.len()]) {
        for (tried, then) in self.tried.iter_mut().zip(then) {
            tried.came.add(then, interval);
            let foretold = then * ratio(self.ends.mean(), tried.came.mean());
            tried.error.add((ends - foretold).abs(), interval);
        }
        let error = |index: usize| self.tried[index].error.mean();
        if error(self.open) < WRONG * self.ends.mean() {
            return;
        }
        let best = (0..OPEN.len()).min_by(|a, b| error(*a).total_cmp(&error(*b))).unwrap_or(0);
        if error(best) < BETTER * error(self.open) {
            self.open = best;
        }
    }

    /// Ends a second.
    pub(super) fn ends(&self) -> f64 {
        self.ends.mean()
    }

    /// Seconds its entries stay open before the timeout runs.
    pub(super) fn open(&self) -> f64 {
        OPEN[self.open]
    }

    /// The share of all that come that it ends. `others`: the share that other timeouts have ended by then. As long as it
    /// is not known what came one timeout ago, what ends now stands beside what comes now.
    pub(super) fn share(&self, others: f64) -> f64 {
        // A few seconds of the former say more than any amount of the latter.
        let known = (8.0 * self.matched.seen()).min(1.0);
        let of_due = ratio(self.matched.mean(), self.due.mean());
        let of_all = ratio(self.ends.mean(), self.came.mean());
        (known * of_due + (1.0 - known) * of_all).clamp(0.0, (1.0 - others).max(0.0))
    }
}

/// The part that ends, at most all.
fn ratio(ends: f64, of: f64) -> f64 {
    if ends <= 0.0 { 0.0 } else { (ends / of).min(1.0) }
}
