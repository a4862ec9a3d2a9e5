//! The comparison on a real kernel, small: what its report says of a burst that a stock table cannot hold. The table's size is
//! one for the whole kernel, so this needs a guest, where nothing else is tracked. The guard has to be built beside the bench:
//! `cargo build -p conntrack-guard`.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// 1,024 entries are full after two thirds of it; their timeout is 120 s.
const BURST: &str = "duration = \"10s\"\n[[load]]\nkind = \"tcp\"\nrate = 150\n";
const SHORT: &str = "duration = \"1s\"\n[[load]]\nkind = \"tcp\"\nrate = 50\n";
const TABLE: u64 = 1_024;

fn bench(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_conntrack-guard-bench")).args(words).output().unwrap()
}

fn contest(folder: &Path, load: &str, words: &[&str]) -> Output {
    let (scenario, out) = (folder.join("burst.toml"), folder.join("out"));
    fs::write(&scenario, load).unwrap();
    let [scenario, out] = [&scenario, &out].map(|path| path.to_str().unwrap());
    let table: &[&str] = if words.contains(&"--sizes") { &[] } else { &["--table", "1024"] };
    bench(&[&["contest", "--scenario", scenario, "--out", out], table, words].concat())
}

fn report(folder: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.join("out/report.json")).unwrap()).unwrap()
}

/// A figure of an alternative's first run.
fn figure(report: &Value, name: &str, key: &str) -> u64 {
    let all = report["alternatives"].as_array().unwrap();
    let one = all.iter().find(|one| one["name"] == name).unwrap();
    one["runs"][0]["figures"][key].as_u64().unwrap()
}

fn settings() -> Vec<(String, String)> {
    let all = fs::read_dir("/proc/sys/net/netfilter").unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = all
        .filter(|path| path.is_file() && !path.ends_with("nf_conntrack_count"))
        .map(|path| (path.display().to_string(), fs::read_to_string(path).unwrap_or_default()))
        .collect();
    all.sort();
    all
}

