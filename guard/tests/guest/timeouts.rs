//! Timeouts that the whole daemon shortens because max may not rise: every way back, and what it does when it may not act.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use bench::churn::{Churn, Progress};
use bench::conntrack;
use bench::netns::Topology;
use bench::udp::Flows;
use conntrack_guard::observe::Timeout;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::kernel::{Guard, Table, at_rest, binary, eventually, journal_files, lives_on, set, timeouts, told};

/// Entries of both kinds are known after two minutes at the latest, when the first TIME_WAIT ends.
const PATIENCE: Duration = Duration::from_mins(4);
/// max may not rise, and each of the two timeouts may be halved.
const POLICY: &str = "[table]\nmax = { ceiling = 1024 }\n[hash]\nbuckets = { ceiling = 1024 }\n\
                      [timeouts]\ntcp-time-wait.floor = \"60s\"\nudp.floor = \"15s\"\n[relax]\nafter = \"1m\"\n";
const BOTH: [(Timeout, u64); 2] = [(Timeout::TcpTimeWait, 60), (Timeout::Udp, 15)];
const UDP: [(Timeout, u64); 1] = [(Timeout::Udp, 15)];

/// Entries that 1,024 are too few for, if each stays for as long as the kernel's defaults have it.
struct Load {
    stop: AtomicBool,
    topology: Topology,
    connections: bool,
    /// Every fifth of a second, each answered.
    datagrams: u64,
}

impl Load {
    /// 480 closed connections and 900 datagrams; with half of both times 690 are there.
    fn of_both() -> Self {
        Self { stop: AtomicBool::new(false), topology: Topology::create().unwrap(), connections: true, datagrams: 6 }
    }

    /// 1,500 datagrams; with half of the time 750 are there. What is done about them is known much sooner.
    fn of_datagrams() -> Self {
        Self { connections: false, datagrams: 10, ..Self::of_both() }
    }

    /// Runs it while `work` goes on, or until that has it ended. Everything is flushed when it has ended.
    fn during<T>(&self, work: impl FnOnce(Running<'_, '_>) -> T) -> T {
        thread::scope(|scope| {
            let connections = scope.spawn(|| {
                if !self.connections {
                    return;
                }
                let load = Churn { rate: 4, duration: Duration::from_mins(15), ..Churn::default() };
                // What the full table refuses is this test's matter as little as what is given up at the end.
                load.run(&self.topology, &Arc::new(Progress::default()), &self.stop).unwrap();
            });
            let datagrams = scope.spawn(|| {
                let mut first = 0;
                loop {
                    if self.stop.load(Ordering::Relaxed) {
                        return;
                    }
                    Flows::answered(first % 100_000, self.datagrams).send(&self.topology).unwrap();
                    first += self.datagrams;
                    thread::sleep(Duration::from_millis(200));
                }
            });
            let running = Running { load: self, threads: Some([connections, datagrams]) };
            work(running)
        })
    }
}

/// A load that goes on until this is dropped.
struct Running<'scope, 'load> {
    load: &'load Load,
    threads: Option<[ScopedJoinHandle<'scope, ()>; 2]>,
}

impl Running<'_, '_> {
    /// Ends it and empties the table.
    fn end(self) {
        drop(self);
        conntrack::flush().unwrap();
    }
}

impl Drop for Running<'_, '_> {
    fn drop(&mut self) {
        self.load.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.take().into_iter().flatten() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the load failed");
        }
    }
}

/// Waits until these timeouts are at their floors.
fn are_halved(wanted: &[(Timeout, u64)]) {
    eventually("the timeouts are at their floors", PATIENCE, || {
        let now = timeouts();
        wanted.iter().all(|(timeout, floor)| now[timeout] == *floor).then_some(())
    });
}

/// The changes that the log tells of, in their order: setting, old, new, rule. `verb`: `set` or `would set`.
fn changes(log: &str, verb: &str) -> Vec<(String, u64, u64, String)> {
    let told = |line: &str| {
        let (name, figures) = line.split_once(&format!("INFO {verb} nf_conntrack_"))?.1.split_once(' ')?;
        let of = |key: &str| {
            figures.split(&format!("{key}=")).nth(1)?.split(' ').next().map(|value| value.trim_matches('"'))
        };
        Some((name.to_owned(), of("old")?.parse().ok()?, of("new")?.parse().ok()?, of("rule")?.to_owned()))
    };
    log.lines().filter_map(told).collect()
}

fn of_status<'a>(status: &'a Value, list: &str, setting: &str) -> Option<&'a Value> {
    status[list].as_array().unwrap().iter().find(|one| one["setting"] == setting)
}

#[test]
fn a_stop_puts_back_what_the_guard_shortened_and_leaves_what_another_program_set() {
    let _table = Table::with(1_024, 1_024);
    let (load, found) = (Load::of_both(), timeouts());
    let mut guard = Guard::start(POLICY);
    load.during(|running| {
        are_halved(&BOTH);
        running.end();
    });
    at_rest();
    set(Timeout::Udp, 25);
    lives_on(Duration::from_secs(3));
    let status = told();
    let udp = of_status(&status, "changed", "udp").unwrap();
    assert_eq!((&udp["original"], &udp["now"], &udp["rule"]), (&30.into(), &25.into(), &Value::Null), "{udp}");
    assert_eq!(guard.log().matches("another program set nf_conntrack_udp_timeout").count(), 1, "{}", guard.log());
    guard.signal(Signal::SIGTERM);
    let (code, log) = guard.end();
    assert_eq!(code, Some(0), "{log}");
    let mut wanted = found.clone();
    wanted.insert(Timeout::Udp, 25);
    assert_eq!(timeouts(), wanted, "{log}");
    assert!(log.contains("nf_conntrack_udp_timeout stays 25: another program has set it since"), "{log}");
    assert_eq!(journal_files(guard.state_dir()), Vec::<String>::new());
}

