//! The credit: how many entries may come before the daemon looks at the table again. The count-down to the next walk counts
//! it down as well: an insert is charged at the next stop, and no stop comes later than the credit allows.

use aya_ebpf::bindings::BPF_RB_FORCE_WAKEUP;
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use guard_ebpf::{SAMPLED, Slot, Spent, inserts_of};

use crate::maps::{SPENT, granted};

/// Charges the inserts since the last stop, this one among them, tells the daemon when they have used up its credit, and sets
/// the next stop. Answers whether a walk is due.
#[inline(always)]
pub fn stopped(slot: *mut Slot) -> bool {
    // SAFETY: this CPU's slot; bottom halves are off.
    let slot = unsafe { &mut *slot };
    slot.until_walk -= slot.stretch;
    let walk = slot.until_walk <= 0;
    if walk {
        slot.until_walk = SAMPLED.cast_signed();
    }
    let grant = granted();
    if grant != slot.granted {
        slot.granted = grant;
        slot.credit = inserts_of(grant).cast_signed();
    } else if slot.credit > 0 {
        slot.credit -= slot.stretch;
        if slot.credit <= 0 {
            slot.credit = 0;
            tell(grant);
        }
    }
    slot.stretch = slot.until_walk;
    if slot.credit > 0 && slot.credit < slot.stretch {
        slot.stretch = slot.credit;
    }
    slot.until_stop = slot.stretch - 1;
    walk
}

/// The same where every insert is walked anyway. Out of line: what it needs of registers would have to be saved for every
/// insert.
#[inline(never)]
pub fn due(slot: *mut Slot) {
    stopped(slot);
}

/// Wakes the daemon: once for each grant and CPU. A ring without room means that it is awake and behind; it looks at the table
/// at its next tick.
#[inline(never)]
fn tell(grant: u64) {
    let Some(mut event) = SPENT.reserve::<Spent>(0) else { return };
    // SAFETY: no preconditions.
    event.write(Spent { at: unsafe { bpf_ktime_get_boot_ns() }, grant });
    event.submit(u64::from(BPF_RB_FORCE_WAKEUP));
}
