//! What is missing, taken away for real: the rest stays on, and each signal says what it lacks.
//!
//! What the guard reads below /sys is taken from it in a mount namespace of its own; the kernel itself has it still.

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use conntrack_guard::kernel::BackEnd;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::btf::{self, Btf, FOLDER as BTF};
use crate::kernel::{Guard, binary, eventually, lives_on, misses_are_counted, run, status};

const SIGNALS: [&str; 6] = ["inserts", "chains", "destroys", "table full", "clashes", "resizes"];

/// A signal of `support --json`.
#[derive(Debug, PartialEq)]
struct Row {
    name: String,
    back_end: Option<String>,
    why: String,
}

impl Row {
    fn is_by(&self, back_end: &str) -> bool {
        self.back_end.as_deref() == Some(back_end)
    }
}

/// The programs' signals after `script` has run in a mount namespace of its own.
fn support_after(script: &str, arguments: &[&str]) -> Vec<Row> {
    run("modprobe", &["nf_conntrack_netlink"]);
    let mut command = hidden(script);
    rows(&command.arg(binary()).args(["support", "--json"]).args(arguments).output().unwrap())
}

/// The programs' signals among an answer of `support --json`.
fn rows(output: &Output) -> Vec<Row> {
    assert!(output.status.success(), "{output:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let rows = answer["signals"].as_array().unwrap().iter().map(|row| Row {
        name: text(&row["name"]).unwrap(),
        back_end: text(&row["back_end"]),
        why: text(&row["why"]).unwrap_or_default(),
    });
    rows.filter(|row| SIGNALS.contains(&row.name.as_str())).collect()
}

/// Runs `script` with a mount table of its own, then the program that the caller adds.
fn hidden(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", &format!("{script}\nexec \"$@\""), "sh"]);
    command
}

/// A signal by name.
fn named<'a>(rows: &'a [Row], name: &str) -> &'a Row {
    rows.iter().find(|row| row.name == name).unwrap()
}

/// What the signals are by where nothing is missing.
fn best() -> &'static str {
    if fs::exists(format!("{BTF}/nf_conntrack")).unwrap() { "fentry/fexit" } else { "kprobe" }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[test]
fn nothing_is_missing_where_nothing_is_hidden() {
    for row in support_after("true", &[]) {
        assert!(row.is_by(best()) && !row.why.contains("self-test"), "{row:?}");
    }
}

#[test]
fn without_btf_no_offset_is_guessed() {
    let hide = format!("mount -t tmpfs none {BTF}");
    let rows = support_after(&hide, &[]);
    assert_eq!(rows.len(), SIGNALS.len());
    for row in rows {
        assert!(row.back_end.is_none() && row.why.contains("no BTF at /sys/kernel/btf/vmlinux"), "{row:?}");
    }
    let mut guard = Guard::start_as("", hidden(&hide).arg(binary()), &[]);
    let answer: Value = serde_json::from_slice(&status().stdout).unwrap();
    assert_eq!(answer["back_end"]["measured"], false, "{answer}");
    assert!(answer["back_end"]["reason"].as_str().unwrap().contains("never guessed"), "{answer}");
    guard.signal(Signal::SIGTERM);
    assert_eq!(guard.end().0, Some(0));
}

#[test]
fn without_the_modules_btf_kprobes_take_over() {
    let copy = std::env::temp_dir().join("btf-alone");
    let copy = copy.display();
    let hide = format!("cp {BTF}/vmlinux {copy}; mount -t tmpfs none {BTF}; cp {copy} {BTF}/vmlinux");
    for row in support_after(&hide, &[]) {
        assert!(row.is_by("kprobe"), "{row:?}");
        assert!(row.name == "chains" || row.why.contains("no BTF of the module"), "{row:?}");
    }
}

#[test]
fn tracing_loses_a_missing_function_alone() {
    // A module's BTF takes the strings that vmlinux's has from there.
    let hide = ["vmlinux", "nf_conntrack"].into_iter().find_map(|name| {
        let mut bytes = fs::read(format!("{BTF}/{name}")).unwrap();
        let at = find(&bytes, b"\0early_drop\0")?;
        bytes[at + 1] = b'E';
        Some(btf::replace(name, &bytes))
    });
    let hide = hide.unwrap();
    for row in support_after(&hide, &[]) {
        if row.name == "table full" {
            assert!(row.is_by("kprobe") && row.why.contains("no function early_drop"), "{row:?}");
        } else {
            assert!(row.is_by("fentry/fexit"), "{row:?}");
        }
    }
    for row in support_after(&hide, &["--backend", "tracing"]) {
        let missing = row.back_end.is_none() && row.why.contains("no function early_drop");
        assert!(if row.name == "table full" { missing } else { row.is_by("fentry/fexit") }, "{row:?}");
    }
}

