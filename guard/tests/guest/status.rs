//! What `conntrack-guard status --json` tells of a real kernel's table.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::Duration;

use bench::conntrack::Settings;
use bench::netns::Topology;
use bench::udp::Flows;
use conntrack_guard::observe::Timeout;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::kernel::{Guard, Table, binary, dumped, eventually, lives_on, run, timeouts, told};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_resize_is_told_with_who_did_it_and_logged_once_if_it_was_somebody_else() {
    let _table = Table::with(1_024, 1_024);
    let topology = Topology::create().unwrap();
    let guard = Guard::start("[table]\nmax = { ceiling = 16384 }\n[hash]\nbuckets = { ceiling = 16384 }\n");
    Flows::one_way(0, 950).send(&topology).unwrap();
    let own = eventually("the guard resizes", PATIENCE, || {
        let now = Settings::read().unwrap();
        (now.buckets > 1_024).then_some(now.buckets)
    });
    // More than the guard wants, so it leaves it.
    fs::write("/proc/sys/net/netfilter/nf_conntrack_buckets", "16384").unwrap();
    let resizes = eventually("both resizes are told", PATIENCE, || {
        let resizes = told()["resizes"].as_array().unwrap().clone();
        (resizes.len() == 2).then_some(resizes)
    });
    println!("{resizes:?}");
    assert_eq!(
        (&resizes[0]["own"], &resizes[0]["from"], &resizes[0]["to"]),
        (&true.into(), &1_024.into(), &own.into())
    );
    let other = &resizes[1];
    assert_eq!((&other["own"], &other["from"], &other["to"]), (&false.into(), &own.into(), &16_384.into()));
    assert_eq!(other["pid"], std::process::id());
    assert!(other["took_us"].as_u64().unwrap() > 0 && other["error"].is_null(), "{other}");
    assert!(other["cgroup"].as_u64().unwrap() > 0, "{other}");
    assert_eq!(other["entries"], dumped());
    assert!(told()["estimated"].as_array().unwrap().contains(&"resizes.*.entries".into()));
    lives_on(Duration::from_secs(2));
    let log = guard.log();
    assert_eq!(log.matches("somebody else resized the hash table").count(), 1, "{log}");
}

#[test]
fn it_tells_where_entries_came_in_and_how_they_ended() {
    let _table = Table::with(262_144, 16_384);
    let topology = Topology::create().unwrap();
    let _guard = Guard::start("mode = \"advise\"\n");
    Flows::one_way(0, 300).send(&topology).unwrap();
    run("conntrack", &["-F"]);
    let counted = eventually("all ends are told", PATIENCE, || {
        let counted = told()["counted"].clone();
        (counted["ends"][0]["destroys"] == 300).then_some(counted)
    });
    println!("{counted}");
    assert_eq!((&counted["ends"][0]["protocol"], &counted["ends"][0]["assured"]), (&"udp".into(), &0.into()));
    let here = fs::metadata("/proc/self/ns/net").unwrap().ino();
    assert_eq!(counted["namespaces"]["namespaces"][0]["inode"], here);
    assert_eq!(counted["namespaces"]["namespaces"][0]["inserts"], 300);
    assert_eq!((&counted["namespaces"]["other"], &counted["missed"]), (&0.into(), &0.into()));
}

