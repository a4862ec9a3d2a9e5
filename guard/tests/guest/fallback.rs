//! What is missing, taken away for real: the rest stays on, and each signal says what it lacks.
//!
//! What the guard reads below /sys is taken from it in a mount namespace of its own; the kernel itself has it still.

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::btf::{self, Btf, FOLDER as BTF};
use crate::kernel::{Guard, binary, eventually, run, status};

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
    let moved: [(&str, &[&str], u32, &[&str]); 5] = [
        ("nf_conntrack_tuple", &["dst", "protonum"], 8, &["destroys"]),
        ("nf_conn", &["status"], 64, &["destroys"]),
        ("nf_conn", &["proto", "tcp", "state"], 8, &["destroys"]),
        ("nf_conn", &["ct_net"], 64, of_inserts),
        ("ns_common", &["inum"], 32, of_inserts),
    ];
    for (of, path, bits, off) in moved {
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

/// The refusal of bpf(2) that hosts without CAP_BPF, or with a policy against it, give.
#[test]
fn a_kernel_that_refuses_bpf_is_told_so_once() {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-bpf,-perfmon,-sys_admin", "--"]).arg(binary()).args(["support", "--json"]);
    for row in rows(&command.output().unwrap()) {
        assert!(row.back_end.is_none() && row.why.contains("needs CAP_BPF"), "{row:?}");
    }
}
