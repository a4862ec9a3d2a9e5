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
    /// `conntrack-guard run --dry-run` with this back end, and this choice of the inserts whose chains are walked. Halted
    /// (SIGSTOP) while instructions are counted: its programs in the kernel stay, its own ticks, which come by time and not
    /// by flow, do not count.
    Guard { backend: &'static str, walk: &'static str },
    /// `bpftrace -e` with this script, halted in the same way.
    Bpftrace(&'static str),
    /// `conntrack -E`, its output thrown away. It runs: reading the events is what it is there for.
    Events,
}

/// The bare price of programs where the guard has its own, at the functions' entries and at an exit and an entry.
const EMPTY_ENTRIES: &str = "kfunc:__nf_conntrack_hash_insert { } kfunc:nf_conntrack_free { }";
const EMPTY_KPROBES: &str = "kprobe:__nf_conntrack_hash_insert { } kprobe:nf_conntrack_free { }";
const EMPTY_EXIT: &str = "kretfunc:__nf_conntrack_hash_insert { } kfunc:nf_conntrack_free { }";
/// How an insert's outcome is watched where there is no module BTF: what the entry probe saw goes to the exit probe through
/// a map.
const PAIR: &str = "kprobe:__nf_conntrack_hash_insert { @entry[tid] = arg0; } \
    kretprobe:__nf_conntrack_hash_insert /@entry[tid]/ { @inserts = count(); delete(@entry[tid]); }";

/// All that are measured, each against nothing watching.
pub(super) const VARIANTS: &[Variant] = &[
    Variant { name: "bpftrace: empty fentry, twice", program: Program::Bpftrace(EMPTY_ENTRIES) },
    Variant {
        name: "conntrack-guard: one chain in 64",
        program: Program::Guard { backend: "tracing", walk: "sampled" },
    },
    Variant { name: "bpftrace: empty fexit and fentry", program: Program::Bpftrace(EMPTY_EXIT) },
    Variant { name: "conntrack-guard: every chain", program: Program::Guard { backend: "tracing", walk: "every" } },
    Variant { name: "bpftrace: empty kprobe, twice", program: Program::Bpftrace(EMPTY_KPROBES) },
    Variant { name: "conntrack-guard: kprobes", program: Program::Guard { backend: "kprobe", walk: "sampled" } },
    Variant { name: "bpftrace: kprobe, kretprobe and a map", program: Program::Bpftrace(PAIR) },
    Variant { name: "conntrack -E", program: Program::Events },
];
