//! The topology and the loads on a real kernel. Each test has a network namespace of its own as the gateway.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bench::churn::{Churn, Progress};
use bench::conntrack::{self, Statistics};
use bench::netns::{Error, Topology};
use bench::udp::{Delivered, Flows};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Runs `test` on a thread in a new network namespace.
fn in_gateway<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    let outcome = thread::scope(|scope| {
        scope
            .spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace; this test needs root");
                test()
            })
            .join()
    });
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn ip_forward() -> String {
    fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim().to_owned()
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
        let progress = Arc::new(Progress::default());
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
        let (progress, stop) = (Arc::new(Progress::default()), AtomicBool::new(false));
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

/// Starts a long load of the program in the calling thread's namespace and waits until connections are made.
fn start_program() -> Child {
    let child = Command::new(env!("CARGO_BIN_EXE_conntrack-guard-bench"))
        .args(["churn", "--rate", "50", "--for", "60"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while conntrack::count().unwrap_or(0) < 10 {
        assert!(start.elapsed() < Duration::from_secs(20), "no connections");
        thread::sleep(Duration::from_millis(50));
    }
    child
}

fn namespaces_of(child: &Child) -> usize {
    let prefix = format!("cgb{}_", child.id());
    let names = fs::read_dir("/run/netns").unwrap();
    names.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(&prefix)).count()
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
}

#[test]
fn a_terminated_program_puts_everything_back() {
    in_gateway(|| {
        let before = ip_forward();
        let mut child = start_program();
        assert_eq!(namespaces_of(&child), 2);
        signal(&child, Signal::SIGTERM);
        assert_eq!(child.wait().unwrap().code(), Some(1));
        assert_eq!(namespaces_of(&child), 0);
        assert_eq!((ip_forward(), rules()), (before, String::new()));
    });
}

#[test]
fn the_next_run_removes_what_a_killed_one_left() {
    in_gateway(|| {
        let before = ip_forward();
        let mut child = start_program();
        signal(&child, Signal::SIGKILL);
        child.wait().unwrap();
        assert_eq!(namespaces_of(&child), 2);

        let topology = Topology::create().unwrap();
        let removed = format!("cgb{}_0 was killed: removed what it had left", child.id());
        assert!(topology.leftovers().contains(&removed), "{:?}", topology.leftovers());
        assert_eq!(namespaces_of(&child), 0);
        topology.remove().unwrap();
        assert_eq!((ip_forward(), rules()), (before, String::new()));
    });
}
