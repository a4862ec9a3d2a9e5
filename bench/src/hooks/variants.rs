//! Who watches. Another one is one more line in [`VARIANTS`].

/// One way to watch the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variant {
    /// As the table shows it.
    pub name: &'static str,
    /// What is started.
    pub program: Program,
}

/// What is started.
#[derive(Clone, Copy, Debug)]
pub(super) enum Program {
    /// `conntrack-guard run --dry-run` with these arguments, halted (SIGSTOP) while instructions are counted: its programs in
    /// the kernel stay, its own ticks, which come by time and not by flow, do not count.
    Guard(&'static [&'static str]),
    /// `bpftrace -e` with this script, halted in the same way.
    Bpftrace(&'static str),
    /// `conntrack -E`, its output thrown away. It runs: reading the events is what it is there for.
    Events,
}

/// The bare price of a program at the two places where the guard's are.
const EMPTY: &str = "kretfunc:__nf_conntrack_hash_insert { } kfunc:nf_conntrack_free { }";
/// How an insert's outcome is watched where there is no module BTF: what the entry probe saw goes to the exit probe through
/// a map.
const PAIR: &str = "kprobe:__nf_conntrack_hash_insert { @entry[tid] = arg0; } \
    kretprobe:__nf_conntrack_hash_insert /@entry[tid]/ { @inserts = count(); delete(@entry[tid]); }";

/// All that are measured, each against nothing watching.
pub(super) const VARIANTS: &[Variant] = &[
    Variant { name: "empty fexit and fentry (bpftrace)", program: Program::Bpftrace(EMPTY) },
    Variant { name: "conntrack-guard", program: Program::Guard(&[]) },
    Variant { name: "kprobe and kretprobe with a map (bpftrace)", program: Program::Bpftrace(PAIR) },
    Variant { name: "conntrack -E", program: Program::Events },
];