/// Makes the compiler seem to have split this function of nf_conntrack.
fn split(function: &str) -> String {
    let file = std::env::temp_dir().join(format!("kallsyms-with-a-part-of-{function}"));
    let file = file.display();
    let line = format!(r"0000000000000000 t {function}.part.0\t[nf_conntrack]");
    format!("(cat /proc/kallsyms; printf '{line}\\n') > {file}; mount --bind {file} /proc/kallsyms")
}

/// A hook on a function that the compiler split would miss calls and say nothing.
#[test]
fn a_function_in_parts_is_not_hooked_by_any_back_end() {
    for row in support_after(&split("early_drop"), &[]) {
        let split = row.back_end.is_none() && row.why.contains("has early_drop in parts (early_drop.part.0)");
        assert!(if row.name == "table full" { split } else { row.is_by(best()) }, "{row:?}");
    }
}

/// What is counted is told, though the growth is the count's then.
#[test]
fn inserts_have_their_rate_where_destroys_are_not_hooked() {
    let mut guard = Guard::start_as("", hidden(&split("nf_conntrack_free")).arg(binary()), &[]);
    let forecast = eventually("a rate of inserts", Duration::from_secs(20), || {
        let answer: Value = serde_json::from_slice(&status().stdout).ok()?;
        assert_eq!(answer["back_end"]["measured"], false, "{answer}");
        Some(answer["forecast"].clone()).filter(|forecast| !forecast["inserts_per_s"].is_null())
    });
    assert!(forecast["destroys_per_s"].is_null() && forecast["growth_per_s"].is_number(), "{forecast}");
    guard.signal(Signal::SIGTERM);
    assert_eq!(guard.end().0, Some(0));
}

/// Kprobes are not asked by the kernel what they read: the guard compares with BTF itself.
#[test]
fn tracing_and_kprobes_take_no_function_with_other_arguments() {
    let mut btf = Btf::read();
    btf.retype("early_drop", "nf_conntrack_free");
    for row in support_after(&btf.mounts(), &[]) {
        let told = row.why.matches("early_drop takes 1 arguments on this kernel and not 2").count();
        let other = row.back_end.is_none() && told == 2;
        assert!(if row.name == "table full" { other } else { row.is_by("fentry/fexit") && told == 0 }, "{row:?}");
    }
}

/// Each member is said to be where another one is; what needs it must be off, by whatever back end.
#[test]
fn what_reads_a_member_that_moved_is_off_and_all_else_is_on() {
    let of_inserts = &["inserts", "chains"][..];
    let moved: [(&str, &[&str], u32, &[&str]); 6] = [
        ("nf_conntrack_tuple", &["dst", "protonum"], 8, &["destroys"]),
        ("nf_conn", &["status"], 64, &["destroys"]),
        ("nf_conn", &["proto", "tcp", "state"], 8, &["destroys"]),
        ("nf_conn", &["ct_net"], 64, of_inserts),
        ("ns_common", &["inum"], 32, of_inserts),
        ("net", &["net_cookie"], 64, of_inserts),
    ];
    // On 5.10 the programs do not read the cookie.
    let read = if best() == "kprobe" { 5 } else { 6 };
    for (of, path, bits, off) in moved.into_iter().take(read) {
        let mut btf = Btf::read();
        btf.shift(of, path, bits);
        for arguments in [&[][..], &["--backend", "kprobe"]] {
            for row in support_after(&btf.mounts(), arguments) {
                let told = ["the self-test failed: ", "the verifier refused "].iter().any(|why| row.why.contains(why));
                let right = match (off.contains(&row.name.as_str()), &row.back_end) {
                    (true, None) => told || row.name == "chains",
                    (false, Some(_)) => !told,
                    _ => false,
                };
                assert!(right, "{of}.{} {bits} bits further, {arguments:?}: {row:?}", path.join("."));
            }
        }
    }
}

