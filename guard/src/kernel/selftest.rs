//! Proves at load, on flows of its own in a network namespace of its own, that the programs see what they should: the
//! functions are called, the offsets are right, and the walk ends where it must.
//!
//! The flows come and go through ctnetlink, which ends in the same functions as packets do.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::thread;
use std::time::Duration;

use guard_ebpf::{ORIGINAL, REPLY, SAMPLED, UDP_FATE};
use nix::sched::{CloneFlags, CpuSet, sched_getcpu, sched_setaffinity, unshare};
use nix::unistd::Pid;

use super::ctnetlink::{Flow, Socket, told};
use super::signals::Signal;
use super::slots::{Slots, Sum};

/// So many flows: of these in a row on one CPU at least one is walked.
const FLOWS: u16 = 64;
const _: () = assert!(FLOWS as u64 >= SAMPLED, "at least one is walked");
/// Half of them end in each of these ways: protocol, TCP state and ASSURED have to be read right to tell them apart.
const HALF: u16 = FLOWS / 2;
const ENDS: [(Flow, usize, &str); 2] = [
    (Flow::Udp, UDP_FATE, "UDP entries freed"),
    (Flow::Tcp(TCP_CLOSE_WAIT), 2 * TCP_CLOSE_WAIT as usize + 1, "ASSURED TCP entries freed in CLOSE_WAIT"),
];
/// `TCP_CONNTRACK_CLOSE_WAIT`: no entry comes into the table in it by packets.
const TCP_CLOSE_WAIT: u8 = 5;

/// A namespace that came to its place in the counters late tells nothing, since others had it; the next one has another place.
const TRIES: usize = 3;

/// Longest wait for the entries' end: whoever looks at an entry at that moment, the garbage collection say, frees it.
const PATIENCE: Duration = Duration::from_millis(50);

/// What the self-test says of a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counted what happened.
    Passed,
    /// It did not.
    Failed(String),
    /// It may work; this says why that is not known.
    NotTested(String),
}

/// Tests the signals that flows can prove. `walked`: one insert in so many is walked, 0 for none. `no_ctnetlink`: why
/// that may not be asked; asking the kernel for it would load its module, which is not for a test to decide.
pub fn run(slots: &Slots, walked: u64, no_ctnetlink: Option<String>) -> [(Signal, Verdict); 3] {
    if let Some(why) = no_ctnetlink {
        return judged(&Verdict::NotTested(why));
    }
    let mut verdicts = None;
    for _ in 0..TRIES {
        let before = slots.sum();
        let namespace = match flows() {
            Ok(namespace) => namespace,
            Err(why) => return judged(&Verdict::NotTested(why)),
        };
        let seen = settled(slots, &before);
        verdicts = judge(&seen, &namespace, walked);
        if verdicts.is_some() {
            break;
        }
    }
    verdicts.unwrap_or_else(|| judged(&Verdict::NotTested("other namespaces have all its places".to_owned())))
}

fn judged(verdict: &Verdict) -> [(Signal, Verdict); 3] {
    [Signal::Inserts, Signal::Chains, Signal::Destroys].map(|signal| (signal, verdict.clone()))
}

/// The network namespace of the flows.
struct Own {
    /// `ns.inum`
    inum: u32,
    /// `net_cookie`, where the kernel tells it.
    cookie: Option<u64>,
}

/// Makes the flows come and go on a thread of its own; the namespace ends with it.
fn flows() -> Result<Own, String> {
    let thread = thread::Builder::new().spawn(come_and_go).map_err(|error| format!("no thread for it: {error}"))?;
    thread.join().map_err(|_| "its thread failed".to_owned())?
}

