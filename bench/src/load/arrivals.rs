//! When each connection starts, and from where.

use std::time::Duration;

use super::Rate;

/// One connection, flow or packet to come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Arrival {
    /// When, after the start of the load.
    pub at: Duration,
    /// From which source, counted from 0.
    pub source: u32,
}

/// A Poisson process: gaps are independent and exponential, as those of many clients that know nothing of each other. A rate
/// that changes is reached by thinning: arrivals at the highest rate, each kept with the share that is due (Lewis, Shedler:
/// Simulation of nonhomogeneous Poisson processes by thinning, 1979).
#[derive(Clone, Debug)]
pub(crate) struct Arrivals {
    random: SplitMix64,
    rate: Rate,
    highest: f64,
    seconds: f64,
    end: f64,
    sources: u32,
}

impl Arrivals {
    /// Until `end`, from so many sources. The same seed gives the same sequence.
    pub fn new(rate: &Rate, end: Duration, sources: u32, seed: u64) -> Self {
        Self {
            random: SplitMix64(seed),
            highest: rate.highest(),
            rate: rate.clone(),
            seconds: 0.0,
            end: end.as_secs_f64(),
            sources,
        }
    }
}

impl Iterator for Arrivals {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        loop {
            // Without arrivals the gap is endless.
            self.seconds -= (1.0 - self.random.unit()).ln() / self.highest;
            if self.seconds >= self.end || self.seconds.is_nan() {
                return None;
            }
            let due = self.rate.at(self.seconds);
            if due >= self.highest || self.random.unit() * self.highest < due {
                let source = self.random.below(self.sources);
                return Some(Arrival { at: Duration::from_secs_f64(self.seconds), source });
            }
        }
    }
}

/// Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014). Ten lines of our own, since a published seed
/// must give the same load with every version of every library.
#[derive(Clone, Debug)]
pub struct SplitMix64(pub u64);

impl SplitMix64 {
    /// The next 64 bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 up to, but not including, 1.
    #[inline]
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// 0 up to, but not including, `limit`: the high half of a product, without a division.
    pub fn below(&mut self, limit: u32) -> u32 {
        u32::try_from(((self.bits() >> 32) * u64::from(limit)) >> 32).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(rate: f64, seconds: u64, seed: u64) -> Vec<Arrival> {
        Arrivals::new(&Rate::constant(rate), Duration::from_secs(seconds), 1000, seed).collect()
    }

    #[test]
    fn splitmix_gives_the_published_sequence() {
        let mut random = SplitMix64(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| random.bits()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn the_same_seed_gives_the_same_load_and_another_one_does_not() {
        let load = |seed| arrivals(100.0, 10, seed);
        assert_eq!(load(1), load(1));
        assert_ne!(load(1), load(2));
    }

    #[test]
    fn the_rate_is_kept_and_times_only_grow() {
        let all = arrivals(1000.0, 100, 1);
        // 100,000 expected, standard deviation 316.
        assert!((98_700..=101_300).contains(&all.len()), "{}", all.len());
        assert!(all.is_sorted_by(|a, b| a.at <= b.at));
        assert!(all.last().unwrap().at < Duration::from_secs(100));
    }

    #[test]
    fn gaps_are_exponential_and_sources_even() {
        let all = arrivals(1000.0, 100, 1);
        // An exponential gap is longer than its mean in e^-1 = 36.8 % of all cases.
        let long = all.windows(2).filter(|pair| pair[1].at > pair[0].at + Duration::from_millis(1)).count();
        assert!((0.36..0.376).contains(&(long as f64 / all.len() as f64)), "{long}");
        let mut seen = vec![0_u32; 1000];
        for arrival in &all {
            seen[arrival.source as usize] += 1;
        }
        assert!(seen.iter().all(|&times| (50..160).contains(&times)), "{seen:?}");
    }

    #[test]
    fn a_rate_that_changes_is_followed() {
        let burst = Rate::burst(100.0, 2_000.0, Duration::from_secs(20), Duration::from_secs(10));
        let all: Vec<Arrival> = Arrivals::new(&burst, Duration::from_secs(40), 10, 7).collect();
        let count = |from: u64, to: u64| {
            all.iter().filter(|one| one.at >= Duration::from_secs(from) && one.at < Duration::from_secs(to)).count()
        };
        // 2,000 and 20,000 expected, standard deviations 45 and 141.
        assert!((1_800..2_200).contains(&count(0, 20)), "{}", count(0, 20));
        assert!((19_400..20_600).contains(&count(20, 30)), "{}", count(20, 30));
        assert!((870..1_130).contains(&count(30, 40)), "{}", count(30, 40));

        let ramp = Rate::ramp(0.0, 1_000.0, Duration::from_secs(40));
        let all: Vec<Arrival> = Arrivals::new(&ramp, Duration::from_secs(40), 10, 7).collect();
        let early = all.iter().filter(|one| one.at < Duration::from_secs(20)).count();
        // A quarter of 20,000 in the first half.
        assert!((4_700..5_300).contains(&early) && (19_400..20_600).contains(&all.len()), "{early} of {}", all.len());
    }

    #[test]
    fn no_rate_is_no_load() {
        assert_eq!(arrivals(0.0, 10, 1), []);
    }
}
