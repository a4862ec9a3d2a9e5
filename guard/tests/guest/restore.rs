//! What a stop puts back, leaves to the next guard, or leaves for later, on a real kernel and under load.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use bench::churn::{Churn, Progress};
use bench::conntrack::{self, Settings, Statistics};
use bench::netns::Topology;
use bench::udp::Flows;
use conntrack_guard::actuate::STATE_DIR;
use nix::sys::signal::Signal;

use crate::kernel::{Guard, Table, at_rest, binary, eventually, journal_files};

const FOUND: Settings = Settings { max: 1_024, buckets: 1_024 };
const POLICY: &str = "[table]\nmax = { ceiling = 16384 }\n[hash]\nbuckets = { ceiling = 16384 }\n";

fn with(stop: &str) -> String {
    format!("{POLICY}[stop]\nrestore = \"{stop}\"\n")
}

/// Waits until the guard has raised both settings because of a table half full, and is done with it: to what.
fn both_are_raised(topology: &Topology) -> Settings {
    Flows::one_way(0, 950).send(topology).unwrap();
    eventually("the guard raises both", Duration::from_secs(20), || {
        let now = Settings::read().unwrap();
        (now.max > FOUND.max && now.buckets > FOUND.buckets).then_some(())
    });
    at_rest()
}

#[test]
fn keep_leaves_everything_to_the_next_guard_which_puts_it_back() {
    let _table = Table::with(FOUND.max, FOUND.buckets);
    let topology = Topology::create().unwrap();
    let mut guard = Guard::start(&with("keep"));
    let raised = both_are_raised(&topology);
    conntrack::flush().unwrap();
    guard.signal(Signal::SIGTERM);
    let (code, log) = guard.end();
    assert_eq!((code, Settings::read().unwrap()), (Some(0), raised), "{log}");
    assert_eq!(log.matches("for the next guard").count(), 2, "{log}");

    guard.follow(&with("when-safe"));
    assert_eq!(Settings::read().unwrap(), raised);
    guard.signal(Signal::SIGTERM);
    let (code, log) = guard.end();
    assert_eq!((code, Settings::read().unwrap()), (Some(0), FOUND), "{log}");
    assert_eq!(log.matches("an earlier guard changed").count(), 2, "{log}");
    assert!(!guard.state_dir().join("journal.json").exists());
}

/// The folder that was named is not the guard's: to say that nothing is to be put back would be wrong.
#[test]
fn a_state_directory_that_is_not_there_is_an_error_where_it_was_named() {
    let _table = Table::with(FOUND.max, FOUND.buckets);
    let restore = |arguments: &[&str]| Command::new(binary()).arg("restore").args(arguments).output().unwrap();
    let wrong = restore(&["--state-dir", "/var/lib/conntrack-gaurd"]);
    let told = String::from_utf8(wrong.stderr).unwrap();
    assert_eq!((wrong.status.code(), wrong.stdout), (Some(1), Vec::new()), "{told}");
    assert!(told.contains("there is no /var/lib/conntrack-gaurd") && told.contains("--state-dir"), "{told}");
    assert!(!fs::exists(STATE_DIR).unwrap(), "no guard has run here by default");
    assert_eq!(restore(&[]).status.code(), Some(0));
}

/// What the guard beside it has set is not what was found.
#[test]
fn advice_beside_a_guard_goes_by_what_was_there_before_it() {
    let _table = Table::with(FOUND.max, FOUND.buckets);
    let topology = Topology::create().unwrap();
    let state = Path::new(STATE_DIR);
    let mut guard = Guard::start_on(state, &with("when-safe"));
    guard.answers();
    let raised = both_are_raised(&topology);
    let advice = Command::new(binary()).args(["advise", "--for", "1s", "--json"]).output().unwrap();
    let told = String::from_utf8(advice.stderr).unwrap();
    let advice: serde_json::Value = serde_json::from_slice(&advice.stdout).unwrap();
    assert_eq!(advice["max"]["found"], FOUND.max, "{advice} {raised:?}");
    assert_eq!(advice["buckets"]["found"], FOUND.buckets, "{advice} {raised:?}");
    assert!(advice["samples"].as_u64().unwrap() >= 2, "{advice}");
    assert!(told.contains("a guard has changed settings here"), "{told}");
    conntrack::flush().unwrap();
    guard.signal(Signal::SIGTERM);
    assert_eq!(guard.end().0, Some(0));
    fs::remove_dir_all(state).unwrap();
}

#[test]
fn what_keep_left_comes_back_by_hand_too() {
    let _table = Table::with(FOUND.max, FOUND.buckets);
    let topology = Topology::create().unwrap();
    let mut guard = Guard::start(&with("keep"));
    both_are_raised(&topology);
    guard.signal(Signal::SIGTERM);
    assert_eq!(guard.end().0, Some(0));
    conntrack::flush().unwrap();
    assert_eq!(guard.restore().status.code(), Some(0));
    assert_eq!(Settings::read().unwrap(), FOUND);
}

