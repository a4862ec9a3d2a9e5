//! Kernel counters and proc files → one timestamped [`Sample`]. Nothing here judges a reading; `model` does.

mod sample;

pub use sample::{CHAIN_LENGTHS, Chains, HookTotals, Memory, Sample, StatTotals, TableReading};
