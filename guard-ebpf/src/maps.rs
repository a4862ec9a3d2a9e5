//! The programs' memory: one slot a CPU, and the constants that the loader sets.

use aya_ebpf::{Global, bindings::BPF_F_MMAPABLE, helpers::bpf_get_smp_processor_id, macros::map, maps::Array};
use guard_ebpf::Slot;

/// The kernel's `struct nf_conn`; its fields are reached through the offsets below only.
pub enum Conn {}

/// One slot for each possible CPU; the loader sets the number. A plain array and not a per-CPU one because only plain
/// arrays can be mapped: reading it then takes no system call.
#[map]
static SLOTS: Array<Slot> = Array::with_max_entries(1, BPF_F_MMAPABLE);

// Byte offsets from this kernel's BTF. The loader sets them before it freezes the section, so the verifier takes them
// for constants. The names are what the loader looks for.

/// `nf_conn.status`
#[unsafe(no_mangle)]
pub static STATUS: Global<u32> = Global::new(0);
/// `nf_conn.tuplehash[IP_CT_DIR_ORIGINAL].hnnode.next`
#[unsafe(no_mangle)]
pub static ORIGINAL_NEXT: Global<u32> = Global::new(0);
/// `nf_conn.tuplehash[IP_CT_DIR_ORIGINAL].hnnode.pprev`
#[unsafe(no_mangle)]
pub static ORIGINAL_PPREV: Global<u32> = Global::new(0);
/// `nf_conn.tuplehash[IP_CT_DIR_REPLY].hnnode.next`
#[unsafe(no_mangle)]
pub static REPLY_NEXT: Global<u32> = Global::new(0);
/// `hlist_nulls_node.next`
#[unsafe(no_mangle)]
pub static NODE_NEXT: Global<u32> = Global::new(0);

/// This CPU's slot. `None` never happens where the loader made a slot for each possible CPU; the verifier asks for it.
#[inline(always)]
pub fn slot() -> Option<*mut Slot> {
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    SLOTS.get_ptr_mut(cpu)
}

/// Reads a field of a kernel object.
///
/// The programs' pointers carry the kernel's type (their context's arguments do), so the load is one instruction, and
/// the kernel turns a fault into a zero.
///
/// # Safety
/// `object` must come from the context or from another `field`, unchanged, and `offset` from BTF: the verifier refuses
/// the program otherwise.
#[inline(always)]
pub unsafe fn field<T: Copy, O>(object: *const O, offset: u32) -> T {
    // SAFETY: see above; the verifier proves it at load.
    unsafe { object.cast::<u8>().add(offset as usize).cast::<T>().read_volatile() }
}
