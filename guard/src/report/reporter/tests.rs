//! What is told when, and once.

use super::super::status::Drops;
use super::*;
use crate::kernel::{BackEnd, Signal};
use crate::model::{ChainStats, Doubt, InState, Load};
use crate::observe::{
    Census, Chains, Clashes, Destroys, HookTotals, Memory, NamespaceInserts, Namespaces, RefusedFlow, ResizeEvent,
    StatTotals, Statistics, TableFull, TableReading, Timeout,
};
use crate::policy::{Expectation, Expected, Phase, Range, Rule, Settled, Standing};
use crate::report::Source;
use std::collections::BTreeMap;

/// A status on proc readings with something in every part.
pub(crate) fn status() -> Status {
    let found = sample(1, 4_000);
    let mut reporter = started(&found, Err("not permitted".to_owned()));
    let applied = Effect::Applied { read_back: 131_072, took: Duration::from_micros(35) };
    reporter.tick(&found, &estimate(&found), &plan(), vec![outcome(applied)]);
    settled(&reporter)
}

/// The same with every signal of the programs.
pub(crate) fn measured() -> Status {
    let rows = Signal::ALL.map(|signal| Attached { signal, back_end: Some(BackEnd::Tracing), why: Vec::new() });
    let found = sample(1, 4_000);
    let mut reporter = started(&found, Ok(&rows));
    let mut first = found.clone();
    first.hooks = Some(HookTotals {
        table_full: Some(TableFull::default()),
        clashes: Some(Clashes::default()),
        ..HookTotals::default()
    });
    let shorter = Outcome {
        change: Change {
            setting: Setting::Timeout(Timeout::TcpTimeWait),
            old: 120,
            new: 60,
            rule: Rule::ShortenTimeout,
            evidence: "3,000 entries in TIME_WAIT".into(),
            predicted: "1,500 fewer".into(),
            expectation: None,
        },
        result: Effect::Applied { read_back: 60, took: Duration::from_micros(20) },
    };
    reporter.tick(&first, &estimate(&first), &Plan::default(), vec![shorter]);
    let mut now = sample(61, 4_000);
    now.hooks = Some(totals());
    now.timeouts = [(Timeout::TcpTimeWait, 60)].into();
    now.memory.pressure = Some(3.4);
    now.census = Some(Census { at: Duration::from_secs(58), entries: 2_048, ..Census::default() });
    let mut estimate = estimate(&now);
    (estimate.insert_rate, estimate.destroy_rate) = (Some(12_345.6), Some(9.0));
    estimate.chains = Some(ChainStats {
        one_in: 64,
        measured: 24_690,
        mean: 8.81,
        p50: 9,
        p99: 17,
        max: 31,
        expected_mean: 8.79,
        expected_p99: 16,
        skew: None,
    });
    estimate.steady = Some(30_412);
    estimate.load = Load::Flood { unreplied: 0.93, entries: 60_000, sources: 1_234 };
    estimate.doubts = vec![Doubt::Late];
    let state = |entries, ends, unreplied| InState { entries, ends, unreplied };
    estimate.states = BTreeMap::from([
        (Timeout::TcpSynSent, state(2_900.4, 8_000.0, 1.0)),
        (Timeout::TcpTimeWait, state(800.0, 812.0, 0.0)),
        (Timeout::TcpEstablished, state(200.0, 3.0, 0.015)),
        (Timeout::Udp, state(99.0, 40.0, 0.5)),
        (Timeout::Icmp, state(1.0, 0.0, 1.0)),
    ]);
    let refused = Effect::Refused { error: "cannot write x: No".into(), way_out: "be root".into() };
    let standing = Standing { phase: Phase::Pressed, since: Duration::from_secs(49) };
    let plan = Plan { standing, settled: vec![came()], ..plan() };
    reporter.tick(&now, &estimate, &plan, vec![outcome(refused)]);
    settled(&reporter)
}

fn came() -> Settled {
    Settled {
        setting: Setting::Max,
        old: 32_768,
        new: 65_536,
        rule: Rule::RaiseMax,
        decided: Duration::from_secs(51),
        expected: Expectation { of: Expected::Count, value: 4_160, at: Duration::from_secs(61) },
        real: 4_000,
        error: 0.04,
    }
}