#[test]
fn now_puts_the_buckets_back_whatever_the_stall_and_when_safe_does_not() {
    // 1 ms is 1,428 entries: enough for the start, not for the stop.
    let policy = |stop| with(stop).replace("[hash]\n", "[hash]\nmax-stall = \"1ms\"\n");
    let topology = Topology::create().unwrap();
    for (stop, code, buckets_back) in [("when-safe", 1, false), ("now", 1, true)] {
        let _table = Table::with(FOUND.max, FOUND.buckets);
        let mut guard = Guard::start(&policy(stop));
        both_are_raised(&topology);
        Flows::one_way(2_000, 2_000).send(&topology).unwrap();
        let raised = at_rest();
        guard.signal(Signal::SIGTERM);
        let (ended, log) = guard.end();
        let (now, count) = (Settings::read().unwrap(), conntrack::count().unwrap());
        assert!(count > 2_000, "{count} entries: not the case this test is for");
        // More is in use than max was: something is left in both cases.
        assert_eq!(ended, Some(code), "{log}");
        assert!(now.max > count, "{now:?}");
        if buckets_back {
            assert_eq!(now.buckets, FOUND.buckets, "{log}");
            assert!(now.max < raised.max && log.contains("does not heed hash.max-stall"), "{now:?} {log}");
        } else {
            assert_eq!(now, raised, "{log}");
        }
        conntrack::flush().unwrap();
        assert_eq!(guard.restore().status.code(), Some(0));
        assert_eq!(Settings::read().unwrap(), FOUND);
    }
}

/// Ends a guard in the middle of a load that goes on, by `how`; answers with its log.
fn ended_under_load(policy: &str, how: impl FnOnce(&mut Guard)) -> String {
    let topology = Topology::create().unwrap();
    let _table = Table::with(FOUND.max, FOUND.buckets);
    let mut guard = Guard::start(policy);
    let before = Statistics::read().unwrap();
    let load = Churn { rate: 200, duration: Duration::from_secs(12), ..Churn::default() };
    let progress = Arc::new(Progress::default());
    let (outcome, started) = thread::scope(|scope| {
        let running = scope.spawn(|| load.run(&topology, &progress, &AtomicBool::new(false)));
        eventually("the table holds more than it did before the guard", load.duration, || {
            (conntrack::count().unwrap() > FOUND.max).then_some(())
        });
        how(&mut guard);
        let started = progress.started();
        (running.join().unwrap().unwrap(), started)
    });
    let drops = Statistics::read().unwrap().drops_since(&before);
    println!("{outcome:?}\n{drops:?}\n{:?} with {} entries", Settings::read().unwrap(), conntrack::count().unwrap());
    assert!(progress.started() > started + 100, "the load had ended before the guard: {outcome:?}");
    assert!(conntrack::count().unwrap() > FOUND.max, "the load was too small");
    assert_eq!((drops.new_flows(), outcome.failures()), (0, 0), "{drops:?} {outcome:?}");
    conntrack::flush().unwrap();
    assert_eq!(guard.restore().status.code(), Some(0));
    assert_eq!(Settings::read().unwrap(), FOUND);
    guard.log()
}

#[test]
fn a_stop_under_load_refuses_no_flow() {
    for stop in ["when-safe", "keep"] {
        let log = ended_under_load(&with(stop), |guard| {
            guard.signal(Signal::SIGTERM);
            let (code, log) = guard.end();
            assert_eq!(code, Some(i32::from(stop == "when-safe")), "{log}");
        });
        assert!(log.contains("nf_conntrack_max stays"), "{log}");
    }
}

#[test]
fn a_kill_and_a_restore_under_load_refuse_no_flow() {
    ended_under_load(POLICY, |guard| {
        guard.signal(Signal::SIGKILL);
        assert_eq!(guard.end().0, None);
        let output = guard.restore();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    });
}

/// A journal as version 1 wrote it: max went from 1,024 to 8,192.
fn version_1() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    format!(
        r#"{{
  "version": 1,
  "boot_id": "{}",
  "max_stall_ms": 20,
  "settings": {{
    "max": {{
      "original": 1024,
      "found_at_unix_ms": 1763640000000,
      "wrote": 8192,
      "intended": null
    }}
  }}
}}"#,
        boot.trim()
    )
}

#[test]
fn an_upgrade_takes_the_old_journal_over() {
    let _table = Table::with(8_192, FOUND.buckets);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("journal.json"), version_1()).unwrap();
    let mut guard = Guard::start_on(folder.path(), POLICY);
    guard.answers();
    guard.signal(Signal::SIGTERM);
    let (code, log) = guard.end();
    assert!(log.contains("an earlier guard changed nf_conntrack_max"), "{log}");
    assert_eq!((code, Settings::read().unwrap()), (Some(0), FOUND), "{log}");
    assert_eq!(journal_files(folder.path()), Vec::<String>::new());
}

#[test]
fn a_downgrade_refuses_the_later_journal_and_touches_nothing() {
    let _table = Table::with(8_192, FOUND.buckets);
    let folder = tempfile::tempdir().unwrap();
    let later = version_1().replace("\"version\": 1", "\"version\": 99");
    fs::write(folder.path().join("journal.json"), &later).unwrap();
    let mut guard = Guard::start_on(folder.path(), POLICY);
    let (code, log) = guard.end();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("format version 99") && log.contains("a later one"), "{log}");
    let output = guard.restore();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(fs::read_to_string(folder.path().join("journal.json")).unwrap(), later);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(Settings::read().unwrap(), Settings { max: 8_192, ..FOUND });
}
