//! What each part must never know, held against the sources: docs/architecture.md says it, this keeps it true.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking, in their helpers too")]

use std::fs;
use std::path::{Path, PathBuf};

/// All sources below a folder of `guard/src`, each without its test module, here or in a file of its own.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name != "tests.rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
                found.push((path, code));
            }
        }
    }
    found
}

/// Every line of code with one of the words, as `file: line`.
fn mentions(folder: &str, words: &[&str]) -> Vec<String> {
    let code = |line: &&str| !line.trim_start().starts_with("//");
    let mut found = Vec::new();
    for (path, text) in sources(folder) {
        for line in text.lines().filter(code).filter(|line| words.iter().any(|word| line.contains(word))) {
            found.push(format!("{}: {}", path.display(), line.trim()));
        }
    }
    found
}

#[test]
fn model_and_policy_know_no_files_no_clock_no_tokio_and_no_aya() {
    let outside = [
        "std::fs",
        "std::io",
        "std::env",
        "std::net",
        "std::path",
        "std::process",
        "std::thread",
        "Instant",
        "SystemTime",
        "since_boot",
        "tokio",
        "aya",
        "nix::",
        "procfs",
        "libc",
        "tracing",
        "crate::kernel",
        "crate::actuate",
        "crate::report",
        "crate::control",
        "crate::daemon",
        "Observer",
        "unsafe",
    ];
    for folder in ["model", "policy"] {
        assert!(sources(folder).len() > 3, "{folder} has moved: this test looks at nothing");
        assert_eq!(mentions(folder, &outside), Vec::<String>::new());
    }
}

#[test]
fn only_actuate_writes_kernel_settings() {
    let writes = ["fs::write", "File::create", "write(true)", "append(true)", "create(true)", "File::options"];
    // `support` opens the settings for writing to see whether it may, and writes nothing; the others write files of their
    // own.
    let allowed = ["src/actuate/", "src/kernel/support.rs", "src/recording/", "src/ui/plot.rs"];
    let strangers: Vec<String> =
        mentions("", &writes).into_iter().filter(|line| !allowed.iter().any(|place| line.contains(place))).collect();
    assert_eq!(strangers, Vec::<String>::new());
    assert!(!mentions("actuate", &writes).is_empty(), "actuate has moved: this test looks at nothing");
}

#[test]
fn the_way_of_new_flows_takes_no_lock_and_allocates_nothing() {
    // Hash maps and their kin allocate or lock a bucket at each update, a ring takes a lock; an array does neither. Only
    // what is rare may use them.
    let costly = [
        "HashMap",
        "RingBuf",
        "RESIZES",
        "EVENTS",
        "SPENT",
        "Lru",
        "Queue",
        "Storage",
        "spin_lock",
        "obj_new",
        "bpf_timer",
    ];
    let rare = ["hooks/credit.rs", "hooks/resize.rs", "hooks/refused.rs", "src/maps.rs"];
    let hot: Vec<String> = mentions("../../guard-ebpf/src", &costly)
        .into_iter()
        .filter(|line| !rare.iter().any(|place| line.contains(place)))
        .collect();
    assert_eq!(hot, Vec::<String>::new());
    // One of the rare is on the way of new flows: the one event when a credit that was granted has run out. It is sent in one
    // place, out of line, where the credit is set to nothing left.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guard-ebpf/src");
    let credit = fs::read_to_string(root.join("hooks/credit.rs")).unwrap();
    let uses =
        |word: &str| credit.lines().filter(|line| !line.trim_start().starts_with("//") && line.contains(word)).count();
    assert_eq!((uses("SPENT."), uses("tell(grant)"), uses("fn tell(")), (1, 1, 1), "one place sends, and one calls it");
    assert!(credit.contains("slot.credit = 0;\n            tell(grant);"), "spent, it is sent once");
    assert!(credit.contains("#[inline(never)]\nfn tell("), "out of line");
    for place in ["hooks/insert.rs", "hooks/delete.rs", "chain.rs"] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guard-ebpf/src");
        assert!(root.join(place).exists(), "guard-ebpf/src/{place} is gone: this test looks at nothing");
    }
}

#[test]
fn the_architecture_names_every_part() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    let parts = fs::read_dir(root.join("guard/src")).unwrap().map(|entry| entry.unwrap().file_name());
    let parts: Vec<String> = parts.map(|name| name.into_string().unwrap()).collect();
    for part in parts.iter().filter(|part| !["main.rs", "lib.rs"].contains(&part.as_str())) {
        assert!(text.contains(&format!("`guard/src/{part}`")), "docs/architecture.md has no line on guard/src/{part}");
    }
    let named = text.split("`guard/src/").skip(1).filter_map(|rest| rest.split('`').next());
    for part in named {
        assert!(
            root.join("guard/src").join(part).exists(),
            "docs/architecture.md names guard/src/{part}, which is gone"
        );
    }
}