#[test]
fn after_a_kill_the_next_guard_knows_what_was_shortened_and_a_restore_puts_it_back() {
    let _table = Table::with(1_024, 1_024);
    let (load, found) = (Load::of_datagrams(), timeouts());
    let mut guard = Guard::start(POLICY);
    load.during(|running| {
        are_halved(&UDP);
        guard.signal(Signal::SIGKILL);
        guard.end();
        running.end();
    });
    let short = timeouts();
    assert_ne!(short, found, "a killed guard puts nothing back");
    guard.follow(POLICY);
    at_rest();
    let status = told();
    for (timeout, seconds) in UDP {
        let changed = of_status(&status, "changed", timeout.name()).unwrap();
        assert_eq!((&changed["original"], &changed["now"]), (&found[&timeout].into(), &seconds.into()), "{changed}");
        assert_eq!(changed["rule"], Value::Null, "not by this one: {changed}");
        let line = format!("an earlier guard changed {};", timeout.sysctl());
        assert_eq!(guard.log().matches(&line).count(), 1, "{}", guard.log());
    }
    guard.signal(Signal::SIGKILL);
    guard.end();
    assert_eq!(timeouts(), short);
    let output = guard.restore();
    assert_eq!((output.status.code(), timeouts()), (Some(0), found), "{output:?}");
    assert_eq!(journal_files(guard.state_dir()), Vec::<String>::new());
}

#[test]
fn in_calm_it_takes_the_cuts_back_by_itself_the_last_one_first() {
    let _table = Table::with(1_024, 1_024);
    let (load, found) = (Load::of_both(), timeouts());
    let mut guard = Guard::start(POLICY);
    load.during(|running| {
        are_halved(&BOTH);
        running.end();
    });
    let phase = || told()["standing"]["phase"].as_str().unwrap().to_owned();
    eventually("it waits for calm to last", Duration::from_mins(1), || (phase() == "waiting").then_some(()));
    eventually("all is back", PATIENCE, || (timeouts() == found).then_some(()));
    eventually("it is calm", Duration::from_mins(1), || (phase() == "calm").then_some(()));
    assert_eq!(told()["changed"], serde_json::json!([]));
    let log = guard.log();
    let cuts: Vec<_> = changes(&log, "set").into_iter().filter(|(.., rule)| rule == "shorten-timeout").collect();
    let back: Vec<_> = changes(&log, "set").into_iter().filter(|(.., rule)| rule == "relax-timeout").collect();
    println!("{cuts:?}\n{back:?}");
    // Each timeout comes back in the order opposite to that in which its last cut was made.
    let mut order: Vec<&String> = Vec::new();
    for (setting, ..) in cuts.iter().rev() {
        if !order.contains(&setting) {
            order.push(setting);
        }
    }
    let mut came: Vec<&String> = back.iter().map(|(setting, ..)| setting).collect();
    came.dedup();
    assert_eq!(came, order, "{log}");
    for wanted in ["phase: waiting", "phase: relaxing", "phase: calm"] {
        assert!(log.contains(wanted), "{wanted} is not in:\n{log}");
    }
    let settled = told()["predictions"].clone();
    assert!(settled["by_rule"].as_array().unwrap().iter().any(|of| of["rule"] == "shorten-timeout"), "{settled}");
    guard.signal(Signal::SIGTERM);
    assert_eq!(guard.end().0, Some(0), "nothing is left to put back");
}

#[test]
fn in_advise_mode_and_in_a_dry_run_it_tells_the_cuts_and_makes_none() {
    let advise = format!("mode = \"advise\"\n{POLICY}");
    let load = Load::of_datagrams();
    for (policy, arguments) in [(advise.as_str(), &[][..]), (POLICY, &["--dry-run"][..])] {
        load.stop.store(false, Ordering::Relaxed);
        let _table = Table::with(1_024, 1_024);
        let found = timeouts();
        let mut guard = Guard::start_as(policy, &mut Command::new(binary()), arguments);
        let advised = load.during(|running| {
            let name = Timeout::Udp.sysctl().trim_start_matches("nf_conntrack_");
            let advised = eventually("it would shorten it", PATIENCE, || {
                changes(&guard.log(), "would set").into_iter().rfind(|(setting, ..)| setting == name)
            });
            let status = eventually("the status tells it, too", PATIENCE, || {
                Some(told()).filter(|status| of_status(status, "changes", Timeout::Udp.name()).is_some())
            });
            running.end();
            (advised, status)
        });
        // What the guard does where it may, see above.
        let ((_, old, new, rule), status) = advised;
        let [(timeout, floor)] = UDP;
        assert_eq!((old, rule.as_str()), (found[&timeout], "shorten-timeout"));
        assert!((floor..old).contains(&new), "{old} -> {new}");
        let told = of_status(&status, "changes", timeout.name()).unwrap();
        assert_eq!((&told["result"]["kind"], &told["old"]), (&"advised".into(), &old.into()), "{told}");
        assert_eq!(status["changed"], serde_json::json!([]), "{arguments:?}");
        assert_eq!(timeouts(), found, "{arguments:?}");
        assert_eq!(journal_files(guard.state_dir()), Vec::<String>::new());
        guard.signal(Signal::SIGTERM);
        let (code, log) = guard.end();
        assert_eq!((code, changes(&log, "set")), (Some(0), Vec::new()), "{log}");
        assert_eq!(timeouts(), found);
    }
}
