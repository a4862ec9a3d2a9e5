use std::time::Duration;

use super::*;
use crate::model::entries::Entries;
use crate::observe::{CHAIN_LENGTHS, Destroys, HookTotals, Memory, StatTotals, Statistics, TableReading};

/// A sample with these chains in both histograms together: `(length, chains)`.
fn sample(millis: u64, count: u64, original: &[(usize, u64)], reply: &[(usize, u64)]) -> Sample {
    let histogram = |places: &[(usize, u64)]| {
        let mut counts = vec![0; CHAIN_LENGTHS];
        for (length, count) in places {
            counts[*length] += *count;
        }
        counts
    };
    let chains = Chains { one_in: 64, original: histogram(original), reply: histogram(reply) };
    Sample {
        at: Duration::from_millis(millis),
        table: TableReading { max: 8192, buckets: 1024, count },
        stats: Statistics::Proc(StatTotals::default()),
        hooks: Some(HookTotals { chains: Some(chains), ..HookTotals::default() }),
        memory: Memory::default(),
        entry_bytes: 384,
        ..Sample::default()
    }
}

fn last(samples: &[Sample]) -> Option<ChainStats> {
    let (mut recent, mut entries) = (RecentChains::default(), Entries::default());
    samples.iter().map(|sample| recent.add(sample, entries.known(sample))).last().unwrap()
}

/// Chains as an even hash would spread so many around this mean, rounded.
fn even(mean: f64, chains: f64) -> Vec<(usize, u64)> {
    let expected = Expected::new(&[Load { from: mean, to: mean, chains: 1 }], 1.0, CHAIN_LENGTHS);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
    let counts = |length| ((expected.at_least(length) - expected.at_least(length + 1)) * chains).round() as u64;
    (0..CHAIN_LENGTHS - 1).map(|length| (length, counts(length))).collect()
}

fn measured(count: u64, chains: &[(usize, u64)]) -> ChainStats {
    last(&[sample(0, count, &[], &[]), sample(1000, count, chains, &[])]).unwrap()
}

#[test]
fn both_directions_count_and_only_what_came_since_the_start() {
    let earlier = sample(0, 2048, &[(0, 1000)], &[(60, 5)]);
    let later = sample(1000, 2048, &[(0, 1090), (2, 5)], &[(60, 6), (1, 4)]);
    let stats = last(&[earlier, later]).unwrap();
    assert_eq!((stats.one_in, stats.measured, stats.p50, stats.p99, stats.max), (64, 100, 0, 2, 60));
    assert!((stats.mean - 0.74).abs() < 1e-12, "{stats:?}");
    assert!((stats.expected_mean - 4.0).abs() < 1e-12, "{stats:?}");
    assert_eq!(stats.expected_p99, 9);
}

#[test]
fn the_window_forgets_what_is_older_than_ten_seconds() {
    let mut samples = vec![sample(0, 2048, &[], &[]), sample(1000, 2048, &[(70, 3)], &[])];
    for second in 2..=11 {
        samples.push(sample(second * 1000, 2048, &[(70, 3), (4, second)], &[]));
    }
    assert_eq!(last(&samples).unwrap().max, 70);
    samples.push(sample(12_000, 2048, &[(70, 3), (4, 12)], &[]));
    let stats = last(&samples).unwrap();
    assert_eq!((stats.max, stats.measured), (4, 12), "those of the second 2 came with it");
    samples.push(sample(60_000, 2048, &[(70, 3), (4, 12)], &[]));
    assert_eq!(last(&samples), None);
}

#[test]
fn many_ticks_a_second_are_kept_together() {
    let mut recent = RecentChains::default();
    for tick in 0..2000 {
        recent.add(&sample(tick * 50, 2048, &[(4, tick)], &[]), 2048);
    }
    assert!(recent.parts.len() <= 12 && recent.parts.iter().all(|part| part.loads.len() <= 20), "{recent:?}");
}

#[test]
fn no_insert_and_counters_that_went_backwards_give_nothing() {
    let some = sample(0, 10, &[(3, 10)], &[(3, 10)]);
    assert_eq!(last(std::slice::from_ref(&some)), None);
    assert_eq!(last(&[some.clone(), sample(1000, 10, &[(3, 10)], &[(3, 10)])]), None);
    assert_eq!(last(&[some.clone(), sample(1000, 10, &[(3, 9)], &[(3, 10), (5, 50)])]), None);
    let mut gone = sample(2000, 10, &[(3, 30)], &[]);
    gone.hooks = None;
    assert_eq!(last(&[some.clone(), sample(1000, 10, &[(3, 12)], &[(3, 10)]), gone]), None);
    let mut other = sample(1000, 10, &[(3, 99)], &[(3, 10)]);
    other.hooks.as_mut().unwrap().chains.as_mut().unwrap().one_in = 1;
    assert_eq!(last(&[some, other]), None, "another sampling is another measurement");
}

