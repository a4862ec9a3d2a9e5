//! What both halves share: the layout of the per-CPU slots and of the rare events. The kernel half writes, the daemon
//! reads the same memory through `mmap`, so every type is `repr(C)` and its size is asserted.
#![no_std]

pub mod placeholders;

/// One insert in so many is walked on each CPU when they are sampled.
pub const SAMPLED: u64 = 64;

/// Places of a chain-length histogram: lengths 0 to 126 exactly, then "127 or longer".
///
/// A power of two, so that the programs bound an index with a mask. The kernel refuses inserts into chains longer than
/// 50 + random(30) (`MIN_CHAINLEN` and `MAX_CHAINLEN` in nf_conntrack_core.c), where it has a limit at all.
pub const CHAIN_LENGTHS: usize = 128;

/// Index of the chain of the original tuple in [`Slot::chains`] (`IP_CT_DIR_ORIGINAL`).
pub const ORIGINAL: usize = 0;

/// Index of the chain of the reply tuple in [`Slot::chains`] (`IP_CT_DIR_REPLY`).
pub const REPLY: usize = 1;

/// Network namespaces told apart on each CPU; a power of two. Of those that meet in one place all but one count as "other".
pub const NAMESPACES: usize = 64;

/// A network namespace loses its place on a CPU to the one whose insert there is the so manieth of others in a row: it is
/// gone, or opens far fewer flows.
pub const CONTENDERS: u16 = 64;

/// So many numbers of network namespaces each CPU gives out before it takes the next batch (`COOKIE_LOCAL_BATCH`,
/// include/linux/cookie.h), and so 4,097 follows 1 where another CPU makes the next namespace.
const COOKIES_IN_A_ROW: u64 = 4096;

/// How many bytes into [`Slot::namespaces`] the place of a namespace is, by its [`Namespace::id`]. The lowest bits alone would
/// send the first namespace that each CPU made to one place, and so all pods of a host with many CPUs to a few. Here numbers in a
/// row have places in a row, and each batch begins 27 places after the one before it.
#[inline(always)]
pub const fn place_of(id: u64) -> u64 {
    const PLACE: u64 = size_of::<Namespace>() as u64;
    // Above the twelve bits of the number in its batch: that number, and 27 times the batch's.
    let mixed = id.wrapping_mul(COOKIES_IN_A_ROW + 27);
    (mixed / (COOKIES_IN_A_ROW / PLACE)) & ((NAMESPACES as u64 - 1) * PLACE)
}

/// States of `enum tcp_conntrack` (include/uapi/linux/netfilter/nf_conntrack_tcp.h) told apart; a power of two.
pub const TCP_STATES: usize = 16;

/// Places of [`Slot::destroys`]: each TCP state, then UDP, ICMP and ICMPv6, everything else; each without and with
/// `IPS_ASSURED`.
pub const FATES: usize = 2 * (TCP_STATES + 3);

/// First place of UDP in [`Slot::destroys`].
pub const UDP_FATE: usize = 2 * TCP_STATES;
/// First place of ICMP and ICMPv6.
pub const ICMP_FATE: usize = UDP_FATE + 2;
/// First place of all other protocols.
pub const OTHER_FATE: usize = ICMP_FATE + 2;

/// What one CPU counted since the programs were attached. Counters only grow.
///
/// One slot for each possible CPU, each on cache lines of its own: no other CPU writes to it.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct Slot {
    /// Inserts by network namespace, at [`place_of`] the id. With `other_namespaces` these are all entries that
    /// `__nf_conntrack_hash_insert` put into the table.
    pub namespaces: [Namespace; NAMESPACES],
    /// Inserts before the next one at which the program stops to see what is due. Not a counter, and neither are the four
    /// that follow.
    pub until_stop: i64,
    /// Inserts from the last stop to the next.
    pub stretch: i64,
    /// Inserts from the last stop to the next walk, when they are sampled.
    pub until_walk: i64,
    /// What was left of the credit at the last stop; 0: none is granted, or it has run out.
    pub credit: i64,
    /// The [`grant`] that this CPU last took over.
    pub granted: u64,
    /// Entries freed that a clash resolution had inserted in the reply direction only.
    pub reply_only_destroys: u64,
    /// `early_drop` found nothing to evict: the new flow was refused.
    pub table_full: u64,
    /// `early_drop` made room; one call evicts every entry of a chain that it may, so the statistic counts more.
    pub early_drops: u64,
    /// `nf_ct_resolve_clash` dropped the later packet.
    pub clashes_lost: u64,
    /// `nf_ct_resolve_clash` let the later packet through.
    pub clashes_resolved: u64,
    /// Of those: by inserting the loser in the reply direction only.
    pub reply_only_inserts: u64,
    /// Walks that ended in another bucket's end marker: the offsets or the table's address are wrong.
    pub strayed: u64,
    /// Where the walk parks a value so that the verifier forgets what it knew of it. Not a counter.
    pub scratch: u64,
    /// Flows refused since the last sample of them, and when that was (`bpf_ktime_get_ns`). Not counters.
    pub refused_since: u64,
    /// See `refused_since`.
    pub sampled_at: u64,
    /// Inserts in network namespaces that found their place in `namespaces` taken.
    pub other_namespaces: u64,
    /// Entries freed that had been counted as inserts, by protocol, last state and `IPS_ASSURED`.
    pub destroys: [u64; FATES],
    /// Other entries found in the chains of the inserts that were walked, by direction and length.
    pub chains: [[u64; CHAIN_LENGTHS]; 2],
}

