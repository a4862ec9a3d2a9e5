//! The credit: the kernel half wakes the guard when so many entries have come as it granted.

use std::process::Command;
use std::thread;
use std::time::Duration;

use bench::conntrack::{self, Settings, Statistics};
use bench::netns::Topology;
use bench::udp::Flows;
use conntrack_guard::kernel::{BackEnd, Hooks, Options, Walk};
use conntrack_guard::observe::since_boot;
use guard_ebpf::SAMPLED;
use serde_json::Value;

use crate::kernel::{Guard, Table, binary, eventually, lives_on, status};

const CREDIT: u64 = 500;

/// One event for each CPU that spends it: not before, and not much later.
fn is_spent(back_end: BackEnd, walk: Walk) {
    let _table = Table::with(262_144, 16_384);
    let topology = Topology::create().unwrap();
    let mut hooks = Hooks::attach(Options { back_end: Some(back_end), walk, log: false }).unwrap();
    assert_eq!(hooks.counting_cpus(), Some(u64::try_from(thread::available_parallelism().unwrap().get()).unwrap()));
    let cpus = hooks.counting_cpus().unwrap();
    Flows::one_way(0, 1_000).send(&topology).unwrap();
    assert_eq!(hooks.credit().next(), None, "none is granted yet");

    hooks.credit().grant(CREDIT);
    Flows::one_way(1_000, CREDIT - 1).send(&topology).unwrap();
    assert_eq!(hooks.credit().next(), None, "it is not spent yet");
    let before = since_boot();
    // The load may move from CPU to CPU, each of which has a credit and sees the grant at its next stop.
    Flows::one_way(2_000, cpus * (CREDIT + SAMPLED)).send(&topology).unwrap();
    let at = hooks.credit().next().unwrap();
    assert!(before <= at && at <= since_boot(), "{before:?} {at:?}");
    Flows::one_way(10_000, 2_000).send(&topology).unwrap();
    let more = std::iter::from_fn(|| hooks.credit().next()).count();
    assert!(u64::try_from(more).unwrap() < cpus, "once for each CPU: {more} more");

    hooks.credit().grant(0);
    Flows::one_way(20_000, 2_000).send(&topology).unwrap();
    assert_eq!(hooks.credit().next(), None, "no wake-up was wanted");
}

#[test]
fn tracing_tells_when_it_is_spent() {
    is_spent(BackEnd::Tracing, Walk::Sampled);
}

#[test]
fn tracing_every_tells_when_it_is_spent() {
    is_spent(BackEnd::Tracing, Walk::Every);
}

#[test]
fn kprobe_tells_when_it_is_spent() {
    is_spent(BackEnd::Kprobe, Walk::Sampled);
}

const FOUND: Settings = Settings { max: 4_096, buckets: 4_096 };
const POLICY: &str = "[table]\nhigh-water = 0.3\nmax = { ceiling = 65536 }\n[hash]\nbuckets = { ceiling = 4096 }\n[flood]\ndetect = false\n";
/// More than the table holds, in about a second of an emulated guest. Past the mark there is room for as long as a guard in a debug
/// build takes there.
const BURST: u64 = 5_000;

/// From calm, faster than any tick.
fn a_burst_is_answered(back_end: &str, walk: &str) {
    let _table = Table::with(FOUND.max, FOUND.buckets);
    let topology = Topology::create().unwrap();
    let arguments = ["--backend", back_end, "--walk", walk];
    let mut guard = Guard::start_as(POLICY, &mut Command::new(binary()), &arguments);
    // A regular tick may come in the midst of a burst and make room for it: then there is no crossing.
    for round in 0..4 {
        conntrack::flush().unwrap();
        FOUND.write().unwrap();
        lives_on(Duration::from_secs(4));
        let before = Statistics::read().unwrap();
        let delivered = Flows::one_way(round * 10_000, BURST).send(&topology).unwrap();
        let dropped = Statistics::read().unwrap().drops_since(&before);
        assert_eq!((delivered.arrived, dropped.table_full, dropped.evicted), (BURST, 0, 0), "{dropped:?}");
        let woken = eventually("the status tells of the raise", Duration::from_secs(20), || {
            let status: Value = serde_json::from_slice(&status().stdout).ok()?;
            let raised: Vec<&Value> =
                status["changes"].as_array()?.iter().filter(|change| change["setting"] == "max").collect();
            let woken = raised.iter().filter(|change| change["reaction_us"].is_u64()).count();
            (raised.len() > usize::try_from(round).ok()?).then_some(woken)
        });
        if woken > 0 {
            guard.signal(nix::sys::signal::Signal::SIGTERM);
            guard.end();
            return;
        }
    }
    panic!("no raise was for a spent credit: {}", String::from_utf8_lossy(&status().stdout));
}

#[test]
fn tracing_answers_a_burst_before_the_table_is_full() {
    a_burst_is_answered("tracing", "sampled");
}

#[test]
fn tracing_every_answers_a_burst_before_the_table_is_full() {
    a_burst_is_answered("tracing", "every");
}

#[test]
fn kprobe_answers_a_burst_before_the_table_is_full() {
    a_burst_is_answered("kprobe", "sampled");
}
