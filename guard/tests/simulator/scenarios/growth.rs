//! Loads that grow and fall, with room for them.

use conntrack_guard::policy::{Rule, Setting};

use super::{all_let_in, gateway, play};
use crate::kernel::flow;
use crate::load::Rate;
use crate::scenario::Scenario;

#[test]
fn steady() {
    let outcome = play(&gateway("steady").lasting(300.0, 1_200.0));
    all_let_in(&outcome);
    assert_eq!(outcome.by(Rule::RaiseMax).count(), 0, "a steady load asks for nothing");
    assert_eq!(outcome.after(60.0), 0, "it comes to rest");
}

#[test]
fn a_daily_wave() {
    let period = 6.0 * 3_600.0;
    let wave = Rate::Wave { low: 200.0, high: 3_000.0, period };
    let scenario =
        Scenario::new("daily-wave").load(flow::tcp(5.0, 5.0, 0.05), wave).step(0.25).lasting(300.0, 2.0 * period);
    let outcome = play(&scenario);
    all_let_in(&outcome);
    let raises = outcome.by(Rule::RaiseMax).count();
    assert!((1..=4).contains(&raises), "{raises} raises in two days");
    assert!(outcome.changes.len() <= 12, "{} changes in two days", outcome.changes.len());
}

#[test]
fn a_burst_of_ten_times_in_a_second() {
    let scenario = Scenario::new("burst")
        .load(flow::tcp(5.0, 1.0, 0.05), Rate::surge(600.0, 30.0, 60.0, 6_000.0))
        .lasting(300.0, 2_400.0);
    let outcome = play(&scenario);
    all_let_in(&outcome);
    assert!(outcome.by(Rule::RaiseMax).count() >= 1);
    back_as_found(&outcome);
}

#[test]
fn a_slow_ramp() {
    let ramp = Rate::Points(vec![(60.0, 500.0), (1_860.0, 6_000.0)]);
    let scenario = Scenario::new("slow-ramp").load(flow::tcp(5.0, 1.0, 0.05), ramp).lasting(300.0, 2_400.0).step(0.05);
    let outcome = play(&scenario);
    all_let_in(&outcome);
    let raises = outcome.by(Rule::RaiseMax).count();
    assert!((1..=4).contains(&raises), "{raises} raises");
}

#[test]
fn a_dns_storm() {
    let scenario =
        gateway("dns-storm").load(flow::dns(), Rate::surge(0.0, 30.0, 120.0, 20_000.0)).lasting(300.0, 1_800.0);
    let outcome = play(&scenario);
    all_let_in(&outcome);
    assert!(outcome.highest_max >= 600_000, "answered questions are no flood");
    back_as_found(&outcome);
}

#[test]
fn a_small_host_grows() {
    let scenario = Scenario::new("small-host")
        .table(8_192, 4_096)
        .load(flow::tcp(20.0, 1.0, 0.0), Rate::Points(vec![(5.0, 10.0), (65.0, 3_000.0)]))
        .lasting(60.0, 300.0);
    let outcome = play(&scenario);
    all_let_in(&outcome);
    let resizes = outcome.changes.iter().filter(|made| made.change.setting == Setting::Buckets).count();
    assert_eq!(resizes, 1, "buckets are sized once, while the table is small");
}

/// Everything but the buckets is as it was.
fn back_as_found(outcome: &crate::outcome::Outcome) {
    assert_eq!(outcome.table.max, outcome.found.max, "max is back");
    assert_eq!(outcome.timeouts, outcome.found_timeouts, "timeouts are back");
}
