use std::time::Duration;

use super::super::tests::{estimate, host, reason, values};
use super::super::{Limits, Plan, Rule, Setting, State, decide};
use crate::config::{Policy, Window};
use crate::model::{ChainStats, Estimate, ResizeCost, Skew};

const HOUR: Duration = Duration::from_hours(1);

fn windowed() -> Policy {
    let mut policy = Policy::default();
    policy.hash.resize_window = Some(Window { from: 2 * HOUR, to: 4 * HOUR });
    policy
}

/// 820,000 entries in 65,536 buckets at 3 o'clock: chains of 25, of which 2,097,152 buckets would leave 0.8; a resize stalls
/// 574 ms.
fn crowded(inserts: f64) -> Estimate {
    let mut crowded = estimate(820_000, 4_194_304, 0.0);
    crowded.table.buckets = 65_536;
    crowded.time_of_day = 3 * HOUR;
    crowded.insert_rate = Some(inserts);
    crowded.resize_stall = ResizeCost::default().stall(820_000);
    crowded
}

fn plan(policy: &Policy, estimate: &Estimate) -> Plan {
    let limits = Limits::new(policy, &host(estimate)).unwrap();
    decide(&State::default(), estimate, policy, &limits).1
}

#[test]
fn in_the_window_a_long_stall_is_weighed_against_what_the_chains_cost() {
    // 24.2 entries a chain at 0.3 µs: 7.3 µs a new flow, so 0.57 s a minute are 1,315 new flows a second.
    let grown = plan(&windowed(), &crowded(1_400.0));
    assert_eq!(values(&grown), [(Setting::Buckets, 65_536, 2_097_152)]);
    assert_eq!(grown.changes[0].rule, Rule::GrowBuckets);
    assert_eq!(
        grown.changes[0].evidence,
        "the longer chains cost new flows 10.2 ms a second, and hash.resize-window is open; a resize stalls 574 ms once"
    );
    let idle = plan(&windowed(), &crowded(1_200.0));
    assert_eq!(values(&idle), []);
    assert!(
        reason(&idle).contains("in hash.resize-window, for chains that cost more in 1 min than it does"),
        "{idle:?}"
    );
}

#[test]
fn outside_the_window_or_without_one_the_stall_decides_alone() {
    let at_noon = Estimate { time_of_day: 12 * HOUR, ..crowded(100_000.0) };
    assert_eq!(values(&plan(&windowed(), &at_noon)), []);
    let without = plan(&Policy::default(), &crowded(100_000.0));
    assert_eq!(values(&without), []);
    assert!(!reason(&without).contains("resize-window"), "{without:?}");
}

#[test]
fn entries_that_collide_are_no_reason_for_more_buckets() {
    let measured = |skew| ChainStats {
        one_in: 64,
        measured: 10_000,
        mean: 25.0,
        p50: 25,
        p99: 40,
        max: 60,
        expected_mean: 2.0,
        expected_p99: 6,
        skew,
    };
    let with = |skew| Estimate { chains: Some(measured(skew)), ..crowded(1_400.0) };
    assert_eq!(values(&plan(&windowed(), &with(None))).len(), 1);
    assert_eq!(values(&plan(&windowed(), &with(Some(Skew::LongChains)))), []);
}

#[test]
fn ten_minutes_lie_between_two_resizes() {
    let policy = Policy::default();
    let mut small = estimate(12, 65_536, 0.0);
    small.table.buckets = 65_536;
    let limits = Limits::new(&policy, &host(&small)).unwrap();
    let (mut state, first) = decide(&State::default(), &small, &policy, &limits);
    assert_eq!(values(&first).len(), 1);
    small.table.buckets = 2_097_152;
    let mut resizes = Vec::new();
    for second in 1_u64..1_500 {
        small.at += Duration::from_secs(1);
        if second == 60 {
            // Another program undoes it.
            small.table.buckets = 65_536;
        }
        let (next, plan) = decide(&state, &small, &policy, &limits);
        state = next;
        if second == 61 {
            assert!(reason(&plan).starts_with("the buckets have just changed"), "{plan:?}");
        }
        for change in plan.changes {
            resizes.push(second);
            small.table.buckets = change.new;
        }
    }
    assert_eq!(resizes, [660]);
}
