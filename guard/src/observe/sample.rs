//! What one tick reads. One shape, whatever back end supplied it.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Census, Timeouts};

/// Chain lengths are counted exactly from 0 to `CHAIN_LENGTHS - 2` entries; the last place counts all longer ones.
/// The kernel refuses inserts into chains longer than 50 + random(30) (`MIN_CHAINLEN`, `MAX_CHAINLEN` in
/// nf_conntrack_core.c), where it has a limit at all.
pub const CHAIN_LENGTHS: usize = guard_ebpf::CHAIN_LENGTHS;

/// All that one tick read. Counters only grow, from an origin that is unknown: use differences of two samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Time since boot (`CLOCK_BOOTTIME`) at which the reading was taken.
    pub at: Duration,
    /// The table's settings and its count.
    pub table: TableReading,
    /// The kernel's own statistics of this network namespace.
    pub stats: Statistics,
    /// What the eBPF programs counted; `None` where no program could be attached.
    pub hooks: Option<HookTotals>,
    /// The host's memory.
    pub memory: Memory,
    /// Bytes one entry takes: the slab object and its extensions.
    pub entry_bytes: u64,
    /// The timeouts in force; at rest and in a hurry as of up to 10 s before, like the flowtables.
    pub timeouts: Timeouts,
    /// The last look at the entries themselves, however old; `None` before the first, or where ctnetlink is not there.
    pub census: Option<Census>,
    /// Whether flows are offloaded to a flowtable (nf_flow_table is loaded and in use), which gives them long timeouts.
    pub flowtables: bool,
    /// Time since midnight, UTC: for what the policy allows at certain hours only.
    pub time_of_day: Duration,
}

/// `nf_conntrack_max`, `nf_conntrack_buckets` and `nf_conntrack_count`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableReading {
    /// Entries this namespace's table may hold; 0 means "no limit" on kernels before 6.19.
    pub max: u64,
    /// Buckets of the hash table.
    pub buckets: u64,
    /// Entries now, unconfirmed and dying ones among them.
    pub count: u64,
}

/// The kernel's own statistics, and through what they were read. The kernel sums the same counters for both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Statistics {
    /// `/proc/net/stat/nf_conntrack`
    Proc(StatTotals),
    /// `IPCTNL_MSG_CT_GET_STATS_CPU`
    Ctnetlink {
        /// What it told.
        totals: StatTotals,
        /// Why not the file.
        why: String,
    },
    /// Neither.
    Missing {
        /// Why not.
        why: String,
    },
}

impl Default for Statistics {
    fn default() -> Self {
        Self::Proc(StatTotals::default())
    }
}

impl Statistics {
    /// What they tell; `None` where they are missing.
    pub fn totals(&self) -> Option<&StatTotals> {
        match self {
            Self::Proc(totals) | Self::Ctnetlink { totals, .. } => Some(totals),
            Self::Missing { .. } => None,
        }
    }

    /// Through what they are read, as people read it; `None` where they are missing.
    pub fn source(&self) -> Option<&'static str> {
        match self {
            Self::Proc(_) => Some("proc"),
            Self::Ctnetlink { .. } => Some("ctnetlink"),
            Self::Missing { .. } => None,
        }
    }

    /// Why not through what comes first.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Proc(_) => None,
            Self::Ctnetlink { why, .. } | Self::Missing { why } => Some(why),
        }
    }
}

/// Sums over all CPUs of the kernel's statistics, unwrapped to 64 bits since the guard started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatTotals {
    /// Packets dropped because the table was full (or memory ran out), and lost clashes.
    pub drop: u64,
    /// Entries evicted to make room (`early_drop`).
    pub early_drop: u64,
    /// Inserts that failed: clash lost or chain too long.
    pub insert_failed: u64,
    /// Inserts refused because the chain was too long; 0 on kernels that have no such limit.
    pub chain_too_long: u64,
    /// Packets of one new flow that met another one and went through all the same (`clashres`).
    pub clash_resolved: u64,
    /// Packets that no tracker would accept.
    pub invalid: u64,
    /// ICMP messages that cannot be used: broken ones, or such as quote no tracked flow (`icmp_error`).
    pub icmp_error: u64,
}

impl StatTotals {
    /// Lost clashes since an earlier reading. They count as `insert_failed`, as chains that are too long do.
    pub fn clashes_lost_since(&self, earlier: &Self) -> u64 {
        let failed = self.insert_failed.saturating_sub(earlier.insert_failed);
        failed.saturating_sub(self.chain_too_long.saturating_sub(earlier.chain_too_long))
    }

    /// New flows refused for a full table since an earlier reading: lost clashes are in `drop` too, chains that are too long
    /// are not.
    pub fn refused_since(&self, earlier: &Self) -> u64 {
        self.drop.saturating_sub(earlier.drop).saturating_sub(self.clashes_lost_since(earlier))
    }
}

