//! The programs' memory: one slot a CPU, the ring of rare events, and the constants that the loader sets.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::bpf_func_id::BPF_FUNC_get_smp_processor_id;
use aya_ebpf::helpers::bpf_get_smp_processor_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, PerCpuArray, RingBuf};
use aya_ebpf::{EbpfContext, Global};
use guard_ebpf::Slot;
use guard_ebpf::placeholders::CPU_MASK;

use crate::call::Call;

/// The slots: one for each possible CPU, and so many more that their number is a power of two. The loader makes room for
/// them. One value of one map, as variables are, because its address then is a constant: looking up an element of an array
/// takes twice the instructions.
#[repr(transparent)]
pub struct Slots(UnsafeCell<MaybeUninit<Slot>>);

// SAFETY: each CPU writes to its own slot.
unsafe impl Sync for Slots {}

#[unsafe(link_section = ".bss.slots")]
static SLOTS: Slots = Slots(UnsafeCell::new(MaybeUninit::zeroed()));

/// What happens too rarely for a counter, or is sampled: resizes and refused flows.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// CPUs whose credit has run out. A ring of its own: whoever sleeps on it is woken by nothing else, and neither kind of event
/// takes the other's room.
#[map]
pub static SPENT: RingBuf = RingBuf::with_byte_size(4096, 0);

/// What the daemon grants (`guard_ebpf::grant`): the only word of the programs' memory that it writes.
#[repr(transparent)]
pub struct Grant(UnsafeCell<u64>);

// SAFETY: the programs only read it, whole.
unsafe impl Sync for Grant {}

#[unsafe(link_section = ".bss.grant")]
static GRANT: Grant = Grant(UnsafeCell::new(0));

/// What the daemon grants now.
#[inline(always)]
pub fn granted() -> u64 {
    // SAFETY: one word, which lives as long as the program. Volatile: the daemon writes it meanwhile.
    unsafe { GRANT.0.get().read_volatile() }
}

/// When the resize that a thread is in began, and how many buckets there were. One at a time runs, others wait.
#[map]
pub static RESIZES: HashMap<u64, Began> = HashMap::with_max_entries(64, 0);

/// The `__nf_conntrack_alloc` that each CPU is in: its `net` and `orig`.
#[map]
pub static ALLOCATING: PerCpuArray<Call> = PerCpuArray::with_max_entries(1, 0);

/// The `nf_ct_resolve_clash` that each CPU is in: its `skb` and `h`.
#[map]
pub static CLASHING: PerCpuArray<Call> = PerCpuArray::with_max_entries(1, 0);

/// The begin of a resize.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Began {
    /// `bpf_ktime_get_ns`
    pub at: u64,
    /// `nf_conntrack_htable_size`
    pub buckets: u64,
}

/// Constants that the loader sets before it freezes their section, so that the verifier takes them for constants and
/// leaves out the branches that they rule out. The names are what the loader looks for.
macro_rules! constants {
    ($($(#[$doc:meta])+ $name:ident: $type:ty;)+) => {
        $($(#[$doc])+ #[unsafe(no_mangle)] pub static $name: Global<$type> = Global::new(0);)+
    };
}

constants! {
    /// Not 0: kernels whose verifier refuses loads through a union.
    UNION_BY_HELPER: u32;
    /// Not 0: kernels whose `net_cookie` is no plain number.
    NO_COOKIE: u32;
    /// Not 0: kernels that refuse the helper which reads memory by address.
    NO_HELPER: u32;
    /// Address of the variable `nf_conntrack_hash`; 0: no walk from the bucket.
    HASH_TABLE: u64;
    /// Address of the variable `nf_conntrack_htable_size`; 0: unknown.
    TABLE_SIZE: u64;
}

/// This CPU's slot.
#[inline(always)]
pub fn slot() -> *mut Slot {
    // SAFETY: the helper has no preconditions.
    slot_of(u64::from(unsafe { bpf_get_smp_processor_id() }))
}

/// This CPU's slot, without a call where the kernel can do without: for programs on the way of every flow.
///
/// What a helper may overwrite has to be kept elsewhere, at several instructions. Here it is saved on the stack, in the form in
/// which Linux 6.12 and later know it (`bpf_fastcall`): they put the CPU's number there themselves and leave out the rest.
/// The compiler does not know of that place on the stack, so the program must use no other (a test sees to it).
#[inline(always)]
pub fn slot_without_call(ctx: &impl EbpfContext) -> *mut Slot {
    let cpu: u64;
    // SAFETY: reads the CPU's number; the program's context in r1 is as it was.
    unsafe {
        asm!(
            "*(u64 *)(r10 - 8) = r1",
            "call {get_smp_processor_id}",
            "r1 = *(u64 *)(r10 - 8)",
            get_smp_processor_id = const BPF_FUNC_get_smp_processor_id,
            in("r1") ctx.as_ptr(),
            lateout("r0") cpu,
            out("r2") _, out("r3") _, out("r4") _, out("r5") _,
        );
    }
    slot_of(cpu)
}

#[inline(always)]
fn slot_of(cpu: u64) -> *mut Slot {
    let mut slot = cpu;
    // In these instructions because the compiler knows of one slot only, and the loader makes room for more.
    // SAFETY: the mask leaves a CPU that has a slot.
    unsafe {
        asm!(
            "{slot} &= {mask}",
            "{slot} *= {size}",
            "{first} = {slots} ll",
            "{slot} += {first}",
            slot = inout(reg) slot,
            first = out(reg) _,
            mask = const CPU_MASK,
            size = const size_of::<Slot>(),
            slots = sym SLOTS,
            options(pure, nomem, nostack),
        );
    }
    slot as *mut Slot
}
