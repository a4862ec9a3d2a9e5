//! `conntrack-guard pause` and `resume` on a running guard.

use std::process::{Command, Output};
use std::time::Duration;

use bench::conntrack::Settings;
use bench::netns::Topology;
use bench::udp::Flows;
use nix::sys::signal::Signal;

use crate::kernel::{Guard, Table, binary, eventually, told};

const PATIENCE: Duration = Duration::from_secs(20);
const POLICY: &str = "[table]\nmax = { ceiling = 16384 }\n[hash]\nbuckets = { ceiling = 1024 }\n";

fn guard(arguments: &[&str]) -> Output {
    Command::new(binary()).env("SUDO_USER", "alice").args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

#[test]
fn a_paused_setting_stays_until_it_is_resumed_or_the_pause_is_over() {
    let _table = Table::with(1_024, 1_024);
    let topology = Topology::create().unwrap();
    let mut running = Guard::start(POLICY);
    let paused = guard(&["pause", "max", "--for", "1h"]);
    assert_eq!(paused.status.code(), Some(0), "{paused:?}");
    assert!(said(&paused).starts_with("paused for 1 h, until 20") && said(&paused).contains("by alice: max;"));
    let now = told()["paused"].clone();
    assert_eq!(now[0]["settings"], serde_json::json!(["max"]), "{now}");

    Flows::one_way(0, 950).send(&topology).unwrap();
    let held = eventually("max is held", PATIENCE, || {
        let held = told()["held"].clone();
        held.as_array().unwrap().iter().find(|held| held["setting"] == "max").cloned()
    });
    assert!(held["reason"].as_str().unwrap().contains("by alice; `conntrack-guard resume max`"), "{held}");
    assert_eq!(Settings::read().unwrap().max, 1_024);
    assert!(said(&guard(&["status"])).contains(" by alice: max\n"));

    // Everything for a moment in place of max for an hour: it ends by itself.
    assert_eq!(guard(&["pause", "--for", "3s"]).status.code(), Some(0));
    let raised = || (Settings::read().unwrap().max > 1_024).then_some(());
    eventually("max is raised after the pause", PATIENCE, raised);
    let raised = "set nf_conntrack_max";
    let log = eventually("it says so", PATIENCE, || Some(running.log()).filter(|log| log.contains(raised)));
    let place = |what: &str| log.find(what).unwrap_or_else(|| panic!("{what} is not in:\n{log}"));
    assert!(place("the pause is over: every setting may change again") < place(raised), "{log}");
    running.signal(Signal::SIGTERM);
    running.end();
}

#[test]
fn resume_lets_it_go_on_at_once() {
    let _table = Table::with(1_024, 1_024);
    let topology = Topology::create().unwrap();
    let running = Guard::start(POLICY);
    assert_eq!(guard(&["pause", "--for", "1h"]).status.code(), Some(0));
    Flows::one_way(0, 950).send(&topology).unwrap();
    eventually("max is held", PATIENCE, || {
        told()["held"].as_array().unwrap().iter().any(|held| held["setting"] == "max").then_some(())
    });
    assert_eq!(said(&guard(&["resume", "buckets"])), "buckets may change again\n");
    assert_eq!(Settings::read().unwrap().max, 1_024);
    assert_eq!(said(&guard(&["resume", "max"])), "max may change again\n");
    eventually("max is raised", PATIENCE, || (Settings::read().unwrap().max > 1_024).then_some(()));
    assert!(running.log().contains("resumed: max may change again"));
}

#[test]
fn without_a_guard_and_with_a_key_that_is_none_it_says_so() {
    let alone = guard(&["pause", "--for", "1h"]);
    assert_eq!(alone.status.code(), Some(1));
    assert!(said(&alone).contains("no conntrack-guard is running"), "{alone:?}");
    let unknown = guard(&["pause", "tcp-timewait", "--for", "1h"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(said(&unknown).contains("'tcp-time-wait'"), "{unknown:?}");
}
