//! Addresses of the kernel's variables, from `/proc/kallsyms`.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

/// The addresses of some variables; 0 where kallsyms does not have one or does not show it (`kernel.kptr_restrict`).
///
/// One pass, line by line: the file has 170,000 lines or more, and the module's stand at its end.
pub fn addresses<const N: usize>(root: &Path, names: [&str; N]) -> [u64; N] {
    let mut found = [0; N];
    let Ok(file) = File::open(root.join("proc/kallsyms")) else { return found };
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut line = Vec::with_capacity(256);
    while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
        if let Some((address, name)) = parse(&line)
            && let Some(place) = names.iter().position(|wanted| wanted.as_bytes() == name)
        {
            found[place] = address;
            if found.iter().all(|address| *address != 0) {
                break;
            }
        }
        line.clear();
    }
    found
}

/// `ffffffffc04080e0 d nf_conntrack_hash [nf_conntrack]`: variables are in a data (d) or bss (b) section or read-mostly.
fn parse(line: &[u8]) -> Option<(u64, &[u8])> {
    let (address, rest) = line.split_at_checked(16)?;
    let [b' ', b'd' | b'D' | b'b' | b'B' | b'r' | b'R', b' ', name @ ..] = rest else { return None };
    let name = name.split(u8::is_ascii_whitespace).next()?;
    // A cheap look first: almost every line is somebody else's.
    if !name.starts_with(b"nf_conntrack_") {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(address).ok()?, 16).ok().map(|address| (address, name))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn variables_are_found_and_functions_and_hidden_addresses_are_not() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("proc")).unwrap();
        let text = "ffffffff81000000 T _text\n\
                    ffffffffc04080c0 t nf_conntrack_hash_check_insert\t[nf_conntrack]\n\
                    ffffffffc04080e0 d nf_conntrack_hash\t[nf_conntrack]\n\
                    0000000000000000 d nf_conntrack_htable_size\t[nf_conntrack]\n";
        fs::write(root.path().join("proc/kallsyms"), text).unwrap();
        let names = ["nf_conntrack_hash", "nf_conntrack_htable_size", "nf_conntrack_hash_check_insert"];
        assert_eq!(addresses(root.path(), names), [0xffff_ffff_c040_80e0, 0, 0]);
        assert_eq!(addresses(Path::new("/nowhere"), names), [0; 3]);
    }
}
