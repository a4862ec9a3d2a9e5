//! What both halves share: the layout of the per-CPU slots and of the offsets that the loader fills in.
#![no_std]

/// Places of a chain-length histogram: lengths 0 to 126 exactly, then "127 or longer".
pub const CHAIN_LENGTHS: usize = 128;
