use std::fs;

use tempfile::TempDir;

use super::*;

/// A root with this in a file of it.
fn root(file: &str, text: &str) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join(file);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
    root
}

fn read(lines: &[&str]) -> Symbols {
    Symbols::read(root(KALLSYMS, &lines.join("\n")).path())
}

const FREE: &str = "ffffffffc04090c0 t nf_conntrack_free\t[nf_conntrack]";
const DROP: &str = "ffffffffc04091c0 t early_drop\t[nf_conntrack]";
const HASH: &str = "ffffffffc04080e0 d nf_conntrack_hash\t[nf_conntrack]";

#[test]
fn variables_are_found_and_other_symbols_and_hidden_addresses_are_not() {
    let function = "ffffffffc04080c0 t nf_conntrack_hash\t[nf_conntrack]";
    let hidden = "0000000000000000 d nf_conntrack_htable_size\t[nf_conntrack]";
    let found = read(&["ffffffff81000000 T _text", function, HASH, hidden, FREE]);
    assert_eq!((found.table, found.no_table, found.size), (0xffff_ffff_c040_80e0, None, 0));
}

#[test]
fn why_the_tables_address_is_not_known_is_the_true_reason() {
    let no_table = |lines: &[&str]| read(lines).no_table.unwrap();
    assert!(no_table(&[FREE, &HASH.replace("ffffffffc04080e0", "0000000000000000")]).contains("kernel.kptr_restrict"));
    assert!(no_table(&[FREE]).contains("CONFIG_KALLSYMS_ALL"));
    assert!(no_table(&[]).contains("names no function of nf_conntrack"));
    let missing = Symbols::read(Path::new("/nowhere"));
    let why = missing.no_table.unwrap();
    assert!(why.contains("/proc/kallsyms: No such file") && !why.contains("kptr_restrict"), "{why}");
}

#[test]
fn what_cannot_be_read_is_unknown_and_not_none() {
    let empty = root(KALLSYMS, "");
    for root in [Path::new("/nowhere"), empty.path()] {
        let symbols = Symbols::read(root);
        let unknown = symbols.check("early_drop").unwrap_err().to_string();
        assert!(unknown.contains("/proc/kallsyms") && unknown.contains("is not known"), "{unknown}");
        assert_eq!(symbols.ctnetlink_built_in(), None);
        let why = symbols.no_ctnetlink(root).unwrap();
        assert!(why.contains("whether it is built in is not known (/proc/kallsyms"), "{why}");
    }
    // The module is seen whatever kallsyms tells.
    fs::create_dir_all(empty.path().join("sys/module/nf_conntrack_netlink")).unwrap();
    assert_eq!(Symbols::read(empty.path()).no_ctnetlink(empty.path()), None);
}

#[test]
fn a_module_that_is_not_loaded_is_told_as_such() {
    let empty = root(KALLSYMS, "ffffffff81000000 T _text\n");
    fs::create_dir_all(empty.path().join("sys/module/nf_nat")).unwrap();
    let symbols = Symbols::read(empty.path());
    assert!(matches!(symbols.check("early_drop"), Err(Error::NotLoaded)));
    assert!(symbols.no_ctnetlink(empty.path()).unwrap().starts_with("nf_conntrack_netlink is not loaded (`modprobe"));
    // Loaded, or built in, and not told of.
    fs::create_dir_all(empty.path().join("sys/module/nf_conntrack")).unwrap();
    assert!(matches!(Symbols::read(empty.path()).check("early_drop"), Err(Error::UnknownSymbols { .. })));
}

#[test]
fn tracefs_tells_of_the_functions_where_kallsyms_does_not() {
    for file in TRACEFS {
        let text = "early_drop.part.0 [nf_conntrack]\nearly_drop [nf_conntrack]\nnf_conntrack_free [nf_conntrack]\n";
        let symbols = Symbols::read(root(file, text).path());
        assert!(matches!(symbols.check("early_drop"), Err(Error::Split { .. })));
        symbols.check("nf_conntrack_free").unwrap();
        assert_eq!((symbols.table, symbols.ctnetlink_built_in()), (0, Some(false)));
    }
}

