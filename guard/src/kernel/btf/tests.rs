//! BTF as the kernel lays it out, made by hand: a base and a module on top of it.

#![allow(clippy::cast_possible_truncation, reason = "the test's files are a few hundred bytes")]

use std::io::Write as _;

use super::*;

/// Writes BTF records the way the kernel lays them out.
struct Writer {
    types: Vec<u8>,
    strings: Vec<u8>,
    string_base: u32,
}

impl Writer {
    fn new(string_base: u32) -> Self {
        Self { types: Vec::new(), strings: if string_base == 0 { vec![0] } else { Vec::new() }, string_base }
    }
    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32 + self.string_base;
        self.strings.extend(name.as_bytes());
        self.strings.push(0);
        at
    }
    fn words(&mut self, words: &[u32]) {
        self.types.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    }
    fn ty(&mut self, name: &str, kind: u32, vlen: u32, size: u32, tail: &[u32]) {
        let name = self.name(name);
        self.words(&[name, kind << 24 | vlen, size]);
        self.words(tail);
    }
    fn structure(&mut self, name: &str, size: u32, members: &[(&str, u32, u32)]) {
        let members: Vec<u32> = members.iter().flat_map(|&(name, id, bits)| [self.name(name), id, bits]).collect();
        self.ty(name, KIND_STRUCT, members.len() as u32 / 3, size, &members);
    }
    fn finish(self) -> Vec<u8> {
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        bytes.extend([24, 0, types, types, strings].iter().flat_map(|word: &u32| word.to_ne_bytes()));
        bytes.extend(self.types);
        bytes.extend(self.strings);
        bytes
    }
}

/// 1 int, 2 node { pad, next }, 3 hash { node, int }, 4 array of 2 hashes, 5 typedef of it.
fn base() -> (Vec<u8>, u32) {
    let mut btf = Writer::new(0);
    btf.ty("int", KIND_INT, 0, 8, &[64]);
    btf.structure("node", 16, &[("pad", 1, 0), ("next", 1, 64)]);
    btf.structure("hash", 24, &[("node", 2, 0), ("tuple", 1, 128)]);
    btf.ty("", KIND_ARRAY, 0, 0, &[3, 1, 2]);
    btf.ty("hashes", KIND_TYPEDEF, 0, 4, &[]);
    let strings = btf.strings.len() as u32;
    (btf.finish(), strings)
}

