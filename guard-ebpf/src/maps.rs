//! The programs' memory: one slot a CPU, the ring of rare events, and the constants that the loader sets.

use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::helpers::bpf_get_smp_processor_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, RingBuf};
use guard_ebpf::Slot;

/// One slot for each possible CPU; the loader sets the number. A plain array and not a per-CPU one because only plain
/// arrays can be mapped: reading it then takes no system call.
#[map]
static SLOTS: Array<Slot> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// What happens too rarely for a counter, or is sampled: resizes and refused flows.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// When the resize that a thread is in began, and how many buckets there were. One at a time runs, others wait.
#[map]
pub static RESIZES: HashMap<u64, Began> = HashMap::with_max_entries(64, 0);

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
    /// `nf_conn.status`
    STATUS: u32;
    /// `nf_conn.tuplehash[IP_CT_DIR_ORIGINAL].hnnode.next`
    ORIGINAL_NEXT: u32;
    /// `nf_conn.tuplehash[IP_CT_DIR_REPLY].hnnode.next`
    REPLY_NEXT: u32;
    /// `hlist_nulls_node.next`
    NODE_NEXT: u32;
    /// `nf_conn.tuplehash[IP_CT_DIR_ORIGINAL].tuple.dst.protonum`
    PROTONUM: u32;
    /// `nf_conn.proto.tcp.state`
    TCP_STATE: u32;
    /// Not 0: kernels whose verifier refuses loads through a union.
    UNION_BY_HELPER: u32;
    /// `nf_conn.ct_net`
    CT_NET: u32;
    /// `net.ns.inum`
    NET_INUM: u32;
    /// `nf_conntrack_tuple.src.u3`
    TUPLE_SOURCE: u32;
    /// `nf_conntrack_tuple.src.l3num`
    TUPLE_FAMILY: u32;
    /// `nf_conntrack_tuple.dst.u.all`
    TUPLE_DESTINATION: u32;
    /// `nf_conntrack_tuple.dst.protonum`
    TUPLE_PROTOCOL: u32;
    /// `sk_buff._nfct`; 0: the entry behind it cannot be read.
    SKB_NFCT: u32;
    /// An insert is walked when its number on this CPU has none of these bits: 63 walks one in 64.
    WALK_MASK: u64;
    /// Address of the variable `nf_conntrack_hash`; 0: no walk from the bucket.
    HASH_TABLE: u64;
    /// Address of the variable `nf_conntrack_htable_size`; 0: unknown.
    TABLE_SIZE: u64;
}

/// This CPU's slot. `None` never happens where the loader made a slot for each possible CPU; the verifier asks for it.
#[inline(always)]
pub fn slot() -> Option<*mut Slot> {
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    SLOTS.get_ptr_mut(cpu)
}
