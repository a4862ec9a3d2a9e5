//! What is told of phases, changes, predictions and doubts, and that each is logged once.

use std::io;
use std::sync::{Arc, Mutex};

use super::super::reporter::tests::sample;
use super::*;
use crate::model::{InState, Load};
use crate::observe::{Census, HookTotals};
use crate::policy::{Change, Expectation};

const TIME_WAIT: Setting = Setting::Timeout(Timeout::TcpTimeWait);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn limits() -> Limits {
    Limits {
        max: Range { floor: 65_536, ceiling: 131_072 },
        found_max: 65_536,
        buckets: Range { floor: 8_192, ceiling: 131_072 },
        memory: 400 << 20,
        max_stall: Duration::from_millis(20),
        resize_window: None,
        bucket_step: 512,
        timeouts: BTreeMap::from([
            (Timeout::TcpTimeWait, Range { floor: 30, ceiling: 120 }),
            (Timeout::Udp, Range { floor: 10, ceiling: 30 }),
        ]),
    }
}

/// At that second, with these values in force.
fn reading(at: u64, max: u64, buckets: u64, time_wait: u64) -> Sample {
    let mut sample = sample(at, 4_000);
    (sample.table.max, sample.table.buckets) = (max, buckets);
    sample.timeouts = [(Timeout::TcpTimeWait, time_wait), (Timeout::Udp, 30)].into();
    sample
}

fn set(setting: Setting, rule: Rule, old: u64, new: u64, result: Effect) -> Outcome {
    let (evidence, predicted) = (format!("why {new}"), String::new());
    Outcome { change: Change { setting, old, new, rule, evidence, predicted, expectation: None }, result }
}

fn applied(read_back: u64) -> Effect {
    Effect::Applied { read_back, took: Duration::ZERO }
}

fn settled(rule: Rule, of: Expected, error: f64) -> Settled {
    Settled {
        setting: TIME_WAIT,
        old: 120,
        new: 30,
        rule,
        decided: seconds(10),
        expected: Expectation { of, value: 5_000, at: seconds(130) },
        real: 4_000,
        error,
    }
}

fn standing(phase: Phase, since: u64) -> Plan {
    Plan { standing: Standing { phase, since: seconds(since) }, ..Plan::default() }
}

fn quiet(assessor: &mut Assessor, sample: &Sample, plan: &Plan) -> Assessment {
    assessor.tick(sample, &Estimate::default(), plan, &[])
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `work` logs.
fn logged(work: impl FnOnce()) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(log, work);
    String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
}

#[test]
fn a_value_that_another_program_set_is_logged_once() {
    let mut assessor = Assessor::new(&limits(), None, seconds(1));
    let lines = logged(|| {
        let outcomes = [
            set(TIME_WAIT, Rule::ShortenTimeout, 120, 60, applied(60)),
            set(Setting::Buckets, Rule::PresizeBuckets, 16_384, 30_000, applied(30_208)),
        ];
        assessor.tick(&reading(1, 65_536, 16_384, 120), &Estimate::default(), &Plan::default(), &outcomes);
        for time_wait in [60, 90, 90, 60, 90] {
            quiet(&mut assessor, &reading(2, 65_536, 30_208, time_wait), &Plan::default());
        }
        // Where a hook tells who it was, it is told there.
        let mut resized = reading(3, 70_000, 16_384, 60);
        resized.hooks = Some(HookTotals::default());
        quiet(&mut assessor, &resized, &Plan::default());
    });
    let line = "another program set nf_conntrack_tcp_timeout_time_wait from=60 to=90";
    assert_eq!((lines.matches("another program").count(), lines.matches(line).count()), (2, 2), "{lines}");
}

