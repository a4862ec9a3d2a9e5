//! Loads that nobody answers, and one that only looks so.

use conntrack_guard::policy::Rule;

use super::{all_let_in, gateway, play};
use crate::kernel::flow;
use crate::load::Rate;
use crate::outcome::Outcome;
use crate::scenario::Scenario;

/// A flood is not given the room that it asks for, and what it leaves behind is put in order.
fn not_fed(outcome: &Outcome) {
    // Two raises come before anybody can know what it is.
    assert!(outcome.highest_max <= 4 * outcome.found.max, "max was fed to {}", outcome.highest_max);
    assert_eq!(outcome.table.max, outcome.found.max, "max is back");
    assert_eq!(outcome.timeouts, outcome.found_timeouts, "timeouts are back");
}

#[test]
fn a_syn_flood() {
    let scenario =
        gateway("syn-flood").load(flow::syn_flood(), Rate::surge(0.0, 60.0, 180.0, 20_000.0)).lasting(300.0, 2_400.0);
    let outcome = play(&scenario);
    not_fed(&outcome);
    assert!(outcome.evicted > 1e5, "the kernel recycles what nobody answered");
    assert!(outcome.dropped() < 0.001 * outcome.flows, "there is always something to evict: {}", outcome.dropped());
}

#[test]
#[ignore = "not yet as it should be: see what it asserts"]
fn a_syn_flood_that_the_server_answers() {
    let scenario = gateway("answered-syn-flood")
        .load(flow::answered_syn_flood(), Rate::surge(0.0, 60.0, 180.0, 20_000.0))
        .lasting(300.0, 2_400.0);
    let outcome = play(&scenario);
    not_fed(&outcome);
}

#[test]
fn a_udp_scan() {
    let scenario =
        gateway("udp-scan").load(flow::udp_scan(), Rate::surge(0.0, 60.0, 180.0, 30_000.0)).lasting(300.0, 2_400.0);
    not_fed(&play(&scenario));
}

#[test]
fn asymmetric_routing() {
    let growth = |low, high| Rate::Points(vec![(60.0, low), (360.0, high)]);
    let scenario = Scenario::new("asymmetric-routing")
        .load(flow::one_way_udp(60.0), growth(800.0, 5_000.0))
        .load(flow::one_way_tcp(30.0), growth(200.0, 1_200.0))
        .lasting(1_200.0, 1_200.0)
        .step(0.05);
    let outcome = play(&scenario);
    all_let_in(&outcome);
    assert!(outcome.evicted < 1.0, "{} living flows were evicted", outcome.evicted);
    assert!(outcome.by(Rule::RaiseMax).count() >= 1, "living flows get room, replies or not");
}
