//! The programs against truths that they did not produce: a dump, the kernel's statistics, Poisson's expectation.
//!
//! Each back end passes the same tests; `cargo xtask test --all` runs them on every kernel.

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bench::churn::{Churn, Progress};
use bench::conntrack::{Settings, Statistics};
use bench::netns::Topology;
use bench::udp::Flows;
use conntrack_guard::kernel::{BackEnd, Hooks, Options, Signal, Walk};
use conntrack_guard::observe::{Destroys, HookTotals};
use guard_ebpf::CONTENDERS;

use crate::kernel::{Table, dumped, eventually, insert_assured, misses_are_counted, module_references, run};

/// Longest wait for the table to come to rest: dying entries are freed after an RCU grace period.
const REST: Duration = Duration::from_secs(20);

/// The tests of one back end in a module of its own, so that a kernel without it can leave the module out by name.
macro_rules! back_end {
    ($module:ident, $options:expr) => {
        mod $module {
            use super::*;

            #[test]
            fn every_signal_is_on() {
                super::every_signal_is_on($options);
            }

            #[test]
            fn inserts_minus_destroys_equal_the_dump_with_clashes_and_ctnetlink_among_them() {
                super::accounting($options);
            }

            #[test]
            fn clashes_equal_the_kernels_statistics() {
                super::clashes($options);
            }

            #[test]
            fn what_went_in_by_its_reply_tuple_alone_is_counted_when_it_comes_and_when_it_goes() {
                super::reply_only($options);
            }

            #[test]
            fn chain_lengths_follow_poisson_in_a_small_table() {
                super::poisson($options);
            }

            #[test]
            fn drops_equal_the_kernels_statistics() {
                super::drops($options);
            }

            #[test]
            fn every_cause_of_drops_equals_the_kernels_statistics() {
                crate::causes::every_cause($options);
            }

            #[test]
            fn refused_flows_are_sampled_while_there_are_any() {
                super::refused($options);
            }

            #[test]
            fn destroys_tell_how_entries_ended() {
                super::fates($options);
            }

            #[test]
            fn a_resize_tells_who_and_how_long() {
                super::resize($options);
            }

            #[test]
            fn detaching_leaves_nothing_and_lets_go_of_the_module() {
                super::detaching($options);
            }

            #[test]
            fn counting_starts_at_zero_for_each_attach() {
                super::starts_at_zero($options);
            }
        }
    };
}

back_end!(tracing, Options { back_end: Some(BackEnd::Tracing), walk: Walk::Sampled, log: false });
back_end!(tracing_every, Options { back_end: Some(BackEnd::Tracing), walk: Walk::Every, log: false });
back_end!(kprobe, Options { back_end: Some(BackEnd::Kprobe), walk: Walk::Sampled, log: false });

fn every_signal_is_on(options: Options) {
    let hooks = Hooks::attach(options).unwrap();
    for signal in Signal::ALL {
        let row = hooks.signals().iter().find(|row| row.signal == signal).unwrap();
        assert_eq!(row.back_end, options.back_end, "{row:?}");
    }
}

fn destroyed(totals: &HookTotals) -> u64 {
    totals.destroys.as_ref().map(Destroys::all).unwrap()
}

/// Local flows are tracked while this lives.
struct TrackLocal;

impl TrackLocal {
    fn new() -> Self {
        run("nft", &["add table inet guest_test"]);
        run("nft", &["add chain inet guest_test output { type filter hook output priority 0; }"]);
        run("nft", &["add rule inet guest_test output ct state new counter"]);
        Self
    }
}

impl Drop for TrackLocal {
    fn drop(&mut self) {
        run("nft", &["delete table inet guest_test"]);
    }
}

/// Clashes resolved by the kernel's own count.
fn provoke_clashes(before: &Statistics) {
    eventually("two packets of one flow clash", Duration::from_mins(1), || {
        race_to_the_same_ports();
        // Before 5.15 there is no such column; a lost clash is then the only sign.
        let now = Statistics::read().unwrap();
        (now.since(before, "clashres") + now.since(before, "insert_failed") > 0).then_some(())
    });
}