#[test]
fn ctnetlink_is_known_built_in_or_not_there() {
    let why = read(&[FREE]).no_ctnetlink(Path::new("/nowhere")).unwrap();
    assert!(why.starts_with("nf_conntrack_netlink is not loaded (`modprobe"), "{why}");
    let built_in = read(&[FREE, "0000000000000000 t ctnetlink_new_conntrack"]);
    assert_eq!(built_in.no_ctnetlink(Path::new("/nowhere")), None);
}

#[test]
fn a_symbol_of_another_owner_is_not_taken_for_conntracks() {
    let elsewhere = "ffffffffc05080e0 d nf_conntrack_hash\t[other]";
    let in_vmlinux = "ffffffff820080e0 d nf_conntrack_hash";
    assert_eq!(read(&[in_vmlinux, elsewhere, FREE, HASH]).table, 0xffff_ffff_c040_80e0);
    let why = read(&[in_vmlinux, elsewhere, FREE]).no_table.unwrap();
    assert!(why.contains("has no nf_conntrack_hash"), "{why}");
    // Built in, it is vmlinux's that counts.
    let built_in = read(&[in_vmlinux, elsewhere, "ffffffff810090c0 t nf_conntrack_free"]);
    assert_eq!(built_in.table, 0xffff_ffff_8200_80e0);

    // The kernel takes the first one of a name, which may be any.
    for other in ["ffffffffc05091c0 t early_drop\t[other]", "ffffffff810091c0 t early_drop"] {
        let symbols = read(&[other, DROP, FREE]);
        let why = symbols.check("early_drop").unwrap_err().to_string();
        assert!(
            why.contains(if other.contains('[') { "other, nf_conntrack" } else { "vmlinux, nf_conntrack" }),
            "{why}"
        );
        symbols.check("nf_conntrack_free").unwrap();
        let why = read(&[other, FREE]).check("early_drop").unwrap_err();
        assert!(matches!(why, Error::NoSymbol { .. }), "{why}");
    }
    // Another module's part is no part of conntrack's function.
    read(&[DROP, "ffffffffc05091c0 t early_drop.part.0\t[other]"]).check("early_drop").unwrap();
    let ctnetlink = read(&[FREE, "0000000000000000 t ctnetlink_new_conntrack\t[other]"]);
    assert!(ctnetlink.no_ctnetlink(Path::new("/nowhere")).is_some());
}

#[test]
fn parts_of_hooked_functions_are_found_and_what_only_looks_so_is_not() {
    let names = [
        "early_drop.part.0",
        "__nf_conntrack_alloc.isra.0.constprop.1",
        "early_drop",
        "__nf_conntrack_alloc",
        "nf_ct_resolve_clash",
        "nf_ct_resolve_clash.llvm.1234",
        "nf_conntrack_hash_resize",
        "nf_conntrack_hash_resize.cold",
        "nf_ct_delete.part.0",
        "nf_conntrack_free",
        "nf_conntrack_free_more.part.0",
    ];
    let lines = names.map(|name| format!("ffffffffc04080c0 t {name}\t[nf_conntrack]\n"));
    let symbols = read(&lines.each_ref().map(|line| line.trim_end()));
    let part = |function| match symbols.check(function) {
        Err(Error::Split { part, .. }) => Some(part),
        other => other.map(|()| None).unwrap(),
    };
    assert_eq!(part("early_drop").as_deref(), Some(names[0]));
    assert_eq!(part("__nf_conntrack_alloc").as_deref(), Some(names[1]));
    for whole in ["nf_ct_resolve_clash", "nf_conntrack_hash_resize", "nf_conntrack_free"] {
        assert_eq!(part(whole), None, "{whole}");
    }
}
