//! What is left of a program that was ended or killed, and what the next one does about it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bench::conntrack;
use bench::netns::Topology;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{in_gateway, ip_forward, ipv6_forwarding, ipvs, links, rules};

/// Starts a long load of the program in the calling thread's namespace and waits until connections are made.
fn start_program(words: &[&str]) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_conntrack-guard-bench"))
        .args(words)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while conntrack::count().unwrap_or(0) < 10 {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "{words:?} ended with {ended:?}");
        // A guest's clock runs on while modules come from a busy disk.
        assert!(start.elapsed() < Duration::from_mins(4), "no connections");
        thread::sleep(Duration::from_millis(50));
    }
    child
}

const CHURN: [&str; 5] = ["churn", "--rate", "50", "--for", "600"];

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
        let mut child = start_program(&CHURN);
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
        let mut child = start_program(&CHURN);
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

/// Programs that were started as part of a run of this process.
fn programs_of(child: &Child) -> Vec<String> {
    let mark = format!("CONNTRACK_GUARD_BENCH_RUN=cgb{}_", child.id());
    let marked = |folder: &Path| {
        let environment = fs::read(folder.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(mark.as_bytes()))
    };
    let all = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path()).filter(|folder| marked(folder));
    let mut names: Vec<String> =
        all.map(|folder| fs::read_to_string(folder.join("comm")).unwrap_or_default().trim().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn the_next_run_puts_back_what_a_killed_one_balanced_and_translated_with() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("long.toml");
    let cases = [
        ("kind = \"ipvs\", conntrack = true", "kind = \"tcp\"\nrate = 50", &[][..], 1),
        ("kind = \"haproxy\"", "kind = \"wrk\"\nclients = 1", &["haproxy", "wrk"], 0),
        ("ip = \"ipv6\", nat = true", "kind = \"tcp\"\nrate = 50", &[], 0),
    ];
    for (topology, load, programs, services) in cases {
        fs::write(&file, format!("duration = \"10m\"\ntopology = {{ {topology} }}\n[[load]]\n{load}")).unwrap();
        in_gateway(|| {
            // One interface is unlike the others: it comes back as it was.
            fs::write("/proc/sys/net/ipv6/conf/lo/forwarding", "1").unwrap();
            let state = || (ip_forward(), ipv6_forwarding(), rules(), links().lines().count(), ipvs());
            let before = state();
            let mut child = start_program(&["run", "--scenario", file.to_str().unwrap()]);
            assert_eq!((programs_of(&child), ipvs().1), (programs.iter().map(ToString::to_string).collect(), services));
            signal(&child, Signal::SIGKILL);
            child.wait().unwrap();
            assert_eq!((namespaces_of(&child), programs_of(&child).len()), (2, programs.len()));
            assert_ne!(state(), before);
            let next = Topology::create().unwrap();
            let removed = format!("cgb{}_0 was killed: removed what it had left", child.id());
            assert!(next.leftovers().contains(&removed), "{:?}", next.leftovers());
            next.remove().unwrap();
            assert_eq!((namespaces_of(&child), programs_of(&child), state()), (0, Vec::new(), before), "{topology}");
            assert!(!fs::exists(format!("/run/conntrack-guard-bench-files/cgb{}_0", child.id())).unwrap());
        });
    }
}
