use std::time::Duration;

use super::super::tests::{estimate, host, values};
use super::super::{Limits, Setting, State, decide};
use crate::config::Policy;
use crate::model::Estimate;
use crate::observe::Memory;

/// 60,000 entries of 65,536, on a host of 4 GiB with so many MiB available.
fn on(available: u64, pressure: Option<f64>) -> Estimate {
    let mut full = estimate(60_000, 65_536, 0.0);
    full.table.buckets = 32_768;
    full.resize_stall = Duration::from_secs(1);
    full.memory = Memory { total: 4 << 30, available: available << 20, pressure };
    full
}

fn told(states: &mut State, estimate: &Estimate) -> (Vec<(Setting, u64, u64)>, Option<String>) {
    let policy = Policy::default();
    let limits = Limits::new(&policy, &host(estimate)).unwrap();
    let (next, plan) = decide(states, estimate, &policy, &limits);
    *states = next;
    let held = plan.held.iter().find(|held| held.setting == Setting::Max && held.rule.name() == "raise-max");
    (values(&plan), held.map(|held| held.reason.clone()))
}

#[test]
fn max_rises_no_further_than_the_memory_that_is_available() {
    // A twentieth of 4 GiB is left alone: 204.8 MiB.
    let (changes, reason) = told(&mut State::default(), &on(1_024, None));
    assert_eq!((changes, reason), (vec![(Setting::Max, 65_536, 131_072)], None));
    let (changes, reason) = told(&mut State::default(), &on(215, None));
    assert_eq!(changes, [(Setting::Max, 65_536, 93_423)]);
    assert!(
        reason
            .unwrap()
            .starts_with("too little memory is available for more entries (MemAvailable, of which 204.8 MiB")
    );
    let (changes, reason) = told(&mut State::default(), &on(205, None));
    assert_eq!(changes, [], "less than an eighth more is not worth a write");
    assert!(reason.is_some());
}

#[test]
fn while_tasks_wait_for_memory_max_stays() {
    let mut state = State::default();
    let mut at = |second, pressure| {
        let estimate = Estimate { at: Duration::from_secs(second), ..on(2_048, Some(pressure)) };
        told(&mut state, &estimate)
    };
    let (changes, reason) = at(1, 25.0);
    assert_eq!(changes, []);
    assert!(reason.unwrap().starts_with("tasks on this host wait for memory"));
    assert_eq!(at(2, 15.0).0, [], "still");
    assert_eq!(at(3, 9.0).0, [(Setting::Max, 65_536, 131_072)]);
}

#[test]
fn a_reason_stands_still_while_the_memory_moves() {
    let mut state = State::default();
    let mut reasons: Vec<_> = (0..60)
        .filter_map(|second| {
            let mut full = on(205 + second % 3, None);
            full.at = Duration::from_secs(second);
            told(&mut state, &full).1
        })
        .collect();
    reasons.dedup();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
}
