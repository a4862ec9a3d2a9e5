//! Inserts by network namespace where more come and go than there are places for.
//!
//! The truth is what the test did: so many entries made in each namespace. All is done on one CPU, because each has places
//! of its own.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::{fs, thread};

use conntrack_guard::kernel::{BackEnd, Hooks, Options, Walk};
use conntrack_guard::observe::{NamespaceInserts, Namespaces};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::unistd::Pid;

use crate::kernel::{Table, run};

/// More than twice as many as there are places on a CPU.
const MANY: usize = 150;
/// Entries of each: too few to take another one's place.
const FEW: u64 = 7;
/// Entries of the one that comes last.
const LATE: u64 = 200;

/// A network namespace of the test's that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gone {
    inode: u32,
    /// As the kernel tells it to sockets, not to programs.
    cookie: Option<u64>,
}

/// Makes a namespace on a CPU and so many entries in it on the first CPU, and lets it go where it has a cookie. Where it has
/// none it stays, so that the next one gets a number of its own.
fn come_and_go(cpu: usize, entries: u64, kept: &mut Vec<File>) -> Gone {
    let work = || {
        stay_on(cpu);
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        stay_on(0);
        let gone = Gone { inode: own_inode(), cookie: own_cookie() };
        insert(entries);
        kept.extend(gone.cookie.is_none().then(|| File::open("/proc/thread-self/ns/net").unwrap()));
        gone
    };
    thread::scope(|scope| scope.spawn(work).join().unwrap())
}

fn stay_on(cpu: usize) {
    let mut here = CpuSet::new();
    here.set(cpu).unwrap();
    sched_setaffinity(Pid::from_raw(0), &here).unwrap();
}

fn own_inode() -> u32 {
    u32::try_from(fs::metadata("/proc/thread-self/ns/net").unwrap().ino()).unwrap()
}

/// `SO_NETNS_COOKIE`; `None` before Linux 5.14, which has no such option.
fn own_cookie() -> Option<u64> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (mut cookie, mut length) = (0_u64, 8);
    let (value, option) = ((&raw mut cookie).cast(), libc::SO_NETNS_COOKIE);
    // SAFETY: the kernel writes at most so many bytes as the value has.
    let answer = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, &raw mut length) };
    (answer == 0).then_some(cookie)
}

/// Entries made through ctnetlink in the calling thread's namespace.
fn insert(entries: u64) {
    let mut load = Command::new("conntrack").args(["-R", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let line = |n: u64| {
        let (client, server) = (format!("10.97.{}.{}", n / 250, n % 250 + 1), "10.97.255.1");
        format!(
            "-I -p udp -s {client} -d {server} --sport 1000 --dport 53 -r {server} -q {client} --reply-port-src 53 \
             --reply-port-dst 1000 -t 600 -u SEEN_REPLY\n"
        )
    };
    load.stdin.take().unwrap().write_all((0..entries).map(line).collect::<String>().as_bytes()).unwrap();
    assert!(load.wait().unwrap().success());
}

/// The namespaces told, of which the inserts and the others' must be all.
fn read(hooks: &mut Hooks, made: u64) -> Namespaces {
    let totals = hooks.read();
    let namespaces = totals.namespaces.unwrap();
    let told: u64 = namespaces.each.iter().map(|namespace| namespace.inserts).sum();
    assert_eq!((told + namespaces.other, totals.inserts), (made, Some(made)), "{namespaces:?}");
    namespaces
}

fn told<'a>(namespaces: &'a Namespaces, own: &Gone) -> Option<&'a NamespaceInserts> {
    // Before Linux 5.12 the programs have no cookie, and no socket has it.
    let is_it = |found: &&NamespaceInserts| found.inode == own.inode && found.cookie == own.cookie;
    namespaces.each.iter().find(is_it)
}

fn attached(back_end: BackEnd) -> (Table, Hooks) {
    run("modprobe", &["nf_conntrack_netlink"]);
    stay_on(0);
    let table = Table::with(262_144, 16_384);
    (table, Hooks::attach(Options { back_end: Some(back_end), walk: Walk::Sampled, log: false }).unwrap())
}

