//! The walk along one hash chain.

use guard_ebpf::{CHAIN_LENGTHS, Slot};

use crate::maps::{NODE_NEXT, field};

/// The kernel's `struct hlist_nulls_node`.
pub enum Node {}

/// Entries from `first` to the end of its chain, at most `CHAIN_LENGTHS - 1`.
///
/// A chain ends with a "nulls" value: bit 0 is set and the rest is the bucket's number (include/linux/list_nulls.h).
/// The caller is inside the bucket's lock, so the chain does not move.
///
/// # Safety
/// `first` must be `hnnode.next` of an entry in the table, `slot` this CPU's.
#[inline(always)]
pub unsafe fn length(first: *const Node, slot: *mut Slot) -> usize {
    let mut node = first;
    let mut nodes = 0;
    while nodes < CHAIN_LENGTHS - 1 && !is_nulls(node, slot) {
        // SAFETY: an entry's node, whose `next` is at this offset.
        node = unsafe { field(node, NODE_NEXT.load()) };
        nodes += 1;
    }
    // Parked, so that the verifier takes the length for any number and need not follow each length to the program's end.
    // The mask then bounds the index for good.
    park(nodes as u64, slot) as usize & (CHAIN_LENGTHS - 1)
}

#[inline(always)]
fn is_nulls(node: *const Node, slot: *mut Slot) -> bool {
    // The verifier refuses arithmetic on a kernel pointer; what comes back from the slot is a plain number to it.
    park(node as u64, slot) & 1 == 1
}

#[inline(always)]
fn park(value: u64, slot: *mut Slot) -> u64 {
    // SAFETY: this CPU's slot is a live map value, and the programs that park run with bottom halves off.
    let scratch = unsafe { &raw mut (*slot).scratch };
    // SAFETY: as above.
    unsafe { scratch.write_volatile(value) };
    // SAFETY: as above.
    unsafe { scratch.read_volatile() }
}
