//! The hash table changes its size: `nf_conntrack_hash_resize`, for a write to the sysctl or to the module's parameter.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns, bpf_ktime_get_ns,
};
use aya_log_ebpf::debug;
use guard_ebpf::Resize;

use crate::maps::{Began, EVENTS, RESIZES, TABLE_SIZE};
use crate::memory::Probed;

/// Remembers when, and from what size.
#[inline(always)]
pub fn began() {
    // SAFETY: these helpers have no preconditions.
    let (thread, at) = unsafe { (bpf_get_current_pid_tgid(), bpf_ktime_get_ns()) };
    // A full map loses this resize's event; 64 threads that resize at once are not worth more.
    let _ = RESIZES.insert(thread, Began { at, buckets: u64::from(buckets()) }, 0);
}

/// Sends the event.
#[inline(always)]
pub fn ended(ctx: &impl EbpfContext, asked: Option<u32>, result: i32) {
    // SAFETY: these helpers have no preconditions.
    let (thread, now) = unsafe { (bpf_get_current_pid_tgid(), bpf_ktime_get_ns()) };
    // SAFETY: only this thread touches its own key.
    let Some(began) = (unsafe { RESIZES.get(thread) }).copied() else { return };
    let _ = RESIZES.remove(thread);
    debug!(ctx, "resized from {} to {} buckets: {}", began.buckets, buckets(), result);
    let Some(mut event) = EVENTS.reserve::<Resize>(0) else { return };
    event.write(Resize {
        // SAFETY: no preconditions.
        at: unsafe { bpf_ktime_get_boot_ns() },
        took: now - began.at,
        // SAFETY: no preconditions.
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        from: began.buckets as u32,
        to: buckets(),
        asked: asked.unwrap_or(0),
        pid: (thread >> 32) as u32,
        result,
        unused: 0,
        comm: bpf_get_current_comm().unwrap_or_default(),
    });
    event.submit(0);
}

/// `nf_conntrack_htable_size`, or 0.
#[inline(always)]
fn buckets() -> u32 {
    let variable = TABLE_SIZE.load();
    if variable == 0 {
        return 0;
    }
    // SAFETY: the helper checks the address.
    unsafe { Probed::read(variable) }
}
