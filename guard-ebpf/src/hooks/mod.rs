//! What each hooked function means for the counters.

pub mod clash;
pub mod credit;
pub mod delete;
pub mod drop;
pub mod insert;
pub mod refused;
pub mod resize;

use core::arch::asm;
use core::intrinsics::{AtomicOrdering, atomic_xadd};

/// Adds one where a softirq may interrupt the same counter's update on this CPU.
///
/// # Safety
/// `counter` must point into this CPU's slot.
#[inline(always)]
pub unsafe fn count_interruptible(counter: *mut u64) {
    // The intrinsic, because `AtomicU64::fetch_add` is left out of `core` on targets without compare-and-swap. Relaxed
    // and its result unused, it is the one atomic instruction that kernels have always had.
    // SAFETY: a live, aligned map value.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, 1) };
}

/// Adds one where bottom halves are off and so nothing comes between.
///
/// # Safety
/// `counter` must point into this CPU's slot, and the hooked function must run with bottom halves off.
#[inline(always)]
pub unsafe fn count(counter: *mut u64) {
    // SAFETY: a live, aligned map value.
    unsafe { *counter += 1 };
}

/// The same value, of which the compiler then knows nothing: it keeps to the order of the source and makes no table, no
/// index and no search tree of it. Takes no instruction.
#[inline(always)]
pub fn opaque(mut value: u64) -> u64 {
    // SAFETY: does nothing.
    unsafe { asm!("/* {0} */", inout(reg) value, options(pure, nomem, nostack)) };
    value
}
