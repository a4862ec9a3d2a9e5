//! The daemon on a real kernel: what it prevents, and that it puts everything back.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bench::churn::{Churn, Outcome, Progress};
use bench::conntrack::{self, Drops, Settings, Statistics};
use bench::netns::Topology;
use bench::udp::Flows;
use nix::sys::signal::Signal;

use crate::kernel::{Guard, Table, binary, eventually, module_references, status};

const FOUND: Settings = Settings { max: 1_024, buckets: 1_024 };
const CEILING: u64 = 16_384;
const POLICY: &str = "[table]\nmax = { ceiling = 16384 }\n[hash]\nbuckets = { ceiling = 16384 }\n";

fn churn(topology: &Topology) -> (Outcome, Drops) {
    let before = Statistics::read().unwrap();
    let load = Churn { rate: 200, duration: Duration::from_secs(12), ..Churn::default() };
    let outcome = load.run(topology, &Arc::new(Progress::default()), &AtomicBool::new(false)).unwrap();
    (outcome, Statistics::read().unwrap().drops_since(&before))
}

#[test]
fn the_guard_prevents_what_stock_drops() {
    let topology = Topology::create().unwrap();
    let (_, stock) = {
        let _table = Table::with(FOUND.max, FOUND.buckets);
        churn(&topology)
    };
    assert!(stock.table_full > 0, "stock dropped nothing: {stock:?}");

    let _table = Table::with(FOUND.max, FOUND.buckets);
    let mut guard = Guard::start(POLICY);
    let (outcome, guarded) = churn(&topology);
    let settings = Settings::read().unwrap();
    println!("stock {stock:?}\nguard {guarded:?}\n{settings:?}");
    assert_eq!(guarded.new_flows(), 0, "{guarded:?}");
    assert_eq!(outcome.failures(), 0, "{outcome:?}");
    assert!(settings.max > FOUND.max && settings.max <= CEILING, "{settings:?}");
    assert!(settings.buckets <= CEILING, "{settings:?}");

    let answer = status();
    let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(answer["back_end"]["measured"], true, "{answer}");
    assert!(answer["chains"]["measured"].as_u64().unwrap() > 0, "{answer}");
    let raised = answer["changes"].as_array().unwrap().iter().find(|change| change["setting"] == "max").unwrap();
    assert_eq!(raised["rule"], "raise-max");
    assert_eq!(raised["old"], FOUND.max);
    conntrack::flush().unwrap();
    guard.signal(Signal::SIGTERM);
    assert_eq!(guard.end().0, Some(0));
}

/// Starts a guard that has raised both settings because of a table half full.
fn guard_that_changed_both(topology: &Topology) -> Guard {
    let guard = Guard::start(POLICY);
    Flows::one_way(0, 950).send(topology).unwrap();
    eventually("the guard raises both", Duration::from_secs(20), || {
        let now = Settings::read().unwrap();
        (now.max > FOUND.max && now.buckets > FOUND.buckets).then_some(())
    });
    guard
}

#[test]
fn every_setting_is_back_after_sigterm_and_after_sigint() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let _table = Table::with(FOUND.max, FOUND.buckets);
        let topology = Topology::create().unwrap();
        let references = module_references();
        let mut guard = guard_that_changed_both(&topology);
        // The table must be small again for the original to be safe.
        conntrack::flush().unwrap();
        guard.signal(signal);
        let (code, log) = guard.end();
        assert_eq!(code, Some(0), "{log}");
        assert_eq!(Settings::read().unwrap(), FOUND, "{log}");
        assert!(!guard.state_dir().join("journal.json").exists(), "nothing is left to restore");
        eventually("the programs are gone", Duration::from_secs(5), || {
            (module_references() == references).then_some(())
        });
    }
}

#[test]
fn every_setting_is_back_after_kill_and_restore() {
    let _table = Table::with(FOUND.max, FOUND.buckets);
    let topology = Topology::create().unwrap();
    let references = module_references();
    let mut guard = guard_that_changed_both(&topology);
    guard.signal(Signal::SIGKILL);
    assert_eq!(guard.end().0, None);
    eventually("the programs go with the process", Duration::from_secs(5), || {
        (module_references() == references).then_some(())
    });
    assert_ne!(Settings::read().unwrap(), FOUND, "a killed guard puts nothing back");
    conntrack::flush().unwrap();
    let output = guard.restore();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(Settings::read().unwrap(), FOUND);
    let again = guard.restore();
    assert_eq!(again.status.code(), Some(0), "nothing to do is no failure: {again:?}");
    assert_eq!(Settings::read().unwrap(), FOUND);
}

