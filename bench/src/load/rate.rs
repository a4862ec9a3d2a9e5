//! How many a second, over time.

use std::ops::Range;
use std::time::Duration;

use serde::Serialize;

/// New connections, flows or packets a second: straight lines between points. Two points at one time are a step; before the
/// first and after the last point the rate is that point's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rate(Vec<Point>);

/// The rate at a time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// After the load's start, in seconds.
    pub at: f64,
    /// How many a second.
    pub rate: f64,
}

impl Rate {
    /// The same all the time.
    pub fn constant(rate: f64) -> Self {
        Self(vec![Point { at: 0.0, rate }])
    }

    /// From one rate to another.
    pub fn ramp(from: f64, to: f64, over: Duration) -> Self {
        Self(vec![Point { at: 0.0, rate: from }, Point { at: over.as_secs_f64(), rate: to }])
    }

    /// `base`, and `peak` from `after` on for so long.
    pub fn burst(base: f64, peak: f64, after: Duration, lasts: Duration) -> Self {
        let (begin, end) = (after.as_secs_f64(), (after + lasts).as_secs_f64());
        Self([(begin, base), (begin, peak), (end, peak), (end, base)].map(|(at, rate)| Point { at, rate }).into())
    }

    /// Through these points, whose times must not fall. `None` where they do, or where there is no point.
    pub fn through(points: Vec<Point>) -> Option<Self> {
        (!points.is_empty() && points.is_sorted_by(|a, b| a.at <= b.at)).then_some(Self(points))
    }

    /// How many a second at `seconds` after the start.
    pub fn at(&self, seconds: f64) -> f64 {
        let next = self.0.partition_point(|point| point.at <= seconds);
        match (next.checked_sub(1).and_then(|last| self.0.get(last)), self.0.get(next)) {
            (Some(last), Some(next)) => last.rate + (next.rate - last.rate) * (seconds - last.at) / (next.at - last.at),
            (Some(only), None) | (None, Some(only)) => only.rate,
            (None, None) => 0.0,
        }
    }

    /// The most a second that there ever is.
    pub fn highest(&self) -> f64 {
        self.0.iter().map(|point| point.rate).fold(0.0, f64::max)
    }

    /// How many there are until `end`, on average.
    pub fn total(&self, end: Duration) -> f64 {
        // In the middle of nothing (a step) it counts for nothing.
        self.lines(end).iter().map(|(times, mean)| mean * (times.end - times.start)).sum()
    }

    /// When it is above 0, until `end`. Times may touch each other.
    pub fn above_zero(&self, end: Duration) -> Vec<Range<Duration>> {
        let seconds = Duration::from_secs_f64;
        let above = self.lines(end).into_iter().filter(|(_, mean)| *mean > 0.0);
        above.map(|(times, _)| seconds(times.start)..seconds(times.end)).collect()
    }

    /// Its straight lines until `end`, seconds, each with its mean, which is in its middle.
    fn lines(&self, end: Duration) -> Vec<(Range<f64>, f64)> {
        let end = end.as_secs_f64();
        let inner = self.0.iter().map(|point| point.at).filter(|at| (0.0..end).contains(at));
        let times: Vec<f64> = [0.0].into_iter().chain(inner).chain([end]).collect();
        times.windows(2).map(|pair| (pair[0]..pair[1], self.at(f64::midpoint(pair[0], pair[1])))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-9, "{value} is not {expected}");
    }

    #[test]
    fn each_shape_has_its_rates_and_its_total() {
        let minute = Duration::from_mins(1);
        let constant = Rate::constant(5.0);
        near(constant.at(0.0), 5.0);
        near(constant.at(1e6), 5.0);
        near(constant.total(minute), 300.0);

        let ramp = Rate::ramp(0.0, 120.0, minute);
        near(ramp.at(0.0), 0.0);
        near(ramp.at(15.0), 30.0);
        near(ramp.at(90.0), 120.0);
        near(ramp.total(minute), 3600.0);

        let burst = Rate::burst(10.0, 100.0, Duration::from_secs(20), Duration::from_secs(10));
        for (at, rate) in [(0.0, 10.0), (19.9, 10.0), (20.0, 100.0), (29.9, 100.0), (30.0, 10.0), (59.0, 10.0)] {
            near(burst.at(at), rate);
        }
        near(burst.total(minute), 500.0 + 1000.0);
        near(burst.total(Duration::from_secs(25)), 200.0 + 500.0);
        near(burst.highest(), 100.0);
    }

    #[test]
    fn points_are_joined_and_must_not_go_back() {
        let point = |at, rate| Point { at, rate };
        let wave = Rate::through(vec![point(0.0, 10.0), point(10.0, 20.0), point(20.0, 0.0)]).unwrap();
        near(wave.at(5.0), 15.0);
        near(wave.at(15.0), 10.0);
        near(wave.total(Duration::from_secs(20)), 150.0 + 100.0);
        assert_eq!(Rate::through(vec![point(1.0, 1.0), point(0.0, 1.0)]), None);
        assert_eq!(Rate::through(Vec::new()), None);
    }
}
