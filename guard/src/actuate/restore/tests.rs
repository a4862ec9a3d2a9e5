//! What comes back, what waits, and what is left.

use super::*;
use crate::actuate::testing::FakeKernel;
use crate::actuate::{Found, find_journal};
use crate::observe::Timeout;

const MAX: &str = "nf_conntrack_max";
const BUCKETS: &str = "nf_conntrack_buckets";
const UDP: &str = "nf_conntrack_udp_timeout";
const COUNT: &str = "nf_conntrack_count";

/// A kernel whose max went from 65536 to 262144, whose buckets went from 16384 to 65536 and whose UDP timeout went from 30
/// to 15.
fn changed(count: u64, max_stall: Duration) -> FakeKernel {
    let kernel = FakeKernel::with_timeouts(65536, 16384, count);
    let boot = kernel.settings().boot_id().unwrap();
    let mut journal = Journal::create(&kernel.state_dir(), &boot).unwrap();
    journal.begin(&kernel.settings().all().unwrap(), max_stall).unwrap();
    for (setting, old, new) in
        [(Setting::Max, 65536, 262_144), (Setting::Buckets, 16384, 65536), (Setting::Timeout(Timeout::Udp), 30, 15)]
    {
        journal.intend(setting, old, new).unwrap();
        kernel.set(setting.sysctl(), new);
        journal.settle(setting, new).unwrap();
    }
    kernel
}

fn values(kernel: &FakeKernel) -> [u64; 3] {
    [UDP, MAX, BUCKETS].map(|name| kernel.get(name))
}

fn run(kernel: &FakeKernel) -> Vec<Restored> {
    run_as(kernel, Restore::WhenSafe)
}

fn run_as(kernel: &FakeKernel, how: Restore) -> Vec<Restored> {
    match find_journal(&kernel.state_dir(), &kernel.settings()).unwrap() {
        Found::ThisBoot(mut journal) => restore(&mut journal, &kernel.settings(), how),
        _ => Vec::new(),
    }
}

#[test]
fn everything_comes_back_once() {
    let kernel = changed(1000, Duration::from_millis(20));
    let all: Vec<Put> = run(&kernel).into_iter().map(|one| one.put).collect();
    assert_eq!(all, [Put::Back { from: 15 }, Put::Back { from: 262_144 }, Put::Back { from: 65536 }]);
    assert_eq!(values(&kernel), [30, 65536, 16384]);
    assert_eq!(run(&kernel), []);
}

#[test]
fn max_stays_while_what_it_was_would_drop_flows() {
    let kernel = changed(100_000, Duration::from_secs(1));
    let all = run(&kernel);
    // 200,000 entries of twice the time fit into 262,144.
    assert_eq!(all[0].put, Put::Back { from: 15 });
    assert!(matches!(&all[1].put, Put::Later { from: 262_144, now: 262_144, .. }), "{all:?}");
    assert_eq!(values(&kernel), [30, 262_144, 16384]);
    kernel.set(COUNT, 10);
    assert_eq!(run(&kernel).into_iter().map(|one| one.put).collect::<Vec<_>>(), [Put::Back { from: 262_144 }]);
    assert_eq!(values(&kernel), [30, 65536, 16384]);
    assert_eq!(run(&kernel), []);
}

#[test]
fn timeouts_wait_while_what_they_bring_would_not_fit() {
    let kernel = changed(150_000, Duration::from_secs(1));
    let all = run(&kernel);
    assert!(matches!(&all[0].put, Put::Later { from: 15, now: 15, why } if why.contains("300000")), "{all:?}");
    assert_eq!(values(&kernel), [15, 262_144, 16384]);
    kernel.set(COUNT, 20_000);
    assert!(run(&kernel).iter().all(Restored::is_done));
    assert_eq!(values(&kernel), [30, 65536, 16384]);
}

#[test]
fn buckets_wait_for_a_table_that_resizes_within_the_limit() {
    let kernel = changed(29_000, Duration::from_millis(20));
    let all = run(&kernel);
    assert!(matches!(&all[2].put, Put::Later { now: 65536, why, .. } if why.contains("stall")), "{all:?}");
    assert_eq!(values(&kernel), [30, 65536, 65536]);
    kernel.set(COUNT, 10_000);
    assert_eq!(run(&kernel).len(), 1);
    assert_eq!(values(&kernel), [30, 65536, 16384]);
}

#[test]
fn now_heeds_no_stall_but_drops_no_flow() {
    let kernel = changed(100_000, Duration::from_millis(20));
    let all = run_as(&kernel, Restore::Now);
    assert_eq!(all[0].put, Put::Back { from: 15 });
    assert!(matches!(&all[1].put, Put::Later { from: 262_144, now: 110_000, .. }), "{all:?}");
    let limit = Duration::from_millis(20);
    assert!(matches!(all[2].put, Put::BackOverStall { from: 65536, limit: l, .. } if l == limit), "{all:?}");
    assert_eq!(values(&kernel), [30, 110_000, 16384]);
    // More entries by now: it is not raised again either.
    kernel.set(COUNT, 105_000);
    let all = run_as(&kernel, Restore::Now);
    assert!(matches!(&all[0].put, Put::Later { from: 110_000, now: 110_000, .. }), "{all:?}");
    // What is left is not taken for somebody else's, whoever finishes it.
    kernel.set(COUNT, 10);
    assert_eq!(run(&kernel)[0].put, Put::Back { from: 110_000 });
    assert_eq!((values(&kernel), run(&kernel)), ([30, 65536, 16384], vec![]));
}

