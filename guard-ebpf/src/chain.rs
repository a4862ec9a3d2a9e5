//! The walk along one hash chain.

use core::arch::asm;
use core::intrinsics::cold_path;
use core::mem::offset_of;

use guard_ebpf::placeholders::LOAD;
use guard_ebpf::placeholders::field::NODE_NEXT;
use guard_ebpf::{CHAIN_LENGTHS, Slot};

use crate::hooks::count;
use crate::memory::{Memory as _, Node, Probed};

/// Bytes of a counter: while a chain is walked its length is counted as the way to its counter.
const COUNTER: usize = size_of::<u64>();

/// Where a direction's histogram begins in the slot.
const fn histogram(direction: usize) -> usize {
    offset_of!(Slot, chains) + direction * CHAIN_LENGTHS * COUNTER
}

/// Counts the chain that begins at `first`, a typed pointer, in the histogram of its direction.
///
/// # Safety
/// `first` must be the first node of a chain or the `next` of an entry in it, `slot` this CPU's.
#[inline(always)]
pub unsafe fn measure<const DIRECTION: usize>(first: u64, bucket: u32, slot: *mut Slot) {
    let (mut node, mut counter) = (first, histogram(DIRECTION) as u64);
    // In these instructions because the compiler would test a pointer's bit with arithmetic, which the verifier refuses.
    // SAFETY: reads entries' nodes, whose type the verifier knows, or nothing.
    unsafe {
        asm!(
            "2:",
            "if {node} & 1 goto 3f",
            "{node} = *(u64 *)({node} + {next})",
            "{counter} += {step}",
            "if {counter} != {longest} goto 2b",
            "3:",
            node = inout(reg) node,
            counter = inout(reg) counter,
            next = const LOAD + NODE_NEXT,
            step = const COUNTER,
            longest = const histogram(DIRECTION) + (CHAIN_LENGTHS - 1) * COUNTER,
            options(pure, readonly, nostack),
        );
    }
    // SAFETY: as promised.
    unsafe { record(node, counter, bucket, slot) };
}

/// The same for a pointer without a type, of which each node is read by a helper.
///
/// Out of line because the verifier then forgets the length when it returns. In line it follows what comes next once for
/// each length: a second walk made that 450,000 instructions to check instead of 12,000, seconds on a slow machine.
///
/// # Safety
/// As for [`measure`].
#[inline(never)]
pub unsafe fn measure_probed(first: u64, bucket: u32, direction: usize, slot: *mut Slot) {
    let (mut node, mut length) = (first, 0);
    while length < CHAIN_LENGTHS - 1 && node & 1 == 0 {
        // SAFETY: the helper checks the address.
        node = unsafe { Probed::field::<NODE_NEXT, u64, _>(node as *const Node) };
        length += 1;
    }
    // Parked, so that the verifier takes the length for any number and need not follow each length to the program's end.
    // The mask then bounds it for good.
    let length = park(length as u64, slot) as usize & (CHAIN_LENGTHS - 1);
    // SAFETY: as promised.
    unsafe { record(node, (histogram(direction) + length * COUNTER) as u64, bucket, slot) };
}

/// Counts a walk that ended with `end`, in the counter so many bytes into the slot.
///
/// A chain ends with a "nulls" value: bit 0 is set and the rest is the bucket's number (include/linux/list_nulls.h), which
/// must be the walk's own: a walk that ends elsewhere or in a fault, which reads as 0, went wrong, and is counted as
/// strayed instead. The caller is inside the bucket's lock, so the chain does not move.
#[inline(always)]
unsafe fn record(end: u64, counter: u64, bucket: u32, slot: *mut Slot) {
    if end != u64::from(bucket << 1 | 1) {
        cold_path();
        let end = park(end, slot);
        if end == 0 || end & 1 == 1 {
            // SAFETY: this CPU's slot; bottom halves are off.
            unsafe { count(&raw mut (*slot).strayed) };
            return;
        }
        // The chain is as long as can be told apart, or longer.
    }
    // SAFETY: as above; a counter of a histogram.
    unsafe { count(counter.wrapping_add(slot as u64) as *mut u64) };
}

/// Makes the verifier forget what it knows of a value: what comes back from memory is a plain number to it.
#[inline(always)]
fn park(value: u64, slot: *mut Slot) -> u64 {
    // SAFETY: this CPU's slot is a live map value, and the programs that park run with bottom halves off.
    let scratch = unsafe { &raw mut (*slot).scratch };
    // SAFETY: as above.
    unsafe { scratch.write_volatile(value) };
    // SAFETY: as above.
    unsafe { scratch.read_volatile() }
}
