//! The operator's policy, as the rest of the guard sees it: typed, complete, valid.

use std::time::Duration;

/// What the guard may do, and within which bounds. `Policy::default()` is the policy of a host without a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Whether plans are carried out.
    pub mode: Mode,
    /// `[table]`: the table's size.
    pub table: Table,
    /// `[hash]`: the hash table's buckets.
    pub hash: Hash,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            table: Table {
                max: Bounds::default(),
                memory_limit: MemoryLimit::Percent(10.0),
                high_water: 0.80,
                horizon: Duration::from_secs(10),
            },
            hash: Hash { buckets: Bounds::default(), max_stall: Duration::from_millis(20) },
        }
    }
}

/// `mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Decide and act.
    Enforce,
    /// Decide and report, change nothing.
    Advise,
}

/// `[table]`
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// `max`: what `nf_conntrack_max` may be set to, entries, 1 to 2147483647. No floor: the value found at start. No
    /// ceiling: 4194304, or the floor or the value found at start if that is larger.
    pub max: Bounds,
    /// `memory-limit`: what entries at max and buckets may take together.
    pub memory_limit: MemoryLimit,
    /// `high-water`: the share of max that the forecast may reach, 0.1 to 0.99.
    pub high_water: f64,
    /// `horizon`: how far ahead the forecast looks, 1 s to 10 min.
    pub horizon: Duration,
}

/// `[hash]`
#[derive(Clone, Debug, PartialEq)]
pub struct Hash {
    /// `buckets`: what `nf_conntrack_buckets` may be set to, 1 to 536870911. No floor: the value found at start. No
    /// ceiling: 4194304, or the floor or the value found at start if that is larger.
    pub buckets: Bounds,
    /// `max-stall`: the longest estimated stall of a resize, at start too, 0 to 10 s.
    pub max_stall: Duration,
}

/// Bounds of a setting; `None` where the operator set none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Lowest value the guard may choose.
    pub floor: Option<u64>,
    /// Highest value the guard may choose.
    pub ceiling: Option<u64>,
}

/// `table.memory-limit`
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MemoryLimit {
    /// A share of the host's memory, 0.1 to 90 %.
    Percent(f64),
    /// Bytes, 1 MiB to 1 PiB.
    Bytes(u64),
}