#[test]
fn what_another_program_set_before_the_guard_changed_it_again_is_what_it_goes_back_to() {
    let mut assessor = Assessor::new(&limits(), None, seconds(1));
    let max = |told: Assessment| told.changed.iter().map(|one| (one.original, one.now, one.rule)).collect::<Vec<_>>();
    let raise = |old, new| [set(Setting::Max, Rule::RaiseMax, old, new, applied(new))];
    let lines = logged(|| {
        let mut tick = |found, outcomes: &[Outcome]| {
            let reading = reading(2, found, 16_384, 120);
            max(assessor.tick(&reading, &Estimate::default(), &Plan::default(), outcomes))
        };
        assert_eq!(tick(65_536, &raise(65_536, 131_072)), [(65_536, 131_072, Some(Rule::RaiseMax))]);
        // In the same tick, and seen before.
        assert_eq!(tick(100_000, &raise(100_000, 131_072)), [(100_000, 131_072, Some(Rule::RaiseMax))]);
        assert_eq!(tick(90_000, &[]), [(65_536, 90_000, None)]);
        assert_eq!(tick(90_000, &raise(90_000, 120_000)), [(90_000, 120_000, Some(Rule::RaiseMax))]);
        assert_eq!(tick(120_000, &raise(120_000, 131_072)), [(90_000, 131_072, Some(Rule::RaiseMax))]);
    });
    assert_eq!(lines.matches("another program set nf_conntrack_max").count(), 2, "{lines}");
}

#[test]
fn buckets_that_an_earlier_guard_changed_stand_with_what_they_were_before_it() {
    let mut assessor = Assessor::new(&limits(), Some(8_192), seconds(1));
    let buckets = |told: Assessment| match &told.changed[..] {
        [one] if one.setting == Setting::Buckets => (one.original, one.now, one.rule),
        all => panic!("{all:?}"),
    };
    let told = quiet(&mut assessor, &reading(1, 65_536, 16_384, 120), &Plan::default());
    assert_eq!(buckets(told), (8_192, 16_384, None));
    let outcomes = [set(Setting::Buckets, Rule::PresizeBuckets, 16_384, 32_768, applied(32_768))];
    let told = assessor.tick(&reading(2, 65_536, 16_384, 120), &Estimate::default(), &Plan::default(), &outcomes);
    assert_eq!(buckets(told), (8_192, 32_768, Some(Rule::PresizeBuckets)));
    assert_eq!(quiet(&mut assessor, &reading(3, 65_536, 8_192, 120), &Plan::default()).changed, []);
}

#[test]
fn a_change_stands_with_what_it_was_its_floor_its_rule_and_why_until_it_is_back() {
    let mut assessor = Assessor::new(&limits(), None, seconds(1));
    assert_eq!(quiet(&mut assessor, &reading(1, 65_536, 16_384, 120), &Plan::default()).changed, []);
    let outcomes = [
        set(Setting::Max, Rule::RaiseMax, 65_536, 131_072, applied(131_072)),
        // Rounded up by the kernel.
        set(Setting::Buckets, Rule::PresizeBuckets, 16_384, 30_000, applied(30_208)),
        set(TIME_WAIT, Rule::ShortenTimeout, 120, 60, applied(60)),
    ];
    // What was written since the reading is told at once.
    let told = assessor.tick(&reading(2, 65_536, 16_384, 120), &Estimate::default(), &Plan::default(), &outcomes);
    let entry = |setting, original, now, floor, rule, evidence: &str| ChangedNow {
        setting,
        original,
        now,
        floor,
        rule: Some(rule),
        evidence: Some(evidence.into()),
    };
    let all = [
        entry(Setting::Max, 65_536, 131_072, 65_536, Rule::RaiseMax, "why 131072"),
        entry(Setting::Buckets, 16_384, 30_208, 8_192, Rule::PresizeBuckets, "why 30000"),
        entry(TIME_WAIT, 120, 60, 30, Rule::ShortenTimeout, "why 60"),
    ];
    assert_eq!(told.changed, all);
    assert_eq!(quiet(&mut assessor, &reading(3, 131_072, 30_208, 60), &Plan::default()).changed, all);

    // Another program's value has no rule of this guard.
    let told = quiet(&mut assessor, &reading(4, 131_072, 30_208, 45), &Plan::default()).changed;
    assert_eq!((told[2].now, told[2].rule, &told[2].evidence), (45, None, &None));
    assert_eq!(quiet(&mut assessor, &reading(5, 65_536, 16_384, 120), &Plan::default()).changed, []);
}