#[test]
fn counts_at_the_end_of_the_range_do_not_overflow() {
    let all: Vec<_> = (0..CHAIN_LENGTHS).map(|length| (length, u64::MAX)).collect();
    let mut later = sample(1000, u64::MAX, &all, &all);
    later.table.buckets = 0;
    let stats = last(&[sample(0, 0, &[], &[]), later]).unwrap();
    assert_eq!((stats.measured, stats.p50, stats.max), (u64::MAX, 63, 127));
    assert!((stats.mean - 63.5).abs() < 1e-9 && stats.expected_mean == 0.0, "{stats:?}");
}

#[test]
fn an_even_hash_is_no_skew() {
    for count in [0, 100, 512, 2048, 8192, 40_000] {
        let load = 2.0 * count as f64 / 1024.0;
        let stats = measured(count, &even(load, 100_000.0));
        assert_eq!(stats.skew, None, "{stats:?}");
        assert!((stats.mean - stats.expected_mean).abs() < 0.05 * load + 0.01, "{stats:?}");
        assert!(stats.p99.abs_diff(stats.expected_p99) <= 1, "{stats:?}");
    }
    // A load that is a third higher than known is no finding either.
    assert_eq!(measured(2048, &even(5.3, 100_000.0)).skew, None);
}

#[test]
fn a_table_that_fills_spreads_the_lengths_and_is_no_skew() {
    // From empty to 16 tuples a bucket between two ticks.
    let mut lengths = Vec::new();
    for step in 0..64 {
        lengths.extend(even(16.0 * (f64::from(step) + 0.5) / 64.0, 500.0));
    }
    let stats = last(&[sample(0, 0, &[], &[]), sample(1000, 8192, &lengths, &[])]).unwrap();
    assert_eq!(stats.skew, None, "{stats:?}");
    assert!(stats.p99.abs_diff(stats.expected_p99) <= 1, "{stats:?}");
}

#[test]
fn few_chains_far_longer_than_the_rest_are_skew() {
    let mut lengths = even(1.0, 300.0);
    lengths.push((40, 2));
    assert_eq!(measured(512, &lengths).skew, Some(Skew::LongChains));
    // Also where the load is higher than is known.
    let mut lengths = even(3.0, 3000.0);
    lengths.push((60, 5));
    assert_eq!(measured(512, &lengths).skew, Some(Skew::LongChains));
}

#[test]
fn an_attack_on_one_direction_while_the_table_fills_is_skew() {
    // From empty to 3.5 tuples a bucket; what hashes together by its original tuples meets 3 to 30 of its kind.
    let lengths = even(1.75, 28.0);
    let attacked: Vec<_> = (3..=30).map(|length| (length, 1)).collect();
    let stats = last(&[sample(0, 0, &[], &[]), sample(1000, 1792, &lengths, &attacked)]).unwrap();
    assert_eq!((stats.max, stats.skew), (30, Some(Skew::LongChains)), "{stats:?}");
}

#[test]
fn chains_that_are_all_longer_than_the_entries_make_them_are_told_apart() {
    let stats = measured(512, &even(6.0, 3000.0));
    assert_eq!(stats.skew, Some(Skew::Unaccounted), "{stats:?}");
    let flood = measured(512, &[(50, 40), (51, 30), (52, 20)]);
    assert_eq!(flood.skew, Some(Skew::Unaccounted), "nearly all inserts meet one chain: {flood:?}");
    assert_eq!(measured(0, &[(7, 90)]).skew, Some(Skew::Unaccounted), "a load of 0 cannot be scaled");
}

#[test]
fn entries_of_other_namespaces_are_accounted_for_where_the_hooks_saw_them_come() {
    let mut earlier = sample(0, 10, &[], &[]);
    let mut later = sample(1000, 10, &even(8.0, 3000.0), &[]);
    for (sample, inserts) in [(&mut earlier, 50_000), (&mut later, 54_096)] {
        let hooks = sample.hooks.as_mut().unwrap();
        hooks.inserts = Some(inserts);
        hooks.destroys = Some(Destroys { udp: [40_000, 0], ..Destroys::default() });
    }
    let settled = Sample { at: Duration::from_secs(2), ..later.clone() };
    let mut more = settled.clone();
    more.at = Duration::from_secs(12);
    let chains = more.hooks.as_mut().unwrap().chains.as_mut().unwrap();
    for (length, count) in even(8.0, 3000.0) {
        chains.reply[length] += count;
    }
    let stats = last(&[earlier, later, settled, more]).unwrap();
    assert!((stats.expected_mean - 2.0 * 4106.0 / 1024.0).abs() < 0.01, "{stats:?}");
    assert_eq!(stats.skew, None, "{stats:?}");
}