/// Sums over all CPUs of what the programs counted since they were attached, in all network namespaces. `None`: that
/// signal has no program here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookTotals {
    /// Entries put into the table by `__nf_conntrack_hash_insert`: packets' and ctnetlink's.
    pub inserts: Option<u64>,
    /// The same by network namespace.
    pub namespaces: Option<Namespaces>,
    /// Chain lengths found at insert.
    pub chains: Option<Chains>,
    /// Entries freed.
    pub destroys: Option<Destroys>,
    /// What `early_drop` found.
    pub table_full: Option<TableFull>,
    /// What `nf_ct_resolve_clash` did.
    pub clashes: Option<Clashes>,
    /// Walks that ended in another bucket than they began in. One is enough: the walk is wrong on this kernel, and
    /// `chains` is `None` from then on.
    pub strayed: u64,
    /// Program runs that the kernel skipped because the program, or for a kprobe another one's, was already running on that
    /// CPU. `None`: this kernel does not count them.
    pub missed: Option<u64>,
    /// Resizes since the last reading, oldest first.
    pub resizes: Vec<ResizeEvent>,
    /// Samples of flows that a full table refused since the last reading, oldest first. They begin with the reading
    /// after the first refusal.
    pub refused: Vec<RefusedFlow>,
}

/// Inserts by network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Those that were told apart, each once.
    pub each: Vec<NamespaceInserts>,
    /// All other inserts: in namespaces that met another one in its place, or were gone and had the fewest.
    pub other: u64,
}

/// One network namespace. A new one may have the inode number of one that is gone; both are told then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceInserts {
    /// Its inode number, as `/proc/PID/ns/net` shows it.
    pub inode: u32,
    /// Its number that no other has until the next boot (`SO_NETNS_COOKIE`); `None` before Linux 5.12, where namespaces of one
    /// inode number are not told apart.
    pub cookie: Option<u64>,
    /// Entries inserted while it had a place on their CPU. Too few by what it made between the last reading and the loss of
    /// one, never too many.
    pub inserts: u64,
}

/// Other entries found in the chains of the inserts that were walked: index = length, value = chains.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chains {
    /// One insert in so many was walked.
    pub one_in: u64,
    /// Chains of original tuples.
    pub original: Vec<u64>,
    /// Chains of reply tuples.
    pub reply: Vec<u64>,
}

/// Entries freed that had been in the table, each pair without and with ASSURED.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destroys {
    /// TCP, by the number of the last state (`enum tcp_conntrack`).
    pub tcp: [[u64; 2]; guard_ebpf::TCP_STATES],
    /// UDP.
    pub udp: [u64; 2],
    /// ICMP and ICMPv6.
    pub icmp: [u64; 2],
    /// All other protocols.
    pub other: [u64; 2],
    /// Entries that a clash resolution had inserted in the reply direction only; in none of the above, nor in the inserts.
    pub reply_only: u64,
}

impl Destroys {
    /// Entries freed that the inserts counted when they came: inserts less these follow the table's count.
    pub fn all(&self) -> u64 {
        let all = self.tcp.iter().flatten().chain(&self.udp).chain(&self.icmp).chain(&self.other);
        all.fold(0, |sum, destroys| sum.saturating_add(*destroys))
    }
}

/// `early_drop`, which is called when the table is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFull {
    /// New flows refused because nothing could be evicted.
    pub refused: u64,
    /// New flows for which it made room. One call evicts every entry of a chain that it may: the entries evicted are in
    /// [`StatTotals::early_drop`].
    pub made_room: u64,
}

/// One sample of the flows that a full table refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedFlow {
    /// Where it came from.
    pub source: IpAddr,
    /// Its IP protocol (IANA's number).
    pub protocol: u8,
    /// Its destination port, or what the protocol has in its place.
    pub destination_port: u16,
    /// Its network namespace (`ns.inum`).
    pub namespace: u32,
    /// Refused flows that it stands for, itself among them.
    pub stands_for: u64,
}

/// `nf_ct_resolve_clash`: two packets of one new flow met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clashes {
    /// The later packet was dropped.
    pub lost: u64,
    /// The later packet went through.
    pub resolved: u64,
    /// Of those: its entry went in by its reply tuple alone, for one second. `None` where the back end cannot tell.
    pub reply_only: Option<u64>,
}

/// The hash table was resized, or should have been.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResizeEvent {
    /// Time since boot at which it was done.
    pub at: Duration,
    /// From call to return, the wait for another resize included. All conntrack packets stall for most of it.
    pub took: Duration,
    /// Who asked: the process.
    pub pid: u32,
    /// Its command.
    pub comm: String,
    /// The id of its cgroup.
    pub cgroup: u64,
    /// Buckets before, where the kernel shows the variable's address.
    pub from: Option<u64>,
    /// Buckets after, or those asked for where the address is not shown.
    pub to: Option<u64>,
    /// 0, or the negative error number.
    pub result: i32,
}

/// The host's memory: `/proc/meminfo`, bytes, and `/proc/pressure/memory`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// `MemTotal`.
    pub total: u64,
    /// `MemAvailable`.
    pub available: u64,
    /// The share of the last 10 s, per cent, in which some task waited for memory (`some avg10` of
    /// /proc/pressure/memory); `None` on kernels without PSI.
    pub pressure: Option<f64>,
}
