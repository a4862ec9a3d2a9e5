//! Attaching and detaching, over and over in one process: nothing may be left of it, in the process or in the kernel.

use std::time::Duration;
use std::{fs, thread};

use aya::maps::loaded_maps;
use aya::programs::{loaded_links, loaded_programs};
use conntrack_guard::kernel::{BackEnd, Hooks, Options, Signal, Walk};

use nix::sched::{CloneFlags, unshare};

use crate::kernel::{eventually, module_references, next_namespace, run};

/// Says how many rounds; `cargo xtask test --all` wants many more than fit into every run.
const ROUNDS: &str = "CONNTRACK_GUARD_ROUNDS";
const ROUNDS_BY_DEFAULT: usize = 40;
/// What grows in these is there to stay: buffers, the allocator's pools, the kernel's slabs.
const WARM_UP: usize = 12;
/// Freed later than the round ends: programs after RCU's grace period, namespaces by a worker.
const LATER: Duration = Duration::from_mins(1);
/// Growth that is no leak: what an allocator keeps. A page a round passes it in 1,000 rounds, and a map in 40.
const OWN_KIB: u64 = 1_024;
const KERNEL_KIB: u64 = 3_072;

/// What there must be as many of afterwards as before.
#[derive(Debug, PartialEq, Eq)]
struct Census {
    descriptors: usize,
    threads: usize,
    programs: usize,
    maps: usize,
    links: usize,
    module_references: u64,
}

impl Census {
    fn take() -> Self {
        let entries = |folder: &str| fs::read_dir(folder).unwrap().count();
        Self {
            descriptors: entries("/proc/self/fd"),
            threads: entries("/proc/self/task"),
            programs: loaded_programs().map(Result::unwrap).count(),
            maps: loaded_maps().map(Result::unwrap).count(),
            links: loaded_links().map(Result::unwrap).count(),
            module_references: module_references(),
        }
    }
}

/// The sum of these lines of a file like `/proc/meminfo`, KiB.
fn kib(file: &str, keys: &[&str]) -> u64 {
    let text = fs::read_to_string(file).unwrap();
    let value = |key: &str| -> u64 {
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
        value.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    };
    keys.iter().map(|key| value(key)).sum()
}

/// Heap and stacks. Not the program's own pages: those come as they are first used.
fn own() -> u64 {
    kib("/proc/self/status", &["RssAnon"])
}

/// Memory that programs, maps, trampolines, namespaces and their kin are made of.
fn kernels() -> u64 {
    kib("/proc/meminfo", &["SUnreclaim", "VmallocUsed", "Percpu", "KernelStack"])
}

/// Everything that can be attached, in turn.
fn options(round: usize) -> Options {
    let all = [
        Options::default(),
        Options { back_end: Some(BackEnd::Kprobe), ..Options::default() },
        Options { walk: Walk::Every, ..Options::default() },
        Options { log: true, ..Options::default() },
    ];
    all[round % all.len()]
}

fn attach(round: usize) -> Hooks {
    let mut hooks = Hooks::attach(options(round)).unwrap();
    assert!(hooks.signals().iter().any(|row| row.back_end.is_some()));
    hooks.read();
    hooks
}

#[test]
fn attaching_over_and_over_leaves_nothing() {
    run("modprobe", &["nf_conntrack_netlink"]);
    let rounds = std::env::var(ROUNDS).map_or(ROUNDS_BY_DEFAULT, |rounds| rounds.parse().unwrap());
    let (before, namespace) = (Census::take(), next_namespace());
    // A thread of its own: the mounts that it sees are its own from then on.
    let measured = thread::spawn(move || {
        shorten_kallsyms();
        for round in 0..WARM_UP {
            drop(attach(round));
        }
        let kib = [own(), kernels()];
        for round in 0..rounds {
            drop(attach(round));
        }
        (kib, [own(), kernels()])
    });
    let ([own, kernels], [own_after, kernels_after]) = measured.join().unwrap();
    println!("{rounds} rounds: resident {own} KiB, then {own_after}; the kernel's {kernels} KiB, then {kernels_after}");
    settled(&before);
    eventually("the namespaces are gone", LATER, || (next_namespace() <= namespace).then_some(()));
    assert!(own_after <= own + OWN_KIB, "resident: {own} KiB before, {own_after} after {rounds} rounds");
    eventually(&format!("the kernel is back at {kernels} KiB"), LATER, || {
        (self::kernels() <= kernels + KERNEL_KIB).then_some(())
    });
}

/// Leaves of `/proc/kallsyms` what the guard looks for: writing the other 170,000 lines is most of a round's time.
fn shorten_kallsyms() {
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
    let variables = ["nf_conntrack_hash", "nf_conntrack_htable_size"];
    // The chains' function is the inserts'.
    let watched = Signal::ALL.into_iter().filter(|signal| *signal != Signal::Chains);
    let wanted: Vec<&str> = watched.map(|signal| signal.function().0).chain(variables).collect();
    let lines = fs::read_to_string("/proc/kallsyms").unwrap();
    let name = |line: &str| line.split_whitespace().nth(2).map(str::to_owned);
    let lines: Vec<_> =
        lines.lines().filter(|line| name(line).is_some_and(|name| wanted.contains(&name.as_str()))).collect();
    assert_eq!(lines.len(), wanted.len(), "{lines:?}");
    let file = std::env::temp_dir().join("kallsyms");
    fs::write(&file, lines.join("\n")).unwrap();
    run("mount", &["--make-rprivate", "/"]);
    run("mount", &["--bind", file.to_str().unwrap(), "/proc/kallsyms"]);
}

fn settled(before: &Census) {
    let mut now = None;
    eventually(&format!("nothing is left but {before:?}"), LATER, || {
        let found = Census::take();
        if now.as_ref() != Some(&found) {
            println!("{found:?}");
        }
        let settled = (found == *before).then_some(());
        now = Some(found);
        settled
    });
}

/// Else the test above would see nothing.
#[test]
fn what_is_kept_is_seen() {
    run("modprobe", &["nf_conntrack_netlink"]);
    let before = Census::take();
    let hooks = attach(0);
    let with = Census::take();
    assert!(with.descriptors > before.descriptors, "{before:?} {with:?}");
    assert!(with.programs > before.programs && with.maps > before.maps, "{before:?} {with:?}");
    if hooks.signals().iter().any(|row| row.back_end == Some(BackEnd::Tracing)) {
        assert!(with.links > before.links && with.module_references > before.module_references, "{before:?} {with:?}");
    }
    drop(hooks);
    settled(&before);
}