fn totals() -> HookTotals {
    let inserts = [(4_026_531_840, 912_345), (4_026_532_201, 50_123), (4_026_532_302, 700), (4_026_532_403, 60)];
    let more = [(4_026_532_504, 5), (4_026_532_605, 4)];
    let namespace = |((inode, inserts), cookie)| NamespaceInserts { inode, cookie: Some(cookie), inserts };
    let mut destroys = Destroys { udp: [65_432, 9_000], icmp: [12, 0], reply_only: 3, ..Destroys::default() };
    destroys.tcp[7] = [0, 812_345];
    destroys.tcp[1] = [70_000, 0];
    destroys.tcp[3] = [10, 990];
    destroys.tcp[8] = [500, 500];
    let resize = |at, pid, comm: &str, from, to, result| ResizeEvent {
        at: Duration::from_secs(at),
        took: Duration::from_millis(140),
        pid,
        comm: comm.into(),
        cgroup: 4_321,
        from: Some(from),
        to: Some(to),
        result,
    };
    let refused = |source: &str, destination_port, stands_for| RefusedFlow {
        source: source.parse().unwrap(),
        protocol: 6,
        destination_port,
        namespace: 4_026_531_840,
        stands_for,
    };
    HookTotals {
        inserts: Some(963_240),
        namespaces: Some(Namespaces {
            each: inserts.into_iter().chain(more).zip(1..).map(namespace).collect(),
            other: 3,
        }),
        chains: Some(Chains { one_in: 64, ..Chains::default() }),
        destroys: Some(destroys),
        table_full: Some(TableFull { refused: 1_234_567, made_room: 4_444 }),
        clashes: Some(Clashes { lost: 7, resolved: 21, reply_only: Some(3) }),
        strayed: 0,
        missed: Some(0),
        resizes: vec![
            resize(30, 2201, "kube-proxy", 16_384, 65_536, 0),
            resize(49, 815, "sysctl", 65_536, 65_536, -libc::ENOMEM),
        ],
        refused: vec![refused("192.0.2.7", 443, 4_000), refused("2001:db8::7", 80, 12), refused("192.0.2.9", 443, 1)],
    }
}

fn started(found: &Sample, hooks: Result<&[Attached], String>) -> Reporter {
    let limits = Limits {
        max: Range { floor: 65_536, ceiling: 4_194_304 },
        found_max: 65_536,
        buckets: Range { floor: 16_384, ceiling: 4_194_304 },
        memory: 400 << 20,
        max_stall: Duration::from_millis(20),
        resize_window: None,
        bucket_step: 512,
        timeouts: BTreeMap::from([(Timeout::TcpTimeWait, Range { floor: 30, ceiling: 120 })]),
    };
    let horizon = Duration::from_secs(10);
    let policy =
        PolicyNow { source: Source::File, file: Some("/etc/conntrack-guard/policy.toml".into()), refused: Vec::new() };
    Reporter::new(&Start {
        mode: Mode::Enforce,
        limits: &limits,
        horizon,
        policy: &policy,
        found,
        buckets_before: None,
        hooks,
    })
}

/// Without what differs from run to run.
fn settled(reporter: &Reporter) -> Status {
    let mut status = reporter.lock().clone();
    status.uptime_ms = 65_000;
    status.pid = 4711;
    status.guard = "1.2.3".into();
    status
}

pub(crate) fn sample(seconds: u64, count: u64) -> Sample {
    Sample {
        at: Duration::from_secs(seconds),
        table: TableReading { max: 65_536, buckets: 16_384, count },
        stats: Statistics::Proc(StatTotals { drop: seconds, early_drop: 2 * seconds, ..StatTotals::default() }),
        hooks: None,
        memory: Memory { total: 4 << 30, available: 2 << 30, pressure: None },
        entry_bytes: 384,
        timeouts: [(Timeout::TcpTimeWait, 120)].into(),
        ..Sample::default()
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
        entries: sample.table.count,
        chains: None,
        resize_stall: Duration::from_millis(3),
        entry_bytes: sample.entry_bytes,
        ..Estimate::default()
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
        expectation: None,
    };
    Outcome { change, result }
}

fn reporter() -> Reporter {
    let limits = Limits {
        max: Range { floor: 1, ceiling: 2 },
        found_max: 65_536,
        buckets: Range { floor: 1, ceiling: 2 },
        memory: 1,
        max_stall: Duration::ZERO,
        resize_window: None,
        bucket_step: 512,
        timeouts: BTreeMap::new(),
    };
    let found = sample(1, 1);
    let policy = PolicyNow::default();
    let horizon = Duration::ZERO;
    let start = Start {
        mode: Mode::Enforce,
        limits: &limits,
        horizon,
        policy: &policy,
        found: &found,
        buckets_before: None,
        hooks: Ok(&[]),
    };
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
    assert_eq!((status.drops.drop, status.drops.early_drop, status.drops.table_full), (Some(2), Some(4), Some(2)));
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
    assert_eq!(json["counted"], serde_json::Value::Null);
    assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status());

    let json = serde_json::to_value(measured()).unwrap();
    assert_eq!((&json["drops"]["table_full"], &json["drops"]["clash_lost"]), (&1_234_567.into(), &7.into()));
    let sources = &json["drops"]["sources"];
    assert_eq!((&sources["table_full"], &sources["clash_lost"]), (&"fentry/fexit".into(), &"fentry/fexit".into()));
    assert_eq!((&sources["chain_too_long"], &sources["invalid"]), (&"statistics".into(), &"statistics".into()));
    let namespace = &json["counted"]["namespaces"]["namespaces"][0];
    assert_eq!((&namespace["inode"], &namespace["cookie"]), (&4_026_531_840_u64.into(), &1.into()));
    assert_eq!(json["counted"]["ends"][0]["last_state"], "TIME_WAIT");
    assert_eq!(json["counted"]["one_in"], 64);
    assert_eq!(json["counted"]["refused"][0]["flows"], 4_001);
    assert_eq!((&json["resizes"][0]["own"], &json["resizes"][0]["took_us"]), (&false.into(), &140_000.into()));
    assert_eq!((&json["standing"]["phase"], &json["standing"]["since_ms"]), (&"pressed".into(), &49_000.into()));
    assert_eq!((&json["forecast"]["steady"], &json["memory"]["pressure"]), (&30_412.into(), &3.4.into()));
    assert_eq!((&json["states"][0]["timeout"], &json["states"][0]["entries"]), (&"tcp-syn-sent".into(), &2_900.into()));
    let changed = &json["changed"][0];
    assert_eq!((&changed["setting"], &changed["rule"]), (&"tcp-time-wait".into(), &"shorten-timeout".into()));
    assert_eq!((&changed["original"], &changed["now"], &changed["floor"]), (&120.into(), &60.into(), &30.into()));
    assert_eq!(json["predictions"]["by_rule"][0]["median_error"], 0.04);
    assert_eq!((&json["doubts"][0]["doubt"], &json["census"]["at_ms"]), (&"late".into(), &58_000.into()));
    assert_eq!(serde_json::from_value::<Status>(json).unwrap(), measured());
}

