//! The programs against truths that they did not produce: a dump, the kernel's statistics, Poisson's expectation.

use std::io::Write as _;
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::Duration;

use bench::conntrack::{Settings, Statistics};
use bench::netns::Topology;
use bench::udp::Flows;
use conntrack_guard::kernel::Hooks;
use conntrack_guard::observe::HookTotals;

use crate::kernel::{Table, dumped, eventually, module_references, run};

/// Longest wait for the table to come to rest: dying entries are freed after an RCU grace period.
const REST: Duration = Duration::from_secs(20);

#[test]
fn inserts_minus_destroys_equal_the_dump_with_clashes_and_ctnetlink_among_them() {
    let _table = Table::with(262_144, 16_384);
    let topology = Topology::create().unwrap();
    run("nft", &["add table inet guest_test"]);
    run("nft", &["add chain inet guest_test output { type filter hook output priority 0; }"]);
    run("nft", &["add rule inet guest_test output ct state new counter"]);
    let hooks = Hooks::attach().unwrap();
    let before = Statistics::read().unwrap();

    Flows::one_way(0, 3_000).send(&topology).unwrap();
    Flows::answered(3_000, 2_000).send(&topology).unwrap();
    let clashes = eventually("two packets of one flow clash", Duration::from_secs(60), || {
        race_to_the_same_ports();
        let clashes = Statistics::read().unwrap().since(&before, "clashres");
        (clashes > 0).then_some(clashes)
    });
    for n in 1..=20 {
        conntrack("-I", n).unwrap();
    }
    conntrack("-I", 7).expect_err("the entry is there already: an insert that fails must not count");
    for n in 1..=5 {
        conntrack("-D", n).unwrap();
    }

    let totals = eventually("inserts - destroys = dump", REST, || {
        let totals = hooks.read();
        (totals.inserts - totals.destroys == dumped()).then_some(totals)
    });
    run("nft", &["delete table inet guest_test"]);
    println!("{} inserts, {} destroys, {clashes} clashes resolved", totals.inserts, totals.destroys);
    assert!(totals.inserts >= 5_020, "{totals:?}");
    assert!(totals.destroys >= 5, "{totals:?}");
    assert_eq!(totals.missed, 0);
    assert_eq!(totals.chains.original.iter().sum::<u64>(), totals.inserts, "each insert has one original chain");
    assert_eq!(totals.chains.reply.iter().sum::<u64>(), totals.inserts, "and one reply chain");
    run("conntrack", &["-F"]);
    eventually("after a flush all entries are destroyed", REST, || {
        let totals = hooks.read();
        (totals.inserts == totals.destroys && dumped() == 0).then_some(())
    });
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

#[test]
fn chain_lengths_follow_poisson_in_a_small_table() {
    const FLOWS: u64 = 8_000;
    const BUCKETS: u64 = 1_024;
    let _table = Table::with(262_144, BUCKETS);
    let topology = Topology::create().unwrap();
    let hooks = Hooks::attach().unwrap();
    let sent = Flows::one_way(0, FLOWS).send(&topology).unwrap();
    assert_eq!(sent.arrived, FLOWS);
    let chains = hooks.read().chains;

    // Before the i-th flow there are 2i tuples in the buckets; i runs evenly from 0 to FLOWS, so the lengths are a mixture
    // of Poisson distributions whose mean is spread evenly from 0 to 2 FLOWS / BUCKETS.
    let top = 2.0 * FLOWS as f64 / BUCKETS as f64;
    let expected = (top / 2.0, (top / 2.0 + top * top / 12.0).sqrt());
    for (direction, lengths) in [("original", &chains.original), ("reply", &chains.reply)] {
        let (mean, spread) = moments(lengths);
        println!(
            "{direction}: mean {mean:.2}, {:.2} expected; spread {spread:.2}, {:.2} expected",
            expected.0, expected.1
        );
        assert_eq!(lengths.iter().sum::<u64>(), FLOWS, "{direction}");
        // 1024 buckets drawn once each: the mean itself is good to about 1 %, the spread to 2 %.
        assert!((mean / expected.0 - 1.0).abs() < 0.04, "{direction}: mean {mean}, {} expected", expected.0);
        assert!((spread / expected.1 - 1.0).abs() < 0.08, "{direction}: spread {spread}, {} expected", expected.1);
    }
}

fn moments(lengths: &[u64]) -> (f64, f64) {
    let all: u64 = lengths.iter().sum();
    let weighted = |power: i32| -> f64 {
        lengths.iter().enumerate().map(|(length, &n)| (length as f64).powi(power) * n as f64).sum::<f64>() / all as f64
    };
    (weighted(1), (weighted(2) - weighted(1).powi(2)).sqrt())
}

#[test]
fn drops_equal_the_kernels_statistics() {
    const MAX: u64 = 2_000;
    let _table = Table::with(MAX, 1_024);
    let topology = Topology::create().unwrap();
    let hooks = Hooks::attach().unwrap();
    let before = Statistics::read().unwrap();

    // Half of the table may be evicted, half may not.
    insert_assured(0..1_000);
    Flows::one_way(0, 1_500).send(&topology).unwrap();
    let evicting = hooks.read();
    assert!(evicting.early_drops > 0, "nothing was evicted: {evicting:?}");
    // Then nothing in it may be evicted, and there is no room.
    Settings { max: 8_000, buckets: 1_024 }.write().unwrap();
    insert_assured(1_000..4_000);
    Settings { max: MAX, buckets: 1_024 }.write().unwrap();
    let sent = Flows::one_way(10_000, 3_000).send(&topology).unwrap();

    let totals = hooks.read();
    let drops = Statistics::read().unwrap().drops_since(&before);
    println!("refused: {} by hook, {} by statistic; {drops:?}; {sent:?}", totals.table_full, drops.table_full);
    assert!(drops.table_full > 0, "nothing was refused: {drops:?}");
    assert_eq!(totals.table_full, drops.table_full);
    assert_eq!(sent.sent - sent.arrived, drops.table_full - evicting.table_full, "what was refused did not arrive");
    // One call of early_drop evicts one entry or more.
    assert!(totals.early_drops <= drops.evicted && drops.evicted > 0, "{totals:?} {drops:?}");
}

/// ASSURED entries, which early_drop leaves alone.
fn insert_assured(numbers: std::ops::Range<u16>) {
    let mut load = Command::new("conntrack").args(["-R", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let end = numbers.end;
    let lines: String = numbers
        .map(|n| {
            let (client, server) = (format!("10.98.{}.{}", n / 250, n % 250 + 1), "10.98.255.1");
            format!(
                "-I -p udp -s {client} -d {server} --sport 1000 --dport 53 -r {server} -q {client} \
                 --reply-port-src 53 --reply-port-dst 1000 -t 600 -u SEEN_REPLY,ASSURED\n"
            )
        })
        .collect();
    load.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(load.wait().unwrap().success());
    let assured = run("conntrack", &["-L", "-p", "udp"]).lines().filter(|line| line.contains("ASSURED")).count();
    assert_eq!(assured, usize::from(end));
}

#[test]
fn detaching_leaves_nothing_and_lets_go_of_the_module() {
    let (references, programs, maps) = (module_references(), ids("prog"), ids("map"));
    let hooks = Hooks::attach().unwrap();
    assert!(module_references() > references, "attached programs pin the module");
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

#[test]
fn counting_starts_at_zero_for_each_attach() {
    let _table = Table::with(262_144, 16_384);
    let topology = Topology::create().unwrap();
    for first in [0, 100] {
        let hooks = Hooks::attach().unwrap();
        let empty: HookTotals = hooks.read();
        assert_eq!(empty.inserts, 0);
        Flows::one_way(first, 100).send(&topology).unwrap();
        assert_eq!(hooks.read().inserts, 100);
    }
}
