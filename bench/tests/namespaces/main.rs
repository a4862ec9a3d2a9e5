//! The topology and the loads on a real kernel. Each test has a network namespace of its own as the gateway.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod balancers;
mod ended;
mod floods;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bench::churn::Churn;
use bench::conntrack::{self, Statistics};
use bench::load::{self, Failure};
use bench::netns::{Error, Family, Topology};
use bench::scenario::{Outcome, Progress, Scenario};
use bench::udp::{Delivered, Flows};
use nix::sched::{CloneFlags, unshare};

/// Runs `test` on a thread in a new network namespace.
fn in_gateway<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    let outcome = thread::scope(|scope| {
        scope
            .spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace; this test needs root");
                // As on any host: without it the kernel takes nothing in for its own IPv6 addresses.
                assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
                test()
            })
            .join()
    });
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn ip_forward() -> String {
    fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim().to_owned()
}

fn ipv6_forwarding() -> Vec<String> {
    let switch = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}/forwarding")).unwrap();
    ["all", "default", "lo"].map(switch).into()
}

fn links() -> String {
    fs::read_to_string("/proc/thread-self/net/dev").unwrap()
}

fn rules() -> String {
    let output = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_connection_is_one_entry_and_the_other_two_namespaces_track_nothing() {
    in_gateway(|| {
        let topology = Topology::create().unwrap();
        let churn = Churn { rate: 200, duration: Duration::from_secs(2), ..Churn::default() };
        let progress = Arc::new(load::Progress::default());
        let before = Statistics::read().unwrap();
        let outcome = churn.run(&topology, &progress, &AtomicBool::new(false)).unwrap();
        assert!(outcome.started > 300, "{}", outcome.started);
        assert_eq!(outcome.made, outcome.started, "{:?}", outcome.failed);
        assert_eq!(progress.made(), outcome.made);
        assert_eq!(outcome.connect.count(), outcome.made);
        let (half, longest) = (outcome.connect.at(0.5), outcome.connect.max());
        assert!(half > Duration::ZERO && half <= longest, "{half:?} {longest:?}");
        assert_eq!(outcome.request.count(), outcome.made);
        assert_eq!(conntrack::count().unwrap(), outcome.made);
        assert_eq!(Statistics::read().unwrap().drops_since(&before).new_flows(), 0);
        for namespace in [topology.clients(), topology.servers()] {
            assert_eq!(namespace.run(|| conntrack::count().unwrap()).unwrap(), 0, "{}", namespace.name());
        }
        conntrack::flush().unwrap();
        assert_eq!(conntrack::count().unwrap(), 0);
    });
}

#[test]
fn a_load_ends_soon_after_it_is_told_to() {
    in_gateway(|| {
        let topology = Topology::create().unwrap();
        let churn = Churn { rate: 50, duration: Duration::from_mins(1), ..Churn::default() };
        let (progress, stop) = (Arc::new(load::Progress::default()), AtomicBool::new(false));
        let start = Instant::now();
        let outcome = thread::scope(|scope| {
            let running = scope.spawn(|| churn.run(&topology, &progress, &stop).unwrap());
            while progress.made() == 0 && start.elapsed() < Duration::from_secs(10) {
                thread::sleep(Duration::from_millis(10));
            }
            stop.store(true, Ordering::Relaxed);
            running.join().unwrap()
        });
        assert!(outcome.made > 0 && outcome.started < 1000, "{:?}", outcome.failed);
        assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    });
}

#[test]
fn flows_are_distinct_and_answered_when_asked() {
    in_gateway(|| {
        let topology = Topology::create().unwrap();
        let delivered = Flows::one_way(0, 1000).send(&topology).unwrap();
        assert_eq!(delivered, Delivered { sent: 1000, arrived: 1000, answers: 0 });
        assert_eq!(conntrack::count().unwrap(), 1000);
        // Across the border between two ports.
        let delivered = Flows::answered(65_000, 1000).send(&topology).unwrap();
        assert_eq!(delivered, Delivered { sent: 1000, arrived: 1000, answers: 1000 });
        assert_eq!(conntrack::count().unwrap(), 2000);
        // The same numbers are the same flows.
        Flows::one_way(0, 1000).send(&topology).unwrap();
        assert_eq!(conntrack::count().unwrap(), 2000);
    });
}

#[test]
fn everything_is_put_back() {
    in_gateway(|| {
        let before = (ip_forward(), links().lines().count(), rules());
        let topology = Topology::create().unwrap();
        let clients = topology.clients().name().to_owned();
        assert_eq!(ip_forward(), "1");
        assert!(rules().contains("ct state"));
        assert!(matches!(Topology::create(), Err(Error::Busy { .. })));
        topology.remove().unwrap();
        assert_eq!((ip_forward(), links().lines().count(), rules()), before);
        assert!(!fs::exists(format!("/run/netns/{clients}")).unwrap());
    });
}

/// What IPVS has of itself: its module, and the services of this namespace.
fn ipvs() -> (bool, usize) {
    let services = fs::read_to_string("/proc/thread-self/net/ip_vs").unwrap_or_default();
    (fs::exists("/sys/module/ip_vs").unwrap(), services.lines().filter(|line| line.contains("FWM")).count())
}

/// Runs a scenario in a gateway of its own and hands its outcome, and what conntrack lists then, to `judge`.
fn run(text: &str, judge: impl FnOnce(&Scenario, &Outcome, &[String]) + Send) {
    let scenario = Scenario::parse("test", text).unwrap();
    in_gateway(|| {
        let state = || (ip_forward(), ipv6_forwarding(), links().lines().count(), rules(), ipvs());
        let before = state();
        let topology = scenario.topology().unwrap();
        // A slow guest must not lose entries before they are counted.
        for timeout in ["tcp_timeout_close", "tcp_timeout_syn_recv", "udp_timeout"] {
            fs::write(format!("/proc/sys/net/netfilter/nf_conntrack_{timeout}"), "600").unwrap();
        }
        let progress = Progress::new(&scenario);
        let outcome = scenario.run(&topology, &progress, &AtomicBool::new(false)).unwrap();
        for (load, progress) in outcome.loads.iter().zip(progress.loads()) {
            assert_eq!(load.outcome.started, load.outcome.made + load.outcome.failures(), "{load:?}");
            assert_eq!((progress.made(), progress.open()), (load.outcome.made, 0), "{load:?}");
        }
        let family = if scenario.shape.ip == Family::Ipv6 { "ipv6" } else { "ipv4" };
        let listed = Command::new("conntrack").args(["-L", "-f", family]).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        judge(&scenario, &outcome, &listed.lines().map(str::to_owned).collect::<Vec<_>>());
        topology.remove().unwrap();
        assert_eq!(state(), before);
    });
}

fn in_state(entries: &[String], state: &str) -> u64 {
    entries.iter().filter(|entry| entry.split_whitespace().nth(3) == Some(state)).count() as u64
}

/// Within five standard deviations of a Poisson process.
fn near(count: u64, expected: f64) {
    assert!((count as f64 - expected).abs() < 5.0 * expected.sqrt(), "{count} is not about {expected}");
}

#[test]
fn connections_end_as_they_are_asked_to() {
    let text = r#"
        duration = "4s"
        [[load]]
        kind = "tcp"
        rate = 20
        [[load]]
        kind = "tcp"
        rate = 20
        end = "reset"
        [[load]]
        kind = "tcp"
        rate = 20
        end = "half-closed"
        hold = "1s"
        [[load]]
        kind = "tcp"
        clients = 2
        hold = "100ms"
    "#;
    run(text, |_, outcome, entries| {
        let made = |number: usize| outcome.loads[number].outcome.made;
        (0..3).for_each(|number| near(outcome.loads[number].outcome.started, 80.0));
        assert_eq!(outcome.all.failures(), 0, "{:?}", outcome.all.failed);
        assert_eq!(in_state(entries, "CLOSE"), made(1));
        assert_eq!(in_state(entries, "TIME_WAIT"), made(0) + made(2) + made(3));
        assert_eq!(entries.len() as u64, outcome.all.made);
        // Two clients, each connection held for 0.1 s.
        assert!((10..=80).contains(&made(3)), "{}", made(3));
        assert_eq!(outcome.all.connect.count(), outcome.all.made);
        assert_eq!(outcome.all.lateness.count(), made(0) + made(1) + made(2));
    });
}

#[test]
fn half_closed_and_idle_connections_stand_until_they_are_let_go() {
    let text = r#"
        duration = "6s"
        [[load]]
        kind = "tcp"
        rate = 30
        duration = "5900ms"
        hold = "1h"
        most = 60
        [[load]]
        kind = "tcp"
        rate = 10
        end = "half-closed"
        hold = "1h"
    "#;
    let scenario = Scenario::parse("test", text).unwrap();
    in_gateway(|| {
        let topology = scenario.topology().unwrap();
        let progress = Progress::new(&scenario);
        let (during, outcome) = thread::scope(|scope| {
            let running = scope.spawn(|| scenario.run(&topology, &progress, &AtomicBool::new(false)).unwrap());
            thread::sleep(Duration::from_secs(5));
            let listed = Command::new("conntrack").arg("-L").output().unwrap();
            (String::from_utf8(listed.stdout).unwrap(), running.join().unwrap())
        });
        let during: Vec<String> = during.lines().map(str::to_owned).collect();
        let [idle, half] = &outcome.loads[..] else { panic!("{outcome:?}") };
        // As many as may be open, and no more, though three times as many came.
        assert_eq!((idle.outcome.made, in_state(&during, "ESTABLISHED")), (60, 60));
        assert_eq!(idle.outcome.failed.keys().collect::<Vec<_>>(), [&Failure::TooMany]);
        near(idle.outcome.started, 30.0 * 5.9);
        assert!(in_state(&during, "CLOSE_WAIT") > 20, "{during:?}");
        assert!(in_state(&during, "CLOSE_WAIT") <= half.outcome.made, "{during:?}");
    });
}

#[test]
fn held_connections_ask_again_and_fail_with_the_first_request_that_is_not_answered() {
    let text = r#"
        duration = "4s"
        [[load]]
        kind = "tcp"
        rate = { peak = 50, after = "0s", for = "500ms" }
        hold = "1h"
        every = "500ms"
    "#;
    run(text, |_, outcome, entries| {
        let Outcome { all, .. } = outcome;
        near(all.started, 25.0);
        assert_eq!((all.failures(), all.asked), (0, all.answered), "{all:?}");
        // Of 3.5 to 4 s; what is due at the very end, or connected late, may fall out.
        assert!((5 * all.made..=8 * all.made).contains(&all.answered), "{all:?}");
        assert_eq!(all.request.count(), all.made + all.answered);
        assert_eq!(entries.len() as u64, all.made);
    });

    let scenario = Scenario::parse("test", text).unwrap();
    in_gateway(|| {
        let topology = scenario.topology().unwrap();
        let progress = Progress::new(&scenario);
        let outcome = thread::scope(|scope| {
            let running = scope.spawn(|| scenario.run(&topology, &progress, &AtomicBool::new(false)).unwrap());
            thread::sleep(Duration::from_secs(2));
            // Whatever stands is cut off.
            fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
            running.join().unwrap()
        });
        let Outcome { all, .. } = outcome;
        near(all.started, 25.0);
        assert_eq!((all.made, all.failed.keys().collect::<Vec<_>>()), (0, vec![&Failure::RequestTimeout]), "{all:?}");
        assert!(all.answered > 0, "{all:?}");
        assert_eq!(all.asked, all.answered + all.started, "each fails with one request: {all:?}");
    });
}

#[test]
fn datagrams_are_flows_or_questions_and_what_does_not_come_is_lost() {
    let text = r#"
        duration = "4s"
        [[load]]
        kind = "udp"
        rate = 100
        sources = 50
        [[load]]
        kind = "udp"
        rate = 100
        answered = false
        [[load]]
        kind = "dns"
        rate = 200
        sources = 5
        sockets = 4
    "#;
    run(text, |_, outcome, entries| {
        assert_eq!(outcome.all.failures(), 0, "{:?}", outcome.all.failed);
        let [answered, one_way, questions] = [0, 1, 2].map(|number: usize| &outcome.loads[number].outcome);
        near(answered.made, 400.0);
        near(questions.made, 800.0);
        let unreplied = entries.iter().filter(|entry| entry.contains("[UNREPLIED]")).count() as u64;
        assert_eq!(unreplied, one_way.made);
        // Each flow of the first is an entry, and each address with each socket of the last.
        assert_eq!(entries.len() as u64, answered.made + one_way.made + 5 * 4);
        assert_eq!((answered.request.count(), questions.request.count()), (answered.made, questions.made));
        assert!(answered.request.at(0.5) > Duration::ZERO);
    });
    let scenario = Scenario::parse("test", "duration = \"2s\"\n[[load]]\nkind = \"udp\"\nrate = 50").unwrap();
    in_gateway(|| {
        let topology = scenario.topology().unwrap();
        let drop = "table inet lossy { chain f { type filter hook forward priority 10; udp dport 9000 drop; }; }";
        assert!(Command::new("nft").arg(drop).status().unwrap().success());
        let outcome = scenario.run(&topology, &Progress::new(&scenario), &AtomicBool::new(false)).unwrap();
        assert_eq!((outcome.all.made, outcome.all.failed[&Failure::Unanswered]), (0, outcome.all.started));
    });
}

#[test]
fn floods_and_scans_leave_the_entries_that_they_say() {
    let flood = |answered| format!("duration = \"3s\"\n[[load]]\nkind = \"syn\"\nrate = 200\nanswered = {answered}");
    for (answered, state) in [("true", "SYN_RECV"), ("false", "SYN_SENT")] {
        run(&flood(answered), |_, outcome, entries| {
            near(outcome.all.made, 600.0);
            assert_eq!(in_state(entries, state), outcome.all.made);
            assert_eq!(entries.len() as u64, outcome.all.made);
        });
    }
    let scan =
        |protocol: &str| format!("duration = \"3s\"\n[[load]]\nkind = \"scan\"\nrate = 200\nprotocol = \"{protocol}\"");
    run(&scan("udp"), |_, outcome, entries| {
        near(outcome.all.made, 600.0);
        assert_eq!(entries.iter().filter(|entry| entry.contains("[UNREPLIED]")).count() as u64, outcome.all.made);
    });
    // The kernel deletes an entry whose SYN was answered by a reset.
    run(&scan("tcp"), |_, outcome, entries| {
        near(outcome.all.made, 600.0);
        assert_eq!(entries, [""; 0]);
    });
}

#[test]
fn a_gateway_with_nat_translates_both_ends_over_either_family() {
    for (ip, service, gateway) in
        [("ipv4", "dst=198.18.0.9 ", "dst=198.18.0.5 "), ("ipv6", "dst=2001:2:0:4::1 ", "dst=2001:2:0:2::1 ")]
    {
        let text = format!(
            "duration = \"3s\"\ntopology = {{ ip = \"{ip}\", nat = true }}\n[[load]]\nkind = \"tcp\"\nrate = 50\n\
             [[load]]\nkind = \"dns\"\nrate = 50\n[[load]]\nkind = \"udp\"\nrate = 50\n[[load]]\nkind = \"syn\"\nrate = 20"
        );
        run(&text, |_, outcome, entries| {
            assert_eq!(outcome.all.failures(), 0, "{:?}", outcome.all.failed);
            near(outcome.all.made, 3.0 * 170.0);
            let translated = entries.iter().filter(|entry| entry.contains(service) && entry.contains(gateway)).count();
            assert!(translated > 300 && translated == entries.len(), "{translated} of {}: {entries:?}", entries.len());
            let servers = entries.iter().filter_map(|entry| entry.split(" src=").nth(2)?.split(' ').next());
            assert_eq!(servers.collect::<BTreeSet<_>>().len(), 16);
        });
    }
}

#[test]
fn every_kind_of_load_speaks_ipv6() {
    let text = "duration = \"3s\"\ntopology.ip = \"ipv6\"\n[[load]]\nkind = \"tcp\"\nrate = 50\n\
                [[load]]\nkind = \"udp\"\nrate = 50\n[[load]]\nkind = \"syn\"\nanswered = false\nrate = 50\n\
                [[load]]\nkind = \"scan\"\nprotocol = \"udp\"\nrate = 50";
    run(text, |_, outcome, entries| {
        assert_eq!(outcome.all.failures(), 0, "{:?}", outcome.all.failed);
        assert_eq!(entries.len() as u64, outcome.all.made);
        assert_eq!(in_state(entries, "TIME_WAIT"), outcome.loads[0].outcome.made);
        assert_eq!(in_state(entries, "SYN_SENT"), outcome.loads[2].outcome.made);
    });
}

#[test]
fn a_host_tracks_what_comes_in_to_its_own_servers() {
    let text = "duration = \"3s\"\ntopology.kind = \"host\"\n[[load]]\nkind = \"tcp\"\nrate = 50\n\
                [[load]]\nkind = \"dns\"\nrate = 50\n[[load]]\nkind = \"syn\"\nrate = 20\n\
                [[load]]\nkind = \"scan\"\nrate = 20\nprotocol = \"udp\"";
    run(text, |_, outcome, entries| {
        assert_eq!(outcome.all.failures(), 0, "{:?}", outcome.all.failed);
        near(outcome.all.made, 3.0 * 140.0);
        assert_eq!(entries.len() as u64, outcome.all.made, "{entries:?}");
        assert!(entries.iter().all(|entry| entry.contains("dst=198.18.0.1 ")), "{entries:?}");
        assert_eq!(in_state(entries, "TIME_WAIT"), outcome.loads[0].outcome.made);
        assert_eq!(in_state(entries, "SYN_RECV"), outcome.loads[2].outcome.made);
    });
}
