//! An entry's end: `nf_conntrack_free`, after its last reference went.

use guard_ebpf::{ICMP_FATE, OTHER_FATE, TCP_STATES, UDP_FATE};

use super::count_interruptible;
use crate::maps::{PROTONUM, STATUS, TCP_STATE, UNION_BY_HELPER, slot};
use crate::memory::{Conn, Memory, Probed};

// enum ip_conntrack_status (include/uapi/linux/netfilter/nf_conntrack_common.h).

/// Packets went both ways, so `early_drop` leaves it alone.
const IPS_ASSURED: u64 = 1 << 2;
/// The entry was put into the table, or was about to be.
const IPS_CONFIRMED: u64 = 1 << 3;
/// The entry was taken out of the table (`nf_ct_delete`), or never came so far.
const IPS_DYING: u64 = 1 << 9;
/// Only what had been in the table has both: ctnetlink sets IPS_CONFIRMED before an insert that may fail, and what dies
/// on its way to the table is not confirmed.
const WAS_IN_TABLE: u64 = IPS_CONFIRMED | IPS_DYING;
/// The entry lost a clash and went in by its reply tuple alone, past `__nf_conntrack_hash_insert`.
pub const IPS_NAT_CLASH: u64 = 1 << 12;

/// Counts the entry if it had ever been in the table.
#[inline(always)]
pub fn freed<M: Memory>(conn: *const Conn) {
    // SAFETY: the hooked function's own argument.
    let status: u64 = unsafe { M::field(conn, STATUS.load()) };
    if status & WAS_IN_TABLE != WAS_IN_TABLE {
        return;
    }
    let Some(slot) = slot() else { return };
    let counter = if status & IPS_NAT_CLASH == 0 {
        let place = fate::<M>(conn) + usize::from(status & IPS_ASSURED != 0);
        // SAFETY: this CPU's slot, and an index inside the array.
        unsafe { (&raw mut (*slot).destroys).cast::<u64>().add(place) }
    } else {
        // SAFETY: this CPU's slot.
        unsafe { &raw mut (*slot).reply_only_destroys }
    };
    // SAFETY: as above. Freed from process, softirq and RCU context alike.
    unsafe { count_interruptible(counter) };
}

/// The entry's first place among the destroys.
#[inline(always)]
fn fate<M: Memory>(conn: *const Conn) -> usize {
    // SAFETY: the hooked function's own argument.
    match unsafe { M::field::<u8, _>(conn, PROTONUM.load()) } {
        6 => 2 * (tcp_state::<M>(conn) & (TCP_STATES - 1)),
        17 => UDP_FATE,
        1 | 58 => ICMP_FATE,
        _ => OTHER_FATE,
    }
}

#[inline(always)]
fn tcp_state<M: Memory>(conn: *const Conn) -> usize {
    let offset = TCP_STATE.load();
    // SAFETY: the hooked function's own argument.
    let state: u8 =
        unsafe { if UNION_BY_HELPER.load() == 0 { M::field(conn, offset) } else { Probed::field(conn, offset) } };
    usize::from(state)
}
