//! nf_conntrack that comes and goes: absent at start, held by attached programs, unloaded under kprobes.

use std::fs;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::kernel::{Guard, binary, eventually, run, status};

const LIMIT: Duration = Duration::from_secs(30);

/// Unloads nf_conntrack and what builds on it.
fn unload() -> bool {
    remove("nf_conntrack")
}

fn remove(module: &str) -> bool {
    let holders = format!("/sys/module/{module}/holders");
    for holder in fs::read_dir(holders).into_iter().flatten().flatten() {
        remove(holder.file_name().to_str().unwrap());
    }
    Command::new("rmmod").arg(module).status().unwrap().success()
}

fn load() {
    run("modprobe", &["nf_conntrack"]);
}

/// Loads it again however the test ends.
struct Loaded;

impl Drop for Loaded {
    fn drop(&mut self) {
        load();
    }
}

fn answer() -> Value {
    serde_json::from_slice(&status().stdout).unwrap_or_default()
}

fn guards() -> Option<()> {
    (answer()["table"]["max"].as_u64()? > 0).then_some(())
}

fn waits() -> Option<()> {
    answer()["waiting"].as_str()?.contains("modprobe nf_conntrack").then_some(())
}

#[test]
fn a_guard_waits_for_the_module_and_then_starts() {
    let _loaded = Loaded;
    eventually("nf_conntrack is unloaded", LIMIT, || unload().then_some(()));
    let mut guard = Guard::start_with("", &mut Command::new(binary()), &[]);
    eventually("it says that it waits", LIMIT, waits);
    let shown = run(binary().to_str().unwrap(), &["status"]);
    assert!(shown.contains("waits for nf_conntrack"), "{shown}");
    let (code, log) = Guard::start_with("", &mut Command::new(binary()), &[]).end();
    assert_eq!(code, Some(1), "two that wait: {log}");
    assert!(log.contains("another conntrack-guard"), "{log}");
    assert_eq!(guard.log().matches("waiting for nf_conntrack").count(), 1, "{}", guard.log());

    load();
    eventually("it guards", LIMIT, guards);
    assert_eq!(answer()["back_end"]["measured"], true, "{}", answer());
    guard.signal(Signal::SIGTERM);
    let (code, log) = guard.end();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn a_guard_that_waits_ends_at_once() {
    let _loaded = Loaded;
    eventually("nf_conntrack is unloaded", LIMIT, || unload().then_some(()));
    let mut guard = Guard::start_with("", &mut Command::new(binary()), &[]);
    eventually("it says that it waits", LIMIT, waits);
    guard.signal(Signal::SIGTERM);
    let (code, log) = guard.end();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(status().status.code(), Some(1), "nobody answers any more");
    // As the unit does after each stop.
    let restored = guard.restore();
    assert_eq!(restored.status.code(), Some(0), "{restored:?}");
    assert!(String::from_utf8_lossy(&restored.stdout).contains("nothing to put back"), "{restored:?}");
}

#[test]
fn tracing_holds_the_module_until_the_guard_stops() {
    let _loaded = Loaded;
    let mut guard = Guard::start("");
    assert!(!unload(), "it could be unloaded under attached programs");
    guard.signal(Signal::SIGTERM);
    assert_eq!(guard.end().0, Some(0));
    eventually("nf_conntrack can be unloaded", LIMIT, || unload().then_some(()));
}

#[test]
fn a_module_unloaded_under_kprobes_is_waited_for_and_measured_anew() {
    let _loaded = Loaded;
    let mut guard = Guard::start_as("", &mut Command::new(binary()), &["--backend", "kprobe"]);
    eventually("nf_conntrack is unloaded", LIMIT, || unload().then_some(()));
    eventually("it says that it waits", LIMIT, waits);
    load();
    eventually("it guards", LIMIT, guards);
    counts_inserts();
    guard.signal(Signal::SIGTERM);
    assert_eq!(guard.end().0, Some(0));
}

/// Between two looks at the table, it is there at each.
#[test]
fn a_module_that_was_away_unseen_is_measured_anew_too() {
    let _loaded = Loaded;
    let mut guard = Guard::start_as("", &mut Command::new(binary()), &["--backend", "kprobe"]);
    guard.signal(Signal::SIGSTOP);
    eventually("nf_conntrack is unloaded", LIMIT, || unload().then_some(()));
    load();
    guard.signal(Signal::SIGCONT);
    eventually("it has seen that", LIMIT, || guard.log().contains("nf_conntrack was unloaded").then_some(()));
    eventually("it guards", LIMIT, guards);
    counts_inserts();
    guard.signal(Signal::SIGTERM);
    assert_eq!(guard.end().0, Some(0));
}

fn counts_inserts() {
    run("modprobe", &["nf_conntrack_netlink"]);
    for port in 1..=20 {
        let flow = ["-I", "-p", "udp", "-s", "10.99.0.1", "-d", "10.99.1.1", "--dport", "53", "-t", "60", "--sport"];
        run("conntrack", &[flow.as_slice(), &[port.to_string().as_str()]].concat());
    }
    eventually("it counts inserts again", LIMIT, || {
        (answer()["forecast"]["inserts_per_s"].as_f64()? > 0.0).then_some(())
    });
}