#[test]
fn keep_leaves_everything_to_the_next_guard() {
    let kernel = changed(1000, Duration::from_millis(20));
    let all: Vec<Put> = run_as(&kernel, Restore::Keep).into_iter().map(|one| one.put).collect();
    assert_eq!(all, [Put::Kept { now: 15 }, Put::Kept { now: 262_144 }, Put::Kept { now: 65536 }]);
    assert_eq!(values(&kernel), [15, 262_144, 65536]);
    assert!(run(&kernel).iter().all(Restored::is_done));
    assert_eq!(values(&kernel), [30, 65536, 16384]);
}

#[test]
fn keep_keeps_nothing_of_somebody_elses() {
    let kernel = changed(1000, Duration::from_millis(20));
    kernel.set(MAX, 131_072);
    kernel.set(UDP, 30);
    kernel.set(BUCKETS, 16384);
    let all = run_as(&kernel, Restore::Keep);
    assert!(matches!(all[1].put, Put::Overwritten { current: 131_072 }), "{all:?}");
    assert!(!kernel.state_dir().join("journal.json").exists());
}

#[test]
fn what_somebody_else_wrote_stays() {
    let kernel = changed(1000, Duration::from_millis(20));
    kernel.set(MAX, 131_072);
    let all = run(&kernel);
    assert_eq!(all[1].put, Put::Overwritten { current: 131_072 });
    assert_eq!(values(&kernel), [30, 131_072, 16384]);
    assert_eq!(run(&kernel), []);
}

#[test]
fn without_a_count_nothing_is_written() {
    let kernel = changed(1000, Duration::from_millis(20));
    std::fs::remove_file(kernel.path("proc/sys/net/netfilter/nf_conntrack_count")).unwrap();
    assert!(run(&kernel).iter().all(|one| matches!(one.put, Put::Failed { .. })));
    assert_eq!(values(&kernel), [15, 262_144, 65536]);
    kernel.set(COUNT, 1);
    assert!(run(&kernel).iter().all(Restored::is_done));
}

#[test]
fn a_full_disk_keeps_nothing_from_coming_back() {
    let kernel = changed(1000, Duration::from_millis(20));
    kernel.fill_the_disk_for("journal.json.new");
    let all = run(&kernel);
    assert!(all.iter().all(Restored::is_done), "{all:?}");
    assert_eq!((values(&kernel), run(&kernel)), ([30, 65536, 16384], vec![]));
}

#[test]
fn what_is_left_on_a_full_disk_is_in_the_page() {
    let kernel = changed(29_000, Duration::from_millis(20));
    kernel.fill_the_disk_for("journal.json.new");
    let all = run(&kernel);
    assert_eq!(all.iter().filter(|one| !one.is_done()).count(), 1, "{all:?}");
    kernel.set(COUNT, 1000);
    assert_eq!(run(&kernel).len(), 1, "max and the timeout are off the journal");
    assert_eq!(values(&kernel), [30, 65536, 16384]);
}

#[test]
fn a_setting_that_is_back_but_still_in_the_journal_is_found_done_later() {
    let kernel = changed(29_000, Duration::from_millis(20));
    // Neither the journal nor the page takes anything.
    std::fs::remove_file(kernel.state_dir().join("journal.latest")).unwrap();
    kernel.fill_the_disk_for("journal.json.new");
    let all = run(&kernel);
    assert!(matches!(&all[1].put, Put::StillInJournal { error } if error.contains("journal.json.new")), "{all:?}");
    assert_eq!(values(&kernel), [30, 65536, 65536], "the buckets wait for a smaller table");
    kernel.set(COUNT, 1000);
    assert!(run(&kernel).iter().all(Restored::is_done));
    assert_eq!(values(&kernel), [30, 65536, 16384]);
}

#[test]
fn a_refused_write_stays_in_the_journal_and_stops_no_other() {
    let kernel = changed(1000, Duration::from_millis(20));
    // Reads 65536, which is what the guard left, and refuses writes.
    kernel.make_read_only("proc/sys/net/netfilter/nf_conntrack_buckets");
    kernel.make_read_only("sys/module/nf_conntrack/parameters/hashsize");
    let all = run(&kernel);
    assert_eq!((&all[0].put, &all[1].put), (&Put::Back { from: 15 }, &Put::Back { from: 262_144 }));
    assert!(matches!(&all[2].put, Put::Failed { error } if error.contains(BUCKETS)), "{all:?}");
    assert_eq!(run(&kernel).len(), 1);
}

#[test]
fn timeouts_come_back_after_the_max_that_has_room_for_them_and_not_without_it() {
    for refused in [true, false] {
        let kernel = FakeKernel::with_timeouts(262_144, 16384, 10);
        let boot = kernel.settings().boot_id().unwrap();
        let mut journal = Journal::create(&kernel.state_dir(), &boot).unwrap();
        journal.begin(&kernel.settings().all().unwrap(), Duration::from_secs(1)).unwrap();
        for (setting, old, new) in [(Setting::Max, 262_144, 65536), (Setting::Timeout(Timeout::Udp), 30, 15)] {
            journal.intend(setting, old, new).unwrap();
            kernel.set(setting.sysctl(), new);
            journal.settle(setting, new).unwrap();
        }
        drop(journal);
        kernel.set(COUNT, 50_000);
        if refused {
            // Reads 65536.
            kernel.make_read_only("proc/sys/net/netfilter/nf_conntrack_max");
        }
        let all = run(&kernel);
        assert_eq!((all[0].setting, all[1].setting), (Setting::Max, Setting::Timeout(Timeout::Udp)));
        if refused {
            assert!(matches!((&all[0].put, &all[1].put), (Put::Failed { .. }, Put::Later { .. })), "{all:?}");
            assert_eq!(kernel.get(UDP), 15);
        } else {
            assert_eq!(values(&kernel), [30, 262_144, 16384]);
        }
    }
}
