//! What is known only where the programs are loaded: where the kernel's structs have their fields, and how many CPUs there
//! are. The loader writes it into the instructions, which hold placeholders until then. Constants in a frozen map would do
//! as well, but the kernel's JIT loads those from memory each time.

/// Fields, by their place among those that the loader finds in BTF.
pub mod field {
    /// `nf_conn.status`
    pub const STATUS: i16 = 0;
    /// `nf_conn.tuplehash[IP_CT_DIR_ORIGINAL].hnnode.next`
    pub const ORIGINAL_NEXT: i16 = 1;
    /// `nf_conn.tuplehash[IP_CT_DIR_REPLY].hnnode.next`
    pub const REPLY_NEXT: i16 = 2;
    /// `hlist_nulls_node.next`
    pub const NODE_NEXT: i16 = 3;
    /// `nf_conn.tuplehash[IP_CT_DIR_ORIGINAL].tuple.dst.protonum`
    pub const PROTONUM: i16 = 4;
    /// `nf_conn.proto.tcp.state`
    pub const TCP_STATE: i16 = 5;
    /// `nf_conn.ct_net`
    pub const CT_NET: i16 = 6;
    /// `net.ns.inum`
    pub const NET_INUM: i16 = 7;
    /// `nf_conntrack_tuple.src.u3`
    pub const TUPLE_SOURCE: i16 = 8;
    /// `nf_conntrack_tuple.src.l3num`
    pub const TUPLE_FAMILY: i16 = 9;
    /// `nf_conntrack_tuple.dst.u.all`
    pub const TUPLE_DESTINATION: i16 = 10;
    /// `nf_conntrack_tuple.dst.protonum`
    pub const TUPLE_PROTOCOL: i16 = 11;
    /// `sk_buff._nfct`
    pub const SKB_NFCT: i16 = 12;
    /// `net.net_cookie`
    pub const NET_COOKIE: i16 = 13;
    /// How many there are.
    pub const COUNT: usize = 14;
}

/// The offset of a load that stands for that of field 0; the next one is field 1's. No load of the programs has it for an
/// offset of its own.
pub const LOAD: i16 = 0x7000;

/// The number in an addition that stands for the offset of field 0; the next one is field 1's.
pub const ADD: i32 = 0x7ff0_0000;

/// The number in an AND that stands for the highest CPU's, all lower bits set.
pub const CPU_MASK: i32 = 0x7ff1_0000;

const _: () = assert!(size_of::<crate::Slot>() < LOAD as usize, "what lies in a slot is no placeholder");
