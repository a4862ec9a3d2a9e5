//! What is told when, and once.

use super::*;
use crate::observe::{Memory, StatTotals, TableReading};
use crate::policy::{Range, Rule};

/// A status with something in every part.
pub(crate) fn status() -> Status {
    let limits = Limits {
        max: Range { floor: 65_536, ceiling: 4_194_304 },
        buckets: Range { floor: 16_384, ceiling: 4_194_304 },
        memory: 400 << 20,
        max_stall: Duration::from_millis(20),
        bucket_step: 512,
    };
    let found = sample(1, 4_000);
    let hooks = Err("not permitted".to_owned());
    let horizon = Duration::from_secs(10);
    let start = Start { mode: Mode::Enforce, limits: &limits, horizon, found: &found, hooks };
    let mut reporter = Reporter::new(&start);
    let applied = Effect::Applied { read_back: 131_072, took: Duration::from_micros(35) };
    reporter.tick(&found, &estimate(&found), &plan(), vec![outcome(applied)]);
    reporter.lock().uptime_ms = 65_000;
    let mut status = reporter.lock().clone();
    status.pid = 4711;
    status.guard = "1.2.3".into();
    status
}

pub(crate) fn sample(seconds: u64, count: u64) -> Sample {
    Sample {
        at: Duration::from_secs(seconds),
        table: TableReading { max: 65_536, buckets: 16_384, count },
        stats: StatTotals { drop: seconds, early_drop: 2 * seconds, ..StatTotals::default() },
        hooks: None,
        memory: Memory { total: 4 << 30, available: 2 << 30 },
        entry_bytes: 384,
    }
}

fn estimate(sample: &Sample) -> Estimate {
    Estimate {
        at: sample.at,
        table: sample.table,
        insert_rate: None,
        destroy_rate: None,
        growth: 812.0,
        forecast: 12_120,
        time_to_full: Some(Duration::from_secs(75)),
        table_full: 0,
        chains: None,
        resize_stall: Duration::from_millis(3),
        entry_bytes: sample.entry_bytes,
    }
}

fn plan() -> Plan {
    let held = Held {
        setting: Setting::Buckets,
        rule: Rule::PresizeBuckets,
        reason: "a resize would stall longer than hash.max-stall".into(),
    };
    Plan { at: Duration::from_secs(1), changes: Vec::new(), held: vec![held], ..Plan::default() }
}

fn outcome(result: Effect) -> Outcome {
    let change = Change {
        setting: Setting::Max,
        old: 65_536,
        new: 131_072,
        rule: Rule::RaiseMax,
        evidence: "60,000 expected in 10 s".into(),
        predicted: "fill 46 %".into(),
    };
    Outcome { change, result }
}

fn reporter() -> Reporter {
    let limits = Limits {
        max: Range { floor: 1, ceiling: 2 },
        buckets: Range { floor: 1, ceiling: 2 },
        memory: 1,
        max_stall: Duration::ZERO,
        bucket_step: 512,
    };
    let found = sample(1, 1);
    let start = Start { mode: Mode::Enforce, limits: &limits, horizon: Duration::ZERO, found: &found, hooks: Ok(&[]) };
    Reporter::new(&start)
}

fn tick(reporter: &mut Reporter, seconds: u64, plan: &Plan, result: Option<Effect>) -> Status {
    let sample = sample(seconds, 10);
    reporter.tick(&sample, &estimate(&sample), plan, result.map(outcome).into_iter().collect());
    reporter.lock().clone()
}

#[test]
fn drops_count_from_the_first_tick_and_peak_stays() {
    let mut reporter = reporter();
    let high = sample(5, 900);
    reporter.tick(&high, &estimate(&high), &Plan::default(), Vec::new());
    let status = tick(&mut reporter, 7, &Plan::default(), None);
    assert_eq!((status.drops.drop, status.drops.early_drop, status.drops.table_full), (2, 4, None));
    assert_eq!((status.table.count, status.table.peak_count), (10, 900));
}

#[test]
fn a_failure_that_repeats_is_told_once_and_again_after_a_success() {
    let refused = || Some(Effect::Refused { error: "no".into(), way_out: "yes".into() });
    let mut reporter = reporter();
    for second in 1..5 {
        tick(&mut reporter, second, &Plan::default(), refused());
    }
    let applied = Effect::Applied { read_back: 131_072, took: Duration::ZERO };
    tick(&mut reporter, 6, &Plan::default(), Some(applied));
    let status = tick(&mut reporter, 7, &Plan::default(), refused());
    assert_eq!(status.changes.len(), 3);
    assert_eq!(status.changes_made, 1);
}

#[test]
fn a_held_rule_keeps_its_time_until_it_goes() {
    let mut reporter = reporter();
    let mut later = plan();
    later.at = Duration::from_secs(9);
    assert_eq!(tick(&mut reporter, 1, &plan(), None).held[0].since_ms, 1000);
    assert_eq!(tick(&mut reporter, 9, &later, None).held[0].since_ms, 1000);
    assert_eq!(tick(&mut reporter, 10, &Plan::default(), None).held, []);
    assert_eq!(tick(&mut reporter, 9, &later, None).held[0].since_ms, 9000);
}

#[test]
fn the_list_of_changes_is_bounded() {
    let mut reporter = reporter();
    for second in 0..300 {
        tick(&mut reporter, second, &Plan::default(), Some(Effect::Advised));
    }
    let status = reporter.lock().clone();
    assert_eq!((status.changes.len(), status.changes_made), (KEPT, 300));
}

#[test]
fn the_json_is_what_is_documented() {
    let json = serde_json::to_value(status()).unwrap();
    assert_eq!(json["changes"][0]["result"]["kind"], "applied");
    assert_eq!(json["changes"][0]["result"]["took_us"], 35);
    assert_eq!(json["changes"][0]["setting"], "max");
    assert_eq!(json["held"][0]["setting"], "buckets");
    assert_eq!(json["changes"][0]["rule"], Rule::RaiseMax.name());
    assert_eq!(json["held"][0]["rule"], Rule::PresizeBuckets.name());
    assert_eq!(json["chains"], serde_json::Value::Null);
    assert_eq!(json["back_end"]["reason"], "not permitted");
    assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status());
}
