//! A new flow got no entry: `__nf_conntrack_alloc` answered with an error. On the way of every new flow, so it is attached
//! only while flows are being refused.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use guard_ebpf::placeholders::field::{NET_INUM, TUPLE_DESTINATION, TUPLE_FAMILY, TUPLE_PROTOCOL, TUPLE_SOURCE};
use guard_ebpf::{REFUSED_EVERY, Refused};

use crate::maps::{EVENTS, slot};
use crate::memory::{Memory, Net, Probed, Tuple};

/// Pointers from here on are negative error numbers (`IS_ERR_VALUE` in include/linux/err.h).
const ERRORS: u64 = (-4095_i64).cast_unsigned();

/// Sends a sample of the flows that got no entry, at most one in [`REFUSED_EVERY`] on each CPU.
#[inline(always)]
pub fn allocated<M: Memory>(net: *const Net, tuple: *const Tuple, returned: u64) {
    if returned < ERRORS {
        return;
    }
    let slot = slot();
    // A softirq may come between these; a sample then stands for one flow more or less.
    // SAFETY: this CPU's slot, and helpers without preconditions.
    let (waiting, now) = unsafe { ((*slot).refused_since + 1, bpf_ktime_get_ns()) };
    // SAFETY: as above.
    if now - unsafe { (*slot).sampled_at } < REFUSED_EVERY {
        // SAFETY: as above.
        unsafe { (*slot).refused_since = waiting };
        return;
    }
    let Some(mut event) = EVENTS.reserve::<Refused>(0) else {
        // SAFETY: as above. A full ring loses nothing: the next sample stands for this flow too.
        unsafe { (*slot).refused_since = waiting };
        return;
    };
    // SAFETY: as above.
    unsafe { ((*slot).refused_since, (*slot).sampled_at) = (0, now) };
    // SAFETY: the hooked function's own arguments. By helper where the kernel has unions.
    event.write(unsafe {
        Refused {
            source: Probed::read(Probed::address::<TUPLE_SOURCE, _>(tuple)),
            stands_for: waiting,
            inum: M::field::<NET_INUM, u32, _>(net) as u32,
            destination: Probed::read(Probed::address::<TUPLE_DESTINATION, _>(tuple)),
            family: Probed::read(Probed::address::<TUPLE_FAMILY, _>(tuple)),
            protocol: Probed::read(Probed::address::<TUPLE_PROTOCOL, _>(tuple)),
            unused: [0; 7],
        }
    });
    event.submit(0);
}
