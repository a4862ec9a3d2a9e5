//! What can be measured by programs, and which programs each back end needs for it.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use aya_obj::generated::bpf_attach_type;
use clap::ValueEnum;
use serde::Serialize;

use super::{perf, sys};

/// Something that is measured; each takes the best back end that this kernel allows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signal {
    /// New entries, by network namespace.
    Inserts,
    /// The hash chains that new entries meet; measured by the programs that count the inserts.
    Chains,
    /// Entries freed, by protocol, last TCP state and ASSURED.
    Destroys,
    /// What `early_drop` found when the table was full.
    TableFull,
    /// Samples of the flows that were refused: from where, to what. Attached only while flows are being refused.
    RefusedFlows,
    /// What `nf_ct_resolve_clash` did with two packets of one new flow.
    Clashes,
    /// Resizes of the hash table, whoever asked for them.
    Resizes,
}

impl Signal {
    /// All of them, the most wanted first.
    pub const ALL: [Self; 7] = [
        Self::Inserts,
        Self::Chains,
        Self::Destroys,
        Self::TableFull,
        Self::RefusedFlows,
        Self::Clashes,
        Self::Resizes,
    ];

    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inserts => "inserts",
            Self::Chains => "chains",
            Self::Destroys => "destroys",
            Self::TableFull => "table full",
            Self::RefusedFlows => "refused flows",
            Self::Clashes => "clashes",
            Self::Resizes => "resizes",
        }
    }

    /// What is not known without it.
    pub fn lost(self) -> &'static str {
        match self {
            Self::Inserts => "the rate of new entries, which no statistic has, is unknown",
            Self::Chains => "how long the hash chains are is unknown, and so is an attack on them",
            Self::Destroys => "the rate at which entries go, and how they ended, is unknown",
            Self::TableFull | Self::Clashes => "estimated from the statistics",
            Self::RefusedFlows => "whose flows a full table refuses is unknown",
            Self::Resizes => "who resizes the table, and how long it stalls, is unknown",
        }
    }

    /// The kernel function that is watched for it, and its arguments.
    pub fn function(self) -> (&'static str, usize) {
        match self {
            Self::Inserts | Self::Chains => ("__nf_conntrack_hash_insert", 3),
            Self::Destroys => ("nf_conntrack_free", 1),
            Self::TableFull => ("early_drop", 2),
            Self::RefusedFlows => ("__nf_conntrack_alloc", 6),
            Self::Clashes => ("nf_ct_resolve_clash", 3),
            Self::Resizes => ("nf_conntrack_hash_resize", 1),
        }
    }

    /// How the kernel's statistics of this namespace stand in for it, where they can.
    pub fn estimated(self) -> Option<&'static str> {
        match self {
            Self::TableFull => Some("\"drop\" less the lost clashes"),
            Self::Clashes => Some("\"insert_failed\" less \"chaintoolong\", and \"clashres\""),
            _ => None,
        }
    }
}

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum BackEnd {
    /// fentry and fexit, on functions of vmlinux or, with the module's BTF, of the module
    Tracing,
    /// kprobes and kretprobes
    Kprobe,
    /// No programs: proc readings only
    Proc,
}

impl BackEnd {
    /// Those with programs, the best first.
    pub const WITH_PROGRAMS: [Self; 2] = [Self::Tracing, Self::Kprobe];

    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tracing => "fentry/fexit",
            Self::Kprobe => "kprobe",
            Self::Proc => "proc",
        }
    }
}

/// Which inserts have their chains measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Walk {
    /// One insert in 64 on each CPU
    #[default]
    Sampled,
    /// Every insert; without fentry and fexit, one in 64 all the same
    Every,
}

/// Whether a kretprobe can tell which call it is the return of, and so whose arguments a kprobe kept: the kernel half
/// knows the stack of this processor only.
pub const CALLS_ARE_KNOWN: bool = cfg!(target_arch = "x86_64");

/// One program of the object and where it goes.
pub struct Program {
    /// Its name in the object.
    pub name: &'static str,
    /// The function it watches.
    pub function: &'static str,
    /// The function's arguments, to be compared with BTF.
    pub arguments: usize,
    /// How it is attached.
    pub how: How,
}

impl Program {
    /// Attaches it, loaded as `program`; `by_link`: a kprobe by a link, which tells of missed hits and which not every kernel
    /// has. Dropping the answer detaches it.
    pub fn attach(&self, program: BorrowedFd<'_>, by_link: bool) -> io::Result<OwnedFd> {
        match self.how {
            How::Tracing(_) => sys::attach_tracing(program),
            How::Kprobe => perf::attach_kprobe(program, self.function, false, by_link),
            How::Kretprobe => perf::attach_kprobe(program, self.function, true, by_link),
        }
    }
}

/// How a program is attached to its function.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// `BPF_TRACE_FENTRY` or `BPF_TRACE_FEXIT`
    Tracing(bpf_attach_type),
    /// At the function's entry.
    Kprobe,
    /// At its return.
    Kretprobe,
}

const FENTRY: How = How::Tracing(bpf_attach_type::BPF_TRACE_FENTRY);
const FEXIT: How = How::Tracing(bpf_attach_type::BPF_TRACE_FEXIT);

/// The programs that `signal` needs on a back end; all of them or it is off. The chains need none but the inserts'.
pub fn programs(signal: Signal, back_end: BackEnd, walk: Walk) -> Vec<Program> {
    let (function, arguments) = signal.function();
    let programs: &[(&str, How)] = match (signal, back_end) {
        (Signal::Inserts, BackEnd::Tracing) if walk == Walk::Every => &[("insert_walked", FEXIT)],
        (Signal::Inserts, BackEnd::Tracing) => &[("insert_sampled", FENTRY)],
        (Signal::Inserts, BackEnd::Kprobe) => &[("insert_probed", How::Kprobe)],
        (Signal::Destroys, BackEnd::Tracing) => &[("free", FENTRY)],
        (Signal::Destroys, BackEnd::Kprobe) => &[("free_probed", How::Kprobe)],
        (Signal::TableFull, BackEnd::Tracing) => &[("early_drop", FEXIT)],
        (Signal::TableFull, BackEnd::Kprobe) => &[("early_drop_probed", How::Kretprobe)],
        (Signal::RefusedFlows, BackEnd::Tracing) => &[("alloc", FEXIT)],
        (Signal::RefusedFlows, BackEnd::Kprobe) if CALLS_ARE_KNOWN => {
            &[("alloc_probed", How::Kretprobe), ("alloc_entered", How::Kprobe)]
        }
        (Signal::RefusedFlows, BackEnd::Kprobe) | (Signal::Chains, _) | (_, BackEnd::Proc) => &[],
        (Signal::Clashes, BackEnd::Tracing) => &[("resolve_clash", FEXIT)],
        (Signal::Clashes, BackEnd::Kprobe) => {
            &[("resolve_clash_probed", How::Kretprobe), ("resolve_clash_entered", How::Kprobe)]
        }
        (Signal::Resizes, BackEnd::Tracing) => &[("resize", FENTRY), ("resized", FEXIT)],
        (Signal::Resizes, BackEnd::Kprobe) => &[("resize_probed", How::Kprobe), ("resized_probed", How::Kretprobe)],
    };
    programs.iter().map(|&(name, how)| Program { name, function, arguments, how }).collect()
}
