//! The kernel's variables, the functions it has in parts and whether ctnetlink is there, from `/proc/kallsyms`.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use super::signals::Signal;

/// What kallsyms tells. Addresses are 0 where it does not have one or does not show it (`kernel.kptr_restrict`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbols {
    /// Address of `nf_conntrack_hash`.
    pub table: u64,
    /// Address of `nf_conntrack_htable_size`.
    pub size: u64,
    /// Whether ctnetlink is in the kernel or loaded.
    pub ctnetlink: bool,
    /// Parts and clones of hooked functions, whose calls a hook on the function itself does not see.
    pub parts: Vec<String>,
}

impl Symbols {
    /// One pass, line by line: the file has 170,000 lines or more, and the module's stand at its end.
    pub fn read(root: &Path) -> Self {
        let mut found = Self::default();
        let Ok(file) = File::open(root.join("proc/kallsyms")) else { return found };
        let mut reader = BufReader::with_capacity(1 << 16, file);
        let mut line = Vec::with_capacity(256);
        while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
            match parse(&line) {
                Some((address, "nf_conntrack_hash", Kind::Variable)) => found.table = address,
                Some((address, "nf_conntrack_htable_size", Kind::Variable)) => found.size = address,
                Some((_, "ctnetlink_new_conntrack", Kind::Function)) => found.ctnetlink = true,
                Some((_, name, Kind::Function)) if is_part(name) => found.parts.push(name.to_owned()),
                _ => {}
            }
            line.clear();
        }
        found
    }

    /// A part or a clone of this function, if there is one.
    pub fn part_of(&self, function: &str) -> Option<&str> {
        let mut parts = self.parts.iter().map(String::as_str);
        parts.find(|part| part.strip_prefix(function).is_some_and(|rest| rest.starts_with('.')))
    }
}

enum Kind {
    Variable,
    Function,
}

/// `ffffffffc04080e0 d nf_conntrack_hash [nf_conntrack]`: variables are in a data (d) or bss (b) section or read-mostly,
/// functions in text (t).
fn parse(line: &[u8]) -> Option<(u64, &str, Kind)> {
    let (address, rest) = line.split_at_checked(16)?;
    let [b' ', kind, b' ', name @ ..] = rest else { return None };
    let kind = match kind.to_ascii_lowercase() {
        b'd' | b'b' | b'r' => Kind::Variable,
        b't' => Kind::Function,
        _ => return None,
    };
    // A cheap look first: almost every line is somebody else's.
    if !["nf_", "__nf_", "early_", "ctnetlink_"].iter().any(|wanted| name.starts_with(wanted.as_bytes())) {
        return None;
    }
    let name = std::str::from_utf8(name).ok()?.split_ascii_whitespace().next()?;
    u64::from_str_radix(std::str::from_utf8(address).ok()?, 16).ok().map(|address| (address, name, kind))
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
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn variables_are_found_and_other_symbols_and_hidden_addresses_are_not() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("proc")).unwrap();
        let mut text = "ffffffff81000000 T _text\n\
                        ffffffffc04080c0 t nf_conntrack_hash\t[nf_conntrack]\n\
                        ffffffffc04080e0 d nf_conntrack_hash\t[nf_conntrack]\n\
                        0000000000000000 d nf_conntrack_htable_size\t[nf_conntrack]\n"
            .to_owned();
        let write = |text: &str| fs::write(root.path().join("proc/kallsyms"), text).unwrap();
        write(&text);
        let found = Symbols { table: 0xffff_ffff_c040_80e0, ..Symbols::default() };
        assert_eq!(Symbols::read(root.path()), found);
        text.push_str("0000000000000000 t ctnetlink_new_conntrack\t[nf_conntrack_netlink]\n");
        write(&text);
        assert_eq!(Symbols::read(root.path()), Symbols { ctnetlink: true, ..found.clone() });
        assert_eq!(Symbols::read(Path::new("/nowhere")), Symbols::default());
    }

    #[test]
    fn parts_of_hooked_functions_are_found_and_what_only_looks_so_is_not() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("proc")).unwrap();
        let names = [
            "early_drop.part.0",
            "__nf_conntrack_alloc.isra.0.constprop.1",
            "nf_ct_resolve_clash.llvm.1234",
            "nf_conntrack_hash_resize.cold",
            "nf_ct_delete.part.0",
            "nf_conntrack_free",
            "nf_conntrack_free_more.part.0",
        ];
        let lines = names.map(|name| format!("ffffffffc04080c0 t {name}\t[nf_conntrack]\n"));
        fs::write(root.path().join("proc/kallsyms"), lines.concat()).unwrap();
        let found = Symbols::read(root.path());
        assert_eq!(found.parts, names[..2]);
        assert_eq!(found.part_of("early_drop"), Some(names[0]));
        assert_eq!(found.part_of("__nf_conntrack_alloc"), Some(names[1]));
        assert_eq!(found.part_of("early"), None);
        assert_eq!(found.part_of("nf_conntrack_free"), None);
    }
}
