//! What the kernel calls its functions and variables, and whose they are: from `/proc/kallsyms`, and functions from tracefs
//! where that cannot be read.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

use super::Error;
use super::ctnetlink::is_loaded;
use super::signals::Signal;

const KALLSYMS: &str = "proc/kallsyms";
/// Its functions that can be traced, parts and clones among them, with their modules. No addresses, no variables.
const TRACEFS: [&str; 2] =
    ["sys/kernel/tracing/available_filter_functions", "sys/kernel/debug/tracing/available_filter_functions"];
const TABLE: &str = "nf_conntrack_hash";
const SIZE: &str = "nf_conntrack_htable_size";
/// A function of ctnetlink, and its module.
const CTNETLINK: (&str, &str) = ("ctnetlink_new_conntrack", "nf_conntrack_netlink");
/// The module whose functions are hooked, where they are not built in.
pub const MODULE: &str = "nf_conntrack";

/// What the kernel's symbols tell; what they do not tell is unknown and not "none".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbols {
    /// Address of `nf_conntrack_hash`; 0: not known.
    pub table: u64,
    /// Why it is not known.
    pub no_table: Option<String>,
    /// Address of `nf_conntrack_htable_size`; 0: not known.
    pub size: u64,
    /// Hooked functions, their parts, and ctnetlink's, whoever has them. None: nothing could be read.
    functions: Vec<Symbol>,
    /// Why `/proc/kallsyms` tells nothing.
    unread: Option<String>,
    /// Whether it has nothing to tell: nf_conntrack, which has a folder there when it is built in too, is not loaded.
    absent: bool,
}

/// One symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Symbol {
    name: String,
    /// Its module; empty: vmlinux.
    owner: String,
    address: u64,
}

impl Symbols {
    /// One pass, line by line: the file has 170,000 lines or more, and the module's stand at its end.
    pub fn read(root: &Path) -> Self {
        let (mut functions, mut variables) = (Vec::new(), Vec::new());
        let read = each_line(&root.join(KALLSYMS), |line| match parse(line) {
            Some((symbol, Kind::Function)) if is_wanted_function(&symbol.name) => functions.push(symbol),
            Some((symbol, Kind::Variable)) if [TABLE, SIZE].contains(&symbol.name.as_str()) => variables.push(symbol),
            _ => {}
        });
        let unread = match read {
            Err(error) => Some(format!("/{KALLSYMS}: {error}")),
            Ok(()) if functions.is_empty() => Some(format!("/{KALLSYMS} names no function of {MODULE}")),
            Ok(()) => None,
        };
        if unread.is_some() {
            functions = TRACEFS.iter().find_map(|file| traceable(&root.join(file))).unwrap_or_default();
        }
        let modules = root.join("sys/module");
        let absent = functions.is_empty() && modules.exists() && !modules.join(MODULE).exists();
        let owner = owner(&functions);
        let address = |name: &str| {
            let mut of = variables.iter().filter(|symbol| symbol.name == name && symbol.owner == owner);
            match (of.next(), of.next(), &unread) {
                (.., Some(why)) => Err(format!("{why}, so the address of {name} is not known: let the guard read it")),
                (Some(Symbol { address: 0, .. }), None, _) => Err(format!(
                    "/{KALLSYMS} does not show the address of {name} (kernel.kptr_restrict below 2 and CAP_SYSLOG show it)"
                )),
                (Some(symbol), None, _) => Ok(symbol.address),
                (Some(_), Some(_), _) => Err(format!("/{KALLSYMS} has more than one {name}")),
                (None, ..) => Err(format!("/{KALLSYMS} has no {name} (a kernel with CONFIG_KALLSYMS_ALL has it)")),
            }
        };
        let table = address(TABLE);
        Self {
            no_table: table.as_ref().err().cloned(),
            table: table.unwrap_or(0),
            size: address(SIZE).unwrap_or(0),
            functions,
            unread,
            absent,
        }
    }

    /// As where no program may read memory by address: addresses are of no use then.
    pub fn without_addresses(self) -> Self {
        Self { table: 0, size: 0, no_table: Some(Error::NoHelper.to_string()), ..self }
    }

    /// Whether a hook by this function's name sees each call of nf_conntrack's function and nothing else.
    pub fn check(&self, function: &'static str) -> Result<(), Error> {
        if self.absent {
            return Err(Error::NotLoaded);
        }
        if let (true, Some(why)) = (self.functions.is_empty(), &self.unread) {
            return Err(Error::UnknownSymbols { function, why: why.clone() });
        }
        let owner = owner(&self.functions);
        let ours = |symbol: &&Symbol| symbol.owner == owner;
        let is_part =
            |symbol: &&Symbol| symbol.name.strip_prefix(function).is_some_and(|suffix| suffix.starts_with('.'));
        if let Some(part) = self.functions.iter().filter(ours).find(is_part) {
            return Err(Error::Split { function, part: part.name.clone() });
        }
        let named: Vec<&Symbol> = self.functions.iter().filter(|symbol| symbol.name == function).collect();
        match named[..] {
            [only] if ours(&only) => Ok(()),
            _ if !named.iter().any(ours) => Err(Error::NoSymbol { function }),
            _ => {
                let owners = named.iter().map(|symbol| if symbol.owner.is_empty() { "vmlinux" } else { &symbol.owner });
                Err(Error::Ambiguous { function, owners: owners.collect::<Vec<_>>().join(", ") })
            }
        }
    }

