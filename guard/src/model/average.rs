//! Averages over samples that do not come at even times.

use std::time::Duration;

/// Exponentially weighted average of a rate. An interval's weight follows from its length alone, so two short intervals
/// count exactly as one long one with the same rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Average {
    /// Time in which old evidence loses 63 % of its weight.
    memory: Duration,
    value: f64,
    /// What `value` would be if the rate had always been 1.
    seen: f64,
}

impl Average {
    /// Starts at 0: a single interval is weak evidence, however extreme its rate.
    pub(super) fn new(memory: Duration) -> Self {
        Self { memory, value: 0.0, seen: 0.0 }
    }

    /// Takes in the rate of one interval. A rate that is not finite is no evidence.
    pub(super) fn add(&mut self, rate: f64, interval: Duration) {
        if !rate.is_finite() {
            return;
        }
        // 1 - e^(-interval / memory), exact for very short intervals too.
        let weight = -(-interval.as_secs_f64() / self.memory.as_secs_f64()).exp_m1();
        let value = self.value + weight * (rate - self.value);
        if value.is_finite() {
            self.value = value;
            self.seen += weight * (1.0 - self.seen);
        }
    }

    /// The average with a rate of 0 before the first interval.
    pub(super) fn value(&self) -> f64 {
        self.value
    }

    /// The average over what was seen alone; 0 before the first interval.
    pub(super) fn mean(&self) -> f64 {
        if self.seen > 0.0 { self.value / self.seen } else { 0.0 }
    }

    /// The mean, if anything was seen.
    pub(super) fn known(&self) -> Option<f64> {
        (self.seen > 0.0).then(|| self.mean())
    }

    /// How much of its memory is filled, 0 to 1.
    pub(super) fn seen(&self) -> f64 {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ticks_do_not_matter_only_the_time_does() {
        let mut coarse = Average::new(Duration::from_secs(5));
        let mut fine = coarse;
        coarse.add(100.0, Duration::from_secs(2));
        for millis in [50, 450, 1, 499, 1000] {
            fine.add(100.0, Duration::from_millis(millis));
        }
        assert!((coarse.value() - fine.value()).abs() < 1e-9, "{coarse:?} {fine:?}");
    }

    #[test]
    fn it_reaches_63_percent_of_a_steady_rate_after_its_memory() {
        let mut average = Average::new(Duration::from_secs(1));
        average.add(1000.0, Duration::from_secs(1));
        assert!((average.value() - 632.1).abs() < 0.1, "{average:?}");
    }

    #[test]
    fn its_mean_is_right_from_the_first_interval_on() {
        let mut average = Average::new(Duration::from_mins(1));
        assert!(average.mean().abs() < 1e-9 && average.seen().abs() < 1e-9);
        average.add(1000.0, Duration::from_millis(50));
        assert!((average.mean() - 1000.0).abs() < 1e-9 && average.seen() < 0.001, "{average:?}");
        average.add(1000.0, Duration::from_hours(1));
        assert!((average.mean() - 1000.0).abs() < 1e-9 && average.seen() > 0.999, "{average:?}");
    }

    #[test]
    fn a_rate_that_is_none_changes_nothing() {
        let mut average = Average::new(Duration::from_secs(1));
        average.add(10.0, Duration::from_mins(1));
        let before = average;
        for rate in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            average.add(rate, Duration::from_secs(1));
        }
        assert_eq!(average, before);
    }
}
