//! The largest table that the guard is meant for.

use conntrack_guard::policy::Rule;

use super::{all_let_in, play};
use crate::kernel::flow;
use crate::load::Rate;
use crate::scenario::Scenario;

/// A million connections a second that end in a reset after half a second: ten million entries in CLOSE.
#[test]
fn ten_million_entries_at_a_million_connections_a_second() {
    let ramp = Rate::Points(vec![(10.0, 10_000.0), (70.0, 1_000_000.0)]);
    let scenario = Scenario::new("ten-million")
        .policy("table.max.ceiling = 16777216\nhash.buckets.ceiling = 8388608")
        .load(flow::tcp(0.5, 0.5, 1.0), ramp)
        .lasting(30.0, 120.0);
    let scenario = Scenario { before: 0.5, ..scenario };
    let outcome = play(&scenario);
    assert!(outcome.peak.0 > 10e6, "{:?}", outcome.peak);
    all_let_in(&outcome);
    assert!(outcome.by(Rule::RaiseMax).count() <= 8);
}
