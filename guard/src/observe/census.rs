//! A look at some of the entries themselves: in which states they are, and how long they have left.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{TableReading, Timeout, since_boot};
use crate::kernel::ctnetlink::{Entry, Presence, Socket};

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

/// Looks at the entries from time to time.
#[derive(Debug, Default)]
pub(super) struct Taker {
    /// Time since boot before which none is taken.
    next: Duration,
    last: Option<Census>,
    /// How long the last one took.
    took: Duration,
    presence: Presence,
}

impl Taker {
    /// `presence` says whether ctnetlink may be asked.
    pub(super) fn new(presence: Presence) -> Self {
        Self { presence, ..Self::default() }
    }

    /// The last census.
    pub(super) fn last(&self) -> Option<Census> {
        self.last.clone()
    }

    /// Takes a new one if it is time, or if the last one is as old as `within`. Without ctnetlink there is none.
    pub(super) fn look(&mut self, root: &Path, table: &TableReading, within: Option<Duration>) {
        let now = since_boot();
        if now >= self.next || within.is_some_and(|within| self.is_awaited(now, within)) {
            let pause = match self.take(root) {
                Ok((census, took)) => {
                    (self.last, self.took) = (Some(census), took);
                    pause(took, table)
                }
                Err(error) => {
                    tracing::debug!("no census: {error}");
                    self.last = None;
                    AFTER_FAILURE
                }
            };
            self.next = now.saturating_add(pause);
        }
    }

    fn is_awaited(&self, now: Duration, within: Duration) -> bool {
        let pause = within.max(self.took.saturating_mul(AWAITED_PART));
        // Where the last try failed, there is no hurry to fail again.
        self.last.as_ref().is_some_and(|last| now.saturating_sub(last.at) >= pause)
    }

    fn take(&mut self, root: &Path) -> io::Result<(Census, Duration)> {
        if !self.presence.is_there(root) {
            return Err(io::Error::other("nf_conntrack_netlink is not loaded"));
        }
        let start = Instant::now();
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
        Ok((census, start.elapsed()))
    }
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
