//! The kernel half, made ready for this kernel: constants set, maps made, instructions relocated.
//!
//! aya reads the object and makes the maps. The programs are loaded by `sys`: on most distributions their functions are
//! a module's, and aya cannot name a module's BTF to the kernel.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use aya::maps::{Map, MapData, RingBuf};
use aya_log::Level;
use aya_obj::generated::BPF_F_MMAPABLE;
use aya_obj::{EbpfSectionKind, Object};
use guard_ebpf::Slot;

use super::btf::Btf;
use super::credit::{Credit, Grant};
use super::patch::{self, Patch};
use super::signals::{How, Program};
use super::slots::{self, Slots};
use super::symbols::{MODULE, Symbols};
use super::{Error, sys};
use crate::observe::memory::page_bytes;

/// The kernel half, built by build.rs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/guard-ebpf"));

/// The section with the slots, and so the name of their map.
const SLOTS: &str = ".bss.slots";

/// The section with the word by which credit is granted.
const GRANT: &str = ".bss.grant";

/// Everything of the object that does not depend on the signal.
pub struct KernelHalf {
    object: Object,
    btf: Btf,
    /// The module's BTF object in the kernel; `None` where nf_conntrack is built in, or the module's BTF is not there.
    module: Option<OwnedFd>,
    /// Why no fentry and fexit, where that is known already.
    no_tracing: Option<String>,
    symbols: Symbols,
    /// Whether the kernel counts the runs of a kprobe's program that it skips, and tells (since Linux 6.7, which began with
    /// both at once).
    pub tells_missed_hits: bool,
}

/// The maps as the daemon sees them; they live as long as this or a program that uses them.
pub struct Maps {
    /// The counters.
    pub slots: Slots,
    /// The rare events.
    pub events: RingBuf<MapData>,
    /// The credit that the CPUs have, and the word that it is spent.
    pub credit: Credit,
    _others: Vec<MapData>,
}

/// What this kernel's verifier does not let programs do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restrictions {
    /// Load a field through a union; a helper does it instead.
    pub no_unions: bool,
    /// Call the helper that reads memory by address: what needs it is left out.
    pub no_helper: bool,
}

impl KernelHalf {
    /// Reads the layouts from BTF and makes the maps. `log`: with the debug lines.
    pub fn prepare(symbols: Symbols, restrictions: Restrictions, log: bool) -> Result<(Self, Maps), Error> {
        let root = Path::new("/");
        let slots = slots::room(root)?;
        let Layouts { btf, patch, module, no_tracing } = Layouts::read(root, slots)?;
        let mut object = Object::parse(OBJECT).map_err(|error| Error::Object(error.to_string()))?;
        let level = if log { Level::Debug as u8 } else { 0 };
        set_constants(&mut object, restrictions, level, &symbols, patch::has_cookie(&btf))?;
        let made = make_maps(&mut object, slots, log)?;
        for function in object.functions.values_mut() {
            patch.apply(&mut function.instructions);
        }
        relocate(&mut object, &made)?;
        let tells_missed_hits = btf.offset("bpf_link_info", &["perf_event", "kprobe", "missed"]).is_ok();
        Ok((Self { object, btf, module, no_tracing, symbols, tells_missed_hits }, sort(made, slots)?))
    }

    /// Has the verifier check a program.
    pub fn load(&self, program: &Program) -> Result<OwnedFd, Error> {
        let found = self.object.programs.get(program.name);
        let code = found.and_then(|found| self.object.functions.get(&found.function_key()));
        let (Some(found), Some(code)) = (found, code) else {
            return Err(Error::Object(format!("it has no program {}", program.name)));
        };
        let kind = self.kind(program)?;
        self.symbols.check(program.function)?;
        let described = sys::Program { name: program.name, license: &found.license, kind };
        sys::load(&described, &code.instructions).map_err(|(source, log)| {
            if log.is_empty() {
                return syscall(&format!("BPF_PROG_LOAD for {}", program.function), source);
            }
            let helper = "bpf_probe_read_kernel#";
            if ["cannot use helper ", "unknown func "].iter().any(|refusal| log.contains(&format!("{refusal}{helper}")))
            {
                return Error::NoHelper;
            }
            let tail: Vec<_> = log.lines().rev().take(20).collect();
            let log = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
            Error::Verifier { function: program.function, source, log }
        })
    }

    /// For fentry and fexit: the function's id. Where BTF lists the function, its arguments must be those that the program
    /// reads; fentry and fexit need it listed, kprobes go by its name alone where it is not.
    fn kind(&self, program: &Program) -> Result<sys::Kind<'_>, Error> {
        let listed = match &self.no_tracing {
            Some(why) => Err(Error::NoTracing(why.clone())),
            None => self.btf.function(program.function),
        };
        if let Ok((_, found)) = listed
            && found != program.arguments
        {
            let (function, expected) = (program.function, program.arguments);
            return Err(Error::OtherArguments { function, expected, found });
        }
        let How::Tracing(attach) = program.how else { return Ok(sys::Kind::Kprobe) };
        let (function, _) = listed?;
        Ok(sys::Kind::Tracing { attach, module: self.module.as_ref().map(|fd| fd.as_fd()), function })
    }
}

/// Where the programs find what they read.
struct Layouts {
    btf: Btf,
    patch: Patch,
    module: Option<OwnedFd>,
    no_tracing: Option<String>,
}