fn accounting(options: Options) {
    let _table = Table::with(262_144, 16_384);
    let topology = Topology::create().unwrap();
    let local = TrackLocal::new();
    let mut hooks = Hooks::attach(options).unwrap();
    let before = Statistics::read().unwrap();

    Flows::one_way(0, 3_000).send(&topology).unwrap();
    Flows::answered(3_000, 2_000).send(&topology).unwrap();
    provoke_clashes(&before);
    for n in 1..=20 {
        conntrack("-I", n).unwrap();
    }
    assert!(conntrack("-I", 7).is_err(), "the entry is there already: an insert that fails must not count");
    for n in 1..=5 {
        conntrack("-D", n).unwrap();
    }

    let totals = eventually("inserts - destroys = dump", REST, || {
        let totals = hooks.read();
        (totals.inserts.unwrap() - destroyed(&totals) == dumped()).then_some(totals)
    });
    drop(local);
    let inserts = totals.inserts.unwrap();
    println!("{inserts} inserts, {} destroys, {:?}", destroyed(&totals), totals.clashes);
    assert!(inserts >= 5_020, "{totals:?}");
    assert!(destroyed(&totals) >= 5, "{totals:?}");
    assert_eq!(totals.missed, misses_are_counted(options.back_end.unwrap()).then_some(0));
    // All of them came in here, the gateway's namespace.
    let here = u32::try_from(fs::metadata("/proc/self/ns/net").unwrap().ino()).unwrap();
    let namespaces = totals.namespaces.unwrap();
    let each: Vec<_> = namespaces.each.iter().map(|namespace| (namespace.inode, namespace.inserts)).collect();
    assert_eq!(each, [(here, inserts - namespaces.other)]);
    // The self-test's namespace may have had the same place, on one CPU.
    assert!(namespaces.other < u64::from(CONTENDERS), "{namespaces:?}");
    let chains = totals.chains.unwrap();
    for lengths in [&chains.original, &chains.reply] {
        let walked: u64 = lengths.iter().sum();
        // Sampled on each CPU: the first insert and then one in so many.
        let cpus = 2;
        assert!((inserts / chains.one_in..=inserts / chains.one_in + cpus).contains(&walked), "{walked} of {inserts}");
    }
    run("conntrack", &["-F"]);
    eventually("after a flush all entries are destroyed", REST, || {
        let totals = hooks.read();
        (totals.inserts.unwrap() == destroyed(&totals) && dumped() == 0).then_some(())
    });
}

fn clashes(options: Options) {
    let _table = Table::with(262_144, 16_384);
    let _local = TrackLocal::new();
    let mut hooks = Hooks::attach(options).unwrap();
    let before = Statistics::read().unwrap();
    provoke_clashes(&before);
    let (now, clashes) = (Statistics::read().unwrap(), hooks.read().clashes.unwrap());
    println!("{clashes:?}");
    assert!(clashes.lost + clashes.resolved > 0);
    assert_eq!(clashes.lost, now.drops_since(&before).clash_lost);
    if now.has("clashres") {
        assert_eq!(clashes.resolved, now.since(&before, "clashres"));
    }
}

/// Where each packet of a new flow may get another destination, the later one's entry differs from the first one's: it
/// cannot give way to that, and goes in by its reply tuple alone, for a second.
fn reply_only(options: Options) {
    let _table = Table::with(262_144, 16_384);
    let _local = TrackLocal::new();
    run("nft", &["add chain inet guest_test nat { type nat hook output priority -100; }"]);
    let dnat = "dnat ip to numgen random mod 2 map { 0 : 127.0.0.2, 1 : 127.0.0.3 }";
    run("nft", &["add rule inet guest_test nat ip daddr 127.0.0.1 udp dport 20000-24000", dnat]);
    let mut hooks = Hooks::attach(options).unwrap();
    let before = Statistics::read().unwrap();
    let clashes = eventually("a clash ends so", Duration::from_mins(2), || {
        race_to_the_same_ports();
        let clashes = hooks.read().clashes.unwrap();
        (clashes.reply_only.unwrap() > 0).then_some(clashes)
    });
    println!("{clashes:?}");
    assert!(clashes.reply_only <= Some(clashes.resolved));
    assert_eq!(clashes.resolved, Statistics::read().unwrap().since(&before, "clashres"));
    run("conntrack", &["-F"]);
    let destroys = eventually("they are gone", REST, || {
        let destroys = hooks.read().destroys.unwrap();
        (Some(destroys.reply_only) >= clashes.reply_only).then_some(destroys)
    });
    assert_eq!(Some(destroys.reply_only), clashes.reply_only);
}

