//! What goes wrong between the table and the guard.

use conntrack_guard::policy::{Rule, Setting};

use super::{all_let_in, gateway, play};
use crate::faults::{Event, Fault};
use crate::kernel::flow;
use crate::load::Rate;
use crate::scenario::Scenario;

/// Ten times the load for a minute.
fn burst(name: &str) -> Scenario {
    Scenario::new(name)
        .load(flow::tcp(5.0, 1.0, 0.05), Rate::surge(1_000.0, 30.0, 60.0, 10_000.0))
        .lasting(300.0, 300.0)
}

#[test]
fn another_writer_in_mid_burst() {
    let outcome = play(&burst("another-writer").event(50.0, Event::SetMax(262_144)));
    // What comes between the write and the next look is lost; the guard answers it at once.
    assert!(outcome.dropped() < 15_000.0, "{}", outcome.dropped());
    assert!(outcome.by(Rule::RaiseMax).count() >= 3, "max is raised again");
}

#[test]
fn another_writer_again_and_again() {
    let mut scenario = burst("writer-again-and-again");
    for second in 0..60 {
        scenario = scenario.event(40.0 + f64::from(second), Event::SetMax(262_144));
    }
    let outcome = play(&scenario);
    assert!(outcome.by(Rule::RaiseMax).count() <= 20, "a fight is limited");
    assert!(outcome.said(Rule::RaiseMax, "another program"), "and told: {:?}", outcome.told);
}

#[test]
fn counters_wrap() {
    let plain = gateway("counter-wrap").event(0.0, Event::Begin(Fault::Wrapped)).event(150.0, Event::Reload);
    let outcome = play(&plain);
    assert_eq!(outcome.by(Rule::RaiseMax).count(), 0, "a counter that begins anew is no burst");
    all_let_in(&outcome);
}

#[test]
fn samples_are_missing() {
    let ramp = Rate::Points(vec![(30.0, 1_000.0), (90.0, 6_000.0)]);
    let scenario = Scenario::new("missing-samples")
        .load(flow::tcp(5.0, 1.0, 0.05), ramp)
        .lasting(300.0, 300.0)
        .event(35.0, Event::Begin(Fault::NoSamples))
        .event(40.0, Event::End(Fault::NoSamples))
        .event(60.0, Event::Begin(Fault::NoSamples))
        .event(75.0, Event::End(Fault::NoSamples));
    all_let_in(&play(&scenario));
}

#[test]
fn the_host_sleeps() {
    let scenario = gateway("suspend").event(100.0, Event::Suspend(3_600.0)).event(200.0, Event::HeldUp(20.0));
    let outcome = play(&scenario);
    assert_eq!(outcome.by(Rule::RaiseMax).count(), 0, "a clock that jumped is no burst");
    assert_eq!(outcome.after(60.0), 0);
}

#[test]
fn hashsize_is_read_only() {
    let scenario = burst("hashsize-read-only").table(65_536, 16_384).event(0.0, Event::Begin(Fault::FixedBuckets));
    let scenario = Scenario { before: 0.0, ..scenario };
    let outcome = play(&scenario);
    let tries = outcome.changes.iter().filter(|made| made.change.setting == Setting::Buckets).count();
    assert!((1..=12).contains(&tries), "{tries} tries in five minutes");
    assert!(outcome.refused < 1.0, "max rises all the same: {}", outcome.refused);
}

#[test]
fn writes_change_nothing() {
    let outcome = play(&burst("writes-without-effect").event(0.0, Event::Begin(Fault::Deaf)));
    assert!(outcome.refused > 0.0, "the table must be able to refuse");
    let tries = outcome.by(Rule::RaiseMax).count();
    assert!((2..=14).contains(&tries), "{tries} tries in five minutes");
    assert!(outcome.said(Rule::RaiseMax, "changed nothing"), "{:?}", outcome.told);
}

#[test]
fn no_programs() {
    let outcome =
        play(&burst("no-programs").event(0.0, Event::Begin(Fault::NoHooks)).event(0.0, Event::Begin(Fault::NoCensus)));
    all_let_in(&outcome);
}

#[test]
fn an_operator_resizes() {
    let outcome = play(&gateway("operator-resizes").event(60.0, Event::SetBuckets(65_536)));
    all_let_in(&outcome);
    assert!(outcome.table.buckets >= 65_536);
}
