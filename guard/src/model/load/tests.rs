use std::collections::BTreeMap;

use super::super::testing::{Kind, Toy, kind};
use super::*;
use crate::observe::{InState, StatTotals, Statistics};

/// A census of 1,000 entries: so many open connections, half-open ones and datagrams; of each the unreplied.
fn census(established: [u64; 2], syn_sent: u64, syn_recv: u64, udp: [u64; 2]) -> Census {
    let state = |[entries, unreplied]: [u64; 2]| InState { entries, unreplied, ..InState::default() };
    let by = BTreeMap::from([
        (Timeout::TcpEstablished, state(established)),
        (Timeout::TcpSynSent, state([syn_sent; 2])),
        (Timeout::TcpSynRecv, state([syn_recv, 0])),
        (Timeout::Udp, state(udp)),
    ]);
    Census { entries: 1_000, by, unreplied_sources: 700, ..Census::default() }
}

/// Five minutes of a calm web host, with a census of it.
fn calm() -> Toy {
    let mut toy = Toy::new(&[kind(Timeout::TcpTimeWait, 200.0), kind(Timeout::Udp, 20.0)]);
    toy.run(100);
    toy.census(census([900, 0], 10, 10, [80, 20]));
    assert_eq!(toy.run(200).load, Load::Growth);
    toy
}

fn is_flood(load: Load) -> bool {
    matches!(load, Load::Flood { .. })
}

#[test]
fn a_surge_of_what_nobody_answers_is_a_flood_until_it_is_over() {
    for flood in
        [census([100, 0], 890, 0, [10, 5]), census([100, 0], 0, 890, [10, 5]), census([90, 0], 5, 5, [900, 890])]
    {
        let mut toy = calm();
        toy.kinds.push(kind(Timeout::TcpSynSent, 5_000.0));
        assert_eq!(toy.run(20).load, Load::Growth, "nobody has looked yet");
        toy.census(flood);
        let load = toy.run(0).load;
        assert!(matches!(load, Load::Flood { unreplied, sources: 700, .. } if unreplied > 0.8), "{load:?}");
        toy.kinds.pop();
        assert!(is_flood(toy.run(20).load), "it may come back");
        assert_eq!(toy.run(40).load, Load::Growth);
    }
}

#[test]
fn a_surge_is_not_known_until_somebody_has_looked_and_no_longer_than_that_makes_sense() {
    let mut toy = calm();
    toy.kinds.push(kind(Timeout::TcpSynSent, 20_000.0));
    let estimate = toy.run(0);
    assert_eq!((estimate.load, estimate.look_within), (Load::Surge, Some(AT_ONCE)));
    // 20,000 of 44,000: half of the table, and all that came, but it came a second ago.
    toy.census(census([500, 0], 460, 10, [30, 20]));
    assert_eq!(toy.run(0).load, Load::Surge);
    toy.census(census([350, 0], 610, 10, [30, 20]));
    let estimate = toy.run(0);
    assert!(is_flood(estimate.load) && estimate.look_within == Some(OFTEN), "{:?}", estimate.load);

    let mut toy = calm();
    toy.kinds.push(kind(Timeout::TcpSynSent, 20_000.0));
    toy.run(0);
    toy.census(census([950, 0], 10, 10, [30, 20]));
    let estimate = toy.run(0);
    assert_eq!((estimate.load, estimate.look_within), (Load::Growth, None), "answered flows are known at once");

    let mut toy = calm();
    toy.kinds.push(kind(Timeout::TcpSynSent, 5_000.0));
    let loads: Vec<Load> = (0..8).map(|_| toy.run(0).load).collect();
    assert_eq!((loads[3], loads[7]), (Load::Surge, Load::Growth), "nobody looks: {loads:?}");
    assert_eq!(toy.run(10).look_within, Some(OFTEN));
    toy.census(census([100, 0], 880, 0, [10, 5]));
    assert!(is_flood(toy.run(0).load), "late, but now it is known");
}

#[test]
fn a_surge_too_small_to_tell_becomes_what_is_usual() {
    let mut toy = Toy::new(&[kind(Timeout::TcpTimeWait, 200.0), kind(Timeout::Udp, 20.0)]);
    toy.sample.table.count = 1_000_000;
    toy.census(census([990, 0], 2, 2, [6, 1]));
    toy.run(100);
    toy.kinds[1].rate = 900.0;
    let mut loads = Vec::new();
    for _ in 0..1_800 {
        toy.census(census([990, 0], 2, 2, [6, 1]));
        loads.push(toy.run(0).load);
    }
    let surges = loads.iter().filter(|load| **load == Load::Surge).count();
    assert!((1..=10).contains(&surges), "{surges} s of half an hour");
}

