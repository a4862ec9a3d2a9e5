//! PURE. (State, Estimate, Policy) → (State, Plan). `bounds` checks any plan again, whoever made it.

mod plan;

pub use plan::{Change, Held, Plan, Rule, Setting};
