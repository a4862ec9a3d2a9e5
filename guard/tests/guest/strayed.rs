//! A walk that goes wrong, for real: kallsyms names another place as the table's address.

use std::fs;
use std::process::Command;
use std::time::Duration;

use bench::netns::Topology;
use bench::udp::Flows;
use conntrack_guard::kernel::Signal;
use serde_json::Value;

use crate::kernel::{Guard, Table, binary, eventually, lives_on, run, told};

const KALLSYMS: &str = "/proc/kallsyms";
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the guard where kallsyms has what the guard looks for, with the wrong address for `nf_conntrack_hash`.
fn with_a_wrong_address(ctnetlink: bool) -> (Command, tempfile::NamedTempFile) {
    // Without its module there is no self-test.
    let arguments: &[&str] = if ctnetlink { &["nf_conntrack_netlink"] } else { &["-r", "nf_conntrack_netlink"] };
    run("modprobe", arguments);
    let symbols = fs::read_to_string(KALLSYMS).unwrap();
    let line = |name: &str| {
        let is_it = |line: &&str| line.split_whitespace().nth(2) == Some(name);
        symbols.lines().find(is_it).unwrap_or_else(|| panic!("no {name} in {KALLSYMS}"))
    };
    let (table, size) = (line("nf_conntrack_hash"), line("nf_conntrack_htable_size"));
    let wrong = table.replace(&table[..16], &size[..16]);
    // The chains' function is the inserts'.
    let watched = Signal::ALL.into_iter().filter(|signal| *signal != Signal::Chains);
    let functions = watched.map(|signal| format!("{}\n", line(signal.function().0))).collect::<Vec<_>>().concat();
    let text = format!("{wrong}\n{size}\n{functions}");
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    let mut command = Command::new("unshare");
    let mount = format!("mount --bind {} {KALLSYMS} && exec \"$@\"", file.path().display());
    command.args(["--mount", "sh", "-c", &mount, "sh"]).arg(binary());
    (command, file)
}

fn signal<'a>(rows: &'a Value, key: &str, name: &str) -> &'a Value {
    rows.as_array().unwrap().iter().find(|row| row[key] == name).unwrap()
}

#[test]
fn the_self_test_finds_it_at_the_start() {
    let (mut command, _file) = with_a_wrong_address(true);
    let output = command.args(["support", "--json"]).output().unwrap();
    let support: Value = serde_json::from_slice(&output.stdout).unwrap();
    let chains = signal(&support["signals"], "name", "chains");
    println!("{chains}");
    assert_eq!(chains["back_end"], Value::Null);
    assert!(chains["why"].as_str().unwrap().contains("ended in another bucket than they began in"), "{chains}");
    assert!(!signal(&support["signals"], "name", "inserts")["back_end"].is_null(), "{support}");
}

#[test]
fn without_a_self_test_the_first_walk_switches_the_chains_off_and_nothing_else() {
    let topology = Topology::create().unwrap();
    let _table = Table::with(262_144, 16_384);
    let (mut command, _file) = with_a_wrong_address(false);
    let guard = Guard::start_as("mode = \"advise\"\n", &mut command, &[]);
    let chains = signal(&told()["signals"], "signal", "chains").clone();
    assert!(!chains["back_end"].is_null(), "{chains}");
    Flows::one_way(0, 300).send(&topology).unwrap();
    let answer = eventually("the chains are off", PATIENCE, || {
        let answer = told();
        signal(&answer["signals"], "signal", "chains")["back_end"].is_null().then_some(answer)
    });
    let chains = signal(&answer["signals"], "signal", "chains");
    println!("{chains}");
    assert!(chains["why"].to_string().contains("ended in another bucket than they began in"), "{chains}");
    assert_eq!((&answer["chains"], &answer["counted"]["one_in"]), (&Value::Null, &Value::Null));
    assert_eq!(answer["counted"]["namespaces"]["namespaces"][0]["inserts"], 300, "the inserts stay");
    lives_on(Duration::from_secs(2));
    let log = guard.log();
    assert_eq!(log.matches("chains off: ").count(), 1, "{log}");
}
