//! What came of earlier expectations, and how far the next ones are corrected for it.

use std::collections::VecDeque;
use std::time::Duration;

/// Between two expectations that are remembered, seconds; of a long horizon they are further apart, so that no more than
/// so many wait at once.
const EVERY: f64 = 1.0;
const MOST: f64 = 64.0;
/// The last errors that are looked at, and how many there must be.
const ERRORS: usize = 60;
const FEWEST: usize = 30;
/// An error in one direction is made up for by so much at most, as a share of what comes and ends: what has changed is
/// learnt elsewhere, and better.
const MOST_CORRECTED: f64 = 0.25;

/// Entries that come and go within the horizon.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Flows {
    pub(super) inserts: f64,
    pub(super) ends: f64,
}

impl Flows {
    fn balance(self) -> f64 {
        self.inserts - self.ends
    }

    fn both(self) -> f64 {
        self.inserts + self.ends
    }
}

/// Expectations that are not due yet, and the errors of those that were.
#[derive(Clone, Debug)]
pub(super) struct Correction {
    horizon: f64,
    waiting: VecDeque<Expected>,
    /// Inserts less ends since the beginning.
    balance: f64,
    /// By how much more the count grew than expected, as shares of what was expected to come and to end.
    errors: VecDeque<f64>,
    /// What three quarters of them have in common.
    usual: f64,
}

#[derive(Clone, Copy, Debug)]
struct Expected {
    due: f64,
    balance_before: f64,
    flows: Flows,
}

impl Correction {
    /// Of expectations this far ahead.
    pub(super) fn new(horizon: Duration) -> Self {
        Self {
            horizon: horizon.as_secs_f64().max(EVERY),
            waiting: VecDeque::new(),
            balance: 0.0,
            errors: VecDeque::new(),
            usual: 0.0,
        }
    }

    /// Seconds ahead.
    pub(super) fn horizon(&self) -> f64 {
        self.horizon
    }

    /// Takes in what came until `now`, and what is expected within the horizon, uncorrected.
    pub(super) fn add(&mut self, now: f64, came: Flows, expected: Flows) {
        self.balance += came.balance();
        while let Some(old) = self.waiting.pop_front_if(|expected| expected.due <= now) {
            let error = self.balance - old.balance_before - old.flows.balance();
            self.errors.push_back(error / old.flows.both().max(1.0));
            if self.errors.len() > ERRORS {
                self.errors.pop_front();
            }
            self.usual = if self.errors.len() < FEWEST { 0.0 } else { common(&self.errors) };
        }
        let due = now + self.horizon;
        if self.waiting.back().is_none_or(|last| due - last.due >= EVERY.max(self.horizon / MOST)) {
            self.waiting.push_back(Expected { due, balance_before: self.balance, flows: expected });
        }
    }

    /// Something happened that nobody could expect, or other timeouts are in force: what is waiting is not judged, and what
    /// was wrong before says nothing of what follows.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
        self.errors.clear();
        self.usual = 0.0;
    }

    /// By how many more the count will grow within the horizon than these, if the error is the usual one.
    pub(super) fn of(&self, expected: Flows) -> f64 {
        expected.both() * self.usual.clamp(-MOST_CORRECTED, MOST_CORRECTED)
    }
}

/// What three quarters of the errors reach in the same direction, and 0 where they have no direction: a surge that nobody
/// could foresee does not pass for a habit, nor do errors that come and go.
fn common(errors: &VecDeque<f64>) -> f64 {
    let mut sorted: Vec<f64> = errors.iter().copied().collect();
    sorted.sort_by(f64::total_cmp);
    let quarter = sorted.len() / 4;
    let (low, high) = (sorted[quarter], sorted[sorted.len() - 1 - quarter]);
    if low > 0.0 { low } else { high.min(0.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: Flows = Flows { inserts: 1_000.0, ends: 1_000.0 };

    /// A thousand are expected to come and to end within 10 s; these come each second, and 100 end.
    fn after(inserts: impl IntoIterator<Item = f64>) -> Correction {
        let mut correction = Correction::new(Duration::from_secs(10));
        for (second, inserts) in (0_u32..).zip(inserts) {
            correction.add(f64::from(second), Flows { inserts, ends: 100.0 }, EXPECTED);
            assert!(correction.waiting.len() <= 11 && correction.errors.len() <= ERRORS);
        }
        correction
    }

    #[test]
    fn an_error_that_stays_is_made_up_for() {
        assert!(after([110.0; 35]).of(EXPECTED).abs() < 1e-9, "so few say nothing");
        let corrected = after([110.0; 400]).of(EXPECTED);
        assert!((corrected - 100.0).abs() < 1e-6, "{corrected}");
    }

    #[test]
    fn a_surge_that_nobody_could_foresee_is_no_habit() {
        let surge = [100.0; 300].into_iter().chain([5_000.0; 20]);
        assert!(after(surge).of(EXPECTED).abs() < 1e-6);
        let to_and_fro = (0..400).map(|second| if second / 10 % 2 == 0 { 50.0 } else { 150.0 });
        assert!(after(to_and_fro).of(EXPECTED).abs() < 1e-6);
    }

    #[test]
    fn no_error_makes_it_wild() {
        assert!((after([1e9; 400]).of(EXPECTED) - 500.0).abs() < 1e-6);
        assert!((after([-1e9; 400]).of(EXPECTED) + 500.0).abs() < 1e-6);
    }

    #[test]
    fn a_long_horizon_takes_no_more_memory() {
        let mut correction = Correction::new(Duration::from_mins(10));
        for second in 0..3_600 {
            correction.add(f64::from(second), Flows::default(), Flows::default());
        }
        assert!(correction.waiting.len() <= 66, "{}", correction.waiting.len());
    }
}
