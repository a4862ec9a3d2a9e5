//! The chains that an even hash makes: Poisson distributed around the table's load, which changes while it is watched.

/// Points that stand for a load which changes during one interval.
const MOST_POINTS: f64 = 8.0;
/// So rare that no window of chains ever holds one.
const NOTHING: f64 = 1e-60;
/// From this load on every chain is in the histogram's last place.
const HUGE: f64 = 600.0;

/// Probabilities of the lengths 0, 1, 2 …; the last place holds all longer ones.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    /// The mean, also where lengths are cut off at the last place.
    pub mean: f64,
    shares: Vec<f64>,
}

/// Chains measured while the mean length went evenly from one value to another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub from: f64,
    pub to: f64,
    pub chains: u64,
}

impl Expected {
    /// What an even hash gives over these intervals, in a histogram of so many places, with each load `scale` times as
    /// high. Without any chains: all of length 0.
    pub fn new(loads: &[Load], scale: f64, places: usize) -> Self {
        let all: f64 = loads.iter().map(|load| load.chains as f64).sum();
        let mut expected = Self { mean: 0.0, shares: vec![0.0; places] };
        if all == 0.0 {
            expected.add(0.0, 1.0);
        }
        for load in loads.iter().filter(|load| load.chains > 0) {
            let (from, to) = (load.from * scale, load.to * scale);
            // A change that is small against the spread needs no more than one point.
            let points = ((to - from).abs() / (0.25 * from.max(to).max(1.0).sqrt())).ceil().clamp(1.0, MOST_POINTS);
            let weight = load.chains as f64 / all / points;
            let mut point = 0.5;
            while point < points {
                expected.add(from + (to - from) * point / points, weight);
                point += 1.0;
            }
        }
        expected
    }

    fn add(&mut self, mean: f64, weight: f64) {
        self.mean += weight * mean;
        let Some((last, exact)) = self.shares.split_last_mut() else { return };
        let mut share = if mean < HUGE { weight * (-mean).exp() } else { 0.0 };
        let mut rest = weight;
        let mut length = 0.0;
        for place in exact {
            *place += share;
            rest -= share;
            length += 1.0;
            share *= mean / length;
            // Far behind the mean what is left is less than any rounding.
            if share < NOTHING && length > mean {
                break;
            }
        }
        *last += rest.max(0.0);
    }

    /// The shortest length that this share of the chains does not exceed.
    pub fn quantile(&self, share: f64) -> u64 {
        let mut seen = 0.0;
        for (place, length) in self.shares.iter().zip(0_u64..) {
            seen += place;
            if seen >= share {
                return length;
            }
        }
        self.shares.len().saturating_sub(1) as u64
    }

    /// The share of chains of this length or longer.
    pub fn at_least(&self, length: usize) -> f64 {
        // From the end, where the shares are small: what is left of 1 would drown in rounding.
        self.shares.iter().skip(length).rev().sum()
    }

    /// The mean if chains longer than `cut` counted as `cut`.
    pub fn mean_cut_at(&self, cut: usize) -> f64 {
        self.shares.iter().enumerate().map(|(length, share)| length.min(cut) as f64 * share).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steady(mean: f64) -> Expected {
        Expected::new(&[Load { from: mean, to: mean, chains: 100 }], 1.0, 128)
    }

    #[test]
    fn a_steady_load_gives_poissons_figures() {
        // From tables of the distribution.
        for (mean, p50, p99) in [(0.5, 0, 3), (1.0, 1, 4), (4.0, 4, 9), (8.0, 8, 15), (20.0, 20, 31)] {
            let expected = steady(mean);
            assert_eq!((expected.quantile(0.5), expected.quantile(0.99)), (p50, p99), "mean {mean}");
            assert!((expected.mean - mean).abs() < 1e-9);
            assert!((expected.mean_cut_at(127) - mean).abs() < 1e-9);
        }
        assert!((steady(4.0).at_least(5) - 0.371_163).abs() < 1e-6);
        assert!((steady(1.0).at_least(20) / 1.59e-19 - 1.0).abs() < 0.01, "{}", steady(1.0).at_least(20));
    }

    #[test]
    fn a_load_that_rises_spreads_the_lengths() {
        let rising = Expected::new(&[Load { from: 0.0, to: 16.0, chains: 9 }], 1.0, 128);
        assert!((rising.mean - 8.0).abs() < 1e-9);
        assert!(rising.quantile(0.99) > steady(8.0).quantile(0.99) + 3);
        let twice = Expected::new(&[Load { from: 0.0, to: 8.0, chains: 9 }], 2.0, 128);
        assert!((twice.mean - 8.0).abs() < 1e-9 && twice.quantile(0.99) == rising.quantile(0.99));
    }

    #[test]
    fn intervals_count_by_their_chains() {
        let load = |mean, chains| Load { from: mean, to: mean, chains };
        let expected = Expected::new(&[load(1.0, 300), load(9.0, 100), load(1000.0, 0)], 1.0, 128);
        assert!((expected.mean - 3.0).abs() < 1e-9, "{expected:?}");
    }

    #[test]
    fn absurd_loads_stay_in_the_last_place_and_nothing_is_not_a_number() {
        let huge = steady(f64::from(u32::MAX));
        assert_eq!((huge.quantile(0.5), huge.quantile(0.99)), (127, 127));
        assert!((huge.at_least(127) - 1.0).abs() < 1e-9);
        let none = Expected::new(&[], 1.0, 128);
        assert_eq!((none.quantile(0.99), none.mean, none.at_least(1)), (0, 0.0, 0.0));
        assert_eq!(Expected::new(&[], 1.0, 0).quantile(0.5), 0);
    }
}
