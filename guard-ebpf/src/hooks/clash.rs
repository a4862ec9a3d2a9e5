//! Two packets of one new flow met: `nf_ct_resolve_clash` dealt with the later one.

use aya_ebpf::EbpfContext;
use aya_log_ebpf::debug;
use guard_ebpf::placeholders::field::{SKB_NFCT, STATUS};

use super::count_interruptible;
use crate::hooks::delete::IPS_NAT_CLASH;
use crate::maps::{NO_HELPER, slot};
use crate::memory::{Conn, Memory, Probed, SkBuff};

/// Verdict of a hook (include/uapi/linux/netfilter.h).
const NF_DROP: u32 = 0;
/// The lowest bits of `sk_buff._nfct` are the packet's `enum ip_conntrack_info` (`NFCT_PTRMASK`).
const NFCT_INFO: u64 = 7;

/// Counts what became of it. Without `skb` it is not known whether it went in by its reply tuple alone.
#[inline(always)]
pub fn resolved<M: Memory>(ctx: &impl EbpfContext, skb: Option<*const SkBuff>, verdict: u32) {
    debug!(ctx, "two packets of one new flow met: verdict {}", verdict);
    let slot = slot();
    if verdict == NF_DROP {
        // SAFETY: this CPU's slot.
        unsafe { count_interruptible(&raw mut (*slot).clashes_lost) };
        return;
    }
    // SAFETY: this CPU's slot.
    unsafe { count_interruptible(&raw mut (*slot).clashes_resolved) };
    let Some(skb) = skb else { return };
    if NO_HELPER.load() != 0 {
        // What lies behind the packet's pointer has no type, so only the helper reads it.
        return;
    }
    // The packet now belongs to the winner, or still to its own entry if that went in by the reply tuple alone.
    // SAFETY: the hooked function's own argument.
    let nfct = unsafe { M::field::<SKB_NFCT, u64, _>(skb) };
    // SAFETY: the helper checks the address.
    let status = unsafe { Probed::field::<STATUS, u64, _>((nfct & !NFCT_INFO) as *const Conn) };
    if status & IPS_NAT_CLASH != 0 {
        // SAFETY: this CPU's slot.
        unsafe { count_interruptible(&raw mut (*slot).reply_only_inserts) };
    }
}
