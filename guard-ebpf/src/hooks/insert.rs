//! An entry came into the table: `__nf_conntrack_hash_insert`, which holds both buckets' locks, bottom halves off.

use guard_ebpf::{ORIGINAL, REPLY, Slot};

use super::count;
use crate::{
    chain::{self, Node},
    maps::{Conn, ORIGINAL_NEXT, REPLY_NEXT, field, slot},
};

/// Counts the insert and measures both chains.
#[inline(always)]
pub fn inserted(conn: *const Conn) {
    let Some(slot) = slot() else { return };
    // SAFETY: this CPU's slot; bottom halves are off under the buckets' locks.
    unsafe { count(&raw mut (*slot).inserts) };
    measure(conn, ORIGINAL_NEXT.load(), ORIGINAL, slot);
    measure(conn, REPLY_NEXT.load(), REPLY, slot);
}

/// The entry is its chain's head now (`hlist_nulls_add_head_rcu`): whatever follows was there before it.
#[inline(always)]
fn measure(conn: *const Conn, next: u32, direction: usize, slot: *mut Slot) {
    // SAFETY: the hooked function's own argument, at an offset from BTF.
    let first: *const Node = unsafe { field(conn, next) };
    // SAFETY: the entry's own `next`, inside the bucket's lock.
    let length = unsafe { chain::length(first, slot) };
    // SAFETY: `length` is masked to the histogram's places; this CPU's slot, bottom halves off.
    unsafe { count((&raw mut (*slot).chains[direction]).cast::<u64>().add(length)) };
}
