//! The rate at which new entries are expected to come.

use std::time::Duration;

use super::average::Average;

/// While the rate only scatters, it is averaged over so long.
const MEMORY: Duration = Duration::from_secs(5);
/// How much it scatters is learnt over so long.
const SCATTER_MEMORY: Duration = Duration::from_mins(1);
/// From so many times the usual scatter on, the rate has changed.
const CHANGE: f64 = 3.0;

/// An average that begins anew when the rate changes: it is quick where something happened and steady where nothing did.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    rate: Average,
    /// Distance from the average × root of the interval: what comes independently scatters so, in intervals of any length.
    scatter: Average,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { rate: Average::new(MEMORY), scatter: Average::new(SCATTER_MEMORY) }
    }

    /// Takes in the rate of one interval.
    pub(super) fn add(&mut self, rate: f64, interval: Duration) {
        let expected = self.rate.mean();
        let distance = (rate - expected).abs() * interval.as_secs_f64().sqrt();
        // What depends on nothing scatters by the root of its rate at least.
        let usual = self.scatter.mean() + expected.max(1.0).sqrt();
        if distance > CHANGE * usual {
            self.rate = Average::new(MEMORY);
        }
        // A change is no scatter, but a rate that changes all the time scatters.
        self.scatter.add(distance.min(2.0 * CHANGE * usual), interval);
        self.rate.add(rate, interval);
    }

    /// Whether the rate has held for a second or so. One interval with many new entries may be a moment's whim.
    pub(super) fn has_held(&self) -> bool {
        const A_SECOND_OF_FIVE: f64 = 0.18;
        self.rate.seen() >= A_SECOND_OF_FIVE
    }

    /// Entries a second.
    pub(super) fn rate(&self) -> f64 {
        self.rate.mean().max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(rates: impl IntoIterator<Item = f64>, millis: u64) -> f64 {
        let mut pace = Pace::new();
        for rate in rates {
            pace.add(rate, Duration::from_millis(millis));
        }
        pace.rate()
    }

    #[test]
    fn a_surge_and_its_end_are_believed_at_once() {
        for millis in [50, 500, 1_000] {
            let surge = [1_000.0; 100].into_iter().chain([20_000.0; 2]);
            let rate = after(surge.clone(), millis);
            assert!((rate - 20_000.0).abs() < 1.0, "{rate} with {millis} ms");
            let over = after(surge.chain([20_000.0; 100]).chain([500.0; 2]), millis);
            assert!((over - 500.0).abs() < 1.0, "{over} with {millis} ms");
        }
    }

    #[test]
    fn a_new_rate_has_to_hold_for_a_second() {
        let mut pace = Pace::new();
        let mut hold = |rate: f64, ticks| {
            (0..ticks).for_each(|_| pace.add(rate, Duration::from_millis(100)));
            pace.has_held()
        };
        assert_eq!((hold(100.0, 9), hold(100.0, 1)), (false, true));
        assert_eq!((hold(9_000.0, 9), hold(9_000.0, 1)), (false, true));
    }

    #[test]
    fn what_only_scatters_is_averaged() {
        let scattered = (0..200).map(|tick| if tick % 2 == 0 { 600.0 } else { 1_400.0 });
        let rate = after(scattered, 1_000);
        assert!((rate - 1_000.0).abs() < 150.0, "{rate}");
    }
}
