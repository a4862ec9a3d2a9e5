//! The named scenarios. Each says what must hold, and its plans are held against a golden file.

mod faults;
mod floods;
mod growth;
mod large;
mod limits;

use crate::closed_loop::run;
use crate::foresight::quantile;
use crate::golden;
use crate::kernel::flow;
use crate::load::Rate;
use crate::outcome::Outcome;
use crate::scenario::Scenario;

/// Runs it, and holds it against its golden file.
fn play(scenario: &Scenario) -> Outcome {
    let outcome = run(scenario);
    golden::check(scenario, &outcome);
    let [near, far] = &outcome.foresight.errors;
    println!(
        "{}: the expected count is off by {:.1} % (one in ten {:.1} %) 10 s ahead, by {:.1} % ({:.1} %) a minute ahead",
        scenario.name,
        100.0 * quantile(near, 50.0),
        100.0 * quantile(near, 90.0),
        100.0 * quantile(far, 50.0),
        100.0 * quantile(far, 90.0)
    );
    assert!(quantile(near, 50.0) <= 0.15, "{}: the model does not foresee 10 s", scenario.name);
    assert_eq!(outcome.offences, Vec::<String>::new(), "{}", scenario.name);
    assert_eq!(outcome.refused_plans, Vec::<String>::new(), "{}: no plan is refused", scenario.name);
    outcome
}

/// A gateway with a load of web connections, DNS and calls that has run for five minutes: 50,000 entries.
fn gateway(name: &str) -> Scenario {
    Scenario::new(name)
        .load(flow::tcp(5.0, 1.0, 0.05), Rate::Constant(300.0))
        .load(flow::dns(), Rate::Constant(400.0))
        .load(flow::udp_stream(30.0), Rate::Constant(20.0))
        .load(flow::ping(), Rate::Constant(5.0))
        .load(flow::refused_tcp(), Rate::Constant(10.0))
        .lasting(300.0, 300.0)
}

/// Nothing was dropped.
fn all_let_in(outcome: &Outcome) {
    assert!(outcome.dropped() < 1.0, "{:.0} of {:.0} new flows were dropped", outcome.dropped(), outcome.flows);
}
