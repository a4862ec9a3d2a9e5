//! What arrives at the table, step by step, or in strides where no step shows anything.

use crate::kernel::noise::Noise;
use crate::kernel::{Kernel, Time, steps};
use crate::load::Rate;

/// Over so many seconds at most, one stride looks at what may come.
const LOOK: f64 = 1.0;

/// The flows of a scenario.
#[derive(Clone, Debug)]
pub struct Traffic<'a> {
    rates: Vec<&'a Rate>,
    arrivals: Vec<f64>,
    noise: Noise,
    strides: bool,
}

impl<'a> Traffic<'a> {
    /// In the order in which the kernel knows the flows.
    pub fn new(rates: Vec<&'a Rate>, seed: u64, strides: bool) -> Self {
        let arrivals = vec![0.0; rates.len()];
        Self { rates, arrivals, noise: Noise::new(seed), strides }
    }

    /// Has the table go on from this time, by at most so many steps, with at most so many new flows between two looks.
    pub fn go_on(&mut self, kernel: &mut Kernel, time: f64, limit: Time, flows: f64) {
        let step = kernel.machine.step;
        let stride = if self.strides { self.stride(kernel, time, flows).min(limit).max(1) } else { 1 };
        let seconds = stride as f64 * step;
        for (arrivals, rate) in self.arrivals.iter_mut().zip(&self.rates) {
            *arrivals = self.noise.poisson(rate.at(time + seconds / 2.0) * seconds);
        }
        kernel.stride(stride, &self.arrivals);
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    fn stride(&self, kernel: &Kernel, time: f64, flows: f64) -> Time {
        let step = kernel.machine.step;
        let straight = self.rates.iter().map(|rate| rate.straight_until(time)).fold(time + LOOK, f64::min);
        let most: f64 = self.rates.iter().map(|rate| rate.at(time).max(rate.at(straight))).sum::<f64>() * step;
        let in_line = steps((straight - time).max(0.0), step);
        let before_look = if flows.is_finite() { (flows / (2.0 * most).max(1e-9)) as Time } else { Time::MAX };
        kernel.longest_stride(most).min(in_line).min(before_look)
    }
}