fn split() -> Btf {
    let (base, strings) = base();
    let mut module = Writer::new(strings);
    // 6: conn { use; anonymous 7; hashes }, 7: anonymous { status }, 8: prototype with two arguments, 9: function
    module.structure("conn", 64, &[("use", 1, 0), ("", 7, 64), ("hashes", 5, 128)]);
    module.structure("", 8, &[("status", 1, 0)]);
    module.ty("", KIND_FUNC_PROTO, 2, 0, &[0, 1, 0, 1]);
    module.ty("insert", KIND_FUNC, 0, 8, &[]);
    Btf::parse(file(&module.finish()), Some(Btf::parse(file(&base), None).unwrap())).unwrap()
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn a_member_is_found_through_typedefs_arrays_and_both_files() {
    assert_eq!(split().offset("conn", &["hashes", "1", "node", "next"]).unwrap(), 16 + 24 + 8);
    assert_eq!(split().offset("node", &["next"]).unwrap(), 8);
}

#[test]
fn a_member_of_an_anonymous_struct_is_found_as_in_c() {
    assert_eq!(split().offset("conn", &["status"]).unwrap(), 8);
}

#[test]
fn a_number_is_told_from_what_is_as_large() {
    assert!(split().is_number("node", &["next"], 8));
    assert!(!split().is_number("node", &["next"], 4));
    assert!(!split().is_number("node", &["prev"], 8));
    // A struct around a number, as atomic64_t is one.
    let mut btf = Writer::new(0);
    btf.ty("int", KIND_INT, 0, 8, &[64]);
    btf.structure("atomic", 8, &[("counter", 1, 0)]);
    btf.structure("net", 16, &[("cookie", 2, 64)]);
    let btf = Btf::parse(file(&btf.finish()), None).unwrap();
    assert!(!btf.is_number("net", &["cookie"], 8));
    assert!(btf.is_number("net", &["cookie", "counter"], 8));
}

#[test]
fn what_is_not_there_is_named() {
    let moved = split().offset("conn", &["hashes", "1", "node", "prev"]).unwrap_err();
    assert!(moved.to_string().contains("conn") && moved.to_string().contains("hashes.1.node.prev"), "{moved}");
    assert!(split().offset("conn", &["hashes", "2", "node"]).is_err(), "past the array's end");
    assert!(split().offset("nothing", &["next"]).is_err());
    assert!(split().function("conn").is_err(), "a struct is no function");
}

#[test]
fn a_function_has_the_id_that_the_kernel_gives_it() {
    assert_eq!(split().function("insert").unwrap(), (9, 2));
}

#[test]
fn broken_files_are_errors() {
    let (good, _) = base();
    assert!(Btf::parse(file(&[]), None).is_err());
    assert!(Btf::parse(file(&[0; 64]), None).is_err());
    for length in 0..good.len() {
        assert!(Btf::parse(file(&good[..length]), None).is_err(), "cut at {length}");
    }
    let mut endless = good;
    endless[20..24].copy_from_slice(&u32::MAX.to_ne_bytes());
    assert!(Btf::parse(file(&endless), None).is_err(), "strings of 4 GiB");
}

#[test]
fn types_that_lead_round_in_a_circle_are_no_endless_search() {
    let mut btf = Writer::new(0);
    btf.ty("round", KIND_TYPEDEF, 0, 1, &[]);
    btf.structure("within", 8, &[("", 2, 0)]);
    btf.structure("outside", 8, &[("around", 1, 0)]);
    let btf = Btf::parse(file(&btf.finish()), None).unwrap();
    assert!(btf.offset("within", &["status"]).is_err());
    assert!(btf.offset("outside", &["around", "status"]).is_err());
}

#[test]
fn a_broken_file_is_named_with_what_is_wrong_with_it() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("sys/kernel/btf");
    std::fs::create_dir_all(&folder).unwrap();
    let (good, _) = base();
    std::fs::write(folder.join("vmlinux"), &good).unwrap();
    std::fs::write(folder.join("nf_conntrack"), &good[..30]).unwrap();
    let told = |module| Btf::read(root.path(), module).err().map(|error| error.to_string());
    let module = told(Some("nf_conntrack")).unwrap();
    assert!(
        module.contains("/sys/kernel/btf/nf_conntrack cannot be used: ") && module.contains("cut short"),
        "{module}"
    );
    assert_eq!(told(None), None);
    std::fs::write(folder.join("vmlinux"), [0; 64]).unwrap();
    let vmlinux = told(None).unwrap();
    assert!(vmlinux.contains("btf/vmlinux cannot be used: ") && vmlinux.contains("magic number"), "{vmlinux}");
}

#[test]
fn a_file_larger_than_the_window_is_read_to_its_end() {
    let mut btf = Writer::new(0);
    btf.ty("int", KIND_INT, 0, 8, &[64]);
    for number in 0..10_000 {
        btf.structure(&format!("node{number}"), 16, &[("pad", 1, 0), ("next", 1, 64)]);
    }
    btf.ty("", KIND_FUNC_PROTO, 1, 0, &[0, 1]);
    btf.ty("insert", KIND_FUNC, 0, 10_002, &[]);
    let btf = Btf::parse(file(&btf.finish()), None).unwrap();
    // Back and forth: each read leaves another part in memory.
    for number in [9_999, 0, 5_000] {
        assert_eq!(btf.offset(&format!("node{number}"), &["next"]).unwrap(), 8, "{number}");
    }
    assert_eq!(btf.function("insert").unwrap(), (10_003, 1));
}