#[test]
fn what_is_estimated_says_so() {
    let estimated = |status: Status, place: &str| status.estimated.iter().any(|estimated| estimated == place);
    for place in ["forecast.growth_per_s", "drops.table_full"] {
        assert!(estimated(status(), place) && !estimated(measured(), place), "{place}");
    }
    for place in ["chains.p99", "counted.refused", "resizes.*.entries", "forecast.steady", "states.*.unreplied"] {
        assert!(!estimated(status(), place) && estimated(measured(), place), "{place}");
    }
    // Each names a figure that is there.
    for status in [status(), measured()] {
        let json = serde_json::to_value(&status).unwrap();
        for place in &status.estimated {
            let pointer = format!("/{}", place.replace('*', "0").replace('.', "/"));
            assert!(json.pointer(&pointer).is_some(), "{place}");
        }
    }
}

#[test]
fn without_hooks_lost_clashes_are_no_refused_flows() {
    let mut reporter = reporter();
    tick(&mut reporter, 0, &Plan::default(), None);
    let mut later = sample(9, 10);
    let totals = StatTotals { drop: 30, insert_failed: 25, chain_too_long: 5, ..StatTotals::default() };
    later.stats = Statistics::Ctnetlink { totals, why: "no file".into() };
    reporter.tick(&later, &estimate(&later), &Plan::default(), Vec::new());
    let status = reporter.lock().clone();
    let drops = &status.drops;
    assert_eq!((drops.table_full, drops.clash_lost, drops.chain_too_long), (Some(10), Some(20), Some(5)));
    for estimated in ["drops.table_full", "drops.clash_lost"] {
        assert!(status.estimated.iter().any(|place| place == estimated), "{estimated}");
    }
    assert!(drops.sources.values().all(|source| source == "statistics"), "{drops:?}");
    assert_eq!(
        (status.statistics.source.as_deref(), status.statistics.why.as_deref()),
        (Some("ctnetlink"), Some("no file"))
    );
}

#[test]
fn what_neither_hook_nor_statistic_tells_is_unknown_and_not_none() {
    let mut reporter = reporter();
    let mut found = sample(1, 10);
    found.stats = Statistics::Missing { why: "neither".into() };
    reporter.tick(&found, &estimate(&found), &Plan::default(), Vec::new());
    let status = reporter.lock().clone();
    assert_eq!(status.drops, Drops::default());
    assert!(!status.estimated.iter().any(|place| place.starts_with("drops")));
    assert_eq!((status.statistics.source, status.statistics.why.as_deref()), (None, Some("neither")));
}

#[test]
fn chains_whose_walks_stray_are_off_from_then_on() {
    let rows = [Signal::Inserts, Signal::Chains].map(|signal| Attached {
        signal,
        back_end: Some(BackEnd::Tracing),
        why: Vec::new(),
    });
    let mut found = sample(1, 4_000);
    let mut reporter = started(&found, Ok(&rows));
    for strayed in [0, 1, 2] {
        found.hooks = Some(HookTotals { strayed, ..HookTotals::default() });
        reporter.tick(&found, &estimate(&found), &Plan::default(), Vec::new());
        let status = reporter.lock().clone();
        let [inserts, chains] = status.signals.as_slice() else { panic!("{status:?}") };
        assert!(inserts.back_end.is_some() && inserts.why.is_empty());
        assert_eq!(chains.back_end.is_some(), strayed == 0);
        // The first reason is the one.
        assert_eq!(chains.why.len(), usize::from(strayed > 0), "{chains:?}");
    }
}
