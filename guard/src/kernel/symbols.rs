//! The kernel's variables and whether ctnetlink is there, from `/proc/kallsyms`.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

/// What kallsyms tells. Addresses are 0 where it does not have one or does not show it (`kernel.kptr_restrict`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Symbols {
    /// Address of `nf_conntrack_hash`.
    pub table: u64,
    /// Address of `nf_conntrack_htable_size`.
    pub size: u64,
    /// Whether ctnetlink is in the kernel or loaded.
    pub ctnetlink: bool,
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
                Some((address, b"nf_conntrack_hash")) => found.table = address,
                Some((address, b"nf_conntrack_htable_size")) => found.size = address,
                Some((_, b"ctnetlink_new_conntrack")) => found.ctnetlink = true,
                _ => {}
            }
            if found.table != 0 && found.size != 0 && found.ctnetlink {
                break;
            }
            line.clear();
        }
        found
    }
}

/// `ffffffffc04080e0 d nf_conntrack_hash [nf_conntrack]`: variables are in a data (d) or bss (b) section or read-mostly,
/// functions in text (t).
fn parse(line: &[u8]) -> Option<(u64, &[u8])> {
    let (address, rest) = line.split_at_checked(16)?;
    let [b' ', kind, b' ', name @ ..] = rest else { return None };
    // A cheap look first: almost every line is somebody else's.
    let wanted = match kind.to_ascii_lowercase() {
        b'd' | b'b' | b'r' => name.starts_with(b"nf_conntrack_"),
        b't' => name.starts_with(b"ctnetlink_"),
        _ => false,
    };
    if !wanted {
        return None;
    }
    let name = name.split(u8::is_ascii_whitespace).next()?;
    u64::from_str_radix(std::str::from_utf8(address).ok()?, 16).ok().map(|address| (address, name))
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
        assert_eq!(Symbols::read(root.path()), Symbols { ctnetlink: true, ..found });
        assert_eq!(Symbols::read(Path::new("/nowhere")), Symbols::default());
    }
}