#[test]
fn stock_drops_what_the_guard_and_a_large_table_hold_and_all_is_put_back() {
    let folder = tempfile::tempdir().unwrap();
    let before = settings();
    let output = contest(folder.path(), BURST, &["--against", "ample,stock,static-ceiling,guard"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(settings(), before, "{said}");

    let report = report(folder.path());
    assert_eq!((&report["version"], &report["not_run"]), (&1.into(), &Value::Array(Vec::new())));
    assert!(figure(&report, "stock", "dropped") > 0, "{report}");
    assert!(figure(&report, "stock", "failed") > 0, "{report}");
    for name in ["static-ceiling", "guard"] {
        assert_eq!((figure(&report, name, "dropped"), figure(&report, name, "failed")), (0, 0), "{name}");
        assert!(figure(&report, name, "peak_entries") > TABLE, "{name}");
    }
    assert_eq!(figure(&report, "stock", "highest_max"), TABLE);
    assert_eq!(figure(&report, "static-ceiling", "highest_max"), TABLE * 16);
    let verdict = |key: &str| {
        let all = report["verdicts"].as_array().unwrap().iter().filter(|one| one["key"] == key);
        all.map(|one| one["answer"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(verdict("guard-drops-nothing"), ["yes"], "{report}");
    assert_eq!(verdict("drops-more-than-guard"), ["yes", "no"], "{report}");
    assert_eq!(verdict("good-clients"), ["not-measured"], "{report}");
    // What they say depends on the machine, where nothing counts instructions.
    assert!(matches!(&*verdict("connect-p99"), [one] if one != "not-measured"), "{report}");
    assert_eq!((verdict("stall").len(), verdict("memory").len()), (1, 1), "{report}");
    // It takes what it needs and no more.
    assert!((TABLE + 1..TABLE * 16).contains(&figure(&report, "guard", "highest_max")), "{report}");
    let guard = report["alternatives"].as_array().unwrap().iter().find(|one| one["name"] == "guard").unwrap();
    let decisions = guard["runs"][0]["decisions"].as_array().unwrap();
    assert!(decisions.iter().any(|one| one["rule"] == "raise-max" && one["effect"] == "applied"), "{decisions:?}");
    // Its stop puts everything back by itself.
    assert_eq!(guard["runs"][0]["left"], Value::Array(Vec::new()));
    for plot in ["table.svg", "drops.svg", "latency.svg"] {
        let text = fs::read_to_string(folder.path().join("out").join(plot)).unwrap();
        assert!(text.starts_with("<svg") && text.contains("static-ceiling"), "{plot}");
    }
    let markdown = fs::read_to_string(folder.path().join("out/report.md")).unwrap();
    assert!(
        markdown.contains("| ample | stock | static-ceiling | guard |") && markdown.contains("raise-max"),
        "{markdown}"
    );

    // A report against itself has no regression.
    let file = folder.path().join("out/report.json");
    let same = bench(&["compare", file.to_str().unwrap(), file.to_str().unwrap()]);
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));
}

#[test]
fn what_cannot_run_is_named_with_why_and_the_others_run() {
    let folder = tempfile::tempdir().unwrap();
    let output = contest(folder.path(), SHORT, &["--against", "guard,static", "--guard", "/nowhere/conntrack-guard"]);
    assert_eq!(output.status.code(), Some(1));
    let report = report(folder.path());
    assert_eq!(report["not_run"][0]["name"], "guard");
    assert!(report["not_run"][0]["why"].as_str().unwrap().contains("/nowhere/conntrack-guard"), "{report}");
    assert_eq!(figure(&report, "static", "highest_max"), 2 * TABLE);
}

#[test]
fn entries_before_the_load_stand_from_its_start_and_each_size_has_its_cost() {
    let folder = tempfile::tempdir().unwrap();
    let before = settings();
    let output = contest(folder.path(), SHORT, &["--against", "stock,guard", "--sizes", "500,2000"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(settings(), before, "{said}");
    let count = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").unwrap();
    assert_eq!(count.trim(), "0");
    let out = folder.path().join("out");
    for (size, table) in [(500, 1_024), (2_000, 4_096)] {
        let text = fs::read_to_string(out.join(size.to_string()).join("report.json")).unwrap();
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((report["scale"]["stock"]["max"].as_u64(), figure(&report, "stock", "dropped")), (Some(table), 0));
        for one in report["alternatives"].as_array().unwrap() {
            let counts = one["runs"][0]["series"]["count"].as_array().unwrap();
            assert!(counts.iter().all(|count| count.as_u64().unwrap() >= size), "{one}");
        }
    }
    let sizes: Value = serde_json::from_str(&fs::read_to_string(out.join("sizes.json")).unwrap()).unwrap();
    let rows: Vec<_> =
        sizes["rows"].as_array().unwrap().iter().map(|row| (&row["entries"], &row["alternative"])).collect();
    let expected = [(500, "stock"), (500, "guard"), (2_000, "stock"), (2_000, "guard")];
    assert_eq!(rows, expected.map(|(entries, name)| (entries.into(), name.into())).each_ref().map(|(a, b)| (a, b)));
    // Its start grew the hash table beside the entries.
    assert!(sizes["rows"][3]["stalls"].as_array().is_some_and(|stalls| !stalls.is_empty()), "{sizes}");
    assert!(fs::read_to_string(out.join("sizes.md")).unwrap().contains("2,000 entries, guard: "));
    assert!(fs::read_to_string(out.join("sizes.svg")).unwrap().contains("</svg>"));
}

#[test]
fn more_entries_than_max_are_told_and_none_stays() {
    let folder = tempfile::tempdir().unwrap();
    let load = format!("{SHORT}[table]\nentries = 3000\n");
    let output = contest(folder.path(), &load, &["--against", "stock"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cannot make 3000 entries"), "{said}");
    let count = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").unwrap();
    assert_eq!(count.trim(), "0");
}

#[test]
fn wrong_names_are_wrong_usage_and_checking_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let before = settings();
    let wrong = contest(folder.path(), SHORT, &["--against", "stock,gaurd"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("static-ceiling"));
    for wrong in [["--table", "1000"], ["--sizes", "9000000"], ["--sizes", "some"]] {
        let words = ["contest", "--scenario", "steady", "--out", "nowhere", wrong[0], wrong[1]];
        assert_eq!(bench(&words).status.code(), Some(2), "{wrong:?}");
    }
    let checked = contest(folder.path(), BURST, &["--against", "stock,guard", "--rounds", "3", "--check"]);
    let said = String::from_utf8_lossy(&checked.stdout);
    let mut lines = said.lines();
    let seconds: u64 = lines.next().unwrap().parse().unwrap();
    assert_eq!(lines.collect::<Vec<_>>(), ["ip", "nft"]);
    assert!(checked.status.success() && seconds >= 6 * 10, "{seconds}");
    assert!(!folder.path().join("out").exists());
    assert_eq!(settings(), before);
}
