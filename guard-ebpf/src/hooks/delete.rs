//! An entry's end: `nf_conntrack_free`, after its last reference went.

use core::intrinsics::cold_path;

use guard_ebpf::placeholders::field::{PROTONUM, STATUS, TCP_STATE};
use guard_ebpf::{ICMP_FATE, OTHER_FATE, Slot, TCP_STATES, UDP_FATE};

use super::{count_interruptible, opaque};
use crate::maps::UNION_BY_HELPER;
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
const IN_TABLE: u64 = IPS_CONFIRMED | IPS_DYING;
/// The entry lost a clash and went in by its reply tuple alone, past `__nf_conntrack_hash_insert`.
pub const IPS_NAT_CLASH: u64 = 1 << 12;

// Protocol numbers (include/uapi/linux/in.h and in6.h).
const ICMP: u64 = 1;
const TCP: u64 = 6;
const UDP: u64 = 17;
const ICMPV6: u64 = 58;

/// Counts the entry if it had ever been in the table. What most entries are comes first.
#[inline(always)]
pub fn freed<M: Memory>(conn: *const Conn, slot: *mut Slot) {
    // SAFETY: the hooked function's own argument.
    let status = opaque(unsafe { M::field::<STATUS, u64, _>(conn) } & (IN_TABLE | IPS_NAT_CLASH | IPS_ASSURED));
    let pairs = if status == IN_TABLE {
        slot
    } else if opaque(status) == IN_TABLE | IPS_ASSURED {
        // As if all began one counter later: at the other one of each pair.
        opaque(slot as u64 + size_of::<u64>() as u64) as *mut Slot
    } else {
        if status & IN_TABLE == IN_TABLE {
            // SAFETY: this CPU's slot. Freed from process, softirq and RCU context alike.
            unsafe { count_interruptible(&raw mut (*slot).reply_only_destroys) };
        }
        return;
    };
    // SAFETY: in this CPU's slot.
    let pairs = unsafe { (&raw mut (*pairs).destroys).cast::<u64>() };
    // SAFETY: the hooked function's own argument.
    let protocol = unsafe { M::field::<PROTONUM, u8, _>(conn) };
    if protocol == UDP {
        // SAFETY: an index inside the array.
        return unsafe { count_interruptible(pairs.add(UDP_FATE)) };
    }
    cold_path();
    let place = match protocol {
        // Out of line: for the helper's call registers would have to be saved for every entry.
        TCP if UNION_BY_HELPER.load() != 0 => return tcp_by_helper(conn, pairs),
        // SAFETY: as above.
        TCP => tcp_fate(unsafe { M::field::<TCP_STATE, u8, _>(conn) }),
        ICMP | ICMPV6 => ICMP_FATE,
        _ => OTHER_FATE,
    };
    // SAFETY: as above.
    unsafe { count_interruptible(pairs.add(place)) };
}

#[inline(never)]
fn tcp_by_helper(conn: *const Conn, pairs: *mut u64) {
    // SAFETY: the hooked function's own argument.
    let place = tcp_fate(unsafe { Probed::field::<TCP_STATE, u8, _>(conn) });
    // SAFETY: this CPU's slot, and an index inside the array.
    unsafe { count_interruptible(pairs.add(place)) };
}

/// The place of a TCP state's pair.
#[inline(always)]
fn tcp_fate(state: u64) -> usize {
    2 * (state as usize & (TCP_STATES - 1))
}
