//! The status as JSON: what `conntrack-guard status --json` prints. Fields are only ever added within one format
//! version. Times are milliseconds unless their names say otherwise; `at_ms` and `since_ms` count from the boot
//! (`CLOCK_BOOTTIME`). A figure that is not measured here is `null`, never 0, or it is estimated and named in
//! `estimated`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::assessment::Assessment;
use super::brake::PausedNow;
use super::counted::Counted;
use super::policy_now::PolicyNow;
use super::resizes::Resize;
use crate::actuate::Effect;
use crate::model::ChainStats;
use crate::policy::{Change, Held, Range};

/// Version of this format.
pub const FORMAT: u32 = 1;

/// The guard, the table and the decisions, as of the last tick.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of this format: 1.
    pub version: u32,
    /// The guard's own version.
    pub guard: String,
    /// Its process.
    pub pid: u32,
    /// `enforce`, `advise`, `off` or `dry-run`.
    pub mode: String,
    /// Whether the policy that was given is in force.
    pub ready: bool,
    /// Why not.
    pub not_ready: Option<String>,
    /// Where the policy in force comes from.
    pub policy: PolicyNow,
    /// How long it has run, since its first reading.
    pub uptime_ms: u64,
    /// When the sample behind these figures was taken.
    pub at_ms: u64,
    /// The table.
    pub table: Table,
    /// Where it is going.
    pub forecast: Forecast,
    /// What the guard makes of it: `standing`, `load`, `states`, `memory`, `census`, `changed`, `predictions`, `doubts`.
    #[serde(flatten)]
    pub assessment: Assessment,
    /// Hash chains over the last 10 s; `null` where none was measured in that time.
    pub chains: Option<ChainStats>,
    /// New flows, packets and entries lost since the guard started.
    pub drops: Drops,
    /// Through what the kernel's statistics are read.
    pub statistics: StatisticsNow,
    /// What the eBPF programs counted; `null` where there are none.
    pub counted: Option<Counted>,
    /// The last 16 resizes of the hash table, the guard's own among them, oldest first; by hook only.
    pub resizes: Vec<Resize>,
    /// Figures that are estimated rather than measured, by their places here (`drops.table_full`).
    pub estimated: Vec<String>,
    /// What the figures come from.
    pub back_end: BackEnd,
    /// Each signal of the eBPF programs; empty where there are none.
    pub signals: Vec<SignalNow>,
    /// What the guard may do.
    pub bounds: LimitsInForce,
    /// Changes carried out or advised since the start.
    pub changes_made: u64,
    /// The last 128 changes, whatever came of them, oldest first.
    pub changes: Vec<ChangeMade>,
    /// What rules want now and may not have.
    pub held: Vec<HeldNow>,
    /// What `conntrack-guard pause` keeps from changing.
    pub paused: Vec<PausedNow>,
    /// What does not work now, such as a reading that fails.
    pub trouble: Option<String>,
}

/// The table as read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// `nf_conntrack_max`; 0 means "no limit" on kernels before 6.19.
    pub max: u64,
    /// `nf_conntrack_buckets`
    pub buckets: u64,
    /// `nf_conntrack_count`
    pub count: u64,
    /// count ÷ max; 0 without a limit.
    pub fill: f64,
    /// The largest count that a tick has read since the start.
    pub peak_count: u64,
}

/// Growth and what it leads to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Entries a second by which the count grows.
    pub growth_per_s: f64,
    /// New entries a second.
    pub inserts_per_s: Option<f64>,
    /// Entries freed a second.
    pub destroys_per_s: Option<f64>,
    /// How far ahead the forecast looks.
    pub horizon_ms: u64,
    /// Entries expected then.
    pub count: u64,
    /// Time until the count reaches max; `null` while it does not grow.
    pub time_to_full_ms: Option<u64>,
    /// Entries at which the count would settle if flows went on coming and ending as they do now; `null` without hooks, and
    /// until it is known how nine in ten of them end.
    pub steady: Option<u64>,
}

/// Losses since the guard started, by cause. Hooks count those of all network namespaces, the kernel's statistics those of
/// this one. `null` where neither tells.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Drops {
    /// New flows refused because the table was full. By hook; without it estimated from the statistics, as `drop` less the
    /// lost clashes.
    pub table_full: Option<u64>,
    /// Packets dropped because another one of their flow was confirmed first. By hook; without it estimated from the
    /// statistics, as `insert_failed` less `chain_too_long`.
    pub clash_lost: Option<u64>,
    /// Inserts refused for the length of the chain (`chaintoolong`); those of packets count as `insert_failed` as well. 0
    /// on kernels that have no such limit.
    pub chain_too_long: Option<u64>,
    /// Entries evicted to make room (`early_drop`). No new flow was lost by it.
    pub early_drop: Option<u64>,
    /// Packets that no tracker accepted. They go on, as INVALID.
    pub invalid: Option<u64>,
    /// ICMP messages that are broken, or quote what cannot be (`icmp_error`). They go on, as INVALID.
    pub icmp_error: Option<u64>,
    /// Packets that met another one of their flow and went through all the same (`clashres`).
    pub clash_resolved: Option<u64>,
    /// The statistic `drop`: table full, out of memory, or a lost clash.
    pub drop: Option<u64>,
    /// The statistic `insert_failed`: a lost clash or a chain that was too long.
    pub insert_failed: Option<u64>,
    /// What each of these comes from: `fentry/fexit` or `kprobe` (by hook), or `statistics`.
    pub sources: BTreeMap<String, String>,
}

/// The kernel's statistics of this network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatisticsNow {
    /// `proc` (`/proc/net/stat/nf_conntrack`) or `ctnetlink`; `null`: neither can be read.
    pub source: Option<String>,
    /// Why not what comes first.
    pub why: Option<String>,
}

/// Where the figures come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackEnd {
    /// `fentry/fexit` or `kprobe` (eBPF on the kernel's functions), or `proc` (readings only).
    pub name: String,
    /// Whether inserts and destroys are both measured, and so the growth.
    pub measured: bool,
    /// Why they are not.
    pub reason: Option<String>,
}

/// One signal that eBPF programs can measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignalNow {
    /// Its name.
    pub signal: String,
    /// `fentry/fexit` or `kprobe`; `null`: it is off.
    pub back_end: Option<String>,
    /// Why each better back end was not taken.
    pub why: Vec<String>,
}

/// Bounds in force; what the policy leaves open was settled at start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitsInForce {
    /// For `nf_conntrack_max`, entries.
    pub max: Range,
    /// For `nf_conntrack_buckets`, buckets.
    pub buckets: Range,
    /// What entries at max and buckets may take together, bytes.
    pub memory_limit: u64,
    /// What the present entries and buckets take, bytes.
    pub memory_in_use: u64,
    /// What a full table and the buckets would take, bytes.
    pub memory_at_max: u64,
    /// The longest estimated stall that a resize may cause.
    pub max_stall_ms: u64,
}

/// A change, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeMade {
    /// When it was decided.
    pub at_ms: u64,
    /// What was asked for, by which rule and why.
    #[serde(flatten)]
    pub change: Change,
    /// `applied`, `no-effect`, `refused` or `advised`, with details.
    pub result: Effect,
    /// Where a surge woke the guard for it: microseconds from the insert that passed what the guard had granted until the
    /// new value was read back.
    #[serde(default)]
    pub reaction_us: Option<u64>,
}

/// Something wanted that stays undone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldNow {
    /// What, by which rule, and why not.
    #[serde(flatten)]
    pub held: Held,
    /// Since when.
    pub since_ms: u64,
}
