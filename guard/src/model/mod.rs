//! PURE. Samples → [`Estimate`]: rates, forecast, chain statistics. Knows no files, no clock, no tokio, no aya.

mod estimate;

pub use estimate::{ChainStats, Estimate};
