//! What the model expects, held against what comes.

use std::collections::VecDeque;
use std::time::Duration;

use conntrack_guard::model::Estimate;
use conntrack_guard::observe::{TableReading, Timeouts};

/// How far ahead, seconds.
const AHEAD: [u64; 2] = [10, 60];

/// Expectations that are not due yet, and the errors of those that were.
#[derive(Clone, Debug, Default)]
pub struct Foresight {
    waiting: [VecDeque<Expected>; AHEAD.len()],
    /// |expected − real| / max(real, 1 % of max), for each distance ahead.
    pub errors: [Vec<f64>; AHEAD.len()],
}

#[derive(Clone, Debug)]
struct Expected {
    due: Duration,
    count: u64,
    max: u64,
    timeouts: Timeouts,
}

impl Foresight {
    /// Takes in an estimate. What was expected under other settings than those that were in force is not judged.
    pub fn add(&mut self, estimate: &Estimate) {
        let TableReading { max, count, .. } = estimate.table;
        for ((waiting, errors), ahead) in self.waiting.iter_mut().zip(&mut self.errors).zip(AHEAD) {
            while let Some(expected) = waiting.pop_front_if(|expected| expected.due <= estimate.at) {
                if expected.max == max && expected.timeouts == estimate.timeouts {
                    errors.push(expected.count.abs_diff(count) as f64 / (count as f64).max(0.01 * max as f64));
                }
            }
            let after = Duration::from_secs(ahead);
            if waiting.back().is_none_or(|last| estimate.at + after >= last.due + Duration::from_secs(1)) {
                waiting.push_back(Expected {
                    due: estimate.at + after,
                    count: estimate.outlook.count(after, &estimate.timeouts, max),
                    max,
                    timeouts: estimate.timeouts.clone(),
                });
            }
        }
    }
}

/// The value that so many of a hundred do not exceed.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
pub fn quantile(errors: &[f64], percent: f64) -> f64 {
    let mut sorted = errors.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * percent / 100.0).round() as usize).copied().unwrap_or(0.0)
}

/// The same of errors that weigh differently: the least one that so large a share of the weight does not exceed.
pub fn weighed_quantile(errors: &[(f64, f64)], share: f64) -> f64 {
    let mut sorted = errors.to_vec();
    sorted.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let all: f64 = sorted.iter().map(|(_, weight)| weight).sum();
    let mut below = 0.0;
    let found = sorted.iter().find(|(_, weight)| {
        below += weight;
        below >= share * all
    });
    found.map_or(f64::INFINITY, |(error, _)| *error)
}