impl Layouts {
    /// By the module's BTF where it has some, else by vmlinux's: that knows conntrack's structs in most kernels, and kprobes
    /// need no more.
    fn read(root: &Path, slots: usize) -> Result<Self, Error> {
        let no_tracing = if root.join("sys/kernel/btf").join(MODULE).exists() {
            match Self::by_module(root, slots) {
                Ok(layouts) => return Ok(layouts),
                Err(error) => Some(error.to_string()),
            }
        } else {
            let loaded_module = root.join("sys/module").join(MODULE).join("initstate").exists();
            loaded_module
                .then(|| format!("no BTF of the module at /sys/kernel/btf/{MODULE} (CONFIG_DEBUG_INFO_BTF_MODULES)"))
        };
        let btf = Btf::read(root, None)?;
        Ok(Self { patch: Patch::new(&btf, slots)?, btf, module: None, no_tracing })
    }

    fn by_module(root: &Path, slots: usize) -> Result<Self, Error> {
        let btf = Btf::read(root, Some(MODULE))?;
        let patch = Patch::new(&btf, slots)?;
        let module = sys::module_btf(MODULE)
            .map_err(|source| syscall("finding the module's BTF (needs CAP_SYS_ADMIN)", source))?;
        Ok(Self { btf, patch, module: Some(module), no_tracing: None })
    }
}

fn set_constants(
    object: &mut Object,
    restrictions: Restrictions,
    level: u8,
    symbols: &Symbols,
    cookie: bool,
) -> Result<(), Error> {
    let values: [(&str, Vec<u8>); 6] = [
        ("UNION_BY_HELPER", u32::from(restrictions.no_unions).to_ne_bytes().to_vec()),
        ("NO_COOKIE", u32::from(!cookie).to_ne_bytes().to_vec()),
        ("NO_HELPER", u32::from(restrictions.no_helper).to_ne_bytes().to_vec()),
        (aya_log::LEVEL, vec![level]),
        ("HASH_TABLE", symbols.table.to_ne_bytes().to_vec()),
        ("TABLE_SIZE", symbols.size.to_ne_bytes().to_vec()),
    ];
    let values: HashMap<&str, (&[u8], bool)> =
        values.iter().map(|(name, bytes)| (*name, (bytes.as_slice(), true))).collect();
    object.patch_map_data(values).map_err(|error| Error::Object(error.to_string()))
}

fn make_maps(object: &mut Object, slots: usize, log: bool) -> Result<Vec<(String, MapData)>, Error> {
    let page = u32::try_from(page_bytes()).unwrap_or(4096);
    let mut maps = Vec::new();
    for (name, definition) in &mut object.maps {
        match name.as_str() {
            SLOTS => {
                make_room(definition, slots);
                make_mapable(definition);
            }
            GRANT => make_mapable(definition),
            // A ring is made of whole pages, and those are larger on some architectures.
            "EVENTS" | "SPENT" => definition.set_max_entries(definition.max_entries().max(page)),
            // Nobody writes to it then; a map cannot be without memory.
            "AYA_LOGS" if !log => definition.set_max_entries(page),
            _ => {}
        }
        let command = format!("BPF_MAP_CREATE {name}");
        let map = MapData::create(definition.clone(), name, None).map_err(|error| match error {
            aya::maps::MapError::CreateError { io_error, .. } => syscall(&command, io_error),
            other => Error::Object(other.to_string()),
        })?;
        if definition.section_kind() == EbpfSectionKind::Rodata {
            let fd = map.fd().as_fd();
            sys::set_only_value(fd, definition.data()).map_err(|source| syscall("setting the constants", source))?;
            sys::freeze(fd).map_err(|source| syscall("BPF_MAP_FREEZE", source))?;
        }
        maps.push((name.clone(), map));
    }
    Ok(maps)
}

/// The object has room for one slot. Some kernels, 5.10 among them, make no value of more than 4 MiB, which is a slot for
/// each of 512 CPUs; on a larger machine they answer with E2BIG.
fn make_room(definition: &mut aya_obj::Map, slots: usize) {
    definition.set_value_size(u32::try_from(slots * size_of::<Slot>()).unwrap_or(u32::MAX));
}

fn make_mapable(definition: &mut aya_obj::Map) {
    if let aya_obj::Map::Legacy(definition) = definition {
        definition.def.map_flags |= BPF_F_MMAPABLE;
    }
}

/// The maps by what they are for.
fn sort(made: Vec<(String, MapData)>, slots: usize) -> Result<Maps, Error> {
    let missing = |name: &str| Error::Object(format!("it has no map {name}"));
    let (mut counters, mut events, mut grant, mut spent, mut others) = (None, None, None, None, Vec::new());
    let ring = |map| RingBuf::try_from(Map::RingBuf(map)).map_err(|error| Error::Object(error.to_string()));
    for (name, map) in made {
        match name.as_str() {
            SLOTS => {
                counters = Some(Slots::map(map.fd(), slots).map_err(|source| syscall("mmap of the slots", source))?);
                others.push(map);
            }
            GRANT => {
                grant = Some(Grant::map(map.fd()).map_err(|source| syscall("mmap of the grant", source))?);
                others.push(map);
            }
            "EVENTS" => events = Some(ring(map)?),
            "SPENT" => spent = Some(ring(map)?),
            _ => others.push(map),
        }
    }
    Ok(Maps {
        slots: counters.ok_or_else(|| missing(SLOTS))?,
        events: events.ok_or_else(|| missing("EVENTS"))?,
        credit: Credit::new(grant.ok_or_else(|| missing(GRANT))?, spent.ok_or_else(|| missing("SPENT"))?),
        _others: others,
    })
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

pub(super) fn syscall(command: &str, source: io::Error) -> Error {
    Error::Syscall { command: command.to_owned(), source }
}

#[cfg(test)]
mod tests;
