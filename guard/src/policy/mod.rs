//! PURE. (State, Estimate, Policy) → (State, Plan). `bounds` checks any plan again, whoever made it.

mod attempts;
pub mod bounds;
mod buckets;
mod calm;
mod credit;
mod decide;
mod flood;
mod foreseen;
mod gain;
mod harm;
mod limits;
mod memory;
mod obstacle;
mod ours;
mod pause;
mod phase;
mod piling;
mod plan;
mod pressure;
mod raise;
mod refusals;
mod relax;
mod settle;
mod shorten;
mod situation;
mod sizing;
#[cfg(test)]
mod tests;
mod tick;
mod unseen;
mod verdict;

pub use bounds::{Approved, InForce, Violation};
pub use credit::credit;
pub use decide::{State, decide};
pub use limits::{Host, Limits, LimitsError, Range};
pub(crate) use limits::{has_headroom, headroom, table_bytes};
pub use pause::{Pause, Pauses};
pub use phase::{Phase, Standing};
pub use plan::{Change, Expectation, Expected, Held, Plan, Rule, Setting, UnknownSetting};
pub(crate) use raise::fitting;
pub use settle::Settled;
pub(crate) use sizing::ENTRIES_PER_BUCKET;
pub use tick::next_tick;
