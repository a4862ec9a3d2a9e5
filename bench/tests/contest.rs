//! The comparison on a real kernel, small: what its report says of a burst that a stock table cannot hold. The table's size is
//! one for the whole kernel, so this needs a guest, where nothing else is tracked. The guard has to be built beside the bench:
//! `cargo build -p conntrack-guard`.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// 1,024 entries are full after two thirds of it; their timeout is 120 s.
const BURST: &str = "duration = \"10s\"\n[[load]]\nkind = \"tcp\"\nrate = 150\n";
const SHORT: &str = "duration = \"1s\"\n[[load]]\nkind = \"tcp\"\nrate = 50\n";
const TABLE: u64 = 1_024;

fn bench(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_conntrack-guard-bench")).args(words).output().unwrap()
}

fn contest(folder: &Path, load: &str, words: &[&str]) -> Output {
    command(folder, load, words).output().unwrap()
}

fn command(folder: &Path, load: &str, words: &[&str]) -> Command {
    let (scenario, out) = (folder.join("burst.toml"), folder.join("out"));
    fs::write(&scenario, load).unwrap();
    let table: &[&str] = if words.contains(&"--sizes") { &[] } else { &["--table", "1024"] };
    let mut command = Command::new(env!("CARGO_BIN_EXE_conntrack-guard-bench"));
    command.args(["contest", "--scenario"]).arg(scenario).arg("--out").arg(out).args(table).args(words);
    command.stdin(Stdio::null());
    command
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

/// Everything below /proc/sys/net that can be read, but the number of entries.
fn settings() -> BTreeMap<PathBuf, String> {
    let (mut all, mut folders) = (BTreeMap::new(), vec![PathBuf::from("/proc/sys/net")]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("nf_conntrack_count")
                && let Ok(content) = fs::read_to_string(&path)
            {
                all.insert(path, content);
            }
        }
    }
    all
}