#[test]
fn restore_under_load_leaves_room_for_what_is_in_use() {
    let _table = Table::with(FOUND.max, FOUND.buckets);
    let topology = Topology::create().unwrap();
    let mut guard = guard_that_changed_both(&topology);
    Flows::one_way(2_000, 3_000).send(&topology).unwrap();
    guard.signal(Signal::SIGTERM);
    let (code, log) = guard.end();
    assert_eq!(code, Some(1), "something is left to do: {log}");
    let last = log.lines().last().unwrap();
    assert!(last.contains("not everything is put back: nf_conntrack_max"), "{log}");
    assert!(last.contains("conntrack-guard restore"), "{log}");
    let (settings, count) = (Settings::read().unwrap(), conntrack::count().unwrap());
    assert!(count > FOUND.max, "{count} entries: not the case this test is for");
    assert!(settings.max > count && settings.max > FOUND.max, "{settings:?} with {count} entries in use");
    // New flows go through, and the rest of the way is taken later.
    let before = Statistics::read().unwrap();
    let sent = Flows::one_way(6_000, 100).send(&topology).unwrap();
    assert_eq!((sent.arrived, Statistics::read().unwrap().drops_since(&before).new_flows()), (100, 0));
    conntrack::flush().unwrap();
    assert_eq!(guard.restore().status.code(), Some(0));
    assert_eq!(Settings::read().unwrap(), FOUND);
}

#[test]
fn a_second_guard_is_refused_and_changes_nothing() {
    let _table = Table::with(FOUND.max, FOUND.buckets);
    let guard = Guard::start(POLICY);
    let before = Settings::read().unwrap();
    let mut second = Guard::start_with(POLICY, &mut Command::new(binary()), &[]);
    let (code, log) = second.end();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("another conntrack-guard"), "{log}");
    assert_eq!(Settings::read().unwrap(), before);
    assert_eq!(guard.restore().status.code(), Some(1), "restore under a running guard is refused too");
}

#[test]
fn a_dry_run_says_what_it_would_do_and_changes_nothing() {
    let _table = Table::with(FOUND.max, FOUND.buckets);
    let topology = Topology::create().unwrap();
    let mut guard = Guard::start_as(POLICY, &mut Command::new(binary()), &["--dry-run"]);
    Flows::one_way(0, 950).send(&topology).unwrap();
    eventually("it would raise max", Duration::from_secs(20), || guard.log().contains("would").then_some(()));
    assert_eq!(Settings::read().unwrap(), FOUND);
    assert!(!guard.state_dir().join("journal.json").exists());
    guard.signal(Signal::SIGTERM);
    assert_eq!(guard.end().0, Some(0));
    assert!(!guard.state_dir().join("recording").exists(), "nothing is left behind");
}

#[test]
fn without_the_right_to_load_programs_it_runs_on_proc_readings() {
    let _table = Table::with(FOUND.max, FOUND.buckets);
    let topology = Topology::create().unwrap();
    let references = module_references();
    let mut without = Command::new("setpriv");
    without.args(["--bounding-set", "-bpf,-perfmon,-sys_admin", "--"]).arg(binary());
    let mut guard = Guard::start_as(POLICY, &mut without, &[]);
    assert_eq!(module_references(), references, "no program is attached");
    let answer: serde_json::Value = serde_json::from_slice(&status().stdout).unwrap();
    assert_eq!(answer["back_end"]["measured"], false, "{answer}");
    Flows::one_way(0, 950).send(&topology).unwrap();
    eventually("it raises max all the same", Duration::from_secs(20), || {
        (Settings::read().unwrap().max > FOUND.max).then_some(())
    });
    conntrack::flush().unwrap();
    guard.signal(Signal::SIGTERM);
    let (code, log) = guard.end();
    assert_eq!((code, Settings::read().unwrap()), (Some(0), FOUND), "{log}");
    assert_eq!(log.matches("Operation not permitted").count(), 1, "said once: {log}");
}

#[test]
fn the_kernel_halfs_debug_lines_come_to_the_log_when_they_are_wanted() {
    for (arguments, wanted) in [(&["--verbose"][..], true), (&[][..], false)] {
        let _table = Table::with(FOUND.max, FOUND.buckets);
        let mut guard = Guard::start_as(POLICY, &mut Command::new(binary()), arguments);
        // At start, presizing; the event is told at the next reading.
        eventually("the guard resizes", Duration::from_secs(20), || {
            (Settings::read().unwrap().buckets > FOUND.buckets).then_some(())
        });
        if wanted {
            eventually("the line comes", Duration::from_secs(20), || {
                guard.log().contains("kernel: resized from 1024 to").then_some(())
            });
        }
        guard.signal(Signal::SIGTERM);
        let (code, log) = guard.end();
        assert_eq!((code, log.contains("kernel:")), (Some(0), wanted), "{log}");
    }
}
