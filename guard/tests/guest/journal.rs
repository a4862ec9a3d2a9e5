//! The writer and its journal on a real kernel: killed at any moment, on a full disk, with files that cannot be written.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bench::conntrack::{self, Settings};
use bench::netns::Topology;
use bench::udp::Flows;
use conntrack_guard::actuate::{Actuator as _, Live, Settings as Files};
use conntrack_guard::model::ResizeCost;
use conntrack_guard::observe::{TableReading, Timeout, Timeouts};
use conntrack_guard::policy::bounds::check;
use conntrack_guard::policy::{Approved, Change, InForce, Limits, Plan, Range, Rule, Setting};
use nix::sys::signal::Signal;

use crate::kernel::{Guard, Table, binary, eventually, journal_files, lives_on, run, status};

const FOUND: Settings = Settings { max: 1_024, buckets: 1_024 };
const POLICY: &str = "[table]\nmax = { ceiling = 16384 }\n[hash]\nbuckets = { ceiling = 16384 }\n";
const DIRECTORY: &str = "/proc/sys/net/netfilter";
/// Where the process to be killed keeps its journal.
const TO_BE_KILLED: &str = "CONNTRACK_GUARD_TEST_TO_BE_KILLED";

/// All that the guard may write, as the kernel shows it.
fn in_force() -> BTreeMap<String, u64> {
    let files = fs::read_dir(DIRECTORY).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let ours = |name: &String| {
        ["nf_conntrack_max", "nf_conntrack_buckets"].contains(&name.as_str())
            || Timeout::ALL.iter().any(|timeout| timeout.sysctl() == name)
    };
    files.filter(ours).map(|name| (name.clone(), read(&name))).collect()
}

/// The timeouts that this kernel has.
fn timeouts() -> impl Iterator<Item = Timeout> {
    Timeout::ALL.into_iter().filter(|timeout| Path::new(DIRECTORY).join(timeout.sysctl()).exists())
}

fn read(name: &str) -> u64 {
    fs::read_to_string(Path::new(DIRECTORY).join(name)).unwrap().trim().parse().unwrap()
}

/// Has `bounds` approve one change from the value that stands.
fn approved(setting: Setting, new: u64) -> Approved {
    let table = TableReading { max: read("nf_conntrack_max"), buckets: read("nf_conntrack_buckets"), count: 0 };
    let timeouts: Timeouts = timeouts().map(|timeout| (timeout, read(timeout.sysctl()))).collect();
    let wide = Range { floor: 1, ceiling: 1 << 20 };
    let limits = Limits {
        max: wide,
        found_max: FOUND.max,
        buckets: wide,
        memory: 1 << 30,
        max_stall: Duration::from_secs(1),
        resize_window: None,
        bucket_step: 512,
        timeouts: timeouts.keys().map(|timeout| (*timeout, wide)).collect(),
    };
    let change = Change {
        setting,
        old: read(setting.sysctl()),
        new,
        rule: Rule::RaiseMax,
        evidence: String::new(),
        predicted: String::new(),
        expectation: None,
    };
    let plan = Plan { changes: vec![change], ..Plan::default() };
    check(&plan, &limits, &InForce { table, timeouts, time_of_day: Duration::ZERO }, 320, ResizeCost::default())
        .unwrap()
}

fn live(state: &Path) -> Live {
    Live::start(Files::new(Path::new("/")), state, Duration::from_millis(20)).unwrap()
}

/// Changes one setting after the other, for ever: timeouts and max, now and then the buckets.
fn change_until_killed(state: &Path) -> ! {
    let mut live = live(state);
    for round in 0_u64.. {
        for timeout in timeouts() {
            live.apply(&approved(Setting::Timeout(timeout), 5 + round % 7));
        }
        live.apply(&approved(Setting::Max, 2_048 + round % 512));
        if round % 8 == 0 {
            live.apply(&approved(Setting::Buckets, read("nf_conntrack_buckets").min(32_768) + 512));
        }
    }
    unreachable!("64 bits of rounds")
}

fn process_to_be_killed(state: &Path) -> Child {
    let name = "journal::killed_at_any_moment_everything_comes_back";
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(TO_BE_KILLED, state)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn killed_at_any_moment_everything_comes_back() {
    if let Some(state) = std::env::var_os(TO_BE_KILLED) {
        change_until_killed(Path::new(&state));
    }
    let _table = Table::with(FOUND.max, FOUND.buckets);
    let found = in_force();
    assert!(found.len() > 10, "{found:?}");
    let mut changed = 0;
    for round in 0..20 {
        let state = tempfile::tempdir().unwrap();
        let mut child = process_to_be_killed(state.path());
        eventually("it changes something", Duration::from_secs(20), || (in_force() != found).then_some(()));
        std::thread::sleep(Duration::from_micros(round * 3_700));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9), "it ended by itself");
        changed += in_force().iter().filter(|(name, value)| found[*name] != **value).count();
        // Every other time a guard takes over first, and is killed as well.
        if round % 2 == 1 {
            drop(live(state.path()));
        }
        let output = Command::new(binary()).arg("restore").arg("--state-dir").arg(state.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "round {round}: {output:?}");
        assert_eq!(in_force(), found, "round {round}: {output:?}");
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0, "round {round}");
    }
    println!("20 kills, {changed} settings found changed");
    assert!(changed > 20, "{changed} settings were changed: the kills came too early");
}

