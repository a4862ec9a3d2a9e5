//! Why the eBPF programs could not be had.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Each names the thing that is missing; the guard then runs on proc readings and says so.
#[derive(Debug, Error)]
pub enum Error {
    /// `/sys/kernel/btf` has no such file: built without `CONFIG_DEBUG_INFO_BTF`(`_MODULES`), or not visible here.
    #[error(
        "no BTF at {}: {source}; struct offsets are never guessed (a kernel with CONFIG_DEBUG_INFO_BTF has it; a container \
         needs the host's /sys)",
        path.display()
    )]
    NoBtf {
        /// The file looked for.
        path: PathBuf,
        /// What the read answered.
        source: io::Error,
    },
    /// The BTF file is not what the kernel's documentation says.
    #[error("the BTF at {} cannot be used: {what}; struct offsets are never guessed", path.display())]
    BadBtf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// No fentry and fexit on this kernel.
    #[error("{0}")]
    NoTracing(String),
    /// No back end could attach anything; why each could not.
    #[error("{0}")]
    Nothing(String),
    /// This back end has no way to measure it.
    #[error("no way to measure this")]
    NotByThis,
    /// The user wants proc readings only.
    #[error("programs are not wanted (--backend proc)")]
    NotWanted,
    /// The kernel has no such function.
    #[error("the kernel's BTF has no function {0}: is nf_conntrack loaded, and built with BTF?")]
    NoFunction(String),
    /// The compiler split or cloned the function, so a hook on its name misses calls of the rest.
    #[error("this kernel has {function} in parts ({part}): a hook on it does not see every call")]
    Split {
        /// The hooked function.
        function: &'static str,
        /// The other symbol.
        part: String,
    },
    /// The functions are a module's that is not there.
    #[error("nf_conntrack is not loaded (`modprobe nf_conntrack`)")]
    NotLoaded,
    /// Nothing tells whether the compiler split the function or another one has its name.
    #[error(
        "{why}: whether this kernel has {function} whole, and only one of that name, is not known; let the guard read \
         /proc/kallsyms, or mount tracefs on /sys/kernel/tracing"
    )]
    UnknownSymbols {
        /// The hooked function.
        function: &'static str,
        /// Why nothing tells.
        why: String,
    },
    /// nf_conntrack has no function of this name that could be hooked.
    #[error(
        "/proc/kallsyms has no function {function} of nf_conntrack's: the compiler inlined it, or it has another name"
    )]
    NoSymbol {
        /// The function.
        function: &'static str,
    },
    /// The kernel attaches to the first function of a name that it finds.
    #[error(
        "this kernel has more than one function {function} ({owners}): a hook by its name may be on the wrong one; \
         without the other module there is but one"
    )]
    Ambiguous {
        /// The hooked function.
        function: &'static str,
        /// The modules that have one, or vmlinux.
        owners: String,
    },
    /// The function takes other arguments than the program expects.
    #[error("{function} takes {found} arguments on this kernel and not {expected}")]
    OtherArguments {
        /// The hooked function.
        function: &'static str,
        /// As the program expects.
        expected: usize,
        /// As BTF has it.
        found: usize,
    },
    /// A struct has no such member on this kernel.
    #[error("this kernel's struct {of} has no member {path}")]
    NoMember {
        /// The struct.
        of: String,
        /// The path of members that was looked for.
        path: String,
    },
    /// A member lies further from the start of its struct than a program's load reaches.
    #[error("this kernel's struct {of} has its member {path} at {offset}, too far for a BPF load (32,767)")]
    FarMember {
        /// The struct.
        of: String,
        /// The path of members.
        path: String,
        /// Its offset, bytes.
        offset: u32,
    },
    /// The object built into this binary is broken.
    #[error("the built-in eBPF object is not usable: {0}")]
    Object(String),
    /// The kernel's verifier turned a program down.
    #[error("the verifier refused the program on {function}: {source}\n{log}")]
    Verifier {
        /// The hooked function.
        function: &'static str,
        /// The error of `BPF_PROG_LOAD`.
        source: io::Error,
        /// The end of the verifier's log.
        log: String,
    },
    /// `bpf_probe_read_kernel` is not to be had: lockdown in mode "confidentiality" takes it away from all programs.
    #[error("this kernel lets no program read its memory by address (lockdown=confidentiality)")]
    NoHelper,
    /// A `bpf(2)` command failed.
    #[error("{command}: {source}{}", hint(source))]
    Syscall {
        /// The command and what it was for.
        command: String,
        /// Its error.
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        " (needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN or CAP_SYS_ADMIN, no lockdown, a kernel whose policy allows BPF \
         tracing, and before Linux 5.11 an unlimited RLIMIT_MEMLOCK)"
    } else {
        ""
    }
}
