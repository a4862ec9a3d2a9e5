//! Loads the eBPF programs and attaches them to `nf_conntrack`'s functions.
//!
//! aya reads the object and makes the maps. The programs are loaded here: on most distributions their functions are a
//! module's, and aya cannot name a module's BTF to the kernel.

use std::{
    collections::{HashMap, HashSet},
    ffi::CString,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use aya::maps::MapData;
use aya_obj::{EbpfSectionKind, Object, generated::bpf_attach_type};
use guard_ebpf::{ORIGINAL, REPLY};

use super::{Error, btf::Btf, slots::Slots, sys};
use crate::observe::{Chains, HookTotals};

/// The kernel half, built by build.rs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/guard-ebpf"));

/// The module that the hooked functions live in, where they are not built in.
const MODULE: &str = "nf_conntrack";

/// One program: its name in the object, the function it watches, and how.
struct Hook {
    program: &'static str,
    function: &'static str,
    arguments: usize,
    attach: bpf_attach_type,
}

const HOOKS: [Hook; 3] = [
    Hook {
        program: "hash_insert",
        function: "__nf_conntrack_hash_insert",
        arguments: 3,
        attach: bpf_attach_type::BPF_TRACE_FEXIT,
    },
    Hook { program: "early_drop", function: "early_drop", arguments: 2, attach: bpf_attach_type::BPF_TRACE_FEXIT },
    Hook {
        program: "conntrack_free",
        function: "nf_conntrack_free",
        arguments: 1,
        attach: bpf_attach_type::BPF_TRACE_FENTRY,
    },
];

/// The programs' offsets into the kernel's structs: the constant's name in the object, the struct, the member.
const OFFSETS: [(&str, &str, &[&str]); 5] = [
    ("STATUS", "nf_conn", &["status"]),
    ("ORIGINAL_NEXT", "nf_conn", &["tuplehash", "0", "hnnode", "next"]),
    ("ORIGINAL_PPREV", "nf_conn", &["tuplehash", "0", "hnnode", "pprev"]),
    ("REPLY_NEXT", "nf_conn", &["tuplehash", "1", "hnnode", "next"]),
    ("NODE_NEXT", "hlist_nulls_node", &["next"]),
];

/// The programs, accepted by the verifier and not attached yet.
pub struct Programs {
    loaded: Vec<(&'static Hook, OwnedFd)>,
    slots: Slots,
    // The programs hold the maps as well; kept so that their life is plain to see.
    _maps: Vec<MapData>,
}

/// The programs, attached. Dropping it detaches them and frees their maps; nothing is pinned.
pub struct Hooks {
    programs: Programs,
    _links: Vec<OwnedFd>,
}

impl Programs {
    /// Reads the layouts from BTF, makes the maps and has the verifier check the programs.
    pub fn load() -> Result<Self, Error> {
        let module = Path::new("/sys/kernel/btf").join(MODULE).exists().then_some(MODULE);
        let btf = Btf::read(Path::new("/"), module)?;
        let mut object = Object::parse(OBJECT).map_err(|error| Error::Object(error.to_string()))?;
        set_offsets(&mut object, &btf)?;
        let functions = functions(&btf)?;
        drop(btf);

        let cpus = aya::util::nr_cpus().map_err(|(file, source)| syscall(&format!("reading {file}"), source))?;
        let maps = make_maps(&mut object, cpus)?;
        relocate(&mut object, &maps)?;
        let slots = maps.iter().find(|(name, _)| name == "SLOTS");
        let (_, slots) = slots.ok_or_else(|| Error::Object("it has no map SLOTS".to_owned()))?;
        let slots = Slots::map(slots.fd(), cpus).map_err(|source| syscall("mmap of the slots", source))?;

        let module = module.map(sys::module_btf).transpose();
        let module = module.map_err(|source| syscall("BPF_BTF_GET_NEXT_ID for the module nf_conntrack", source))?;
        let module = module.as_ref().map(|fd| fd.as_fd());
        let loaded = HOOKS
            .iter()
            .zip(functions)
            .map(|(hook, function)| Ok((hook, load(&object, hook, function, module)?)))
            .collect::<Result<_, Error>>()?;
        Ok(Self { loaded, slots, _maps: maps.into_iter().map(|(_, map)| map).collect() })
    }

    /// Attaches all programs, or none.
    pub fn attach(self) -> Result<Hooks, Error> {
        let attach = |(hook, program): &(&Hook, OwnedFd)| {
            sys::attach_tracing(program.as_fd())
                .map_err(|source| syscall(&format!("attaching to {}", hook.function), source))
        };
        let links = self.loaded.iter().map(attach).collect::<Result<_, _>>()?;
        Ok(Hooks { programs: self, _links: links })
    }
}

impl Hooks {
    /// Loads and attaches the programs.
    pub fn attach() -> Result<Self, Error> {
        Programs::load()?.attach()
    }

    /// What they counted since.
    pub fn read(&self) -> HookTotals {
        let sum = self.programs.slots.sum();
        HookTotals {
            inserts: sum.inserts,
            destroys: sum.destroys,
            reply_only_destroys: sum.reply_only_destroys,
            table_full: sum.table_full,
            early_drops: sum.early_drops,
            missed: self.missed(),
            chains: Chains { original: sum.chains[ORIGINAL].to_vec(), reply: sum.chains[REPLY].to_vec() },
        }
    }

    /// Kernels that do not count skipped runs say 0.
    fn missed(&self) -> u64 {
        self.programs.loaded.iter().filter_map(|(_, program)| sys::skipped_runs(program).ok()).sum()
    }
}

fn set_offsets(object: &mut Object, btf: &Btf) -> Result<(), Error> {
    let mut values = Vec::new();
    for (name, of, path) in OFFSETS {
        values.push((name, btf.offset(of, path)?.to_ne_bytes()));
    }
    let values: HashMap<&str, (&[u8], bool)> =
        values.iter().map(|(name, bytes)| (*name, (bytes.as_slice(), true))).collect();
    object.patch_map_data(values).map_err(|error| Error::Object(error.to_string()))
}

/// The id of each hook's function, once its arguments are known to be those the program reads.
fn functions(btf: &Btf) -> Result<Vec<u32>, Error> {
    let check = |hook: &Hook| {
        let (id, found) = btf.function(hook.function)?;
        let (function, expected) = (hook.function, hook.arguments);
        if found == expected { Ok(id) } else { Err(Error::OtherArguments { function, expected, found }) }
    };
    HOOKS.iter().map(check).collect()
}

fn make_maps(object: &mut Object, cpus: usize) -> Result<Vec<(String, MapData)>, Error> {
    let mut maps = Vec::new();
    for (name, definition) in &mut object.maps {
        if name == "SLOTS" {
            definition.set_max_entries(u32::try_from(cpus).unwrap_or(u32::MAX));
        }
        let command = format!("BPF_MAP_CREATE {name}");
        let map = MapData::create(definition.clone(), name, None).map_err(|error| match error {
            aya::maps::MapError::CreateError { io_error, .. } => syscall(&command, io_error),
            other => Error::Object(other.to_string()),
        })?;
        if definition.section_kind() == EbpfSectionKind::Rodata {
            let fd = map.fd().as_fd();
            sys::set_only_value(fd, definition.data()).map_err(|source| syscall("setting the offsets", source))?;
            sys::freeze(fd).map_err(|source| syscall("BPF_MAP_FREEZE", source))?;
        }
        maps.push((name.clone(), map));
    }
    Ok(maps)
}

fn relocate(object: &mut Object, maps: &[(String, MapData)]) -> Result<(), Error> {
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let definitions = object.maps.clone();
    let maps = maps.iter().filter_map(|(name, map)| {
        definitions.get(name).map(|definition| (name.as_str(), map.fd().as_fd().as_raw_fd(), definition))
    });
    object.relocate_maps(maps, &text).map_err(|error| Error::Object(error.to_string()))?;
    object.relocate_calls(&text).map_err(|error| Error::Object(error.to_string()))
}

fn load(object: &Object, hook: &'static Hook, function: u32, module: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Error> {
    let program = object.programs.get(hook.program);
    let code = program.and_then(|program| object.functions.get(&program.function_key()));
    let (Some(program), Some(code)) = (program, code) else {
        return Err(Error::Object(format!("it has no program {}", hook.program)));
    };
    let license: &CString = &program.license;
    let tracing = sys::Tracing { name: hook.program, license, attach: hook.attach, module, function };
    sys::load_tracing(&tracing, &code.instructions).map_err(|(source, log)| {
        if source.kind() == std::io::ErrorKind::PermissionDenied && log.is_empty() {
            return syscall(&format!("BPF_PROG_LOAD for {}", hook.function), source);
        }
        let tail = log.lines().rev().take(20).collect::<Vec<_>>();
        let log = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
        Error::Verifier { function: hook.function, source, log }
    })
}

fn syscall(command: &str, source: std::io::Error) -> Error {
    Error::Syscall { command: command.to_owned(), source }
}
