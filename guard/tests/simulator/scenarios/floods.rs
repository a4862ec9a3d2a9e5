//! Loads that nobody answers, and one that only looks so.

use conntrack_guard::observe::Timeout;
use conntrack_guard::policy::{Rule, Setting};

use super::{all_let_in, gateway, play};
use crate::kernel::flow;
use crate::load::Rate;
use crate::outcome::Outcome;
use crate::scenario::Scenario;

/// When the floods begin.
const BEGIN: f64 = 60.0;

/// A flood is named in a few seconds, is not given the room that it asks for, ends sooner by these timeouts alone, and what it
/// leaves behind is put in order.
fn not_fed(outcome: &Outcome, timeouts: &[Timeout]) {
    let named = outcome.told.iter().find(|told| told.reason.starts_with("a flood: ")).unwrap();
    assert!((BEGIN..BEGIN + 5.0).contains(&named.at), "named at {} s", named.at);
    assert!(timeouts.iter().any(|timeout| named.reason.contains(timeout.name())), "{}", named.reason);
    // One raise comes before anybody can know what it is.
    assert!(outcome.highest_max <= 2 * outcome.found.max, "max was fed to {}", outcome.highest_max);
    let cuts: Vec<_> = outcome.by(Rule::ShortenTimeout).collect();
    assert!(cuts[0].at < BEGIN + 5.0, "{cuts:?}");
    let its_own = |setting| matches!(setting, Setting::Timeout(timeout) if timeouts.contains(&timeout));
    assert!(cuts.iter().all(|made| its_own(made.change.setting)), "{cuts:?}");
    // The kernel recycles what nobody answered: there is always something to evict.
    assert!(outcome.dropped() < 0.001 * outcome.flows, "{}", outcome.dropped());
    assert!(outcome.broken < 1.0, "no living flow loses its entry: {}", outcome.broken);
    assert_eq!(outcome.table.max, outcome.found.max, "max is back");
    assert_eq!(outcome.timeouts, outcome.found_timeouts, "timeouts are back");
}

fn flood(name: &str, flow: flow::Flow, rate: f64) -> Scenario {
    gateway(name).load(flow, Rate::surge(0.0, BEGIN, 180.0, rate)).lasting(300.0, 2_400.0)
}

#[test]
fn a_syn_flood() {
    let outcome = play(&flood("syn-flood", flow::syn_flood(), 20_000.0));
    not_fed(&outcome, &[Timeout::TcpSynSent]);
    assert!(outcome.evicted > 1e6, "{}", outcome.evicted);
}

#[test]
fn a_syn_flood_that_fills_the_table_in_a_second() {
    not_fed(&play(&flood("large-syn-flood", flow::syn_flood(), 300_000.0)), &[Timeout::TcpSynSent]);
}

#[test]
fn a_syn_flood_that_the_server_answers() {
    not_fed(&play(&flood("answered-syn-flood", flow::answered_syn_flood(), 20_000.0)), &[Timeout::TcpSynRecv]);
}

#[test]
fn a_udp_scan() {
    not_fed(&play(&flood("udp-scan", flow::udp_scan(), 30_000.0)), &[Timeout::Udp]);
}

/// The flood gets no room, and those who come at the same time get theirs.
#[test]
fn a_burst_in_a_flood() {
    let burst = Rate::surge(0.0, 90.0, 120.0, 3_000.0);
    let outcome = play(&flood("burst-in-flood", flow::syn_flood(), 20_000.0).load(flow::tcp(5.0, 1.0, 0.05), burst));
    // Eviction looks at eight buckets, and now and then finds nothing there.
    assert!(outcome.dropped() < 1e-5 * outcome.flows, "{}", outcome.dropped());
    assert!(outcome.by(Rule::RaiseMax).count() >= 2, "360,000 more are answered");
    assert!(outcome.highest_max <= 4 * outcome.found.max, "max was fed to {}", outcome.highest_max);
    assert_eq!((outcome.table.max, &outcome.timeouts), (outcome.found.max, &outcome.found_timeouts), "all is back");
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