#[test]
fn a_new_policy_brings_its_floors() {
    let mut assessor = Assessor::new(&limits(), None, seconds(1));
    let mut other = limits();
    other.timeouts.insert(Timeout::TcpTimeWait, Range { floor: 20, ceiling: 120 });
    assessor.adopt(&other);
    assert_eq!(quiet(&mut assessor, &reading(2, 65_536, 16_384, 30), &Plan::default()).changed[0].floor, 20);
}

#[test]
fn what_was_only_advised_or_failed_has_changed_nothing() {
    let mut assessor = Assessor::new(&limits(), None, seconds(1));
    let refused = Effect::Refused { error: String::new(), way_out: String::new() };
    for result in [Effect::Advised, refused, Effect::NoEffect { read_back: 120, took: Duration::ZERO }] {
        let outcomes = [set(TIME_WAIT, Rule::ShortenTimeout, 120, 30, result)];
        let now = reading(2, 65_536, 16_384, 120);
        assert_eq!(assessor.tick(&now, &Estimate::default(), &Plan::default(), &outcomes).changed, []);
    }
}

#[test]
fn what_an_earlier_guard_left_is_to_be_taken_back_too() {
    let mut assessor = Assessor::new(&limits(), None, seconds(1));
    let told = quiet(&mut assessor, &reading(1, 100_000, 16_384, 30), &Plan::default()).changed;
    let each: Vec<_> = told.iter().map(|one| (one.setting, one.original, one.now, one.rule)).collect();
    assert_eq!(each, [(Setting::Max, 65_536, 100_000, None), (TIME_WAIT, 120, 30, None)]);
}

#[test]
fn a_phase_is_logged_when_it_begins_and_the_first_one_began_with_the_guard() {
    let mut assessor = Assessor::new(&limits(), None, seconds(100));
    let log = logged(|| {
        let first = quiet(&mut assessor, &sample(100, 10), &Plan::default()).standing;
        assert_eq!(first, StandingNow { phase: Phase::Calm, since_ms: 100_000 });
        for at in 105..108 {
            let standing = quiet(&mut assessor, &sample(at, 10), &standing(Phase::Pressed, 105)).standing;
            assert_eq!(standing, StandingNow { phase: Phase::Pressed, since_ms: 105_000 });
        }
        quiet(&mut assessor, &sample(109, 10), &standing(Phase::Calm, 109));
    });
    assert_eq!(log.lines().count(), 2, "{log}");
    assert!(log.contains("phase: pressed from=\"calm\"") && log.contains("phase: calm from=\"pressed\""), "{log}");
}

#[test]
fn what_settled_is_logged_once_and_counts_for_its_rule() {
    let mut assessor = Assessor::new(&limits(), None, seconds(1));
    let log = logged(|| {
        let both = vec![
            settled(Rule::ShortenTimeout, Expected::Count, 0.25),
            settled(Rule::PresizeBuckets, Expected::Stall, 0.5),
        ];
        quiet(&mut assessor, &sample(130, 10), &Plan { settled: both, ..Plan::default() });
        for at in 131..134 {
            quiet(&mut assessor, &sample(at, 10), &Plan::default());
        }
    });
    assert_eq!(log.lines().count(), 2, "{log}");
    for part in
        ["what came of nf_conntrack_tcp_timeout_time_wait 120 -> 30", "\"5,000 entries\"", "\"4,000 entries\"", "25 %"]
    {
        assert!(log.lines().next().unwrap().contains(part), "{part}: {log}");
    }
    assert!(log.contains("a stall of 5 ms") && log.contains("a stall of 4 ms"), "{log}");

    for error in [0.05, 0.01] {
        let one = vec![settled(Rule::ShortenTimeout, Expected::Count, error)];
        quiet(&mut assessor, &sample(140, 10), &Plan { settled: one, ..Plan::default() });
    }
    let told = quiet(&mut assessor, &sample(141, 10), &Plan::default()).predictions;
    assert_eq!((told.settled, told.last.len()), (4, 4));
    let last = &told.last[3];
    assert_eq!((last.at_ms, last.decided_ms, last.expected, last.real), (140_000, 10_000, 5_000, 4_000));
    let rule = |rule, settled, median_error| RuleError { rule, settled, median_error };
    assert_eq!(told.by_rule, [rule(Rule::ShortenTimeout, 3, 0.05), rule(Rule::PresizeBuckets, 1, 0.5)]);
}

