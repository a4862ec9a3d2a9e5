//! An entry's end: `nf_conntrack_free`, after its last reference went.

use super::count_interruptible;
use crate::maps::{Conn, ORIGINAL_PPREV, STATUS, field, slot};

/// `IPS_NAT_CLASH` (include/uapi/linux/netfilter/nf_conntrack_common.h): the entry lost a clash and went in by its reply
/// tuple alone, past `__nf_conntrack_hash_insert`.
const IPS_NAT_CLASH: u64 = 1 << 12;

/// Counts the entry if it had ever been in the table.
#[inline(always)]
pub fn freed(conn: *const Conn) {
    // Set when the entry is put into a chain and poisoned when it is taken out; `__nf_conntrack_alloc` clears it. The
    // status would not do: ctnetlink sets IPS_CONFIRMED before an insert that may fail.
    // SAFETY: the hooked function's own argument, at an offset from BTF.
    let pprev: u64 = unsafe { field(conn, ORIGINAL_PPREV.load()) };
    if pprev == 0 {
        return;
    }
    let Some(slot) = slot() else { return };
    // SAFETY: as above.
    let status: u64 = unsafe { field(conn, STATUS.load()) };
    let counter = if status & IPS_NAT_CLASH == 0 {
        // SAFETY: this CPU's slot.
        unsafe { &raw mut (*slot).destroys }
    } else {
        // SAFETY: as above.
        unsafe { &raw mut (*slot).reply_only_destroys }
    };
    // SAFETY: as above. Freed from process, softirq and RCU context alike.
    unsafe { count_interruptible(counter) };
}
