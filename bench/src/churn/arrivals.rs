//! When each connection starts, and from where.

use std::time::Duration;

use super::Churn;

/// One connection to come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Arrival {
    /// When, after the start of the load.
    pub at: Duration,
    /// From which source, counted from 0.
    pub source: u32,
}

/// A Poisson process: gaps are independent and exponential, as those of many clients that know nothing of each other.
#[derive(Clone, Debug)]
pub(super) struct Arrivals {
    random: SplitMix64,
    mean_gap: f64,
    seconds: f64,
    end: f64,
    sources: u32,
}

impl Arrivals {
    pub fn new(churn: &Churn) -> Self {
        Self {
            random: SplitMix64(churn.seed),
            mean_gap: 1.0 / f64::from(churn.rate),
            seconds: 0.0,
            end: churn.duration.as_secs_f64(),
            sources: churn.sources,
        }
    }
}

impl Iterator for Arrivals {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        self.seconds -= (1.0 - self.random.unit()).ln() * self.mean_gap;
        let source = self.random.below(self.sources);
        (self.seconds < self.end).then(|| Arrival { at: Duration::from_secs_f64(self.seconds), source })
    }
}

/// Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014). Ten lines of our own, since a published seed
/// must give the same load with every version of every library.
#[derive(Clone, Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 up to, but not including, 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// 0 up to, but not including, `limit`: the high half of a product, without a division.
    fn below(&mut self, limit: u32) -> u32 {
        u32::try_from(((self.next() >> 32) * u64::from(limit)) >> 32).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn churn(rate: u32, seconds: u64, seed: u64) -> Churn {
        Churn { rate, duration: Duration::from_secs(seconds), sources: 1000, seed }
    }

    #[test]
    fn splitmix_gives_the_published_sequence() {
        let mut random = SplitMix64(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| random.next()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn the_same_seed_gives_the_same_load_and_another_one_does_not() {
        let load = |seed| Arrivals::new(&churn(100, 10, seed)).collect::<Vec<_>>();
        assert_eq!(load(1), load(1));
        assert_ne!(load(1), load(2));
    }

    #[test]
    fn the_rate_is_kept_and_times_only_grow() {
        let all: Vec<Arrival> = Arrivals::new(&churn(1000, 100, 1)).collect();
        // 100,000 expected, standard deviation 316.
        assert!((98_700..=101_300).contains(&all.len()), "{}", all.len());
        assert!(all.is_sorted_by(|a, b| a.at <= b.at));
        assert!(all.last().unwrap().at < Duration::from_secs(100));
    }

    #[test]
    fn gaps_are_exponential_and_sources_even() {
        let all: Vec<Arrival> = Arrivals::new(&churn(1000, 100, 1)).collect();
        // An exponential gap is longer than its mean in e^-1 = 36.8 % of all cases.
        let long = all.windows(2).filter(|pair| pair[1].at > pair[0].at + Duration::from_millis(1)).count();
        assert!((0.36..0.376).contains(&(long as f64 / all.len() as f64)), "{long}");
        let mut seen = vec![0_u32; 1000];
        for arrival in &all {
            seen[arrival.source as usize] += 1;
        }
        assert!(seen.iter().all(|&times| (50..160).contains(&times)), "{seen:?}");
    }
}
