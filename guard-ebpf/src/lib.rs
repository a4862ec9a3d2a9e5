//! What both halves share: the layout of the per-CPU slots. The kernel half writes, the daemon reads the same memory
//! through `mmap`, so every type is `repr(C)` and its size is asserted.
#![no_std]

/// Places of a chain-length histogram: lengths 0 to 126 exactly, then "127 or longer".
///
/// A power of two, so that the programs bound an index with a mask. The kernel refuses inserts into chains longer than
/// 50 + random(30) (`MIN_CHAINLEN` and `MAX_CHAINLEN` in nf_conntrack_core.c), where it has a limit at all.
pub const CHAIN_LENGTHS: usize = 128;

/// Index of the chain of the original tuple in [`Slot::chains`] (`IP_CT_DIR_ORIGINAL`).
pub const ORIGINAL: usize = 0;

/// Index of the chain of the reply tuple in [`Slot::chains`] (`IP_CT_DIR_REPLY`).
pub const REPLY: usize = 1;

/// What one CPU counted since the programs were attached. Counters only grow.
///
/// One slot for each possible CPU, each on cache lines of its own: no other CPU writes to it.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct Slot {
    /// Entries that `__nf_conntrack_hash_insert` put into the table.
    pub inserts: u64,
    /// Entries freed that `inserts` had counted.
    pub destroys: u64,
    /// Entries freed that a clash resolution had inserted in the reply direction only.
    pub reply_only_destroys: u64,
    /// `early_drop` found nothing to evict: the new flow was refused.
    pub table_full: u64,
    /// `early_drop` made room; one call evicts every entry of a chain that it may, so the statistic counts more.
    pub early_drops: u64,
    /// Where the walk parks a value so that the verifier forgets what it knew of it. Not a counter.
    pub scratch: u64,
    /// Other entries found in the chains of each inserted entry, by direction and length.
    pub chains: [[u64; CHAIN_LENGTHS]; 2],
}

const _: () =
    assert!(size_of::<Slot>() == 64 + 2 * 8 * CHAIN_LENGTHS, "the slots are one array: no padding between them");
const _: () = assert!(CHAIN_LENGTHS.is_power_of_two());
