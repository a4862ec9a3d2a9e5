//! PURE. (State, Estimate, Policy) → (State, Plan). `bounds` checks any plan again, whoever made it.

mod attempts;
pub mod bounds;
mod decide;
mod limits;
mod pause;
mod plan;
mod presize;
mod raise;
mod refusals;
mod sizing;
#[cfg(test)]
mod tests;
mod tick;
mod verdict;

pub use bounds::{Approved, InForce, Violation};
pub use decide::{State, decide};
pub(crate) use limits::table_bytes;
pub use limits::{Host, Limits, LimitsError, Range};
pub use pause::{Pause, Pauses};
pub use plan::{Change, Expectation, Expected, Held, Plan, Rule, Setting, UnknownSetting};
pub use tick::next_tick;
