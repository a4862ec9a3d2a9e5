//! The walk along one hash chain.

use guard_ebpf::{CHAIN_LENGTHS, Slot};

use crate::hooks::count;
use crate::maps::NODE_NEXT;
use crate::memory::{Memory, Node, pointer};

/// Counts the chain that begins at `first` in the histogram of its direction.
///
/// A chain ends with a "nulls" value: bit 0 is set and the rest is the bucket's number (include/linux/list_nulls.h), which
/// must be `bucket`: a walk that ends elsewhere or in a fault, which reads as 0, went wrong, and is counted as strayed
/// instead. The caller is inside the bucket's lock, so the chain does not move.
///
/// Out of line because the verifier then forgets the length when it returns. In line it follows what comes next once for
/// each length: a second walk made that 450,000 instructions to check instead of 12,000, seconds on a slow machine.
///
/// # Safety
/// `first` must be the first node of a chain or the `next` of an entry in it, `slot` this CPU's.
#[inline(never)]
pub unsafe fn measure<M: Memory>(first: *const Node, bucket: u32, direction: usize, slot: *mut Slot) {
    let mut node = first;
    let mut nodes = 0;
    // The verifier refuses arithmetic on a kernel pointer; what comes back from the slot is a plain number to it.
    let mut bits = park(node as u64, slot);
    while nodes < CHAIN_LENGTHS - 1 && bits & 1 == 0 {
        // SAFETY: an entry's node.
        node = unsafe { pointer::<M, Node, Node>(node, NODE_NEXT.load()) };
        bits = park(node as u64, slot);
        nodes += 1;
    }
    if bits != u64::from(bucket) << 1 | 1 && (bits & 1 == 1 || bits == 0) {
        // SAFETY: this CPU's slot; bottom halves are off.
        unsafe { count(&raw mut (*slot).strayed) };
        return;
    }
    // Parked, so that the verifier takes the length for any number and need not follow each length to the program's end.
    // The mask then bounds the index for good.
    let length = park(nodes as u64, slot) as usize & (CHAIN_LENGTHS - 1);
    // SAFETY: this CPU's slot, and an index inside the histogram.
    unsafe { count((&raw mut (*slot).chains[direction]).cast::<u64>().add(length)) };
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
