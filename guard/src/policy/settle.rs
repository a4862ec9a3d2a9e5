//! Predictions, and what came of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::gain::Gain;
use super::plan::{Change, Expectation, Expected, Rule, Setting};
use super::situation::in_force;
use crate::model::Estimate;

/// A look that comes later than this after its time, or than a tenth of the time that was looked ahead, sees another load.
const LATE: Duration = Duration::from_secs(2);
/// Predictions kept: more changes than this are not made in the time that predictions look ahead.
const KEPT: usize = 64;

/// A prediction beside what came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settled {
    /// The setting that was changed.
    pub setting: Setting,
    /// Its value before.
    pub old: u64,
    /// Its value after.
    pub new: u64,
    /// The rule that changed it.
    pub rule: Rule,
    /// Time since boot at which it was decided.
    pub decided: Duration,
    /// What was expected, and when.
    pub expected: Expectation,
    /// What came, in the same unit.
    pub real: u64,
    /// The difference as a share of what came; for counts of 1 % of max at least, so that a nearly empty table does not
    /// make it large.
    pub error: f64,
}

/// A prediction whose time has not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pending {
    decided: Duration,
    setting: Setting,
    old: u64,
    new: u64,
    rule: Rule,
    expected: Expectation,
    /// The count expected without the change.
    without: u64,
}

/// All predictions, and what was learnt from those that settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Predictions {
    pending: Vec<Pending>,
    /// The count at the tick before, and when that was.
    last: Option<(Duration, u64)>,
    /// How right the gains of shorter timeouts have been.
    pub(super) shorten: Gain,
    /// The same of the longer ones that were given back.
    pub(super) relax: Gain,
}

impl Predictions {
    /// Remembers what a change is expected to do. `without`: the count expected if it were not made. What earlier changes
    /// are expected to come to is moved by what this one does until then: `effect`, by how many more and by how many fewer
    /// entries there are after a time.
    pub(super) fn expect(
        &mut self,
        change: &Change,
        without: u64,
        now: Duration,
        effect: impl Fn(Duration) -> (u64, u64),
    ) {
        let Some(expected) = change.expectation else { return };
        let moves = |earlier: &&mut Pending| earlier.decided < now && earlier.expected.of == Expected::Count;
        if change.setting != Setting::Buckets {
            for earlier in self.pending.iter_mut().filter(moves) {
                let (more, fewer) = effect(earlier.expected.at.saturating_sub(now));
                for count in [&mut earlier.expected.value, &mut earlier.without] {
                    *count = count.saturating_add(more).saturating_sub(fewer);
                }
            }
        }
        if self.pending.len() >= KEPT {
            self.pending.remove(0);
        }
        let &Change { setting, old, new, rule, .. } = change;
        self.pending.push(Pending { decided: now, setting, old, new, rule, expected, without });
    }

    /// Settles what is due. A prediction for a change that did not take, or that another program undid, is no prediction:
    /// `strangers` are the settings that others set.
    pub(super) fn settle(&mut self, estimate: &Estimate, strangers: &[Setting]) -> Vec<Settled> {
        let mut settled = Vec::new();
        let now = estimate.at;
        let mut kept = Vec::new();
        for pending in std::mem::take(&mut self.pending) {
            let took = in_force(estimate, pending.setting).is_some_and(|current| current != pending.old);
            if !took || strangers.contains(&pending.setting) || pending.decided > now {
                continue;
            }
            match pending.real(estimate, self.last) {
                Look::Early => kept.push(pending),
                Look::Never => {}
                Look::Now(real) => {
                    self.learn(&pending, real, estimate.table.max);
                    settled.push(pending.settled(real, estimate.table.max));
                }
            }
        }
        self.pending = kept;
        self.last = Some((now, estimate.table.count));
        settled
    }

    fn learn(&mut self, pending: &Pending, real: u64, max: u64) {
        let expected = pending.expected.value;
        match pending.rule {
            // At max, the count says nothing about what the load asks for.
            Rule::ShortenTimeout if expected < max => {
                let came = pending.without.saturating_sub(real);
                self.shorten = learnt(self.shorten, pending.without.saturating_sub(expected), came, max);
            }
            Rule::RelaxTimeout => {
                let came = real.saturating_sub(pending.without);
                self.relax = learnt(self.relax, expected.saturating_sub(pending.without), came, max);
            }
            _ => {}
        }
    }
}

/// The count at a time between two readings.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between two values of u64")]
fn count_at(at: Duration, before: Option<(Duration, u64)>, after: (Duration, u64)) -> u64 {
    let Some(before) = before.filter(|before| before.0 <= at && before.0 < after.0) else { return after.1 };
    let since = |time: Duration| time.saturating_sub(before.0).as_secs_f64();
    let part = since(at) / since(after.0);
    (before.1 as f64 + part * (after.1 as f64 - before.1 as f64)).round() as u64
}

/// What is too small to be told from noise teaches nothing.
fn learnt(gain: Gain, predicted: u64, came: u64, max: u64) -> Gain {
    if predicted >= max / 100 { gain.learn(predicted, came) } else { gain }
}

/// Whether the time of a prediction has come.
enum Look {
    Early,
    /// It passed unseen.
    Never,
    Now(u64),
}

impl Pending {
    /// `last`: the count at the tick before, and when that was.
    fn real(&self, estimate: &Estimate, last: Option<(Duration, u64)>) -> Look {
        let at = self.expected.at;
        if estimate.at < at {
            return Look::Early;
        }
        let ahead = at.saturating_sub(self.decided);
        if estimate.at.saturating_sub(at) > LATE.max(ahead / 10) {
            return Look::Never;
        }
        match self.expected.of {
            Expected::Count => Look::Now(count_at(at, last, (estimate.at, estimate.table.count))),
            // What was measured leaves a span: within it, nothing says that the prediction was wrong.
            Expected::Stall => estimate.resized.map_or(Look::Early, |stalled| {
                let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
                let most = micros(stalled.most);
                Look::Now(self.expected.value.clamp(micros(stalled.least).min(most), most))
            }),
        }
    }

