//! PURE. Samples → [`Estimate`]: rates, forecast, chain statistics. Knows no files, no clock, no tokio, no aya.

mod average;
mod chains;
mod estimate;
mod forecast;
mod poisson;
mod rates;
#[cfg(test)]
mod tests;

pub use estimate::{ChainStats, Doubt, Estimate, InState, Load, Skew};
pub use forecast::{Model, resize_stall};
