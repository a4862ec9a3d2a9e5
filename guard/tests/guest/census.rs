//! The census against `conntrack -L`.

use std::path::Path;

use bench::netns::Topology;
use bench::udp::Flows;
use conntrack_guard::observe::{Census, InState, Observer, Timeout};

use crate::kernel::{Table, run};

fn census() -> Census {
    run("modprobe", &["nf_conntrack_netlink"]);
    let mut observer = Observer::new(Path::new("/"), None);
    let table = observer.sample().unwrap().table;
    observer.look_at_entries(&table, None);
    observer.sample().unwrap().census.unwrap()
}

/// A TCP entry in this state, IPv6 for odd numbers.
fn tcp(number: u16, state: &str) {
    let (source, destination) =
        if number % 2 == 1 { ("2001:db8::1", "2001:db8::2") } else { ("192.0.2.1", "192.0.2.2") };
    let port = (10_000 + number).to_string();
    let flow = ["-I", "-p", "tcp", "-s", source, "-d", destination, "--sport", &port, "--dport", "80"];
    run("conntrack", &[&flow[..], &["--state", state, "-t", "100", "-u", "SEEN_REPLY"]].concat());
}

#[test]
fn a_small_table_is_counted_whole_and_as_conntrack_lists_it() {
    let _table = Table::with(65_536, 4_096);
    let topology = Topology::create().unwrap();
    Flows::one_way(0, 300).send(&topology).unwrap();
    for number in 0..20 {
        tcp(number, if number < 8 { "TIME_WAIT" } else { "ESTABLISHED" });
    }
    let census = census();
    let listed = run("conntrack", &["-L"]);
    println!("{census:?}");
    let lines = |word: &str| listed.lines().filter(|line| line.contains(word)).count() as u64;
    let of = |timeout| census.by.get(&timeout).copied().unwrap_or_default();
    assert!(census.whole);
    assert_eq!((census.entries, census.other), (listed.lines().count() as u64, 0));
    assert_eq!((of(Timeout::TcpTimeWait).entries, of(Timeout::TcpEstablished).entries), (8, 12));
    assert_eq!((lines("TIME_WAIT"), lines("ESTABLISHED")), (8, 12));
    assert_eq!(of(Timeout::Udp).entries, lines("udp "));
    let all: Vec<InState> = census.by.values().copied().collect();
    assert_eq!(all.iter().map(|state| state.unreplied).sum::<u64>(), lines("[UNREPLIED]"));
    assert_eq!(all.iter().map(|state| state.assured).sum::<u64>(), lines("[ASSURED]"));
    let left = of(Timeout::TcpTimeWait).seconds_left;
    assert!((8 * 80..=8 * 100).contains(&left), "{left}");
    assert!(census.unreplied_sources >= 1);
}

#[test]
fn a_large_table_is_sampled_fairly() {
    let _table = Table::with(65_536, 8_192);
    let topology = Topology::create().unwrap();
    Flows::one_way(0, 9_000).send(&topology).unwrap();
    Flows::answered(9_000, 3_000).send(&topology).unwrap();
    let census = census();
    println!("{census:?}");
    assert!(!census.whole && census.entries == 2_048);
    let unreplied: u64 = census.by.values().map(|state| state.unreplied).sum();
    // A quarter was answered; five standard deviations of a sample of this size are 4.8 points.
    let share = unreplied as f64 / census.entries as f64;
    assert!((share - 0.75).abs() < 0.048, "{share}");
}
