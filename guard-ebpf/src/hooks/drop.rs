//! The table is full: `early_drop` looked for an entry to evict.

use guard_ebpf::Slot;

use super::count_interruptible;

/// Counts a new flow that got room by evictions, or one that was refused because nothing could be evicted.
#[inline(always)]
pub fn early_dropped(evicted: bool, slot: *mut Slot) {
    // SAFETY: this CPU's slot.
    let counter = unsafe { if evicted { &raw mut (*slot).early_drops } else { &raw mut (*slot).table_full } };
    // SAFETY: as above. The caller may be a process that sends, which a softirq interrupts.
    unsafe { count_interruptible(counter) };
}
