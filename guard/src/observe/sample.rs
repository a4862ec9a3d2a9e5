//! What one tick reads. One shape, whatever back end supplied it.

use std::time::Duration;

use serde::Serialize;

/// Chain lengths are counted exactly from 0 to `CHAIN_LENGTHS - 2` entries; the last place counts all longer ones.
/// The kernel refuses inserts into chains longer than 50 + random(30) (`MIN_CHAINLEN`, `MAX_CHAINLEN` in
/// nf_conntrack_core.c), where it has a limit at all.
pub const CHAIN_LENGTHS: usize = guard_ebpf::CHAIN_LENGTHS;

/// All that one tick read. Counters only grow, from an origin that is unknown: use differences of two samples.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// Time since boot (`CLOCK_BOOTTIME`) at which the reading was taken.
    pub at: Duration,
    /// The table's settings and its count.
    pub table: TableReading,
    /// The kernel's own statistics of this network namespace.
    pub stats: StatTotals,
    /// What the eBPF programs counted; `None` where no program could be attached.
    pub hooks: Option<HookTotals>,
    /// The host's memory.
    pub memory: Memory,
    /// Bytes one entry takes: the slab object and its extensions.
    pub entry_bytes: u64,
}

/// `nf_conntrack_max`, `nf_conntrack_buckets` and `nf_conntrack_count`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TableReading {
    /// Entries this namespace's table may hold; 0 means "no limit" on kernels before 6.19.
    pub max: u64,
    /// Buckets of the hash table.
    pub buckets: u64,
    /// Entries now, unconfirmed and dying ones among them.
    pub count: u64,
}

/// Sums over all CPUs of `/proc/net/stat/nf_conntrack`, unwrapped to 64 bits since the guard started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StatTotals {
    /// Packets dropped because the table was full (or memory ran out), and lost clashes.
    pub drop: u64,
    /// Entries evicted to make room (`early_drop`).
    pub early_drop: u64,
    /// Inserts that failed: clash lost or chain too long.
    pub insert_failed: u64,
    /// Inserts refused because the chain was too long; 0 on kernels without the column.
    pub chain_too_long: u64,
    /// Packets that no tracker would accept.
    pub invalid: u64,
}

/// Sums over all CPUs of what the programs counted since they were attached, in all network namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HookTotals {
    /// Entries put into the table by `__nf_conntrack_hash_insert`: packets' and ctnetlink's.
    pub inserts: u64,
    /// Entries freed that `inserts` counted when they came.
    pub destroys: u64,
    /// Entries freed that a clash resolution had inserted in the reply direction only; `inserts` never counted them.
    pub reply_only_destroys: u64,
    /// New flows refused because the table was full and nothing could be evicted.
    pub table_full: u64,
    /// New flows for which `early_drop` made room. One call evicts every entry of a chain that it may: the entries
    /// evicted are in [`StatTotals::early_drop`].
    pub early_drops: u64,
    /// Program runs that the kernel skipped because the program was already running on that CPU.
    pub missed: u64,
    /// Chain lengths found at insert.
    pub chains: Chains,
}

/// Other entries found in the two chains of each inserted entry: index = length, value = inserts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chains {
    /// Chain of the original tuple.
    pub original: Vec<u64>,
    /// Chain of the reply tuple.
    pub reply: Vec<u64>,
}

/// From `/proc/meminfo`, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// `MemTotal`.
    pub total: u64,
    /// `MemAvailable`.
    pub available: u64,
}