#[test]
fn a_shortened_timeout_is_told_with_the_phase_the_reason_and_what_it_was() {
    let _table = Table::with(1_024, 1_024);
    let topology = Topology::create().unwrap();
    let found = timeouts()[&Timeout::Udp];
    let policy =
        "[table]\nmax = { ceiling = 1024 }\n[hash]\nbuckets = { ceiling = 1024 }\n[timeouts.udp]\nfloor = \"5s\"\n";
    let mut guard = Guard::start(policy);
    let before = told();
    assert_eq!(
        (&before["standing"]["phase"], &before["changed"]),
        (&"calm".into(), &serde_json::json!([])),
        "{before}"
    );
    // More than fits at the timeout found, and about as many as do at the floor.
    let mut first = 0;
    let now = eventually("a timeout is shortened", Duration::from_mins(1), || {
        Flows::answered(first, 20).send(&topology).unwrap();
        first += 20;
        std::thread::sleep(Duration::from_millis(200));
        let (in_force, now) = (timeouts()[&Timeout::Udp], told());
        let is_it = |one: &&Value| one["setting"] == "udp" && one["now"] == in_force;
        // It may go on to the next cut at any moment: what is told must be what was in force before and after.
        (now["changed"].as_array().unwrap().iter().any(|one| is_it(&one)) && timeouts()[&Timeout::Udp] == in_force)
            .then_some(now)
    });
    println!("{} flows\n{}\n{}", first, now["standing"], now["changed"]);
    assert!(["pressed", "emergency"].iter().any(|phase| now["standing"]["phase"] == **phase), "{}", now["standing"]);
    assert!(now["standing"]["since_ms"].as_u64() > before["standing"]["since_ms"].as_u64());
    let changed = now["changed"].as_array().unwrap().iter().find(|one| one["setting"] == "udp").unwrap();
    assert_eq!(changed["original"], found, "{changed}");
    assert!(changed["now"].as_u64().unwrap() < found, "{changed}");
    assert_eq!((&changed["rule"], &changed["floor"]), (&"shorten-timeout".into(), &5.into()), "{changed}");
    assert!(!changed["evidence"].as_str().unwrap().is_empty());
    assert!(now["states"].as_array().unwrap().iter().any(|state| state["timeout"] == "udp"), "{}", now["states"]);
    assert!(now["memory"]["available"].as_u64().unwrap() > 0);

    let screen = Command::new(binary()).arg("status").output().unwrap();
    let screen = String::from_utf8(screen.stdout).unwrap();
    println!("{screen}");
    assert!(screen.contains("Changed   nf_conntrack_udp_timeout") && screen.contains("shorten-timeout, not below 5 s"));
    let log = guard.log();
    assert!(log.contains("phase: "), "{log}");
    guard.signal(Signal::SIGTERM);
    guard.end();
}

/// A network namespace with entries of its own.
struct Other;

impl Other {
    const NAME: &str = "guest-other";

    fn with_entries(entries: u16) -> Self {
        run("ip", &["netns", "add", Self::NAME]);
        let other = Self;
        let lines: Vec<String> = (0..entries)
            .map(|n| {
                let (client, server) = (format!("10.98.{}.{}", n / 250, n % 250 + 1), "10.97.0.1");
                format!(
                    "-I -p udp -s {client} -d {server} --sport 1000 --dport 53 -r {server} -q {client} \
                     --reply-port-src 53 --reply-port-dst 1000 -t 600\n"
                )
            })
            .collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), lines.concat()).unwrap();
        run("ip", &["netns", "exec", Self::NAME, "conntrack", "-R", file.path().to_str().unwrap()]);
        other
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        run("ip", &["netns", "delete", Self::NAME]);
    }
}

/// The skew that the status tells of while flows come in, once chains were measured.
fn skew(topology: &Topology, first: u64) -> Value {
    let _guard = Guard::start("mode = \"advise\"\n");
    Flows::one_way(first, 2_000).send(topology).unwrap();
    let chains = eventually("chains are measured", Duration::from_secs(10), || {
        let chains = told()["chains"].clone();
        (chains["measured"].as_u64() >= Some(60)).then_some(chains)
    });
    println!("{chains}");
    chains["skew"].clone()
}

#[test]
fn chains_that_the_known_entries_do_not_account_for_show_within_ten_seconds() {
    let _table = Table::with(262_144, 1_024);
    let topology = Topology::create().unwrap();
    assert_eq!(skew(&topology, 0), Value::Null, "an even hash and no other entries");
    run("conntrack", &["-F"]);
    // Of which the guard can know nothing: they were there before it, in a namespace whose count it does not see.
    let _other = Other::with_entries(8_000);
    assert_eq!(skew(&topology, 10_000), "unaccounted");
}
