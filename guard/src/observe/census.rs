//! A look at some of the entries themselves: in which states they are, and how long they have left.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::{TableReading, Timeout, since_boot};
use crate::kernel::ctnetlink::{Entry, Presence, Socket};
use crate::priority;

/// So many entries are a good enough sample: the error of a share is at most 2.2 points in 95 of 100 cases.
const ENOUGH: u64 = 2_048;
/// Between two looks at a table with room.
const SELDOM: Duration = Duration::from_secs(10);
/// Between two looks at a table that is more than half full.
const OFTEN: Duration = Duration::from_secs(2);
/// The dump walks through all buckets that it passes, so that it is cheap in a full table and dear in an empty one with
/// many buckets: looks take at most one part in so many of a core's time, with room and without.
const SELDOM_PART: u32 = 5_000;
const OFTEN_PART: u32 = 100;
/// The same for looks that somebody waits for: what a surge is must be known in seconds, also where a look takes half of one.
const AWAITED_PART: u32 = 5;
/// Without ctnetlink, or after an error, the next try.
const AFTER_FAILURE: Duration = Duration::from_mins(1);

/// Entries of this network namespace that were looked at. They come from the first buckets of the table; the hash is
/// keyed, so they are a fair sample of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// Time since boot at which they were read.
    pub at: Duration,
    /// Entries looked at.
    pub entries: u64,
    /// Whether these were all there are.
    pub whole: bool,
    /// By the timeout that the entries' last packet gave them.
    pub by: BTreeMap<Timeout, InState>,
    /// Entries of protocols whose timeouts the guard leaves alone (SCTP, DCCP, flows with a timeout policy).
    pub other: u64,
    /// Different source addresses (IPv6: /64 prefixes) among the entries without a reply, and among those whose SYN/ACK
    /// nobody acknowledged (SYN_RECV).
    pub unreplied_sources: u64,
}

/// The entries of one protocol and state among those looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InState {
    /// Entries.
    pub entries: u64,
    /// Of those: no packet came in the reply direction (not `IPS_SEEN_REPLY`).
    pub unreplied: u64,
    /// Of those: `early_drop` does not evict them (`IPS_ASSURED`).
    pub assured: u64,
    /// The sum of the seconds they have left.
    pub seconds_left: u64,
}

/// Looks at the entries from time to time, on a thread of the ordinary priority: a look takes milliseconds of a CPU, for which
/// neither the gateway's own programs nor the next answer to a surge shall wait.
#[derive(Debug, Default)]
pub(super) struct Taker {
    /// Time since boot before which none is taken.
    next: Duration,
    last: Option<Census>,
    /// How much of a CPU the last one took.
    took: Duration,
    presence: Presence,
    taking: Option<Taking>,
}

/// A look that is being taken.
#[derive(Debug)]
struct Taking {
    thread: JoinHandle<io::Result<(Census, Duration)>>,
    began: Duration,
    /// As it was when the look began.
    table: TableReading,
}

impl Taker {
    /// `presence` says whether ctnetlink may be asked.
    pub(super) fn new(presence: Presence) -> Self {
        Self { presence, ..Self::default() }
    }

    /// The last census that is done.
    pub(super) fn last(&mut self) -> Option<Census> {
        if let Some(done) = self.taking.take_if(|taking| taking.thread.is_finished()) {
            match done.thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that takes it panicked"))) {
                Ok((census, took)) => {
                    self.next = done.began.saturating_add(pause(took, &done.table));
                    (self.last, self.took) = (Some(census), took);
                }
                Err(error) => self.failed(&error),
            }
        }
        self.last.clone()
    }

    /// Begins a new one if it is time, or if the last one is as old as `within`. Without ctnetlink there is none.
    pub(super) fn look(&mut self, root: &Path, table: &TableReading, within: Option<Duration>) {
        let now = since_boot();
        let due = now >= self.next || within.is_some_and(|within| self.is_awaited(now, within));
        if !due || self.taking.is_some() {
            return;
        }
        let started = if self.presence.is_there(root) {
            thread::Builder::new().name("census".to_owned()).spawn(take)
        } else {
            Err(io::Error::other("nf_conntrack_netlink is not loaded"))
        };
        match started {
            Ok(thread) => self.taking = Some(Taking { thread, began: now, table: *table }),
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: &io::Error) {
        tracing::debug!("no census: {error}");
        self.last = None;
        self.next = since_boot().saturating_add(AFTER_FAILURE);
    }

    fn is_awaited(&self, now: Duration, within: Duration) -> bool {
        let pause = within.max(self.took.saturating_mul(AWAITED_PART));
        // Where the last try failed, there is no hurry to fail again.
        self.last.as_ref().is_some_and(|last| now.saturating_sub(last.at) >= pause)
    }
}

