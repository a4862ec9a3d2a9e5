//! The programs' entry points. Each takes its arguments off the context and hands on to a hook.
//!
//! Every hook comes twice: as fentry or fexit, whose pointers the verifier knows, and as kprobe or kretprobe for kernels
//! that cannot attach the former to a module's function. The loader takes one of the two.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![allow(
    internal_features,
    reason = "core is built from source for this target: its intrinsics are this compiler's own"
)]
#![allow(missing_docs, reason = "aya's macros put a second, undocumented function around each entry point")]
#![allow(clippy::inline_always, reason = "a call to another function costs the hot path more than the code's size")]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "a slot's field and its use are one step with one reason")]
#![allow(clippy::needless_pass_by_value, reason = "aya's macros hand the context over by value")]
#![allow(clippy::cast_possible_truncation, reason = "usize has 64 bits on the BPF target")]

mod call;
mod chain;
mod hooks;
mod maps;
mod memory;

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{fentry, fexit, kprobe, kretprobe};
use aya_ebpf::programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext};

use crate::hooks::{clash, credit, delete, drop, insert, refused, resize};
use crate::maps::{ALLOCATING, CLASHING, slot, slot_without_call};
use crate::memory::{Conn, Net, Node, Probed, SkBuff, Tuple, Typed};

// void __nf_conntrack_hash_insert(struct nf_conn *ct, unsigned int hash, unsigned int reply_hash), out of line on all
// kernels looked at, and on the way of packets and of ctnetlink alike.

/// Counts every insert and measures the chains of some. Before the insert: the walk starts at the bucket.
#[fentry]
pub fn insert_sampled(ctx: FEntryContext) -> i32 {
    let slot = slot_without_call(&ctx);
    insert::counted::<Typed>(ctx.arg::<*const Conn>(0), slot);
    if insert::is_stop(slot) {
        insert::sampled(ctx.arg(1), ctx.arg(2), slot);
    }
    0
}

/// Counts every insert and measures its chains. After the insert: the entry is the head of both its chains, so the walk
/// needs no table address, and its pointers are the kernel's own types.
#[fexit]
pub fn insert_walked(ctx: FExitContext) -> i32 {
    let slot = slot_without_call(&ctx);
    let conn = ctx.arg::<*const Conn>(0);
    insert::counted::<Typed>(conn, slot);
    insert::walked(conn, ctx.arg(1), ctx.arg(2), slot);
    if insert::is_stop(slot) {
        credit::due(slot);
    }
    0
}

#[kprobe]
pub fn insert_probed(ctx: ProbeContext) -> u32 {
    let slot = slot();
    if let (Some(conn), Some(hash), Some(reply_hash)) = (ctx.arg::<*const Conn>(0), ctx.arg(1), ctx.arg(2)) {
        insert::counted::<Probed>(conn, slot);
        if insert::is_stop(slot) {
            insert::sampled(hash, reply_hash, slot);
        }
    }
    0
}

// void nf_conntrack_free(struct nf_conn *ct): every entry's end, where the kernel's own count goes down too.

#[fentry]
pub fn free(ctx: FEntryContext) -> i32 {
    let slot = slot_without_call(&ctx);
    delete::freed::<Typed>(ctx.arg::<*const Conn>(0), slot);
    0
}

#[kprobe]
pub fn free_probed(ctx: ProbeContext) -> u32 {
    if let Some(conn) = ctx.arg::<*const Conn>(0) {
        delete::freed::<Probed>(conn, slot());
    }
    0
}

// bool early_drop(struct net *net, unsigned int hash): called only when the table is full.

#[fexit]
pub fn early_drop(ctx: FExitContext) -> i32 {
    // Only the lowest byte of a bool is defined.
    drop::early_dropped(returned(&ctx, 2) as u8 != 0, slot());
    0
}

#[kretprobe]
pub fn early_drop_probed(ctx: RetProbeContext) -> u32 {
    drop::early_dropped(ctx.ret::<u8>() != 0, slot());
    0
}

// struct nf_conn *__nf_conntrack_alloc(struct net *net, const struct nf_conntrack_zone *zone, const struct nf_conntrack_tuple
// *orig, const struct nf_conntrack_tuple *repl, gfp_t gfp, u32 hash): runs for every new flow, so it is attached only while
// flows are being refused.

#[fexit]
pub fn alloc(ctx: FExitContext) -> i32 {
    refused::allocated::<Typed>(ctx.arg::<*const Net>(0), ctx.arg::<*const Tuple>(2), returned(&ctx, 6));
    0
}

#[kprobe]
pub fn alloc_entered(ctx: ProbeContext) -> u32 {
    if let (Some(net), Some(tuple)) = (ctx.arg::<*const Net>(0), ctx.arg::<*const Tuple>(2)) {
        call::entered(&ALLOCATING, ctx.regs, net, tuple);
    }
    0
}

#[kretprobe]
pub fn alloc_probed(ctx: RetProbeContext) -> u32 {
    if let Some((net, tuple)) = call::returned::<Net, Tuple>(&ALLOCATING, ctx.regs) {
        refused::allocated::<Probed>(net, tuple, ctx.ret());
    }
    0
}

// int nf_ct_resolve_clash(struct sk_buff *skb, struct nf_conntrack_tuple_hash *h, u32 reply_hash)

#[fexit]
pub fn resolve_clash(ctx: FExitContext) -> i32 {
    clash::resolved::<Typed>(&ctx, Some(ctx.arg::<*const SkBuff>(0)), returned(&ctx, 3) as u32);
    0
}

#[kprobe]
pub fn resolve_clash_entered(ctx: ProbeContext) -> u32 {
    if let (Some(skb), Some(other)) = (ctx.arg::<*const SkBuff>(0), ctx.arg::<*const Node>(1)) {
        call::entered(&CLASHING, ctx.regs, skb, other);
    }
    0
}

#[kretprobe]
pub fn resolve_clash_probed(ctx: RetProbeContext) -> u32 {
    let skb = call::returned::<SkBuff, Node>(&CLASHING, ctx.regs).map(|(skb, _)| skb);
    clash::resolved::<Probed>(&ctx, skb, ctx.ret());
    0
}

// int nf_conntrack_hash_resize(unsigned int hashsize)

#[fentry]
pub fn resize(_ctx: FEntryContext) -> i32 {
    resize::began();
    0
}

#[fexit]
pub fn resized(ctx: FExitContext) -> i32 {
    resize::ended(&ctx, Some(ctx.arg(0)), returned(&ctx, 1) as i32);
    0
}

#[kprobe]
pub fn resize_probed(_ctx: ProbeContext) -> u32 {
    resize::began();
    0
}

#[kretprobe]
pub fn resized_probed(ctx: RetProbeContext) -> u32 {
    resize::ended(&ctx, None, ctx.ret());
    0
}

/// What the hooked function returned: it follows the `arguments` in an fexit context. Read here and not through
/// `bpf_get_func_ret`, which kernels before 5.17 lack.
fn returned(ctx: &FExitContext, arguments: usize) -> u64 {
    // SAFETY: an fexit context holds the arguments and the return value, one word each; the verifier checks it.
    unsafe { *ctx.as_ptr().cast::<u64>().add(arguments) }
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