/// A place for the inserts of one network namespace on one CPU. Who has it may change; what was counted stays in it, so that
/// a sum needs not know of that.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Namespace {
    /// What tells its owner from all others: `net_cookie` of the `struct net`, which no other has until the next boot. Where
    /// the kernel has no such number: `ns.inum`, which is given to another one later. 0 while the place is free.
    pub id: u64,
    /// Entries inserted, by the owner and by those before it.
    pub inserts: u64,
    /// By those before it.
    pub before: u64,
    /// `ns.inum` of the owner's `struct net`, as in `/proc/PID/ns/net`.
    pub inum: u32,
    /// The lowest bits of `inserts` when another namespace last came here: whether the owner has come since.
    pub seen: u16,
    /// Inserts of others here since the owner's last one, as far as `seen` tells.
    pub contenders: u16,
}

/// The hash table was resized: `nf_conntrack_hash_resize` returned.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Resize {
    /// `CLOCK_BOOTTIME` at its return, nanoseconds; 0 where the kernel has no such helper.
    pub at: u64,
    /// Nanoseconds from its call to its return, the wait for its lock included.
    pub took: u64,
    /// The writer's cgroup (`bpf_get_current_cgroup_id`).
    pub cgroup: u64,
    /// Buckets before; 0 if unknown.
    pub from: u32,
    /// Buckets after; 0 if unknown.
    pub to: u32,
    /// Buckets asked for.
    pub asked: u32,
    /// The writer's process (thread group).
    pub pid: u32,
    /// What the function returned: 0 or a negative error number.
    pub result: i32,
    /// Keeps the size a multiple of 8.
    pub unused: u32,
    /// The writer's command, NUL-terminated.
    pub comm: [u8; 16],
}

/// A new flow was refused: one sample, which stands for itself and for those refused on its CPU since the last one.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Refused {
    /// `struct nf_conntrack_tuple.src.u3`: an IPv4 address in the first four bytes, or an IPv6 address.
    pub source: [u8; 16],
    /// Flows that it stands for, itself among them.
    pub stands_for: u64,
    /// `ns.inum` of the network namespace.
    pub inum: u32,
    /// `struct nf_conntrack_tuple.dst.u.all`: the destination port, or what the protocol has there; network byte order.
    pub destination: u16,
    /// `struct nf_conntrack_tuple.src.l3num`: `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// `struct nf_conntrack_tuple.dst.protonum`
    pub protocol: u8,
    /// Keeps the size a multiple of 8.
    pub unused: [u8; 7],
}

/// Nanoseconds between two samples of refused flows on one CPU: at most 100 a second are sent, however many are refused.
pub const REFUSED_EVERY: u64 = 10_000_000;

/// A CPU's credit has run out: so many inserts as the daemon granted have come.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Spent {
    /// `CLOCK_BOOTTIME` at the last of them, nanoseconds.
    pub at: u64,
    /// The grant that it was.
    pub grant: u64,
}

/// The word by which the daemon grants each CPU the same credit: a number that tells one grant from the next, and inserts; 0
/// of them means that no wake-up is wanted. A CPU sees it at its next stop, at most [`SAMPLED`] inserts later.
pub const fn grant(number: u32, inserts: u32) -> u64 {
    (number as u64) << 32 | inserts as u64
}

/// The inserts of a [`grant`].
pub const fn inserts_of(grant: u64) -> u64 {
    grant & u32::MAX as u64
}

const _: () = assert!(size_of::<Spent>() == 16);
const _: () = assert!(size_of::<Refused>() == 40);
const _: () = assert!(size_of::<Resize>() != size_of::<Refused>(), "the ring's reader tells events by their size");
const _: () = assert!(size_of::<Namespace>() == 32);
const _: () = assert!(size_of::<Resize>() == 64);
const _: () = assert!(size_of::<Slot>().is_multiple_of(64), "the slots are one array: each starts on a cache line");
const _: () = assert!(CHAIN_LENGTHS.is_power_of_two() && NAMESPACES.is_power_of_two() && TCP_STATES.is_power_of_two());