fn many(back_end: BackEnd) {
    let (_table, mut hooks) = attached(back_end);
    let mut kept = Vec::new();
    let gone: Vec<Gone> = (0..MANY).map(|_| come_and_go(0, FEW, &mut kept)).collect();
    let mut made = MANY as u64 * FEW;
    let first = read(&mut hooks, made);
    let namespaces = &first;
    let inodes: HashSet<u32> = gone.iter().map(|gone| gone.inode).collect();
    let by_cookie = gone[0].cookie.is_some();
    println!("{} inode numbers of {MANY}; {} told, {} others'", inodes.len(), namespaces.each.len(), namespaces.other);
    // Each that is told has its own inserts, whoever had its inode number before.
    for own in &gone {
        let inserts = told(namespaces, own).map(|found| found.inserts);
        assert!(inserts.is_none_or(|inserts| inserts == FEW), "{own:?}: {inserts:?}");
    }
    assert_eq!(inodes.len() < MANY, by_cookie, "inode numbers are used again, where those that had them are gone");
    if by_cookie {
        let found = namespaces.each.iter().filter(|found| gone.iter().any(|own| own.inode == found.inode));
        let mut numbers = HashSet::new();
        let again = found.filter(|found| !numbers.insert(found.inode)).count();
        assert!(again > 0, "no two that are told have the same inode number");
    }

    // All places are taken by those that are gone, and still the late one gets one: from its 64th insert on, or before.
    for _ in 0..3 {
        let own = come_and_go(0, LATE, &mut kept);
        made += LATE;
        let namespaces = read(&mut hooks, made);
        let inserts = told(&namespaces, &own).unwrap_or_else(|| panic!("{own:?} is not told: {namespaces:?}")).inserts;
        println!("{own:?}: {inserts} of {LATE}");
        assert!((LATE - 63..=LATE).contains(&inserts), "{own:?}: {inserts}");
        // Who had to make room is told with what it made.
        for earlier in &first.each {
            let same = |found: &&NamespaceInserts| (found.inode, found.cookie) == (earlier.inode, earlier.cookie);
            let now = namespaces.each.iter().find(same).map(|found| found.inserts);
            assert_eq!(now, Some(earlier.inserts), "{earlier:?}");
        }
    }
}

/// Makes namespaces on a CPU until the lowest bits of the next cookie are those of 1.
fn begin_a_round(cpu: usize) {
    let next = || {
        stay_on(cpu);
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        own_cookie()
    };
    while thread::scope(|scope| scope.spawn(next).join().unwrap()).is_some_and(|cookie| cookie % 64 != 0) {}
}

/// Each CPU gives cookies out from a batch of its own: the first of one CPU and that of another differ by the batch alone.
fn of_two_cpus(back_end: BackEnd) {
    (0..2).for_each(begin_a_round);
    let (_table, mut hooks) = attached(back_end);
    let mut kept = Vec::new();
    let gone: Vec<Gone> = (0..20).map(|nth| come_and_go(nth % 2, FEW, &mut kept)).collect();
    let namespaces = read(&mut hooks, 20 * FEW);
    println!("{gone:?}");
    // Inode numbers, which stand for cookies where there are none, have no batches, but gaps where others were.
    for own in gone.iter().filter(|own| own.cookie.is_some()) {
        let inserts = told(&namespaces, own).map(|found| found.inserts);
        assert_eq!(inserts, Some(FEW), "{own:?} of {namespaces:?}");
    }
}

mod tracing {
    #[test]
    fn namespaces_that_several_cpus_made_do_not_crowd_in_a_few_places() {
        super::of_two_cpus(super::BackEnd::Tracing);
    }

    #[test]
    fn a_late_namespace_is_told_and_no_inode_number_stands_for_two() {
        super::many(super::BackEnd::Tracing);
    }
}

mod kprobe {
    #[test]
    fn namespaces_that_several_cpus_made_do_not_crowd_in_a_few_places() {
        super::of_two_cpus(super::BackEnd::Kprobe);
    }

    #[test]
    fn a_late_namespace_is_told_and_no_inode_number_stands_for_two() {
        super::many(super::BackEnd::Kprobe);
    }
}
