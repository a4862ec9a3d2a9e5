//! An entry comes into the table: `__nf_conntrack_hash_insert`, whose caller holds both buckets' locks with bottom halves
//! off.

use core::intrinsics::cold_path;

use guard_ebpf::placeholders::field::{CT_NET, NET_COOKIE, NET_INUM, ORIGINAL_NEXT, REPLY_NEXT};
use guard_ebpf::{CONTENDERS, Namespace, ORIGINAL, REPLY, Slot, place_of};

use super::{count, credit, opaque};
use crate::chain;
use crate::maps::{HASH_TABLE, NO_COOKIE};
use crate::memory::{Conn, Memory, Net, Probed, Typed};

/// Counts the insert in its network namespace.
#[inline(always)]
pub fn counted<M: Memory>(conn: *const Conn, slot: *mut Slot) {
    let id = id_of::<M>(net_of::<M>(conn));
    // In this order, index before slot, it is one addition without a copy.
    let place = place_of(id) + slot as u64;
    // SAFETY: the namespaces are the slot's first field, and the place is inside their array.
    let place = unsafe { &mut *(place as *mut Namespace) };
    if place.id == id {
        place.inserts += 1;
        return;
    }
    cold_path();
    if place.id == 0 || is_given_up(place) {
        // Reads the namespace and its id again: kept, they would take registers that had to be saved for every insert.
        hand_over::<M>(place, net_of::<M>(opaque(conn as u64) as *const Conn));
    } else {
        // SAFETY: this CPU's slot; bottom halves are off.
        unsafe { count(&raw mut (*slot).other_namespaces) };
    }
}

#[inline(always)]
fn net_of<M: Memory>(conn: *const Conn) -> *const Net {
    // SAFETY: the hooked function's own argument.
    unsafe { M::field::<CT_NET, u64, _>(conn) as *const Net }
}

/// What tells a network namespace from all others.
#[inline(always)]
fn id_of<M: Memory>(net: *const Net) -> u64 {
    // A program of typed pointers is not loaded where there is no cookie.
    if !M::TYPED && NO_COOKIE.load() != 0 {
        // SAFETY: an entry's namespace lives as long as the entry.
        unsafe { M::field::<NET_INUM, u32, _>(net) }
    } else {
        // SAFETY: as above.
        unsafe { M::field::<NET_COOKIE, u64, _>(net) }
    }
}

/// Whether others have come so often since the owner that the one who comes now may have its place. Known from what the
/// owner counts anyway, so that its own inserts pay nothing for it.
#[inline(always)]
fn is_given_up(place: &mut Namespace) -> bool {
    // SAFETY: the lowest bits of this CPU's counter. By a load of their own, again to save a register.
    let seen = unsafe { (&raw const place.inserts).cast::<u16>().read_volatile() };
    if place.seen != seen {
        place.seen = seen;
        place.contenders = 0;
    }
    place.contenders += 1;
    place.contenders >= CONTENDERS
}

/// Counts the insert for a new owner. The daemon may read meanwhile: in this order it takes no insert for somebody else's.
#[inline(always)]
fn hand_over<M: Memory>(place: &mut Namespace, net: *const Net) {
    place.contenders = 0;
    // SAFETY: fields of this CPU's slot, and the namespace as above. Volatile keeps the order.
    unsafe {
        (&raw mut place.before).write_volatile(place.inserts);
        (&raw mut place.inum).write_volatile(M::field::<NET_INUM, u32, _>(net) as u32);
        (&raw mut place.id).write_volatile(id_of::<M>(net));
        (&raw mut place.inserts).write_volatile((&raw const place.inserts).read_volatile() + 1);
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