/// Takes one, on a thread of its own, and tells how much of a CPU that took.
fn take() -> io::Result<(Census, Duration)> {
    priority::ordinary();
    let mut census = Census { at: since_boot(), ..Census::default() };
    let mut sources = HashSet::new();
    census.whole = Socket::open()?.entries(|entry| {
        census.add(&entry);
        if is_unanswered(&entry) {
            sources.insert(entry.source);
        }
        if census.entries < ENOUGH { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    census.unreplied_sources = sources.len() as u64;
    // Of a thread that ends with this: all that it ran.
    let took = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from)?;
    Ok((census, took))
}

impl Census {
    fn add(&mut self, entry: &Entry) {
        self.entries += 1;
        let Some(timeout) = governs(entry) else {
            self.other += 1;
            return;
        };
        let state = self.by.entry(timeout).or_default();
        state.entries += 1;
        state.unreplied += u64::from(!entry.replied);
        state.assured += u64::from(entry.assured);
        state.seconds_left += u64::from(entry.seconds_left);
    }
}

/// Whether nobody has shown to be at its source and to want it: a SYN/ACK goes to a forged address too.
fn is_unanswered(entry: &Entry) -> bool {
    !entry.replied || entry.tcp_state.and_then(Timeout::of_tcp_state) == Some(Timeout::TcpSynRecv)
}

/// The timeout that the entry's last packet gave it, as far as can be told: for TCP not whether it was shortened because
/// of retransmissions.
fn governs(entry: &Entry) -> Option<Timeout> {
    match i32::from(entry.protocol) {
        libc::IPPROTO_TCP => entry.tcp_state.and_then(Timeout::of_tcp_state),
        libc::IPPROTO_UDP if entry.assured => Some(Timeout::UdpStream),
        libc::IPPROTO_UDP => Some(Timeout::Udp),
        libc::IPPROTO_ICMP => Some(Timeout::Icmp),
        libc::IPPROTO_ICMPV6 => Some(Timeout::Icmpv6),
        libc::IPPROTO_GRE if entry.replied => Some(Timeout::GreStream),
        libc::IPPROTO_GRE => Some(Timeout::Gre),
        libc::IPPROTO_SCTP | libc::IPPROTO_DCCP | libc::IPPROTO_UDPLITE => None,
        _ => Some(Timeout::Generic),
    }
}

fn pause(took: Duration, table: &TableReading) -> Duration {
    if table.max > 0 && table.count > table.max / 2 {
        OFTEN.max(took.saturating_mul(OFTEN_PART))
    } else {
        SELDOM.max(took.saturating_mul(SELDOM_PART))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn entry(protocol: u8) -> Entry {
        Entry { protocol, seconds_left: 10, ..Entry::default() }
    }

    #[test]
    fn each_entry_is_counted_under_the_timeout_that_ends_it() {
        let tcp = |state| Entry { tcp_state: Some(state), ..entry(6) };
        let udp = Entry { replied: true, ..entry(17) };
        let mut census = Census::default();
        for one in
            [tcp(1), tcp(9), tcp(7), entry(17), udp, Entry { assured: true, ..udp }, entry(1), entry(132), entry(4)]
        {
            census.add(&one);
        }
        let counted: Vec<_> = census.by.iter().map(|(timeout, state)| (*timeout, state.entries)).collect();
        let one = |timeout| (timeout, 1);
        assert_eq!(
            counted,
            [
                one(Timeout::TcpSynSent),
                one(Timeout::TcpTimeWait),
                (Timeout::Udp, 2),
                one(Timeout::UdpStream),
                one(Timeout::Icmp),
                one(Timeout::Generic)
            ]
        );
        assert_eq!((census.entries, census.other), (9, 2), "SYN_SENT2 and SCTP");
        let unassured = InState { entries: 2, unreplied: 1, assured: 0, seconds_left: 20 };
        assert_eq!(census.by[&Timeout::Udp], unassured);
    }

    #[test]
    fn a_handshake_that_is_not_completed_is_unanswered() {
        let tcp = |tcp_state, replied| Entry { tcp_state: Some(tcp_state), replied, ..entry(6) };
        let all = [tcp(1, false), tcp(2, true), tcp(3, true), tcp(3, false), Entry { replied: true, ..entry(17) }];
        assert_eq!(all.map(|entry| is_unanswered(&entry)), [true, true, false, true, false]);
    }

    #[test]
    fn a_look_that_takes_long_is_taken_less_often() {
        let table = |count| TableReading { max: 1_000, buckets: 1_000, count };
        let millis = Duration::from_millis;
        assert_eq!((pause(millis(1), &table(10)), pause(millis(1), &table(501))), (SELDOM, OFTEN));
        assert_eq!(pause(millis(80), &table(10)), Duration::from_secs(400));
        assert_eq!(pause(millis(80), &table(501)), Duration::from_secs(8));
    }

    /// One that is not done yet, and what lets it be done.
    fn taking() -> (Taker, mpsc::Sender<Census>) {
        let (done, wait) = mpsc::channel();
        let thread =
            thread::spawn(move || wait.recv().map(|census| (census, Duration::ZERO)).map_err(io::Error::other));
        let taking = Taking { thread, began: Duration::from_secs(5), table: TableReading::default() };
        (Taker { taking: Some(taking), ..Taker::default() }, done)
    }

    #[test]
    fn nobody_waits_for_a_look_and_none_begins_beside_it() {
        let root = tempfile::tempdir().unwrap();
        let (mut taker, done) = taking();
        let thread = taker.taking.as_ref().unwrap().thread.thread().id();
        taker.look(root.path(), &TableReading::default(), Some(Duration::ZERO));
        assert_eq!((taker.last(), taker.taking.as_ref().unwrap().thread.thread().id()), (None, thread));
        let census = Census { entries: 7, ..Census::default() };
        done.send(census.clone()).unwrap();
        while !taker.taking.as_ref().unwrap().thread.is_finished() {
            thread::yield_now();
        }
        assert_eq!(taker.last(), Some(census));
        assert_eq!((taker.next, taker.taking.is_none()), (Duration::from_secs(5) + SELDOM, true));
    }

    #[test]
    fn a_look_that_failed_leaves_nothing_known() {
        let (mut taker, done) = taking();
        taker.last = Some(Census::default());
        drop(done);
        while !taker.taking.as_ref().unwrap().thread.is_finished() {
            thread::yield_now();
        }
        assert_eq!(taker.last(), None);
        assert!(taker.next >= AFTER_FAILURE);
    }

    #[test]
    fn a_look_is_taken_at_the_ordinary_priority() {
        thread::spawn(|| {
            // Where it may not be urgent it is ordinary already.
            let _ = priority::urgent();
            // What comes of it depends on the machine.
            let _ = take();
            assert_eq!(rustix::process::getpriority_process(None).unwrap(), 0);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn without_ctnetlink_there_is_none() {
        let root = tempfile::tempdir().unwrap();
        let mut taker = Taker::default();
        taker.look(root.path(), &TableReading::default(), None);
        assert_eq!(taker.last(), None);
        assert!(taker.next >= AFTER_FAILURE);
        assert!(!taker.is_awaited(taker.next, Duration::ZERO));
    }

    #[test]
    fn a_look_that_is_awaited_comes_sooner_but_not_at_any_price() {
        let (second, last) = (Duration::from_secs(1), Some(Census::default()));
        let mut taker = Taker { last, took: Duration::from_millis(1), ..Taker::default() };
        assert!(taker.is_awaited(second, second) && !taker.is_awaited(second, 2 * second));
        taker.took = Duration::from_millis(320);
        assert!(!taker.is_awaited(Duration::from_millis(1_599), second));
        assert!(taker.is_awaited(Duration::from_millis(1_600), second));
    }
}
