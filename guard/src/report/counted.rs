//! What the eBPF programs counted, as the status tells it. All counts are of all network namespaces and begin when the
//! programs were attached. `null`: that signal is off here.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::observe::{Destroys, HookTotals, NamespaceInserts, Namespaces, RefusedFlow};

/// `enum tcp_conntrack` (include/uapi/linux/netfilter/nf_conntrack_tcp.h), as `conntrack -L` shows them.
const TCP_STATES: [&str; 10] = [
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
];

/// Samples of refused flows that are kept: those of ten seconds at full rate on one CPU.
const SAMPLES: usize = 1024;
/// Older ones tell nothing of what happens now.
const LATELY: Duration = Duration::from_mins(5);
/// Origins shown of them.
const ORIGINS: usize = 10;

/// Everything that is counted since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Entries inserted, by network namespace.
    pub namespaces: Option<InsertsByNamespace>,
    /// Entries freed that the inserts had counted, by how they ended, most frequent first.
    pub ends: Option<Vec<End>>,
    /// Entries freed that a clash resolution had inserted in the reply direction only; in none of the others.
    pub reply_only_destroys: Option<u64>,
    /// Packets that met another packet of the same new flow.
    pub clashes: Option<Clashes>,
    /// New flows for which evictions made room (`early_drop`); one may evict several entries.
    pub made_room: Option<u64>,
    /// One insert in so many has its chains measured.
    pub one_in: Option<u64>,
    /// Whose flows a full table refused in the last 5 min: estimated from the last 1024 samples, most frequent first, at
    /// most ten.
    pub refused: Vec<Refused>,
    /// Runs of the programs that the kernel skipped because the program, or for a kprobe another one's, was already running
    /// on that CPU. By so much may all counts together be too low. `null`: this kernel does not count them (kprobes
    /// before Linux 6.7).
    pub missed: Option<u64>,
}

/// Entries inserted, by network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InsertsByNamespace {
    /// Each that could be told apart, most inserts first.
    pub namespaces: Vec<Namespace>,
    /// In namespaces that share a place in the kernel half's array with another, or have lost theirs to another.
    pub other: u64,
}

/// One network namespace. A new one may have the inode number of one that is gone; they differ by their cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Its inode number, as `/proc/PID/ns/net` and `lsns` show it.
    pub inode: u32,
    /// Its number that no other has until the next boot (`SO_NETNS_COOKIE`). `null` before Linux 5.12: there a new namespace
    /// goes on with the count of the one that had its inode number.
    pub cookie: Option<u64>,
    /// Entries inserted since it has its place in the kernel half's array.
    pub inserts: u64,
}

/// One way in which entries ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// `tcp`, `udp`, `icmp` (ICMPv6 too) or `other`.
    pub protocol: String,
    /// The last state of a TCP entry, as `conntrack -L` shows it; `null` for the others.
    pub last_state: Option<String>,
    /// Entries freed.
    pub destroys: u64,
    /// Those among them that were ASSURED.
    pub assured: u64,
}

/// `nf_ct_resolve_clash`: two packets of one new flow met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clashes {
    /// The later packet was dropped.
    pub lost: u64,
    /// The later packet went through.
    pub resolved: u64,
    /// Of those: its entry went in by its reply tuple alone. `null` where the back end cannot tell.
    pub reply_only: Option<u64>,
}

/// Where refused flows came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The source's /24, or /64 for IPv6.
    pub source: String,
    /// IANA's number of the IP protocol.
    pub protocol: u8,
    /// The destination port, or what the protocol has in its place.
    pub destination_port: u16,
    /// The network namespace's inode number.
    pub namespace: u32,
    /// Refused flows that the samples stand for.
    pub flows: u64,
}

impl Counted {
    /// From the programs' totals; `refused` lives longer than one reading.
    pub(super) fn new(totals: &HookTotals, refused: &RecentlyRefused) -> Self {
        Self {
            namespaces: totals.namespaces.as_ref().map(by_namespace),
            ends: totals.destroys.as_ref().map(ends),
            reply_only_destroys: totals.destroys.as_ref().map(|destroys| destroys.reply_only),
            clashes: totals.clashes.map(|clashes| Clashes {
                lost: clashes.lost,
                resolved: clashes.resolved,
                reply_only: clashes.reply_only,
            }),
            made_room: totals.table_full.map(|full| full.made_room),
            one_in: totals.chains.as_ref().map(|chains| chains.one_in),
            refused: refused.origins(),
            missed: totals.missed,
        }
    }
}

fn by_namespace(found: &Namespaces) -> InsertsByNamespace {
    let namespace =
        |found: &NamespaceInserts| Namespace { inode: found.inode, cookie: found.cookie, inserts: found.inserts };
    let mut namespaces: Vec<_> = found.each.iter().map(namespace).collect();
    namespaces.sort_by_key(|namespace| std::cmp::Reverse(namespace.inserts));
    InsertsByNamespace { namespaces, other: found.other }
}