/// Two threads send the first packet of the same flows: often both see no entry, and the second to confirm clashes.
fn race_to_the_same_ports() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let start = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                start.wait();
                for port in 20_000..24_000 {
                    // Nobody listens there: the ICMP error that comes back is not this test's matter.
                    let _ = socket.send_to(b"x", ("127.0.0.1", port));
                }
            });
        }
    });
}

/// `conntrack -I` or `-D` of one flow, through ctnetlink.
fn conntrack(verb: &str, n: u8) -> Result<(), String> {
    let (client, server) = (format!("10.99.0.{n}"), "10.99.1.1");
    let mut arguments = vec![verb, "-p", "udp", "-s", &client, "-d", server, "--sport", "1000", "--dport", "53"];
    if verb == "-I" {
        let reply = ["-r", server, "-q", &client, "--reply-port-src", "53", "--reply-port-dst", "1000", "-t", "600"];
        arguments.extend(reply);
    }
    let output = Command::new("conntrack").args(arguments).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn poisson(options: Options) {
    // Sampled walks see fewer chains: more flows make up for it, in a table with the same mean.
    let (flows, buckets): (u64, u64) = if options.walk == Walk::Every { (8_000, 1_024) } else { (64_000, 8_192) };
    let _table = Table::with(262_144, buckets);
    let topology = Topology::create().unwrap();
    let mut hooks = Hooks::attach(options).unwrap();
    let sent = Flows::one_way(0, flows).send(&topology).unwrap();
    assert_eq!(sent.arrived, flows);
    let chains = hooks.read().chains.unwrap();

    // Before the i-th flow there are 2i tuples in the buckets; i runs evenly from 0 to all flows, so the lengths are a
    // mixture of Poisson distributions whose mean is spread evenly from 0 to 2 flows / buckets.
    let top = 2.0 * flows as f64 / buckets as f64;
    let expected = (top / 2.0, (top / 2.0 + top * top / 12.0).sqrt());
    // Every walk of 8,000: the mean is good to about 1 % (1,024 buckets drawn once each), the spread to 2 %. A sample of
    // 1,000 walks: the mean to 2 % and the spread to 3 %. Four times that would come once in 10,000 runs.
    let (mean_within, spread_within) = if options.walk == Walk::Every { (0.04, 0.08) } else { (0.09, 0.12) };
    for (direction, lengths) in [("original", &chains.original), ("reply", &chains.reply)] {
        let (mean, spread) = moments(lengths);
        println!(
            "{direction}: mean {mean:.2}, {:.2} expected; spread {spread:.2}, {:.2} expected",
            expected.0, expected.1
        );
        assert!(lengths.iter().sum::<u64>() >= flows / chains.one_in, "{direction}");
        assert!((mean / expected.0 - 1.0).abs() < mean_within, "{direction}: mean {mean}, {} expected", expected.0);
        assert!(
            (spread / expected.1 - 1.0).abs() < spread_within,
            "{direction}: spread {spread}, {} expected",
            expected.1
        );
    }
}

fn moments(lengths: &[u64]) -> (f64, f64) {
    let all: u64 = lengths.iter().sum();
    let weighted = |power: i32| -> f64 {
        lengths.iter().enumerate().map(|(length, &n)| (length as f64).powi(power) * n as f64).sum::<f64>() / all as f64
    };
    (weighted(1), (weighted(2) - weighted(1).powi(2)).sqrt())
}

fn drops(options: Options) {
    const MAX: u64 = 2_000;
    let _table = Table::with(MAX, 1_024);
    let topology = Topology::create().unwrap();
    let mut hooks = Hooks::attach(options).unwrap();
    let before = Statistics::read().unwrap();

    // Half of the table may be evicted, half may not.
    insert_assured(0..1_000);
    Flows::one_way(0, 1_500).send(&topology).unwrap();
    let evicting = hooks.read().table_full.unwrap();
    assert!(evicting.made_room > 0, "nothing was evicted: {evicting:?}");
    // Then nothing in it may be evicted, and there is no room.
    Settings { max: 8_000, buckets: 1_024 }.write().unwrap();
    insert_assured(1_000..4_000);
    Settings { max: MAX, buckets: 1_024 }.write().unwrap();
    let sent = Flows::one_way(10_000, 3_000).send(&topology).unwrap();

    let full = hooks.read().table_full.unwrap();
    let drops = Statistics::read().unwrap().drops_since(&before);
    println!("{full:?} by hook, {drops:?} by statistic; {sent:?}");
    assert!(drops.table_full > 0, "nothing was refused: {drops:?}");
    assert_eq!(full.refused, drops.table_full);
    assert_eq!(sent.sent - sent.arrived, full.refused - evicting.refused, "what was refused did not arrive");
    // One call of early_drop evicts one entry or more.
    assert!(full.made_room <= drops.evicted && drops.evicted > 0, "{full:?} {drops:?}");
}

/// Samples tell where refused flows come from and how many they stand for; nothing samples while nothing is refused.
fn refused(options: Options) {
    const MAX: u64 = 500;
    let _table = Table::with(MAX, 1_024);
    let topology = Topology::create().unwrap();
    let mut hooks = Hooks::attach(options).unwrap();
    insert_assured(0..500);
    assert!(hooks.read().refused.is_empty());
    // The first refusals bring the sampler; it sees those that follow.
    Flows::one_way(0, 100).send(&topology).unwrap();
    let unseen = hooks.read().table_full.unwrap().refused;
    assert!(unseen > 0, "nothing was refused");
    let (mut samples, mut total) = (Vec::new(), 0);
    for batch in 1..=20 {
        Flows::one_way(1_000 * batch, 100).send(&topology).unwrap();
        let totals = hooks.read();
        samples.extend(totals.refused);
        total = totals.table_full.unwrap().refused;
    }
    let stands_for: u64 = samples.iter().map(|sample| sample.stands_for).sum();
    println!("{total} refused, {unseen} before the sampler came; {} samples stand for {stands_for}", samples.len());
    println!("{:?}", samples.first());
    // What was refused after the last sample of each CPU is still waiting for the next one.
    assert!(stands_for > 0 && stands_for <= total - unseen, "{stands_for} of {}", total - unseen);
    // Refused too, and interrupted by those that come in: what is a process's own must not be mixed up with them.
    let stop = AtomicBool::new(false);
    let mixed = std::thread::scope(|scope| {
        scope.spawn(|| send_locally_until(&stop));
        let mut mixed = Vec::new();
        for batch in 21..=40 {
            Flows::one_way(1_000 * batch, 100).send(&topology).unwrap();
            mixed.extend(hooks.read().refused);
        }
        stop.store(true, Ordering::Relaxed);
        mixed
    });
    let here = u32::try_from(fs::metadata("/proc/self/ns/net").unwrap().ino()).unwrap();
    let (mut own, mut others) = (0, 0);
    for (sample, alone) in samples.iter().map(|sample| (sample, true)).chain(mixed.iter().map(|sample| (sample, false)))
    {
        let IpAddr::V4(source) = sample.source else { panic!("{sample:?}") };
        assert_eq!((sample.protocol, sample.namespace), (17, here), "{sample:?}");
        if source.is_loopback() {
            assert!(!alone && LOCAL_PORTS.contains(&sample.destination_port), "{sample:?}");
            own += 1;
        } else {
            assert_eq!((&source.octets()[..2], sample.destination_port), (&[198, 19][..], 9), "{sample:?}");
            others += usize::from(!alone);
        }
    }
    println!("{own} samples of this machine's own flows and {others} of others' at the same time");
    assert!(own > 0 && others > 0);
}

/// Where this machine sends to itself.
const LOCAL_PORTS: std::ops::Range<u16> = 30_000..40_000;

/// Opens flows from this machine to itself.
fn send_locally_until(stop: &AtomicBool) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for port in LOCAL_PORTS.cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        // What is refused is an error to the sender.
        let _ = socket.send_to(b"x", ("127.0.0.1", port));
    }
}