#[test]
fn a_flood_has_no_more_entries_than_there_are() {
    let mut toy = calm();
    toy.kinds.push(kind(Timeout::TcpSynSent, 5_000.0));
    toy.run(5);
    toy.census(census([100, 0], 890, 0, [10, 5]));
    toy.run(0);
    toy.kinds.pop();
    toy.flush();
    let load = toy.run(1).load;
    assert!(matches!(load, Load::Flood { entries, .. } if entries <= toy.count()), "{load:?} of {}", toy.count());
}

#[test]
fn a_surge_of_answered_flows_is_growth() {
    let mut toy = calm();
    toy.kinds[0].rate = 5_000.0;
    toy.run(20);
    toy.census(census([950, 0], 10, 10, [30, 5]));
    assert_eq!(toy.run(30).load, Load::Growth);
}

#[test]
fn flows_whose_replies_take_another_way_are_no_flood_however_many() {
    let one_way = census([0, 0], 700, 0, [300, 300]);
    let mut toy = Toy::new(&[kind(Timeout::TcpSynSent, 200.0)]);
    toy.run(60);
    toy.census(one_way.clone());
    toy.run(200);
    toy.kinds[0].rate = 5_000.0;
    toy.run(10);
    toy.census(one_way);
    assert_eq!(toy.run(30).load, Load::Growth, "here that is what calm looks like");
}

#[test]
fn unanswered_entries_that_outlive_their_timeout_are_no_flood() {
    // 90,000 flows that a moved route left without replies, kept by their packets; few new ones come.
    let mut toy = calm();
    toy.sample.table.count += 90_000;
    toy.kinds[0].rate = 900.0;
    toy.run(5);
    toy.census(census([80, 0], 5, 5, [910, 900]));
    let estimate = toy.run(10);
    assert_eq!(estimate.load, Load::Growth, "no more than 30 s × 920 of them can be a flood's");
}

#[test]
fn without_a_census_half_open_connections_that_are_evicted_show_a_syn_flood() {
    let mut toy = Toy::new(&[kind(Timeout::TcpTimeWait, 200.0), kind(Timeout::TcpSynSent, 10.0)]);
    toy.run(300);
    toy.kinds.push(Kind { timeout: Timeout::TcpSynSent, rate: 4_000.0, open: 0 });
    // The table is full: each new one evicts another.
    toy.timeouts.insert(Timeout::TcpSynSent, 2);
    let mut load = Load::Growth;
    for second in 1..=60 {
        toy.sample.stats = Statistics::Proc(StatTotals { early_drop: 4_000 * second, ..StatTotals::default() });
        load = toy.run(0).load;
    }
    assert!(is_flood(load), "{load:?}");
}

#[test]
fn what_nobody_knows_in_calm_is_growth() {
    let mut toy = Toy::new(&[kind(Timeout::TcpSynSent, 5_000.0)]);
    toy.census(census([100, 0], 900, 0, [0, 0]));
    assert_eq!(toy.run(60).load, Load::Growth, "the guard started in the middle of it");
}

#[test]
fn without_hooks_the_count_shows_the_surge() {
    let mut toy = calm();
    toy.hooked = false;
    toy.run(100);
    toy.census(census([900, 0], 10, 10, [80, 20]));
    toy.run(100);
    toy.kinds.push(kind(Timeout::Udp, 5_000.0));
    toy.run(20);
    toy.census(census([90, 0], 5, 5, [900, 890]));
    assert!(is_flood(toy.run(10).load));
}

#[test]
fn inserts_show_the_surge_where_destroys_are_not_counted() {
    let mut toy = calm();
    toy.counts_destroys = false;
    toy.run(100);
    toy.census(census([900, 0], 10, 10, [80, 20]));
    toy.run(100);
    toy.kinds.push(kind(Timeout::Udp, 5_000.0));
    let surge = toy.run(1);
    assert_eq!((surge.load, surge.look_within), (Load::Surge, Some(Duration::from_millis(500))), "{surge:?}");
    toy.run(3);
    toy.census(census([90, 0], 5, 5, [900, 890]));
    assert!(is_flood(toy.run(2).load));
}

#[test]
fn a_flood_does_not_become_the_new_calm() {
    let mut toy = calm();
    toy.kinds.push(kind(Timeout::TcpSynSent, 5_000.0));
    for _ in 0..60 {
        toy.census(census([100, 0], 890, 0, [10, 5]));
        toy.run(59);
    }
    assert!(is_flood(toy.run(0).load), "after an hour");
}