    /// Whether the kernel has ctnetlink without a module; `None`: not known.
    pub fn ctnetlink_built_in(&self) -> Option<bool> {
        let (function, _) = CTNETLINK;
        let known = !self.functions.is_empty() || self.absent;
        known.then(|| self.functions.iter().any(|symbol| symbol.name == function && symbol.owner.is_empty()))
    }

    /// Why ctnetlink may not be asked; `None`: it is there. Asking a kernel that has it as a module would load it.
    pub fn no_ctnetlink(&self, root: &Path) -> Option<String> {
        if is_loaded(root) {
            return None;
        }
        let (_, module) = CTNETLINK;
        let way_out = format!("`modprobe {module}` before the guard starts");
        match (self.ctnetlink_built_in(), &self.unread) {
            (Some(true), _) => None,
            (None, Some(why)) => {
                Some(format!("{module} is not loaded, and whether it is built in is not known ({why}; {way_out})"))
            }
            _ => Some(format!("{module} is not loaded ({way_out})")),
        }
    }
}

/// nf_conntrack's own: where it is a module, the same name elsewhere is another thing.
fn owner(functions: &[Symbol]) -> &'static str {
    if functions.iter().any(|symbol| symbol.owner == MODULE) { MODULE } else { "" }
}

/// The wanted functions among those that tracefs lists: `early_drop.part.0 [nf_conntrack]`.
fn traceable(file: &Path) -> Option<Vec<Symbol>> {
    let mut functions = Vec::new();
    each_line(file, |line| {
        let symbol = is_interesting(line).then(|| std::str::from_utf8(line).ok().and_then(|line| symbol(line, 0)));
        functions.extend(symbol.flatten().filter(|symbol| is_wanted_function(&symbol.name)));
    })
    .ok()?;
    (!functions.is_empty()).then_some(functions)
}

fn each_line(file: &Path, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(1 << 16, File::open(file)?);
    let mut line = Vec::with_capacity(256);
    while reader.read_until(b'\n', &mut line)? > 0 {
        each(&line);
        line.clear();
    }
    Ok(())
}

enum Kind {
    Variable,
    Function,
}

/// `ffffffffc04080e0 d nf_conntrack_hash [nf_conntrack]`: variables are in a data (d) or bss (b) section or read-mostly,
/// functions in text (t).
fn parse(line: &[u8]) -> Option<(Symbol, Kind)> {
    let (address, rest) = line.split_at_checked(16)?;
    let [b' ', kind, b' ', name @ ..] = rest else { return None };
    let kind = match kind.to_ascii_lowercase() {
        b'd' | b'b' | b'r' => Kind::Variable,
        b't' => Kind::Function,
        _ => return None,
    };
    if !is_interesting(name) {
        return None;
    }
    let address = u64::from_str_radix(std::str::from_utf8(address).ok()?, 16).ok()?;
    Some((symbol(std::str::from_utf8(name).ok()?, address)?, kind))
}

/// A cheap look first: almost every line is somebody else's.
fn is_interesting(name: &[u8]) -> bool {
    ["nf_", "__nf_", "early_", "ctnetlink_"].iter().any(|wanted| name.starts_with(wanted.as_bytes()))
}

/// A name, and its module in brackets.
fn symbol(text: &str, address: u64) -> Option<Symbol> {
    let mut words = text.split_ascii_whitespace();
    let name = words.next()?.to_owned();
    let owner = words.next().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    Some(Symbol { name, owner, address })
}

/// A hooked function, or a part of one.
fn is_wanted_function(name: &str) -> bool {
    is_part(name) || name == CTNETLINK.0 || Signal::ALL.iter().any(|signal| signal.function().0 == name)
}

/// Whether this is `early_drop.part.0` of a hooked `early_drop`, or the like: what GCC makes of a function when it inlines
/// its beginning (`part`), or calls it with arguments that it knows or leaves out (`constprop`, `isra`). `cold` is no
/// function of its own, and `llvm` only makes a name unique.
fn is_part(name: &str) -> bool {
    let Some((function, suffix)) = name.split_once('.') else { return false };
    suffix.split('.').any(|suffix| ["part", "constprop", "isra"].contains(&suffix))
        && Signal::ALL.iter().any(|signal| signal.function().0 == function)
}

#[cfg(test)]
mod tests;
