//! An entry comes into the table: `__nf_conntrack_hash_insert`, whose caller holds both buckets' locks with bottom halves
//! off.

use guard_ebpf::{NAMESPACES, ORIGINAL, REPLY, Slot};

use super::count;
use crate::chain;
use crate::maps::{CT_NET, HASH_TABLE, NET_INUM, ORIGINAL_NEXT, REPLY_NEXT, WALK_MASK, slot};
use crate::memory::{Conn, Memory, Net, Node, Probed, Typed, pointer};

/// At the function's entry: counts the insert and walks some chains from their buckets.
#[inline(always)]
pub fn sampled<M: Memory>(conn: *const Conn, hash: u32, reply_hash: u32) {
    let Some(slot) = slot() else { return };
    let number = counted::<M>(conn, slot);
    // In this order: nearly every insert ends at the mask.
    if number & WALK_MASK.load() == 0 && HASH_TABLE.load() != 0 {
        from_bucket(hash, ORIGINAL, slot);
        from_bucket(reply_hash, REPLY, slot);
    }
}

/// At its exit: counts the insert and walks both chains. The entry is their head now (`hlist_nulls_add_head_rcu`), so
/// whatever follows was there before it.
#[inline(always)]
pub fn walked(conn: *const Conn, hash: u32, reply_hash: u32) {
    let Some(slot) = slot() else { return };
    counted::<Typed>(conn, slot);
    // SAFETY: the hooked function's own argument; bottom halves are off.
    unsafe { chain::measure::<Typed>(pointer::<Typed, _, _>(conn, ORIGINAL_NEXT.load()), hash, ORIGINAL, slot) };
    // SAFETY: as above.
    unsafe { chain::measure::<Typed>(pointer::<Typed, _, _>(conn, REPLY_NEXT.load()), reply_hash, REPLY, slot) };
}

/// Counts the insert in all and in its network namespace; its number on this CPU, from 0.
#[inline(always)]
fn counted<M: Memory>(conn: *const Conn, slot: *mut Slot) -> u64 {
    // SAFETY: this CPU's slot; bottom halves are off.
    let number = unsafe { (*slot).inserts };
    // SAFETY: as above.
    unsafe { (*slot).inserts = number + 1 };
    // SAFETY: the hooked function's own argument.
    let net: *const Net = unsafe { pointer::<M, _, _>(conn, CT_NET.load()) };
    // SAFETY: an entry's namespace lives as long as the entry.
    let inum: u32 = unsafe { M::field(net, NET_INUM.load()) };
    // SAFETY: an index inside the array.
    let place = unsafe { &mut (*slot).namespaces[inum as usize & (NAMESPACES - 1)] };
    if place.inum == inum {
        place.inserts += 1;
    } else if place.inum == 0 {
        place.inum = inum;
        place.inserts = 1;
    } else {
        // SAFETY: this CPU's slot.
        unsafe { count(&raw mut (*slot).other_namespaces) };
    }
    number
}

/// The table's address is read afresh: a resize replaces the table, though not while the caller holds a bucket's lock.
#[inline(always)]
fn from_bucket(bucket: u32, direction: usize, slot: *mut Slot) {
    let variable = HASH_TABLE.load() as *const Node;
    // SAFETY: the helper checks the address.
    let table: u64 = unsafe { Probed::field(variable, 0) };
    let head = table.wrapping_add(u64::from(bucket) * 8) as *const Node;
    // SAFETY: as above.
    let first = unsafe { pointer::<Probed, Node, Node>(head, 0) };
    // SAFETY: the bucket's first node, inside its lock.
    unsafe { chain::measure::<Probed>(first, bucket, direction, slot) };
}
