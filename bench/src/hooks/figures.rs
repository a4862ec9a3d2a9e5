//! From samples to figures.

use serde::Serialize;

/// Several readings of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub median: f64,
    pub lowest: f64,
    pub highest: f64,
}

impl Spread {
    /// Of at least one reading; without any, not a number.
    pub fn of(readings: impl Iterator<Item = f64> + Clone) -> Self {
        Self {
            median: median(readings.clone()),
            lowest: readings.clone().fold(f64::NAN, f64::min),
            highest: readings.fold(f64::NAN, f64::max),
        }
    }
}

/// The middle one, or the mean of the two in the middle; without any reading, not a number.
pub(super) fn median(readings: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = readings.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2) {
        (None, _) => f64::NAN,
        (Some(value), 1) => *value,
        (Some(value), _) => f64::midpoint(*value, sorted[middle - 1]),
    }
}

/// How much `y` grows with one more of `x`: the line that is nearest to all points (least squares).
pub(super) fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let rise: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let run: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    rise / run
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_takes_no_notice_of_what_is_far_out() {
        assert!((median([3.0, 1.0, 900.0].into_iter()) - 3.0).abs() < 1e-9);
        assert!((median([3.0, 1.0, 900.0, 4.0].into_iter()) - 3.5).abs() < 1e-9);
        assert!(median([].into_iter()).is_nan());
        let spread = Spread::of([3.0, 1.0, 900.0].into_iter());
        assert_eq!(spread, Spread { median: 3.0, lowest: 1.0, highest: 900.0 });
    }

    #[test]
    fn the_slope_of_a_line_is_its_own() {
        let line = [1.0, 4.0, 16.0, 32.0].map(|x| (x, 200.0 + 18.0 * x));
        assert!((slope(&line) - 18.0).abs() < 1e-9);
    }
}
