//! How many flows come when.

use std::f64::consts::TAU;

/// New flows a second over time; time counts from when the guard starts.
#[derive(Clone, Debug)]
pub enum Rate {
    /// Always the same.
    Constant(f64),
    /// Straight lines from point to point (seconds, flows a second); two points at one time are a jump. Before the first
    /// and after the last it stays as it is there.
    Points(Vec<(f64, f64)>),
    /// From `low` to `high` and back in each `period` of seconds, as days go.
    Wave {
        /// The least, at the beginning.
        low: f64,
        /// The most.
        high: f64,
        /// Seconds.
        period: f64,
    },
}

impl Rate {
    /// `base`, but for `lasts` seconds from `from` on `surge`.
    pub fn surge(base: f64, from: f64, lasts: f64, surge: f64) -> Self {
        let to = from + lasts;
        Self::Points(vec![(from, base), (from, surge), (to, surge), (to, base)])
    }

    /// Until when it goes on from this time on in a line, or nearly so.
    pub fn straight_until(&self, time: f64) -> f64 {
        match self {
            Self::Constant(_) => f64::INFINITY,
            Self::Wave { period, .. } => time + period / 20.0,
            Self::Points(points) => {
                points.get(points.partition_point(|(at, _)| *at <= time)).map_or(f64::INFINITY, |(at, _)| *at)
            }
        }
    }

    /// At this time.
    pub fn at(&self, time: f64) -> f64 {
        match self {
            Self::Constant(rate) => *rate,
            Self::Wave { low, high, period } => {
                let height = (1.0 - (TAU * time.max(0.0) / period).cos()) / 2.0;
                low + (high - low) * height
            }
            Self::Points(points) => {
                let next = points.partition_point(|(at, _)| *at <= time);
                match (next.checked_sub(1).map(|last| points[last]), points.get(next)) {
                    (Some((from, low)), Some((to, high))) => low + (high - low) * (time - from) / (to - from),
                    (Some((_, rate)), None) | (None, Some(&(_, rate))) => rate,
                    (None, None) => 0.0,
                }
            }
        }
    }
}

#[test]
fn points_are_joined_by_lines_and_jumps() {
    let rate = Rate::Points(vec![(10.0, 0.0), (20.0, 100.0), (20.0, 500.0)]);
    let at = [0.0, 10.0, 15.0, 20.0, 99.0].map(|time| whole(rate.at(time)));
    assert_eq!(at, [0, 0, 50, 500, 500]);
    let surge = Rate::surge(1.0, 5.0, 5.0, 9.0);
    let straight = [4.9, 5.0, 9.9, 10.0].map(|time| whole(surge.straight_until(time)));
    assert_eq!(straight, [5, 10, 10, i64::MAX]);
    assert_eq!([4.9, 5.0, 9.9, 10.0].map(|time| whole(surge.at(time))), [1, 9, 9, 1]);
}

#[test]
fn a_wave_comes_back() {
    let wave = Rate::Wave { low: 10.0, high: 30.0, period: 100.0 };
    assert_eq!([0.0, 25.0, 50.0, 75.0, 100.0].map(|time| whole(wave.at(time))), [10, 20, 30, 20, 10]);
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "rates of tests are small")]
fn whole(rate: f64) -> i64 {
    rate.round() as i64
}