fn come_and_go() -> Result<Own, String> {
    let failed = |what: &str, error: io::Error| format!("{what}: {error}");
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|errno| failed("a network namespace of its own (needs CAP_SYS_ADMIN)", errno.into()))?;
    let by_ctnetlink = |what: &str, error: io::Error| failed(&format!("{what} flows through ctnetlink"), told(error));
    stay_on_this_cpu().map_err(|errno| failed("staying on one CPU", errno.into()))?;
    let here = "/proc/thread-self/ns/net";
    let namespace = fs::metadata(here).map_err(|error| failed(here, error))?.ino();
    let socket = Socket::open().map_err(|error| failed("a socket to ctnetlink", error))?;
    for (flow, ..) in ENDS {
        socket.insert(HALF, flow).map_err(|error| by_ctnetlink("inserting", error))?;
    }
    for (flow, ..) in ENDS {
        socket.delete(HALF, flow).map_err(|error| by_ctnetlink("deleting", error))?;
    }
    let inum = u32::try_from(namespace).map_err(|_| format!("{here}: {namespace} is no namespace's number"))?;
    Ok(Own { inum, cookie: socket.namespace_cookie().ok() })
}

/// Of a CPU's inserts, one in so many is walked: this many must not be spread over several.
fn stay_on_this_cpu() -> nix::Result<()> {
    let mut here = CpuSet::new();
    here.set(sched_getcpu()?)?;
    sched_setaffinity(Pid::from_raw(0), &here)
}

/// What was counted since `before`, once the entries are gone or are overdue.
fn settled(slots: &Slots, before: &Sum) -> Sum {
    let mut left = PATIENCE;
    loop {
        let seen = slots.sum().since(before);
        if ENDS.iter().all(|(_, fate, _)| seen.slot.destroys[*fate] >= u64::from(HALF)) || left.is_zero() {
            return seen;
        }
        let pause = Duration::from_millis(1);
        thread::sleep(pause);
        left = left.saturating_sub(pause);
    }
}

/// The verdicts on what was counted while the flows came and went; `None` if another namespace was in the way.
fn judge(seen: &Sum, own: &Own, walked: u64) -> Option<[(Signal, Verdict); 3]> {
    let flows = u64::from(FLOWS);
    // Where the programs have no cookie to go by, the inum is the id as well.
    let is_own = |id: u64| id == u64::from(own.inum) || own.cookie.is_none_or(|cookie| id == cookie);
    let mut found = seen.namespaces.iter().filter(|(id, namespace)| is_own(**id) && namespace.inum == own.inum);
    let inserts = found.next().map_or(0, |(_, namespace)| namespace.inserts);
    if inserts < flows && inserts + seen.other() >= flows {
        return None;
    }
    let counted = if inserts == flows {
        Verdict::Passed
    } else {
        Verdict::Failed(format!("{inserts} of {flows} inserts in a namespace of its own were counted"))
    };
    Some([(Signal::Inserts, counted), (Signal::Chains, chains(seen, walked)), (Signal::Destroys, destroys(seen))])
}

/// Other flows may end meanwhile, so there may be more than the test's own.
fn destroys(seen: &Sum) -> Verdict {
    let missing = ENDS.iter().find_map(|(_, fate, what)| {
        let found = seen.slot.destroys[*fate];
        (found < u64::from(HALF)).then(|| format!("{found} of {HALF} {what} were counted"))
    });
    missing.map_or(Verdict::Passed, Verdict::Failed)
}

fn chains(seen: &Sum, walked: u64) -> Verdict {
    let walks = [ORIGINAL, REPLY].map(|direction| seen.slot.chains[direction].iter().sum::<u64>());
    let expected = u64::from(FLOWS).checked_div(walked).unwrap_or(0);
    if seen.slot.strayed > 0 {
        Verdict::Failed(strayed(seen.slot.strayed))
    } else if walks.iter().any(|walks| *walks < expected) {
        Verdict::Failed(format!("{} walks and {} in reply direction, {expected} expected", walks[0], walks[1]))
    } else {
        Verdict::Passed
    }
}

