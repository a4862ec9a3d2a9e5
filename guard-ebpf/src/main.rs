//! The programs' entry points. Each takes its arguments off the context and hands on to a hook.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(
    internal_features,
    reason = "core is built from source for this target: its intrinsics are this compiler's own"
)]
#![allow(missing_docs, reason = "aya's macros put a second, undocumented function around each entry point")]
#![allow(clippy::inline_always, reason = "a call to another function costs the hot path more than the code's size")]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "a slot's field and its use are one step with one reason")]
#![allow(clippy::needless_pass_by_value, reason = "aya's macros hand the context over by value")]
#![allow(clippy::cast_possible_truncation, reason = "usize has 64 bits on the BPF target")]

mod chain;
mod hooks;
mod maps;

use aya_ebpf::{
    EbpfContext as _,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};

use crate::maps::Conn;

/// `void __nf_conntrack_hash_insert(struct nf_conn *ct, unsigned int hash, unsigned int reply_hash)`, out of line on
/// all kernels looked at, and on the way of packets and of ctnetlink alike. At its exit the entry is the head of both
/// its chains, so the walk needs neither a hash nor the table's address.
#[fexit(function = "__nf_conntrack_hash_insert")]
pub fn hash_insert(ctx: FExitContext) -> i32 {
    hooks::insert::inserted(ctx.arg::<*const Conn>(0));
    0
}

/// `bool early_drop(struct net *net, unsigned int hash)`: called only when the table is full.
#[fexit(function = "early_drop")]
pub fn early_drop(ctx: FExitContext) -> i32 {
    // The return value follows the two arguments. Read here and not through `bpf_get_func_ret`, which older kernels
    // lack; the function returns a bool, so only the lowest byte is defined.
    // SAFETY: an fexit context of a function with two arguments holds three words.
    let returned = unsafe { *ctx.as_ptr().cast::<u64>().add(2) };
    hooks::drop::early_dropped(returned as u8 != 0);
    0
}

/// `void nf_conntrack_free(struct nf_conn *ct)`: every entry's end, where the kernel's own count goes down too.
/// `nf_ct_destroy` has no typed entry to read the status from.
#[fentry(function = "nf_conntrack_free")]
pub fn conntrack_free(ctx: FEntryContext) -> i32 {
    hooks::delete::freed(ctx.arg::<*const Conn>(0));
    0
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The helpers used are open to GPL-compatible programs only; this object may be used under the GPL 2.0 as well.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