#[test]
fn runs_that_a_kprobe_misses_are_told_where_they_are_not_counted() {
    for row in support_after("true", &["--backend", "kprobe"]) {
        let told = row.why.contains("does not count the runs that it skips");
        assert!(
            row.is_by("kprobe") && (row.name == "chains" || told != misses_are_counted(BackEnd::Kprobe)),
            "{row:?}"
        );
    }
}

#[test]
fn kprobes_need_neither_tracefs_nor_debugfs() {
    let hide = "umount /sys/kernel/tracing; umount /sys/kernel/debug; ! ls /sys/kernel/debug/tracing";
    for row in support_after(hide, &["--backend", "kprobe"]) {
        assert!(row.is_by("kprobe"), "{row:?}");
    }
}

#[test]
fn hidden_addresses_cost_kprobes_the_chains_alone() {
    let file = "/proc/sys/kernel/kptr_restrict";
    let found = fs::read_to_string(file).unwrap();
    fs::write(file, "2").unwrap();
    let (by_kprobe, by_best) = (support_after("true", &["--backend", "kprobe"]), support_after("true", &[]));
    fs::write(file, found).unwrap();
    for row in &by_kprobe {
        let hidden = row.back_end.is_none() && row.why.contains("kernel.kptr_restrict");
        assert!(if row.name == "chains" { hidden } else { row.is_by("kprobe") }, "{row:?}");
    }
    // fexit begins at the entry itself and needs no address.
    let chains = named(&by_best, "chains");
    assert_eq!(chains.back_end.is_some(), best() == "fentry/fexit", "{chains:?}");
}

#[test]
fn what_the_systemd_unit_leaves_is_enough() {
    run("modprobe", &["nf_conntrack_netlink"]);
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/systemd/conntrack-guard.service");
    let unit = fs::read_to_string(unit).unwrap();
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap();
    let kept = value("CapabilityBoundingSet").split(' ');
    let kept: Vec<String> = kept.map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase())).collect();
    let mut command = Command::new("prlimit");
    command.arg(format!("--memlock={}", value("LimitMEMLOCK").replace("infinity", "unlimited")));
    command.args(["setpriv", "--bounding-set", &format!("-all{}", kept.concat()), "--"]);
    for row in rows(&command.arg(binary()).args(["support", "--json"]).output().unwrap()) {
        assert!(row.is_by(best()) && !row.why.contains("self-test"), "{row:?}");
    }
}

/// Reads as empty, as a file that a container's runtime masks.
const MASKED: &str = "mount --bind /dev/null /proc/kallsyms";

#[test]
fn without_symbols_tracefs_tells_which_functions_are_whole() {
    for arguments in [&[][..], &["--backend", "kprobe"]] {
        for row in support_after(MASKED, arguments) {
            assert!(!row.why.contains("kptr_restrict") && !row.why.contains("self-test"), "{row:?}");
            let by_kprobe = best() == "kprobe" || !arguments.is_empty();
            if row.name == "chains" {
                assert!(row.why.contains("/proc/kallsyms names no function of nf_conntrack"), "{row:?}");
                assert_eq!(row.back_end.is_none(), by_kprobe, "{row:?}");
            } else {
                assert!(row.is_by(if by_kprobe { "kprobe" } else { best() }), "{row:?}");
            }
        }
    }
    // A part that only tracefs shows is a part all the same.
    let file = std::env::temp_dir().join("functions-with-a-part");
    let (file, functions) = (file.display(), "/sys/kernel/tracing/available_filter_functions");
    let line = "early_drop.part.0 [nf_conntrack]";
    let part = format!("(cat {functions}; echo '{line}') > {file}; mount --bind {file} {functions}; {MASKED}");
    let rows = support_after(&part, &[]);
    let row = named(&rows, "table full");
    assert!(row.back_end.is_none() && row.why.contains("has early_drop in parts"), "{row:?}");
    assert!(named(&rows, "inserts").is_by(best()), "{rows:?}");
}

#[test]
fn with_neither_symbols_nor_tracefs_no_function_is_taken_for_whole() {
    let hide = format!("umount /sys/kernel/tracing; umount /sys/kernel/debug; {MASKED}");
    for row in support_after(&hide, &[]) {
        let told = row.why.contains("is not known; let the guard read /proc/kallsyms, or mount tracefs");
        assert!(row.back_end.is_none() && told && !row.why.contains("kptr_restrict"), "{row:?}");
    }
}