/// What is wrong with walks that end where they must not.
pub fn strayed(walks: u64) -> String {
    format!("{walks} walks along a hash chain ended in another bucket than they began in")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::slots::Inserts;

    const OWN: Own = Own { inum: 4_026_532_900, cookie: Some(12) };

    /// What a kernel counts on which all is well, other traffic included.
    fn seen() -> Sum {
        let mut sum = Sum { inserts: 100, ..Sum::default() };
        // Of the other one that has the inum, this one's predecessor, nothing is taken for it.
        let inserts = |inserts| Inserts { inum: OWN.inum, inserts };
        sum.namespaces.extend([(11, inserts(30)), (12, inserts(64)), (13, Inserts { inum: OWN.inum + 1, inserts: 6 })]);
        sum.slot.destroys[UDP_FATE] = 40;
        sum.slot.destroys[2 * 5 + 1] = 32;
        sum.slot.chains[ORIGINAL][0] = 2;
        sum.slot.chains[REPLY][3] = 1;
        sum
    }

    fn failed(seen: &Sum) -> Vec<Signal> {
        let verdicts = judge(seen, &OWN, SAMPLED).unwrap();
        verdicts.into_iter().filter(|(_, verdict)| matches!(verdict, Verdict::Failed(_))).map(|(s, _)| s).collect()
    }

    #[test]
    fn what_counts_right_passes() {
        assert_eq!(judge(&seen(), &OWN, SAMPLED), Some(judged(&Verdict::Passed)));
    }

    #[test]
    fn what_is_counted_under_another_number_than_the_namespaces_fails() {
        let mut sum = seen();
        let own = sum.namespaces.remove(&12).unwrap();
        sum.namespaces.insert(14, own);
        assert_eq!(failed(&sum), [Signal::Inserts]);
        // By inum, where the kernel has no cookies; by any, where it has them and does not tell.
        for (id, cookie) in [(u64::from(OWN.inum), None), (u64::from(OWN.inum), Some(12)), (14, None)] {
            let mut sum = seen();
            sum.namespaces.retain(|id, _| *id == 13);
            sum.namespaces.insert(id, own);
            assert_eq!(judge(&sum, &Own { cookie, ..OWN }, SAMPLED), Some(judged(&Verdict::Passed)), "{id}");
        }
    }

    #[test]
    fn one_insert_too_few_or_too_many_fails() {
        for inserts in [0, 63, 65] {
            let mut sum = seen();
            sum.namespaces.get_mut(&12).unwrap().inserts = inserts;
            sum.inserts = 36 + inserts;
            assert_eq!(failed(&sum), [Signal::Inserts], "{inserts}");
        }
    }

    #[test]
    fn entries_that_did_not_go_or_went_as_something_else_fail() {
        // Another protocol; another state; without ASSURED.
        for (fate, taken_for) in [(UDP_FATE, 0), (2 * 5 + 1, 2 * 3 + 1), (2 * 5 + 1, 2 * 5)] {
            let mut sum = seen();
            sum.slot.destroys.swap(fate, taken_for);
            assert_eq!(failed(&sum), [Signal::Destroys], "{fate} {taken_for}");
        }
    }

    #[test]
    fn walks_that_stray_or_are_missing_fail() {
        let mut sum = seen();
        sum.slot.strayed = 1;
        assert_eq!(failed(&sum), [Signal::Chains]);
        let mut sum = seen();
        sum.slot.chains[REPLY][3] = 0;
        assert_eq!(failed(&sum), [Signal::Chains]);
        // Every insert walked: one walk each.
        assert!(matches!(chains(&seen(), 1), Verdict::Failed(_)));
    }

    #[test]
    fn a_namespace_in_anothers_place_proves_nothing() {
        for inserts in [0, 1, 63] {
            let mut sum = seen();
            // The others are among the others.
            sum.namespaces.get_mut(&12).unwrap().inserts = inserts;
            assert_eq!((judge(&sum, &OWN, SAMPLED), sum.other()), (None, 64 - inserts));
        }
    }
}
