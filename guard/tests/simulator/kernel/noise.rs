//! Chance, from a seed.

use bench::load::SplitMix64;

/// Even numbers, and what is made of them.
#[derive(Clone, Debug)]
pub struct Noise(SplitMix64);

impl Noise {
    /// The same seed gives the same sequence.
    pub fn new(seed: u64) -> Self {
        Self(SplitMix64(seed))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0.bits()
    }

    /// 0 up to, but not including, 1.
    pub fn unit(&mut self) -> f64 {
        self.0.unit()
    }

    /// Between the two, evenly.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Between the two, so that each power of ten is as likely.
    pub fn magnitude(&mut self, low: f64, high: f64) -> f64 {
        self.between(low.ln(), high.ln()).exp()
    }

    /// 0 up to, but not including, `limit`.
    #[allow(clippy::cast_possible_truncation, reason = "a remainder of a usize fits one")]
    pub fn below(&mut self, limit: usize) -> usize {
        (self.bits() % limit.max(1) as u64) as usize
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Mean 0, standard deviation 1: the sum of four even numbers, which is near enough to the normal distribution here.
    pub fn normal(&mut self) -> f64 {
        (self.unit() + self.unit() + self.unit() + self.unit() - 2.0) * 3.0_f64.sqrt()
    }

    /// A factor around 1 with this standard deviation, never below 0.1.
    pub fn about_one(&mut self, deviation: f64) -> f64 {
        (1.0 + deviation * self.normal()).max(0.1)
    }

    /// How many of something that happens `mean` times on average.
    pub fn poisson(&mut self, mean: f64) -> f64 {
        if mean <= 0.0 {
            return 0.0;
        }
        if mean > 12.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0);
        }
        let end = (-mean).exp();
        let mut product = self.unit();
        let mut count = 0.0;
        while product > end {
            product *= self.unit();
            count += 1.0;
        }
        count
    }
}
