//! A new policy for a running guard, by SIGHUP and by a change of the file; and a start with one that is invalid.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use bench::conntrack::Settings;
use bench::netns::Topology;
use bench::udp::Flows;
use nix::sys::signal::Signal;

use crate::kernel::{Guard, Table, binary, eventually, told};

const PATIENCE: Duration = Duration::from_secs(20);
const FOUND: Settings = Settings { max: 1_024, buckets: 1_024 };

fn policy(mode: &str, ceiling: u64) -> String {
    format!("mode = \"{mode}\"\ntable.max.ceiling = {ceiling}\nhash.buckets.ceiling = 1024\n")
}

fn file(guard: &Guard) -> PathBuf {
    guard.state_dir().join("policy.toml")
}

/// Until the status says so.
fn in_force(mode: &str, ceiling: u64) {
    eventually(&format!("{mode} with {ceiling}"), PATIENCE, || {
        let now = told();
        (now["mode"] == mode && now["bounds"]["max"]["ceiling"] == ceiling).then_some(())
    });
}

fn raised_to(max: u64) {
    eventually(&format!("max is {max}"), PATIENCE, || (Settings::read().unwrap().max == max).then_some(()));
}

#[test]
fn a_changed_file_and_a_sighup_each_bring_the_new_policy() {
    let _table = Table::with(FOUND.max, FOUND.buckets);
    let topology = Topology::create().unwrap();
    let mut guard = Guard::start(&policy("off", 4_096));
    Flows::one_way(0, 1_000).send(&topology).unwrap();

    // As an editor saves: another file in its place.
    let fresh = guard.state_dir().join(".policy.toml.swp");
    fs::write(&fresh, policy("advise", 4_096)).unwrap();
    fs::rename(&fresh, file(&guard)).unwrap();
    in_force("advise", 4_096);
    eventually("it would raise max", PATIENCE, || guard.log().contains("would set nf_conntrack_max").then_some(()));
    assert_eq!(Settings::read().unwrap(), FOUND);

    // In place.
    fs::write(file(&guard), policy("enforce", 2_000)).unwrap();
    raised_to(2_000);
    let log = guard.log();
    for line in [
        "policy: mode old=\"\\\"advise\\\"\" new=\"\\\"enforce\\\"\"",
        "policy: table.max.ceiling old=\"4096\" new=\"2000\"",
    ] {
        assert!(log.contains(line), "{line} is not in:\n{log}");
    }
    assert!(guard.state_dir().join("journal.json").exists());

    guard.signal(Signal::SIGHUP);
    eventually("it says what it did", PATIENCE, || {
        guard.log().contains("SIGHUP: the policy file is as it was").then_some(())
    });

    // What was changed stays, and comes back at the end.
    fs::write(file(&guard), policy("off", 2_000)).unwrap();
    guard.signal(Signal::SIGHUP);
    in_force("off", 2_000);
    assert_eq!(Settings::read().unwrap().max, 2_000);
    bench::conntrack::flush().unwrap();
    guard.signal(Signal::SIGTERM);
    let (code, log) = guard.end();
    assert_eq!((code, Settings::read().unwrap()), (Some(0), FOUND), "{log}");
}