fn fates(options: Options) {
    /// `enum tcp_conntrack`
    const TIME_WAIT: usize = 7;
    const CLOSE: usize = 8;
    let _table = Table::with(262_144, 16_384);
    let topology = Topology::create().unwrap();
    let mut hooks = Hooks::attach(options).unwrap();
    Flows::one_way(0, 300).send(&topology).unwrap();
    let load = Churn { rate: 100, duration: Duration::from_secs(2), ..Churn::default() };
    let made = load.run(&topology, &Arc::new(Progress::default()), &AtomicBool::new(false)).unwrap().made;
    assert!(made > 0);
    insert_assured(0..50);
    run("conntrack", &["-F"]);
    let destroys = eventually("all are destroyed", REST, || {
        let totals = hooks.read();
        (totals.inserts.unwrap() == destroyed(&totals)).then_some(totals.destroys.unwrap())
    });
    println!("{destroys:?}");
    assert_eq!(destroys.udp, [300, 50]);
    // Every connection was closed on both sides; where a machine is so slow that a side gave up, by a reset.
    let reset = destroys.tcp[CLOSE][1];
    assert_eq!((destroys.tcp[TIME_WAIT], destroys.tcp[CLOSE][0]), ([0, made - reset], 0));
    assert!(reset < made / 4, "{reset} of {made} connections were reset");
    assert_eq!(destroys.all(), 350 + made);
}

