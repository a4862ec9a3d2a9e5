//! Loads for which max may not rise far enough.

use conntrack_guard::observe::Timeout;
use conntrack_guard::policy::{Rule, Setting};

use super::{all_let_in, gateway, play};
use crate::kernel::flow;
use crate::load::Rate;
use crate::scenario::Scenario;

fn shortened(outcome: &crate::outcome::Outcome, timeout: Timeout) -> bool {
    outcome.by(Rule::ShortenTimeout).any(|made| made.change.setting == Setting::Timeout(timeout))
}

/// 360,000 entries in TIME_WAIT at the timeout found, under a ceiling of 262,144: a shorter one makes room.
#[test]
fn a_time_wait_storm() {
    let scenario = Scenario::new("time-wait-storm")
        .policy("table.max.ceiling = 262144")
        .load(flow::tcp(0.5, 0.5, 0.0), Rate::surge(300.0, 60.0, 600.0, 3_000.0))
        .lasting(300.0, 3_600.0);
    let outcome = play(&scenario);
    assert!(shortened(&outcome, Timeout::TcpTimeWait));
    all_let_in(&outcome);
    assert_eq!(outcome.timeouts, outcome.found_timeouts, "timeouts are back after calm");
}

/// 100 connections a second are abandoned for three hours: a million entries at the five days found.
#[test]
fn an_idle_established_pile_up() {
    let scenario = Scenario::new("idle-established")
        .policy("table.max.ceiling = 524288")
        .load(flow::tcp(5.0, 5.0, 0.05), Rate::Constant(200.0))
        .load(flow::abandoned(), Rate::Points(vec![(300.0, 0.0), (300.0, 60.0), (20_000.0, 60.0), (20_000.0, 0.0)]))
        .lasting(300.0, 24_000.0)
        .step(1.0);
    let outcome = play(&scenario);
    assert!(shortened(&outcome, Timeout::TcpEstablished));
    assert!(outcome.dropped() < 0.05 * outcome.flows, "{} of {}", outcome.dropped(), outcome.flows);
    assert!(outcome.broken < 1.0, "no living flow loses its entry");
}

#[test]
fn poor_memory() {
    let mut scenario = Scenario::new("poor-memory")
        .table(65_536, 16_384)
        .load(flow::tcp(5.0, 1.0, 0.05), Rate::surge(200.0, 60.0, 240.0, 3_500.0))
        .lasting(300.0, 2_400.0);
    scenario.machine.memory_total = 1 << 30;
    scenario.machine.memory_free = 512 << 20;
    let outcome = play(&scenario);
    assert!(outcome.no_memory < 1.0);
    let most = (scenario.machine.memory_total / 10 - outcome.table.buckets * 8) / scenario.machine.entry_bytes;
    assert!(outcome.highest_max <= most, "{} of {most}", outcome.highest_max);
    let because = |made: &crate::outcome::Made| made.change.evidence.contains("table.memory-limit");
    assert!(outcome.by(Rule::ShortenTimeout).any(because), "timeouts make room before max is at its limit");
    assert!(outcome.dropped() < 0.02 * outcome.flows, "{} of {}", outcome.dropped(), outcome.flows);
}

/// Living connections fill the table to its ceiling: nothing can be done but to say so, and not to make it worse.
#[test]
fn the_ceiling_is_reached() {
    let scenario = Scenario::new("ceiling")
        .table(65_536, 65_536)
        .policy("table.max.ceiling = 100000")
        .load(flow::tcp(3_600.0, 10.0, 0.0), Rate::surge(10.0, 60.0, 600.0, 400.0))
        .lasting(600.0, 1_200.0);
    let outcome = play(&scenario);
    assert_eq!(outcome.table.max, 100_000);
    assert!(outcome.refused > 10_000.0, "{}", outcome.refused);
    assert!(outcome.said(Rule::RaiseMax, "table.max.ceiling"), "{:?}", outcome.told);
    assert!(outcome.broken < 1.0, "no living flow loses its entry: {}", outcome.broken);
}

#[test]
fn timeouts_left_alone() {
    let scenario = gateway("timeouts-left-alone")
        .policy("table.max.ceiling = 262144\ntimeouts.shorten = false")
        .load(flow::tcp(0.5, 0.5, 0.0), Rate::surge(300.0, 60.0, 300.0, 3_000.0))
        .lasting(300.0, 600.0);
    let outcome = play(&scenario);
    assert_eq!(outcome.by(Rule::ShortenTimeout).count(), 0);
    assert_eq!(outcome.timeouts, outcome.found_timeouts);
}
