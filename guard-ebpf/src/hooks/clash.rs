//! Two packets of one new flow met: `nf_ct_resolve_clash` dealt with the later one.

use aya_ebpf::EbpfContext;
use aya_log_ebpf::debug;

use super::count_interruptible;
use crate::hooks::delete::IPS_NAT_CLASH;
use crate::maps::{SKB_NFCT, STATUS, slot};
use crate::memory::{Conn, Memory as _, Probed, SkBuff, Typed};

/// Verdict of a hook (include/uapi/linux/netfilter.h).
const NF_DROP: u32 = 0;
/// The lowest bits of `sk_buff._nfct` are the packet's `enum ip_conntrack_info` (`NFCT_PTRMASK`).
const NFCT_INFO: u64 = 7;

/// Counts what became of it. `skb` is known where its type is.
#[inline(always)]
pub fn resolved(ctx: &impl EbpfContext, skb: Option<*const SkBuff>, verdict: u32) {
    debug!(ctx, "two packets of one new flow met: verdict {}", verdict);
    let Some(slot) = slot() else { return };
    if verdict == NF_DROP {
        // SAFETY: this CPU's slot.
        unsafe { count_interruptible(&raw mut (*slot).clashes_lost) };
        return;
    }
    // SAFETY: this CPU's slot.
    unsafe { count_interruptible(&raw mut (*slot).clashes_resolved) };
    let Some(skb) = skb else { return };
    if SKB_NFCT.load() == 0 {
        return;
    }
    // The packet now belongs to the winner, or still to its own entry if that went in by the reply tuple alone.
    // SAFETY: the hooked function's own argument.
    let nfct: u64 = unsafe { Typed::field(skb, SKB_NFCT.load()) };
    // SAFETY: the helper checks the address.
    let status: u64 = unsafe { Probed::field((nfct & !NFCT_INFO) as *const Conn, STATUS.load()) };
    if status & IPS_NAT_CLASH != 0 {
        // SAFETY: this CPU's slot.
        unsafe { count_interruptible(&raw mut (*slot).reply_only_inserts) };
    }
}
