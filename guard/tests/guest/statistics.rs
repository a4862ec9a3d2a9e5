//! The kernel's statistics from both sources, and what the guard does where one or both are hidden.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use bench::conntrack::Statistics;
use bench::netns::Topology;
use bench::udp::Flows;
use conntrack_guard::observe::StatTotals;
use conntrack_guard::observe::stats::Stats;
use nix::sys::socket::SockProtocol;
use serde_json::Value;

use crate::causes::{lose_a_clash, send_from};
use crate::kernel::{Guard, Table, binary, eventually, insert_assured, run, told};

const PATIENCE: Duration = Duration::from_secs(20);
const ADVISE: &str = "mode = \"advise\"\n";

#[test]
fn ctnetlink_and_proc_tell_the_same() {
    run("modprobe", &["nf_conntrack_netlink"]);
    let topology = Topology::create().unwrap();
    let _table = Table::with(262_144, 512);
    let without_proc = tempfile::tempdir().unwrap();
    symlink("/sys", without_proc.path().join("sys")).unwrap();
    let (mut by_proc, mut by_ctnetlink) = (Stats::default(), Stats::default());
    let mut read = || {
        let (proc, ctnetlink) = (by_proc.read(Path::new("/")), by_ctnetlink.read(without_proc.path()));
        assert_eq!((proc.source(), ctnetlink.source()), (Some("proc"), Some("ctnetlink")), "{ctnetlink:?}");
        (*proc.totals().unwrap(), *ctnetlink.totals().unwrap())
    };
    assert_eq!(read(), (StatTotals::default(), StatTotals::default()), "the first reading is the origin");

    let before = Statistics::read().unwrap();
    Flows::one_way(0, 12_000).send(&topology).unwrap();
    run("conntrack", &["-F"]);
    fs::write("/proc/sys/net/netfilter/nf_conntrack_buckets", "16384").unwrap();
    lose_a_clash(&before);
    send_from(&topology, SockProtocol::Icmp, 5, |_| vec![40; 20]);
    send_from(&topology, SockProtocol::Tcp, 7, |_| vec![0; 20]);
    run("conntrack", &["-F"]);
    fs::write("/proc/sys/net/netfilter/nf_conntrack_max", "1000").unwrap();
    insert_assured(0..500);
    Flows::one_way(20_000, 1_000).send(&topology).unwrap();

    let (proc, ctnetlink) = read();
    println!("{proc:?}");
    assert_eq!(proc, ctnetlink);
    let StatTotals { drop, early_drop, insert_failed, chain_too_long, clash_resolved: _, invalid, icmp_error } =
        ctnetlink;
    for provoked in [drop, early_drop, insert_failed, invalid, icmp_error] {
        assert!(provoked > 0, "{ctnetlink:?}");
    }
    let now = Statistics::read().unwrap();
    assert_eq!((drop, chain_too_long), (now.since(&before, "drop"), now.since(&before, "chainlength")));
}

/// A mount namespace whose processes have nothing in `/proc/net`, as where a container's runtime masks it.
fn without_proc_net() -> Command {
    let mut command = Command::new("unshare");
    // `exec` keeps the process, whose own folder /proc/self/net is.
    command.args(["--mount", "sh", "-c", "mount -t tmpfs none /proc/$$/net && exec \"$@\"", "sh"]).arg(binary());
    command
}

fn support() -> Output {
    without_proc_net().args(["support", "--json"]).output().unwrap()
}

/// `statistics` of `support`.
fn row(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let support: Value = serde_json::from_slice(&output.stdout).unwrap();
    support["signals"].as_array().unwrap().iter().find(|row| row["name"] == "invalid").unwrap().clone()
}

#[test]
fn with_the_file_hidden_the_guard_goes_on_with_ctnetlink_and_says_so() {
    run("modprobe", &["nf_conntrack_netlink"]);
    let topology = Topology::create().unwrap();
    let _table = Table::with(1_000, 1_024);
    let guard = Guard::start_as(ADVISE, &mut without_proc_net(), &["--backend", "proc"]);
    let statistics = eventually("a tick", PATIENCE, || Some(told()["statistics"].clone()).filter(|now| !now.is_null()));
    println!("{statistics}");
    assert_eq!(statistics["source"], "ctnetlink");
    assert!(statistics["why"].as_str().unwrap().contains("/proc/net/stat/nf_conntrack"), "{statistics}");
    let before = Statistics::read().unwrap();
    insert_assured(0..1_000);
    let sent = Flows::one_way(0, 300).send(&topology).unwrap();
    assert_eq!(sent.arrived, 0);
    let drops = eventually("the drops are told", PATIENCE, || {
        let drops = told()["drops"].clone();
        (drops["table_full"] == 300).then_some(drops)
    });
    assert_eq!(drops["drop"], Statistics::read().unwrap().since(&before, "drop"));
    assert!(guard.log().contains("ctnetlink"), "{}", guard.log());
    let row = row(&support());
    assert_eq!(row["back_end"], "ctnetlink");
    assert!(row["why"].as_str().unwrap().contains("/proc/net/stat/nf_conntrack"), "{row}");
}

#[test]
fn without_both_sources_the_figures_are_unknown_and_no_module_is_loaded_for_them() {
    let _table = Table::with(1_000, 1_024);
    run("modprobe", &["nf_conntrack_netlink"]);
    run("rmmod", &["nf_conntrack_netlink"]);
    let guard = Guard::start_as(ADVISE, &mut without_proc_net(), &["--backend", "proc"]);
    let answer = told();
    let row = row(&support());
    let loaded = Path::new("/sys/module/nf_conntrack_netlink").exists();
    drop(guard);
    run("modprobe", &["nf_conntrack_netlink"]);
    assert!(!loaded, "the guard loaded it");
    assert_eq!(answer["statistics"]["source"], Value::Null, "{answer}");
    assert!(answer["statistics"]["why"].as_str().unwrap().contains("modprobe nf_conntrack_netlink"), "{answer}");
    assert_eq!((&answer["drops"]["drop"], &answer["drops"]["table_full"]), (&Value::Null, &Value::Null));
    assert_eq!(row["back_end"], Value::Null, "{row}");
}
