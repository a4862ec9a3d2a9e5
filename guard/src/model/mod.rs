//! PURE. Samples → [`Estimate`]: rates, forecasts, kinds of entries, chain statistics. Knows no files, no clock, no tokio, no aya.

mod arrivals;
mod average;
mod chains;
mod cohorts;
mod correction;
mod course;
mod ends;
mod entries;
mod eras;
mod estimate;
mod forecast;
mod kinds;
mod load;
mod outlook;
mod pace;
mod poisson;
#[cfg(test)]
mod properties;
mod rates;
mod readings;
mod reaping;
mod stall;
mod states;
mod sweeps;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod unanswered;

pub use estimate::{ChainStats, Doubt, Estimate, InState, Load, Skew};
pub use forecast::Model;
pub use outlook::Outlook;
pub use stall::{ResizeCost, Stalled};
