//! How right predicted gains have been.

/// What is multiplied into a predicted gain, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gain(u64);

/// Nothing corrected.
const AS_PREDICTED: u64 = 1_000;
/// However wrong single predictions were, they are corrected no further than to a half or to half as much again: the load
/// that moved meanwhile is in the error too.
const BOUNDS: (u64, u64) = (500, 1_500);
/// The weight of what came last: a quarter.
const WEIGHT: u64 = 4;

impl Default for Gain {
    fn default() -> Self {
        Self(AS_PREDICTED)
    }
}

impl Gain {
    /// The gain to reckon with.
    pub(super) fn of(self, predicted: u64) -> u64 {
        let corrected = u128::from(predicted) * u128::from(self.0) / u128::from(AS_PREDICTED);
        u64::try_from(corrected).unwrap_or(u64::MAX)
    }

    /// Takes in what came of one: the gain that was reckoned with, so corrected already, and the real one.
    pub(super) fn learn(self, predicted: u64, real: u64) -> Self {
        if predicted == 0 {
            return self;
        }
        let came = u128::from(real) * u128::from(self.0) / u128::from(predicted);
        let came = u64::try_from(came).unwrap_or(u64::MAX).clamp(0, 2 * AS_PREDICTED);
        let next = (self.0 * (WEIGHT - 1) + came) / WEIGHT;
        Self(next.clamp(BOUNDS.0, BOUNDS.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_towards_what_came_and_no_further_than_its_bounds() {
        let gain = Gain::default();
        assert_eq!(gain.of(1_000), 1_000);
        assert_eq!(gain.learn(1_000, 600).of(1_000), 900);
        let worst = (0..20).fold(gain, |gain, _| gain.learn(gain.of(1_000), 0));
        assert_eq!(worst.of(1_000), 500);
        let best = (0..20).fold(gain, |gain, _| gain.learn(1, u64::MAX));
        assert_eq!((best.of(1_000), best.of(u64::MAX)), (1_500, u64::MAX));
        assert_eq!(gain.learn(0, 5), gain, "of nothing, nothing is learnt");
    }

    #[test]
    fn it_forgets_what_is_over() {
        let wrong = (0..20).fold(Gain::default(), |gain, _| gain.learn(gain.of(1_000), 0));
        let right = (0..30).fold(wrong, |gain, _| gain.learn(gain.of(1_000), 1_000));
        assert!(right.of(1_000) >= 990, "{right:?}");
    }
}