    fn settled(self, real: u64, max: u64) -> Settled {
        let Self { decided, setting, old, new, rule, expected, .. } = self;
        let least = match expected.of {
            Expected::Count => max / 100,
            Expected::Stall => 0,
        };
        let error = expected.value.abs_diff(real) as f64 / real.max(least).max(1) as f64;
        Settled { setting, old, new, rule, decided, expected, real, error }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at_rest, estimate};
    use super::*;
    use crate::model::Stalled;
    use crate::observe::Timeout;

    const MAX: u64 = 100_000;
    const TIME_WAIT: Setting = Setting::Timeout(Timeout::TcpTimeWait);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// At 100 s, due at `at`.
    fn change(setting: Setting, rule: Rule, values: (u64, u64), of: Expected, value: u64, at: u64) -> Change {
        let expectation = Some(Expectation { of, value, at: seconds(at) });
        let (old, new) = values;
        Change { setting, old, new, rule, evidence: String::new(), predicted: String::new(), expectation }
    }

    fn cut(new: u64, value: u64, at: u64) -> Change {
        change(TIME_WAIT, Rule::ShortenTimeout, (120, new), Expected::Count, value, at)
    }

    fn reading(count: u64, time_wait: u64, at: u64) -> Estimate {
        let mut reading = at_rest(&[], MAX, &[(Timeout::TcpTimeWait, time_wait)]);
        (reading.at, reading.table.count) = (seconds(at), count);
        reading
    }

    #[test]
    fn what_came_stands_beside_what_was_expected_once_and_teaches_the_gain() {
        let mut predictions = Predictions::default();
        predictions.expect(&cut(30, 50_000, 220), 80_000, seconds(100), |_| (0, 0));
        assert_eq!(predictions.settle(&reading(66_000, 30, 219), &[]), []);
        // Half way between the two looks.
        let settled = predictions.settle(&reading(46_000, 30, 221), &[]);
        assert_eq!((settled.len(), settled[0].real, settled[0].expected.value), (1, 56_000, 50_000));
        assert!((settled[0].error - 6_000.0 / 56_000.0).abs() < 1e-9, "{settled:?}");
        // 24,000 of 30,000 came: four fifths, of which a quarter is learnt.
        assert_eq!(predictions.shorten.of(1_000), 950);
        assert_eq!(predictions.settle(&reading(56_000, 30, 222), &[]), []);
    }

    #[test]
    fn an_empty_table_makes_no_large_error() {
        let mut predictions = Predictions::default();
        predictions.expect(&cut(30, 110, 110), 110, seconds(100), |_| (0, 0));
        let settled = predictions.settle(&reading(10, 30, 110), &[]);
        assert!((settled[0].error - 0.1).abs() < 1e-9, "100 of 1 % of max: {settled:?}");
    }

    #[test]
    fn what_did_not_take_was_undone_or_passed_unseen_is_not_settled() {
        let expected = || {
            let mut predictions = Predictions::default();
            predictions.expect(&cut(30, 50_000, 220), 80_000, seconds(100), |_| (0, 0));
            predictions
        };
        let mut failed = expected();
        assert_eq!(failed.settle(&reading(80_000, 120, 101), &[]), []);
        assert_eq!(failed.settle(&reading(80_000, 30, 220), &[]), []);
        assert_eq!(expected().settle(&reading(80_000, 60, 220), &[TIME_WAIT]), []);
        assert_eq!(expected().settle(&reading(80_000, 30, 233), &[]), [], "12 s late");
        assert_eq!(expected().settle(&reading(80_000, 30, 231), &[]).len(), 1);
        assert_eq!(expected().settle(&reading(80_000, 30, 99), &[]), [], "a clock that went back");
    }

    #[test]
    fn a_later_change_moves_what_earlier_ones_are_expected_to_come_to() {
        let mut predictions = Predictions::default();
        predictions.expect(&cut(30, 50_000, 220), 80_000, seconds(100), |_| (0, 0));
        let udp = Setting::Timeout(Timeout::Udp);
        let more = change(udp, Rule::ShortenTimeout, (30, 15), Expected::Count, 40_000, 135);
        predictions.expect(&more, 60_000, seconds(105), |after| {
            assert_eq!(after, seconds(115), "of the other one, from now");
            (0, 10_000)
        });
        let mut now = reading(40_000, 30, 220);
        now.timeouts.insert(Timeout::Udp, 15);
        let settled = predictions.settle(&now, &[]);
        assert_eq!((settled[0].expected.value, settled[0].real), (40_000, 40_000));
        // All of the 30,000 that it was to bring came.
        assert_eq!(predictions.shorten.of(1_000), 1_000);
    }

    #[test]
    fn a_stall_is_what_the_next_sample_measured() {
        let mut predictions = Predictions::default();
        let resize = change(Setting::Buckets, Rule::PresizeBuckets, (512, 1_024), Expected::Stall, 7_000, 100);
        predictions.expect(&resize, 0, seconds(100), |_| (0, 0));
        let mut now = Estimate { at: seconds(101), ..estimate(10_000, MAX, 0.0) };
        assert_eq!(predictions.settle(&now, &[]), []);
        let millis = Duration::from_millis;
        now.resized = Some(Stalled { least: millis(14), most: millis(44) });
        let settled = predictions.settle(&now, &[]);
        assert!(settled[0].real == 14_000 && (settled[0].error - 0.5).abs() < 1e-9, "{settled:?}");
    }
}