#[test]
fn timeouts_that_an_earlier_guard_shortened_come_back() {
    let shorten = |state: &Path| {
        let mut live = live(state);
        for (timeout, seconds) in [(Timeout::Udp, 15), (Timeout::TcpTimeWait, 30), (Timeout::TcpEstablished, 7_875)] {
            live.apply(&approved(Setting::Timeout(timeout), seconds));
        }
    };
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let _table = Table::with(FOUND.max, FOUND.buckets);
        let found = in_force();
        let folder = tempfile::tempdir().unwrap();
        shorten(folder.path());
        assert_eq!(in_force().iter().filter(|(name, value)| found[*name] != **value).count(), 3);
        // The ceilings leave it nothing else to do.
        let policy = "[table]\nmax = { ceiling = 1024 }\n[hash]\nbuckets = { ceiling = 1024 }\n";
        let mut guard = Guard::start_on(folder.path(), policy);
        guard.answers();
        guard.signal(signal);
        let (code, log) = guard.end();
        assert_eq!(log.matches("an earlier guard changed").count(), 3, "{log}");
        if signal == Signal::SIGTERM {
            assert_eq!(code, Some(0), "{log}");
        } else {
            assert_ne!(in_force(), found, "a killed guard puts nothing back");
            assert_eq!(guard.restore().status.code(), Some(0));
        }
        assert_eq!(in_force(), found, "{log}");
        assert_eq!(journal_files(folder.path()), Vec::<String>::new());
    }
}

#[test]
fn a_disk_that_fills_up_stops_no_raise_and_loses_no_original() {
    let _table = Table::with(FOUND.max, FOUND.buckets);
    let topology = Topology::create().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().to_str().unwrap();
    run("mount", &["-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]);
    let mut guard = Guard::start_on(folder.path(), POLICY);
    guard.answers();
    // Until not a byte is left.
    let filled = fs::write(folder.path().join("rest"), vec![0; 1 << 20]);
    assert!(filled.is_err(), "the disk is not full");
    Flows::one_way(0, 950).send(&topology).unwrap();
    eventually("the guard raises max", Duration::from_secs(20), || {
        (Settings::read().unwrap().max > FOUND.max).then_some(())
    });
    eventually("it says so", Duration::from_secs(5), || guard.log().contains("No space left").then_some(()));
    guard.signal(Signal::SIGKILL);
    let (_, log) = guard.end();
    assert_eq!(log.matches("No space left").count(), 1, "said once: {log}");
    conntrack::flush().unwrap();
    let output = guard.restore();
    assert_eq!((output.status.code(), Settings::read().unwrap()), (Some(0), FOUND), "{output:?}");
    drop(guard);
    run("umount", &[disk]);
}

#[test]
fn a_directory_that_cannot_be_written_is_refused_at_start() {
    let _table = Table::with(FOUND.max, FOUND.buckets);
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().to_str().unwrap();
    run("mount", &["-t", "tmpfs", "-o", "ro", "tmpfs", disk]);
    let mut guard = Guard::start_on(folder.path(), POLICY);
    let (code, log) = guard.end();
    assert_eq!((code, Settings::read().unwrap()), (Some(1), FOUND), "{log}");
    assert!(log.contains("Read-only file system") && log.contains("--state-dir"), "{log}");
    drop(guard);
    run("umount", &[disk]);
}

#[test]
fn a_setting_that_cannot_be_written_is_said_once_and_shown_and_stops_no_other() {
    let _table = Table::with(FOUND.max, FOUND.buckets);
    let topology = Topology::create().unwrap();
    let files = [format!("{DIRECTORY}/nf_conntrack_buckets"), "/sys/module/nf_conntrack/parameters/hashsize".into()];
    let script: Vec<String> =
        files.iter().map(|file| format!("mount --bind {file} {file}; mount -o remount,bind,ro {file}")).collect();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", &format!("{}\nexec \"$@\"", script.join("\n")), "sh"]).arg(binary());
    let mut guard = Guard::start_as(POLICY, &mut command, &[]);
    Flows::one_way(0, 950).send(&topology).unwrap();
    eventually("the guard raises max", Duration::from_secs(20), || {
        (Settings::read().unwrap().max > FOUND.max).then_some(())
    });
    let held = eventually("it shows what it cannot write", Duration::from_secs(20), || {
        let answer: serde_json::Value = serde_json::from_slice(&status().stdout).unwrap();
        let held = answer["held"].as_array().unwrap().iter().find(|held| held["setting"] == "buckets").cloned();
        held.filter(|held| held["reason"].as_str().unwrap().contains("Read-only"))
    });
    for file in &files {
        assert!(held["reason"].as_str().unwrap().contains(file.as_str()), "{held}");
    }
    // Two more tries.
    lives_on(Duration::from_secs(4));
    conntrack::flush().unwrap();
    guard.signal(Signal::SIGTERM);
    let (code, log) = guard.end();
    assert_eq!((code, Settings::read().unwrap()), (Some(0), FOUND), "{log}");
    assert_eq!(log.matches("could not set nf_conntrack_buckets").count(), 1, "{log}");
}