#[test]
fn a_config_map_that_is_swapped_is_taken() {
    let _table = Table::with(FOUND.max, FOUND.buckets);
    let guard = Guard::start(&policy("advise", 2_000));
    // As the kubelet does: the data in a directory of their own, and a symbolic link that goes from one to the next.
    let put = |version: &str, text: &str| {
        let mount = guard.state_dir();
        fs::create_dir(mount.join(version)).unwrap();
        fs::write(mount.join(version).join("policy.toml"), text).unwrap();
        symlink(version, mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    };
    put("..first", &policy("advise", 3_000));
    let link = guard.state_dir().join("link");
    symlink("..data/policy.toml", &link).unwrap();
    fs::rename(link, file(&guard)).unwrap();
    in_force("advise", 3_000);
    put("..second", &policy("advise", 4_000));
    fs::remove_dir_all(guard.state_dir().join("..first")).unwrap();
    in_force("advise", 4_000);
    put("..third", &policy("advise", 5_000));
    in_force("advise", 5_000);
}

#[test]
fn an_invalid_file_leaves_the_old_policy_and_is_told() {
    let _table = Table::with(FOUND.max, FOUND.buckets);
    let topology = Topology::create().unwrap();
    let guard = Guard::start(&policy("enforce", 8_000));
    fs::write(file(&guard), "mode = \"enforce\"\ntable.max.ceilin = 9000\n").unwrap();
    let now = eventually("the error is told", PATIENCE, || {
        let now = told();
        (now["policy"]["refused"] != serde_json::json!([])).then_some(now)
    });
    assert!(now["policy"]["refused"][0].as_str().unwrap().contains("policy.toml:2:11: table.max.ceilin: unknown key"));
    assert_eq!((&now["ready"], &now["bounds"]["max"]["ceiling"]), (&true.into(), &8_000.into()));
    let screen = Command::new(binary()).arg("status").output().unwrap();
    assert!(String::from_utf8_lossy(&screen.stdout).contains("POLICY NOT TAKEN"), "{screen:?}");
    assert!(guard.log().contains("policy.toml:2:11: table.max.ceilin: unknown key"), "{}", guard.log());
    // The one of before is in force.
    for first in [0, 1_000, 2_000, 3_000, 4_000] {
        Flows::one_way(first, 1_000).send(&topology).unwrap();
        let next = first + 2_100;
        eventually("max rises ahead", PATIENCE, || (Settings::read().unwrap().max >= next).then_some(()));
    }
    // Less than what is in use by now: refused as well, and nothing of it is taken.
    fs::write(file(&guard), format!("{}table.memory-limit = \"1MiB\"\n", policy("off", 9_000))).unwrap();
    eventually("the memory limit is refused", PATIENCE, || {
        let why = told()["policy"]["refused"][0].as_str()?.to_owned();
        why.starts_with("table.memory-limit is 1.0 MiB here, but ").then_some(())
    });
    assert_eq!((&told()["mode"], &told()["bounds"]["max"]["ceiling"]), (&"enforce".into(), &8_000.into()));
    fs::write(file(&guard), policy("enforce", 9_000)).unwrap();
    in_force("enforce", 9_000);
    assert_eq!(told()["policy"]["refused"], serde_json::json!([]));
}

#[test]
fn an_invalid_file_at_the_start_has_the_last_good_one_in_force() {
    let _table = Table::with(FOUND.max, FOUND.buckets);
    let mut alone = Guard::start_with("mode = 1\n", &mut Command::new(binary()), &[]);
    let (code, log) = alone.end();
    assert!(code == Some(2) && log.contains("policy.toml:1:8: mode: give"), "{code:?}: {log}");

    let topology = Topology::create().unwrap();
    let mut guard = Guard::start(&policy("enforce", 2_000));
    guard.signal(Signal::SIGTERM);
    assert_eq!(guard.end().0, Some(0));
    guard.follow("mode = \"enforce\"\ntable.max.ceiling = \"many\"\n");
    let now = told();
    assert_eq!((&now["ready"], &now["policy"]["source"]), (&false.into(), &"last-good".into()), "{now}");
    assert!(
        now["not_ready"].as_str().unwrap().contains("policy.toml:2:21: table.max.ceiling: give an integer"),
        "{now}"
    );
    assert!(guard.log().contains("NOT READY"), "{}", guard.log());
    Flows::one_way(0, 1_000).send(&topology).unwrap();
    raised_to(2_000);
    fs::write(file(&guard), policy("enforce", 2_100)).unwrap();
    in_force("enforce", 2_100);
    assert_eq!((&told()["ready"], &told()["not_ready"]), (&true.into(), &serde_json::Value::Null));
}