fn resize(options: Options) {
    let _table = Table::with(262_144, 1_024);
    let topology = Topology::create().unwrap();
    Flows::one_way(0, 5_000).send(&topology).unwrap();
    let mut hooks = Hooks::attach(options).unwrap();
    hooks.read();
    fs::write("/proc/sys/net/netfilter/nf_conntrack_buckets", "4096").unwrap();
    run("sh", &["-c", "echo 2048 > /proc/sys/net/netfilter/nf_conntrack_buckets"]);
    let resizes = hooks.read().resizes;
    println!("{resizes:?}");
    let told: Vec<_> = resizes.iter().map(|event| (event.from, event.to, event.result)).collect();
    assert_eq!(told, [(Some(1_024), Some(4_096), 0), (Some(4_096), Some(2_048), 0)]);
    assert_eq!((resizes[0].pid, resizes[1].comm.as_str()), (std::process::id(), "sh"));
    for event in &resizes {
        // 5,000 entries have 10,000 tuples to move: no machine does that in 10 µs.
        assert!(event.took > Duration::from_micros(10) && event.took < Duration::from_secs(5), "{event:?}");
        assert!(event.cgroup > 0, "{event:?}");
    }
}

fn detaching(options: Options) {
    let (references, programs, maps) = (module_references(), ids("prog"), ids("map"));
    let hooks = Hooks::attach(options).unwrap();
    assert!(module_references() > references || options.back_end == Some(BackEnd::Kprobe), "they pin the module");
    assert!(ids("prog") > programs && ids("map") > maps, "the programs are there");
    drop(hooks);
    eventually("module, programs and maps are as before", Duration::from_secs(5), || {
        ((module_references(), ids("prog"), ids("map")) == (references, programs, maps)).then_some(())
    });
}

/// How many BPF objects of a kind the kernel holds.
fn ids(kind: &str) -> usize {
    match kind {
        "prog" => aya::programs::loaded_programs().count(),
        _ => aya::maps::loaded_maps().count(),
    }
}

fn starts_at_zero(options: Options) {
    let _table = Table::with(262_144, 16_384);
    let topology = Topology::create().unwrap();
    for first in [0, 100] {
        let mut hooks = Hooks::attach(options).unwrap();
        assert_eq!(hooks.read().inserts, Some(0));
        Flows::one_way(first, 100).send(&topology).unwrap();
        assert_eq!(hooks.read().inserts, Some(100));
    }
}