fn ends(destroys: &Destroys) -> Vec<End> {
    let end = |protocol: &str, last_state: Option<String>, [not_assured, assured]: [u64; 2]| End {
        protocol: protocol.to_owned(),
        last_state,
        destroys: not_assured.saturating_add(assured),
        assured,
    };
    let tcp = destroys.tcp.iter().enumerate().map(|(state, pair)| {
        let name = TCP_STATES.get(state).map_or_else(|| format!("state {state}"), |name| (*name).to_owned());
        end("tcp", Some(name), *pair)
    });
    let others = [("udp", destroys.udp), ("icmp", destroys.icmp), ("other", destroys.other)];
    let mut all: Vec<_> = tcp.chain(others.map(|(protocol, pair)| end(protocol, None, pair))).collect();
    all.retain(|end| end.destroys > 0);
    all.sort_by_key(|end| std::cmp::Reverse(end.destroys));
    all
}

/// The last samples of refused flows.
#[derive(Debug, Default)]
pub(super) struct RecentlyRefused(VecDeque<(Duration, RefusedFlow)>);

impl RecentlyRefused {
    /// Adds what came until `now`, a time since boot; the oldest go.
    pub fn add(&mut self, now: Duration, samples: &[RefusedFlow]) {
        self.0.extend(samples.iter().map(|flow| (now, flow.clone())));
        let too_many = self.0.len().saturating_sub(SAMPLES);
        let too_old = self.0.partition_point(|(at, _)| now.saturating_sub(*at) > LATELY);
        self.0.drain(..too_many.max(too_old));
    }

    fn origins(&self) -> Vec<Refused> {
        let mut flows: HashMap<(IpAddr, u8, u16, u32), u64> = HashMap::new();
        for (_, flow) in &self.0 {
            let key = (prefix(flow.source), flow.protocol, flow.destination_port, flow.namespace);
            let sum = flows.entry(key).or_default();
            *sum = sum.saturating_add(flow.stands_for);
        }
        let mut all: Vec<_> = flows.into_iter().collect();
        // By the key too, so that equal ones keep their places from tick to tick.
        all.sort_by_key(|(key, flows)| (std::cmp::Reverse(*flows), *key));
        let shown = all.into_iter().take(ORIGINS).map(|((source, protocol, destination_port, namespace), flows)| {
            let length = if source.is_ipv4() { 24 } else { 64 };
            Refused { source: format!("{source}/{length}"), protocol, destination_port, namespace, flows }
        });
        shown.collect()
    }
}

fn prefix(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            Ipv4Addr::new(a, b, c, 0).into()
        }
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_named_and_sorted_and_none_is_lost() {
        let mut destroys = Destroys { udp: [300, 50], other: [0, 1], reply_only: 9, ..Destroys::default() };
        destroys.tcp[7] = [0, 1000];
        destroys.tcp[12] = [2, 0];
        let ends = ends(&destroys);
        let shown: Vec<_> = ends.iter().map(|end| (end.protocol.as_str(), end.last_state.as_deref())).collect();
        let states = [("tcp", Some("TIME_WAIT")), ("udp", None), ("tcp", Some("state 12")), ("other", None)];
        assert_eq!(shown, states);
        assert_eq!((ends[1].destroys, ends[1].assured), (350, 50));
        assert_eq!(ends.iter().map(|end| end.destroys).sum::<u64>(), destroys.all());
    }

    #[test]
    fn refused_flows_are_summed_by_prefix_and_the_oldest_are_forgotten() {
        let flow = |source: &str, destination_port, stands_for| RefusedFlow {
            source: source.parse().unwrap(),
            protocol: 17,
            destination_port,
            namespace: 1,
            stands_for,
        };
        let mut recent = RecentlyRefused::default();
        let now = Duration::from_secs(1000);
        recent.add(now, &[flow("10.1.2.3", 53, 10), flow("10.1.2.200", 53, 5), flow("10.1.2.3", 80, 7)]);
        recent.add(now, &[flow("2001:db8:1:2:3::4", 53, 12)]);
        let told: Vec<_> = recent.origins().into_iter().map(|origin| (origin.source, origin.flows)).collect();
        let expected = [("10.1.2.0/24", 15), ("2001:db8:1:2::/64", 12), ("10.1.2.0/24", 7)];
        assert_eq!(told, expected.map(|(source, flows)| (source.to_owned(), flows)));
        for port in 0..3000 {
            recent.add(now, &[flow("192.0.2.1", port, 1)]);
        }
        assert_eq!((recent.0.len(), recent.origins().len()), (SAMPLES, ORIGINS));
        assert!(recent.origins().iter().all(|origin| origin.source == "192.0.2.0/24"));
        recent.add(now + LATELY, &[flow("192.0.2.2", 1, 1)]);
        assert_eq!(recent.0.len(), SAMPLES);
        recent.add(now + LATELY + Duration::from_secs(1), &[]);
        assert_eq!(recent.origins().len(), 1);
    }
}