/// What a run has in the kernel beside settings: its namespaces, links and rules.
fn traces() -> (usize, usize, String) {
    let count = |path| fs::read_dir(path).map_or(0, Iterator::count);
    let rules = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
    (count("/run/netns"), count("/sys/class/net"), String::from_utf8(rules.stdout).unwrap())
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
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
    // Guests whose clock counts run this as well as others.
    assert!(report["host"]["counted"].is_boolean() && report["host"]["here"] == false, "{report}");
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
    for key in ["good-clients", "established"] {
        assert_eq!(verdict(key), ["not-measured"], "{key}: {report}");
    }
    // What they say depends on the machine, where nothing counts instructions.
    assert!(matches!(&*verdict("connect-p99"), [one] if one != "not-measured"), "{report}");
    assert_eq!((verdict("stall").len(), verdict("memory").len()), (1, 1), "{report}");
    // It takes what it needs and no more.
    assert!((TABLE + 1..TABLE * 16).contains(&figure(&report, "guard", "highest_max")), "{report}");
    let guard = report["alternatives"].as_array().unwrap().iter().find(|one| one["name"] == "guard").unwrap();
    let decisions = guard["runs"][0]["decisions"].as_array().unwrap();
    assert!(decisions.iter().any(|one| one["rule"] == "raise-max" && one["effect"] == "applied"), "{decisions:?}");
    // Every connection is an entry, or was refused; the longest chain of the smallest table is the longest.
    let of = |name: &str| report["alternatives"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
    for name in ["ample", "static-ceiling", "guard"] {
        let inserts = of(name)["figures"]["inserts"]["median"].as_u64().unwrap();
        assert!((1_300..=1_700).contains(&inserts), "{name}: {inserts}");
    }
    let chains = |name: &str| of(name)["figures"]["chain_p99"]["median"].as_u64().unwrap();
    assert!(chains("stock") > chains("ample"), "{report}");
    // Who resized: the bench in the place of what is fixed, the guard by itself.
    let resizes = |name: &str| of(name)["observed"]["resizes"].as_array().unwrap().clone();
    assert!(resizes("stock").is_empty(), "{report}");
    assert!(resizes("static-ceiling").iter().all(|one| one["comm"] == "conntrack-guard-bench"), "{report}");
    assert!(!resizes("static-ceiling").is_empty() && resizes("guard").iter().all(|one| one["own"] == true), "{report}");
    // Its stop puts everything back by itself.
    assert_eq!(guard["runs"][0]["left"], Value::Array(Vec::new()));
    for plot in ["table.svg", "drops.svg", "latency.svg"] {
        let text = fs::read_to_string(folder.path().join("out").join(plot)).unwrap();
        assert!(text.starts_with("<svg") && text.contains("static-ceiling"), "{plot}");
    }
    let markdown = fs::read_to_string(folder.path().join("out/report.md")).unwrap();
    assert!(markdown.contains("| · connect timed out | 0 | "), "{markdown}");
    assert!(
        markdown.contains("| ample | stock | static-ceiling | guard |") && markdown.contains("raise-max"),
        "{markdown}"
    );

    // Its own resize, as the verdict counts it.
    let told = markdown.split("as the guard tells").nth(1).unwrap().split("In the observed run").next().unwrap();
    assert!(told.contains("- guard: ") && told.contains("by the guard itself"), "{markdown}");
    // The scenario's time is what things are counted over, whatever is still open at its end.
    assert_eq!(figure(&report, "guard", "made_per_s"), figure(&report, "guard", "made") / 10);

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
    // What would have observed it is the same program.
    let why = report["alternatives"][0]["not_observed"].as_str().unwrap();
    assert!(why.contains("/nowhere/conntrack-guard"), "{why}");
}

#[test]
fn what_had_run_is_not_lost_by_an_end_before_the_last_run() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("guard");
    // It never answers.
    fs::write(&script, "#!/bin/sh\n[ $1 = run ] && exec sleep 600\nexit 1\n").unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let words = ["--against", "stock,guard", "--guard", script.to_str().unwrap()];
    let mut contest = command(folder.path(), SHORT, &words).stderr(Stdio::piped()).spawn().unwrap();
    let report_file = folder.path().join("out/report.json");
    for _ in 0..3_000 {
        if report_file.exists() {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    signal(&contest, Signal::SIGINT);
    let mut said = String::new();
    contest.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(contest.wait().unwrap().code(), Some(1), "{said}");
    assert!(said.contains("what had run until then is in "), "{said}");
    let report = report(folder.path());
    assert_eq!(figure(&report, "stock", "failed"), 0);
    assert_eq!(report["not_run"][0]["why"], "the contest was stopped before");
    assert_eq!(report["alternatives"][0]["not_observed"], "the contest was stopped before");
    assert!(fs::read_to_string(folder.path().join("out/report.md")).unwrap().contains("**guard** could not run"));
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
fn more_entries_than_max_are_told_before_anything_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let load = format!("{SHORT}[table]\nentries = 3000\n");
    let before = (settings(), traces());
    let file = folder.path().join("burst.toml");
    let expected = format!(
        "{}:6:11: table.entries: 3000 entries have no room below the max of 1024 that --table 1024 begins with; give --table \
         4096, or fewer here\n",
        file.display()
    );
    for words in [["--against", "stock"].as_slice(), &["--against", "stock", "--check"]] {
        let output = contest(folder.path(), &load, words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert_eq!((String::from_utf8_lossy(&output.stderr), &*output.stdout), (expected.as_str().into(), &b""[..]));
    }
    assert!(!folder.path().join("out").exists());
    // Each size has a table of its own, and its own entries.
    assert!(contest(folder.path(), &load, &["--sizes", "500", "--check"]).status.success());

    let max = "/proc/sys/net/netfilter/nf_conntrack_max";
    let found = fs::read_to_string(max).unwrap();
    fs::write(max, "3000").unwrap();
    let output = bench(&["run", "--scenario", file.to_str().unwrap()]);
    fs::write(max, "3500").unwrap();
    let fits = bench(&["run", "--scenario", file.to_str().unwrap()]);
    fs::write(max, found.trim()).unwrap();
    // What is left of its load is a connection to any contest after it.
    bench::conntrack::flush().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("error: {}: 3000 entries before the load have no room", file.display())), "{said}");
    assert!(said.contains("nf_conntrack_max is 3000"), "{said}");
    assert!(fits.status.success(), "{}", String::from_utf8_lossy(&fits.stderr));
    assert_eq!((settings(), traces()), before);
}

#[test]
fn where_the_kernel_refuses_programs_the_guard_is_named_with_why_and_the_others_run() {
    let folder = tempfile::tempdir().unwrap();
    // Without these root may load none, as on a host whose policy forbids it.
    let program = Path::new(env!("CARGO_BIN_EXE_conntrack-guard-bench")).with_file_name("conntrack-guard");
    let script = folder.path().join("guard");
    let exec = "exec setpriv --bounding-set=-sys_admin,-bpf,-perfmon";
    fs::write(&script, format!("#!/bin/sh\n{exec} {} \"$@\"\n", program.display())).unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let output = contest(folder.path(), SHORT, &["--against", "guard,stock", "--guard", script.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let report = report(folder.path());
    let why = report["not_run"][0]["why"].as_str().unwrap();
    assert!(why.contains("no programs are attached") && why.to_lowercase().contains("permi"), "{why}");
    assert_eq!(figure(&report, "stock", "failed"), 0);
}

#[test]
fn a_guard_that_ends_under_the_load_is_named_with_how_and_its_log_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_conntrack-guard-bench")).with_file_name("conntrack-guard");
    let script = folder.path().join("guard");
    let loaded = "[ $(cat /proc/sys/net/netfilter/nf_conntrack_count) -gt 5 ]";
    // One that is asked for its state must live.
    let end = format!("for i in $(seq 3000); do if {loaded}; then kill -KILL $$; exit; fi; sleep 0.1; done");
    let lines = format!("#!/bin/sh\nif [ $1 = run ]; then ({end}) & fi\nexec {} \"$@\"\n", program.display());
    fs::write(&script, lines).unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let output = contest(folder.path(), SHORT, &["--against", "guard,stock", "--guard", script.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let report = report(folder.path());
    let why = report["not_run"][0]["why"].as_str().unwrap();
    assert!(why.contains("the guard ended with signal: 9"), "{why}");
    assert!(folder.path().join("out/guard-1/guard.log").is_file(), "{why}");
}

#[test]
fn wrong_names_are_wrong_usage_and_checking_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let before = settings();
    let wrong = contest(folder.path(), SHORT, &["--against", "stock,gaurd"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("static-ceiling"));
    for wrong in [["--table", "1000"], ["--sizes", "9000000"], ["--sizes", "some"], ["--sizes", "500,900,500"]] {
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

/// The guest stands for a host: nothing tells the program otherwise.
fn on_a_host(folder: &Path, load: &str, words: &[&str]) -> Command {
    let mut command = command(folder, load, words);
    command.env_remove("CONNTRACK_GUARD_OUT");
    command
}

const LONG: &str = "duration = \"1h\"\n[topology]\nkind = \"haproxy\"\n[[load]]\nkind = \"tcp\"\nrate = 20\n";

/// Starts a contest of an hour, with the guard beside it, and waits until connections are made.
fn start_long(folder: &Path) -> Child {
    let mut child = on_a_host(folder, LONG, &["--here", "--yes", "--against", "guard"]).spawn().unwrap();
    let entries = || fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").unwrap();
    // Looks, and not the time: this guest's clock leaps while everybody waits for a disk.
    for _ in 0..6_000 {
        if programs().len() == 2 && entries().trim().parse::<u64>().unwrap() > 10 {
            return child;
        }
        assert_eq!(child.try_wait().unwrap(), None);
        thread::sleep(Duration::from_millis(100));
    }
    panic!("no connections");
}

/// What is loaded by the first of all contests brings settings of its own.
fn first(folder: &Path) {
    let output = contest(folder, SHORT, &["--against", "stock"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_program_that_hangs_does_not_hold_a_host_for_longer_than_was_told() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("guard");
    // It neither answers nor ends when it is asked to, and neither does what asks it for its state.
    fs::write(&script, "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 1000; done\n").unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    first(folder.path());
    let now = || (settings(), traces(), having(&script));
    let before = now();
    let words = ["--here", "--yes", "--against", "guard", "--guard", script.to_str().unwrap()];
    let hung = on_a_host(folder.path(), SHORT, &words).output().unwrap();
    let said = String::from_utf8_lossy(&hung.stderr);
    assert_eq!(hung.status.code(), Some(1), "{said}");
    for part in [
        "for 122 s at most",
        "122 s are over, the most that it was to take: ending; everything is put back first",
        "something hangs: ending the programs that were started",
        "error: 122 s are over, the most that it was to take: stopped before the guard answered",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(now(), before, "{said}");
}

/// How many programs have this path in their command line.
fn having(path: &Path) -> usize {
    let lines = fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.unwrap().path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(path.to_str().unwrap())).count()
}

/// Which of the programs that a contest starts are there.
fn programs() -> Vec<String> {
    let programs = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("exe"));
    let names = programs.filter_map(|program| Some(fs::read_link(program).ok()?.file_name()?.to_str()?.to_owned()));
    let mut ours: Vec<String> = names.filter(|name| ["conntrack-guard", "haproxy"].contains(&&**name)).collect();
    ours.sort();
    ours
}

#[test]
fn a_host_is_asked_for_and_is_afterwards_as_it_was_also_after_ctrl_c_and_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    first(folder.path());
    let now = || (settings(), traces(), programs());
    let before = now();

    let refused = on_a_host(folder.path(), SHORT, &[]).output().unwrap();
    assert_eq!(refused.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--here"), "{refused:?}");
    let unasked = on_a_host(folder.path(), SHORT, &["--here", "--against", "static"]).output().unwrap();
    let said = String::from_utf8_lossy(&unasked.stderr);
    assert_eq!(unasked.status.code(), Some(2), "{said}");
    assert!(said.contains("nf_conntrack_max: 1024 to 2048") && said.contains("--yes"), "{said}");
    let bare = on_a_host(folder.path(), LONG, &["--here", "--yes"]).env("PATH", "/nowhere").output().unwrap();
    assert_eq!(bare.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&bare.stderr).contains("haproxy (package haproxy)"), "{bare:?}");
    let lock = fs::File::open("/sys/module/nf_conntrack/parameters/hashsize").unwrap();
    let guarded = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno).unwrap();
    let guard = on_a_host(folder.path(), SHORT, &["--here", "--yes"]).output().unwrap();
    assert_eq!(guard.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&guard.stderr).contains("a conntrack-guard is at work"), "{guard:?}");
    drop(guarded);
    assert_eq!(now(), before);

    let done = on_a_host(folder.path(), SHORT, &["--here", "--yes", "--against", "static"]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(now(), before);

    let mut interrupted = start_long(folder.path());
    assert_ne!(now(), before);
    signal(&interrupted, Signal::SIGINT);
    assert_eq!(interrupted.wait().unwrap().code(), Some(1));
    assert_eq!(now(), before);

    let mut killed = start_long(folder.path());
    let second = on_a_host(folder.path(), SHORT, &["--here", "--yes"]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another contest"), "{second:?}");
    let record = fs::read("/run/conntrack-guard-bench-contest.json").unwrap();
    signal(&killed, Signal::SIGKILL);
    killed.wait().unwrap();
    assert_eq!(programs(), ["conntrack-guard", "haproxy"]);
    // It puts back what it finds before it asks.
    let next = on_a_host(folder.path(), SHORT, &["--here"]).output().unwrap();
    let said = String::from_utf8_lossy(&next.stderr);
    assert_eq!(next.status.code(), Some(2), "{said}");
    assert!(said.contains(&format!("the contest {} was killed: put back", killed.id())), "{said}");
    assert_eq!(now(), before);

    // A guard that was started since then would be at work on what is put back.
    let max = "/proc/sys/net/netfilter/nf_conntrack_max";
    fs::write("/run/conntrack-guard-bench-contest.json", record).unwrap();
    fs::write(max, "5000").unwrap();
    let lock = fs::File::open("/sys/module/nf_conntrack/parameters/hashsize").unwrap();
    let guarded = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno).unwrap();
    let next = on_a_host(folder.path(), SHORT, &["--here"]).output().unwrap();
    assert_eq!(next.status.code(), Some(3), "{next:?}");
    assert_eq!(fs::read_to_string(max).unwrap().trim(), "5000");
    drop(guarded);
    let next = on_a_host(folder.path(), SHORT, &["--here"]).output().unwrap();
    assert_eq!(next.status.code(), Some(2), "{next:?}");
    assert_eq!(now(), before);
}

/// A root folder whose bpftune says that it is at work, and is.
fn root_of_bpftune(folder: &Path) -> PathBuf {
    let root = folder.join("root");
    for place in ["usr/sbin", "bin"] {
        fs::create_dir_all(root.join(place)).unwrap();
    }
    // The guest's own is linked to nothing.
    let (busybox, program) = (root.join("bin/busybox"), root.join("usr/sbin/bpftune"));
    fs::copy("/run/guest/busybox", &busybox).unwrap();
    fs::write(&program, "#!/bin/busybox sh\necho bpftune works\nexec /bin/busybox sleep 1000\n").unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    root
}

#[test]
fn a_program_of_others_is_observed_too_and_a_guard_that_dies_then_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let root = root_of_bpftune(folder.path());
    let program = Path::new(env!("CARGO_BIN_EXE_conntrack-guard-bench")).with_file_name("conntrack-guard");
    let script = folder.path().join("guard");
    let loaded = "[ $(cat /proc/sys/net/netfilter/nf_conntrack_count) -gt 5 ]";
    let end = format!("for i in $(seq 3000); do if {loaded}; then kill -KILL $$; exit; fi; sleep 0.1; done");
    // Only one that acts and is observed as well: not the one that only observes.
    let lines = [
        "#!/bin/sh".to_owned(),
        "case \"$*\" in *--dry-run*) ;;".to_owned(),
        format!("run*--record*) ({end}) & ;; esac"),
        format!("exec {} \"$@\"\n", program.display()),
    ];
    fs::write(&script, lines.join("\n")).unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let (script, root) = (script.to_str().unwrap(), root.to_str().unwrap());
    let words = ["--against", "bpftune,guard", "--guard", script, "--bpftune", root];
    let output = contest(folder.path(), SHORT, &words);
    // It ran; that nothing was seen of it is a failure all the same.
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let report = report(folder.path());
    assert_eq!(report["not_run"], Value::Array(Vec::new()));
    let [bpftune, guard] = report["alternatives"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert!(bpftune["observed"]["inserts"].as_u64().is_some_and(|inserts| inserts > 30), "{bpftune}");
    assert!(bpftune["figures"]["chain_longest"]["median"].is_u64(), "{bpftune}");
    let why = guard["not_observed"].as_str().unwrap();
    assert!(why.contains("the guard ended with signal: 9"), "{why}");
    assert!(guard["figures"]["inserts"].is_null() && guard["figures"]["made"]["median"].is_u64(), "{guard}");
}