/// The kernel attaches to the first function of a name; which that is, nobody knows before.
#[test]
fn a_function_that_another_module_has_too_is_not_hooked() {
    let file = std::env::temp_dir().join("kallsyms-with-another");
    let file = file.display();
    let line = r"0000000000000000 t early_drop\t[other]";
    let hide = format!("(cat /proc/kallsyms; printf '{line}\\n') > {file}; mount --bind {file} /proc/kallsyms");
    for row in support_after(&hide, &[]) {
        let other =
            row.back_end.is_none() && row.why.contains("more than one function early_drop (nf_conntrack, other)");
        assert!(if row.name == "table full" { other } else { row.is_by(best()) }, "{row:?}");
    }
}

#[test]
fn tracing_gives_way_to_kprobes_where_the_modules_btf_is_broken() {
    let good = fs::read(format!("{BTF}/nf_conntrack")).unwrap();
    for (bytes, what) in [(&good[..good.len() / 2], "cut short"), (&[7; 4096][..], "magic number"), (&[], "cut short")]
    {
        for row in support_after(&btf::replace("nf_conntrack", bytes), &[]) {
            let told =
                row.why.contains("the BTF at /sys/kernel/btf/nf_conntrack cannot be used: ") && row.why.contains(what);
            assert!(row.is_by("kprobe") && (told || row.name == "chains"), "{what}: {row:?}");
        }
    }
}

/// All rows that are off, and the settings', as `support` tells them where it may not do all or stands elsewhere.
fn off_under(program: &str, arguments: &[&str]) -> Vec<(String, String)> {
    run("modprobe", &["nf_conntrack_netlink"]);
    let output = Command::new(program).args(arguments).arg(binary()).args(["support", "--json"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = ["signals", "settings"].iter().flat_map(|part| answer[part].as_array().unwrap());
    let off = rows.filter(|row| row["back_end"].is_null());
    off.map(|row| (row["name"].as_str().unwrap().to_owned(), row["why"].as_str().unwrap().to_owned())).collect()
}

#[test]
fn what_is_off_for_want_of_a_right_or_the_right_namespace_names_the_way_out() {
    let elsewhere = off_under("unshare", &["--net"]);
    for setting in ["nf_conntrack_max", "nf_conntrack_buckets"] {
        let why = &elsewhere.iter().find(|(name, _)| name == setting).unwrap().1;
        assert!(why.contains("not the host's network namespace") && why.contains("nsenter"), "{why}");
    }
    let without = |rights: &str| off_under("setpriv", &["--bounding-set", rights, "--"]);
    let no_admin = without("-net_admin");
    let census = &no_admin.iter().find(|(name, _)| name == "census").unwrap().1;
    assert!(census.contains("needs CAP_NET_ADMIN"), "{census}");
    for rights in ["-net_admin", "-net_admin,-sys_admin", "-bpf,-perfmon,-sys_admin", "-all"] {
        for (name, why) in without(rights) {
            println!("{rights}: {name}: {why}");
            let way_out = ["needs CAP", "CAP_SYSLOG", "as root", "let the guard read", "inserts are not seen"];
            assert!(way_out.iter().any(|way| why.contains(way)), "{rights}: {name}: {why}");
        }
    }
}

#[test]
fn why_every_insert_is_walked_is_logged_once() {
    let file = "/proc/sys/kernel/kptr_restrict";
    let found = fs::read_to_string(file).unwrap();
    fs::write(file, "2").unwrap();
    let mut guard = Guard::start("mode = \"advise\"\n");
    fs::write(file, found).unwrap();
    lives_on(Duration::from_secs(2));
    guard.signal(Signal::SIGTERM);
    assert_eq!(guard.end().0, Some(0));
    let log = guard.log();
    let told = if best() == "kprobe" { "chains off: " } else { "every insert is walked and not one in 64" };
    let lines: Vec<_> = log.lines().filter(|line| line.contains(told)).collect();
    assert!(lines.len() == 1 && lines[0].contains("kernel.kptr_restrict"), "{log}");
}

/// The refusal of bpf(2) that hosts without CAP_BPF, or with a policy against it, give.
#[test]
fn a_kernel_that_refuses_bpf_is_told_so_once() {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-bpf,-perfmon,-sys_admin", "--"]).arg(binary()).args(["support", "--json"]);
    for row in rows(&command.output().unwrap()) {
        assert!(row.back_end.is_none() && row.why.contains("needs CAP_BPF"), "{row:?}");
    }
}