#[test]
fn the_predictions_kept_are_bounded() {
    let mut assessor = Assessor::new(&limits(), None, seconds(1));
    for error in 0..1_000 {
        let one = vec![settled(Rule::RelaxMax, Expected::Count, f64::from(error))];
        quiet(&mut assessor, &sample(1, 10), &Plan { settled: one, ..Plan::default() });
    }
    let told = assessor.predictions();
    assert_eq!((told.settled, told.last.len()), (1_000, SETTLED));
    assert_eq!((told.by_rule[0].settled, told.by_rule[0].median_error), (1_000, 872.0), "of the last 256");
}

#[test]
fn doubts_are_told_for_a_minute() {
    let mut assessor = Assessor::new(&limits(), None, seconds(1));
    let mut at = |second, doubts: &[Doubt]| {
        let estimate = Estimate { doubts: doubts.to_vec(), ..Estimate::default() };
        assessor.tick(&sample(second, 10), &estimate, &Plan::default(), &[]).doubts
    };
    let told = |doubt, times, last_ms| DoubtNow { doubt, times, last_ms };
    at(10, &[Doubt::Late]);
    assert_eq!(at(40, &[Doubt::Jump, Doubt::Late]), [told(Doubt::Late, 2, 40_000), told(Doubt::Jump, 1, 40_000)]);
    assert_eq!(at(70, &[]), [told(Doubt::Jump, 1, 40_000), told(Doubt::Late, 1, 40_000)]);
    assert_eq!(at(100, &[]), []);
    for _ in 0..2 * DOUBTS {
        at(101, &[Doubt::Backwards]);
    }
    assert_eq!(at(102, &[]), [told(Doubt::Backwards, DOUBTS as u64, 101_000)]);
}

#[test]
fn states_load_memory_and_census_are_those_of_the_tick() {
    let mut assessor = Assessor::new(&limits(), None, seconds(1));
    let mut sample = sample(20, 10);
    sample.census = Some(Census { at: seconds(17), entries: 2_048, whole: false, ..Census::default() });
    let state = |entries, ends| InState { entries, ends, unreplied: 0.5 };
    let states =
        [(Timeout::Icmp, state(0.2, 0.0)), (Timeout::Udp, state(9.6, 1.0)), (Timeout::TcpTimeWait, state(800.0, 7.0))];
    let load = Load::Flood { unreplied: 0.93, entries: 60_000, sources: 12 };
    let estimate = Estimate { states: states.into(), load, ..Estimate::default() };
    let told = assessor.tick(&sample, &estimate, &Plan::default(), &[]);
    let largest: Vec<_> = told.states.iter().map(|state| (state.timeout, state.entries)).collect();
    assert_eq!(largest, [(Timeout::TcpTimeWait, 800), (Timeout::Udp, 10)]);
    assert_eq!((told.load, told.memory), (load, sample.memory));
    assert_eq!(told.census, Some(CensusNow { at_ms: 17_000, entries: 2_048, whole: false }));
    let json = serde_json::to_value(&told).unwrap();
    assert_eq!(json["load"]["flood"]["sources"], 12);
    assert_eq!(serde_json::from_value::<Assessment>(json).unwrap(), told);
}
