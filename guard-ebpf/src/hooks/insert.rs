//! An entry comes into the table: `__nf_conntrack_hash_insert`, whose caller holds both buckets' locks with bottom halves
//! off.

use core::intrinsics::cold_path;

use guard_ebpf::placeholders::field::{CT_NET, NET_INUM, ORIGINAL_NEXT, REPLY_NEXT};
use guard_ebpf::{NAMESPACES, Namespace, ORIGINAL, REPLY, Slot};

use super::{count, credit};
use crate::chain;
use crate::maps::HASH_TABLE;
use crate::memory::{Conn, Memory, Net, Probed, Typed};

/// Counts the insert in its network namespace.
#[inline(always)]
pub fn counted<M: Memory>(conn: *const Conn, slot: *mut Slot) {
    // SAFETY: the hooked function's own argument.
    let net = unsafe { M::field::<CT_NET, u64, _>(conn) } as *const Net;
    // SAFETY: an entry's namespace lives as long as the entry.
    let inum = unsafe { M::field::<NET_INUM, u32, _>(net) };
    // In this order, index before slot, it is one addition without a copy.
    let place = (inum & (NAMESPACES as u64 - 1)) * size_of::<Namespace>() as u64 + slot as u64;
    // SAFETY: the namespaces are the slot's first field, and the index is inside their array.
    let place = unsafe { &mut *(place as *mut Namespace) };
    if u64::from(place.inum) == inum {
        place.inserts += 1;
        return;
    }
    cold_path();
    if place.inum == 0 {
        place.inum = inum as u32;
        place.inserts = 1;
    } else {
        // SAFETY: this CPU's slot; bottom halves are off.
        unsafe { count(&raw mut (*slot).other_namespaces) };
    }
}

/// Whether this is an insert at which to stop, for [`sampled`] or [`credit::due`].
#[inline(always)]
pub fn is_stop(slot: *mut Slot) -> bool {
    // SAFETY: this CPU's slot; bottom halves are off.
    let left = unsafe { &mut (*slot).until_stop };
    *left -= 1;
    *left < 0
}

/// At the function's entry: sees to the credit, and measures the chains from their buckets when that is due. Out of line: what
/// it needs of registers would have to be saved for every insert.
#[inline(never)]
pub fn sampled(hash: u32, reply_hash: u32, slot: *mut Slot) {
    if !credit::stopped(slot) {
        return;
    }
    let variable = HASH_TABLE.load();
    if variable == 0 {
        return;
    }
    // Read afresh: a resize replaces the table, though not while the caller holds a bucket's lock.
    // SAFETY: the helper checks the address.
    let table: u64 = unsafe { Probed::read(variable) };
    for (bucket, direction) in [(hash, ORIGINAL), (reply_hash, REPLY)] {
        // SAFETY: as above; a bucket is one pointer.
        let first = unsafe { Probed::read(table.wrapping_add(u64::from(bucket) * 8)) };
        // SAFETY: the bucket's first node, inside its lock.
        unsafe { chain::measure_probed(first, bucket, direction, slot) };
    }
}

/// At its exit: measures both chains. The entry is their head now (`hlist_nulls_add_head_rcu`), so whatever follows was
/// there before it.
#[inline(always)]
pub fn walked(conn: *const Conn, hash: u32, reply_hash: u32, slot: *mut Slot) {
    // SAFETY: the hooked function's own argument; bottom halves are off.
    unsafe { chain::measure::<ORIGINAL>(Typed::field::<ORIGINAL_NEXT, u64, _>(conn), hash, slot) };
    // SAFETY: as above.
    unsafe { chain::measure::<REPLY>(Typed::field::<REPLY_NEXT, u64, _>(conn), reply_hash, slot) };
}
