//! The guard's model, policy and bounds in charge of a simulated table: named scenarios with golden plans, and what must
//! hold in any history.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking, in their helpers too")]

mod closed_loop;
mod faults;
mod foresight;
mod golden;
mod histories;
mod kernel;
mod load;
mod many;
mod outcome;
mod predictions;
mod random;
mod referee;
mod scenario;
mod scenarios;
mod table;
mod traffic;
