use std::time::Duration;

use super::{Doubt, Estimate, Model};
use crate::observe::{
    CHAIN_LENGTHS, Chains, Destroys, HookTotals, Memory, Sample, StatTotals, Statistics, TableFull, TableReading,
};

fn sample(millis: u64, count: u64) -> Sample {
    Sample {
        at: Duration::from_millis(millis),
        table: TableReading { max: 65_536, buckets: 16_384, count },
        stats: Statistics::Proc(StatTotals::default()),
        hooks: None,
        memory: Memory { total: 1 << 30, available: 1 << 29, pressure: None },
        entry_bytes: 320,
        ..Sample::default()
    }
}

fn hooked(millis: u64, count: u64, inserts: u64, destroys: u64) -> Sample {
    let hooks = HookTotals {
        inserts: Some(inserts),
        destroys: Some(Destroys { udp: [destroys, 0], ..Destroys::default() }),
        table_full: Some(TableFull::default()),
        chains: Some(Chains { original: vec![0; CHAIN_LENGTHS], reply: vec![0; CHAIN_LENGTHS], ..Chains::default() }),
        ..HookTotals::default()
    };
    Sample { hooks: Some(hooks), ..sample(millis, count) }
}

fn last(samples: &[Sample]) -> Estimate {
    let mut model = Model::new(Duration::from_secs(10));
    samples.iter().map(|sample| model.observe(sample)).last().unwrap()
}

#[test]
fn the_first_sample_gives_no_rates() {
    let estimate = last(&[hooked(1000, 500, 1_000_000, 999_500)]);
    assert_eq!((estimate.insert_rate, estimate.destroy_rate), (None, None));
    assert_eq!((estimate.forecast, estimate.time_to_full, estimate.table_full), (500, None, 0));
}

#[test]
fn steady_growth_is_forecast_at_its_rate() {
    let samples: Vec<_> = (0..=20).map(|tick| sample(tick * 500, tick * 400)).collect();
    let estimate = last(&samples);
    assert!((estimate.growth - 800.0).abs() < 1.0, "{estimate:?}");
    assert!((15_990..=16_001).contains(&estimate.forecast), "{estimate:?}");
    let to_full = estimate.time_to_full.unwrap().as_secs_f64();
    assert!((to_full - (65_536.0 - 8_000.0) / 800.0).abs() < 0.2, "{estimate:?}");
    assert_eq!(estimate.insert_rate, None, "the count alone does not tell inserts");
}

#[test]
fn the_hooks_rates_are_used_where_they_are() {
    // The count hides that 900 entries come and 100 go each second.
    let samples: Vec<_> = (0..=10).map(|s| hooked(s * 1000, 5_000, s * 900, s * 100)).collect();
    let estimate = last(&samples);
    assert!((estimate.insert_rate.unwrap() - 900.0).abs() < 1e-6, "{estimate:?}");
    assert!((estimate.destroy_rate.unwrap() - 100.0).abs() < 1e-6, "{estimate:?}");
    assert!((estimate.growth - 800.0).abs() < 1.0, "{estimate:?}");
}

#[test]
fn a_draining_table_is_forecast_as_it_is() {
    let samples: Vec<_> = (0..=60).map(|s| sample(s * 1000, 60_000 - s * 900)).collect();
    let estimate = last(&samples);
    assert!(estimate.growth < -700.0, "{estimate:?}");
    assert_eq!((estimate.forecast, estimate.time_to_full), (6_000, None));
}

#[test]
fn a_surge_is_seen_at_once_and_forgotten_slowly() {
    let mut model = Model::new(Duration::from_secs(10));
    for second in 0..30 {
        model.observe(&sample(second * 1000, 100));
    }
    let seen = model.observe(&sample(30_000, 10_100));
    assert!(seen.growth > 6_000.0, "{seen:?}");
    let later = (31..36).map(|second| model.observe(&sample(second * 1000, 10_100))).last().unwrap();
    assert!((100.0..1_000.0).contains(&later.growth), "{later:?}");
}

#[test]
fn counters_that_went_backwards_change_no_rate() {
    let mut model = Model::new(Duration::from_secs(10));
    for second in 0..10 {
        model.observe(&hooked(second * 1000, 5_000, second * 500, second * 500));
    }
    let reloaded = model.observe(&hooked(10_000, 5_000, 0, 0));
    assert!((reloaded.insert_rate.unwrap() - 500.0).abs() < 1e-6, "{reloaded:?}");
    assert!(reloaded.growth.abs() < 1e-6, "{reloaded:?}");
    let next = model.observe(&hooked(11_000, 5_000, 500, 500));
    assert!((next.insert_rate.unwrap() - 500.0).abs() < 1e-6, "{next:?}");
}

#[test]
fn an_absurd_jump_changes_no_rate() {
    let estimate = last(&[sample(0, 100), sample(1000, 100), sample(2000, u64::MAX), sample(3000, 100)]);
    assert!(estimate.growth.abs() < 1e-9, "{estimate:?}");
    let hooks = last(&[hooked(0, 100, 0, 0), hooked(1000, 100, u64::MAX, 0)]);
    assert_eq!(hooks.insert_rate, None);
    assert!(hooks.growth.abs() < 1e-9, "{hooks:?}");
}

#[test]
fn a_time_that_stands_or_goes_back_is_no_evidence() {
    let stands = last(&[sample(1000, 100), sample(1000, 9_000)]);
    assert!(stands.growth.abs() < 1e-9, "{stands:?}");
    let back = last(&[sample(5000, 100), sample(1000, 9_000)]);
    assert!(back.growth.abs() < 1e-9, "{back:?}");
    let recovered = last(&[sample(5000, 100), sample(1000, 100), sample(2000, 1_100)]);
    assert!((recovered.growth - 632.1).abs() < 0.1, "{recovered:?}");
}

#[test]
fn hooks_that_go_away_leave_no_stale_rates() {
    let estimate = last(&[hooked(0, 0, 0, 0), hooked(1000, 900, 900, 0), sample(2000, 1_800)]);
    assert_eq!(estimate.insert_rate, None);
    assert!(estimate.growth > 700.0, "the count goes on: {estimate:?}");
}

#[test]
fn inserts_alone_have_their_rate_and_the_count_tells_the_growth() {
    let inserts_alone = |second: u64| {
        let mut sample = hooked(second * 1000, 5_000 + 100 * second, 900 * second, 0);
        sample.hooks.as_mut().unwrap().destroys = None;
        sample
    };
    let estimate = last(&(0..=60).map(inserts_alone).collect::<Vec<_>>());
    assert!(estimate.insert_rate.is_some_and(|rate| (rate - 900.0).abs() < 1.0), "{estimate:?}");
    assert!(estimate.insert_rate_long.is_some_and(|rate| (rate - 900.0).abs() < 1.0), "{estimate:?}");
    assert_eq!((estimate.destroy_rate, estimate.destroy_rate_long, estimate.steady), (None, None, None));
    assert!((estimate.growth - 100.0).abs() < 1.0 && estimate.doubts.is_empty(), "{estimate:?}");
    assert_eq!(estimate.outlook.count(Duration::from_secs(10), &estimate.timeouts, 0), 12_000);

    let lost = last(&[hooked(0, 5_000, 0, 0), hooked(1000, 5_000, 900, 900), inserts_alone(2)]);
    assert_eq!((lost.doubts, lost.destroy_rate), (vec![Doubt::Missing], None));
    assert!(lost.insert_rate.is_some(), "the one that is left goes on");
}

#[test]
fn who_counted_the_refusals_is_told() {
    assert!(last(&[hooked(1000, 5_000, 0, 0)]).table_full_hooked);
    let mut in_parts = hooked(1000, 5_000, 0, 0);
    in_parts.hooks.as_mut().unwrap().table_full = None;
    assert!(!last(&[in_parts]).table_full_hooked, "early_drop is not hooked, inserts are");
}

#[test]
fn drops_are_counted_since_the_sample_before() {
    let mut earlier = hooked(0, 10, 0, 0);
    let mut later = hooked(1000, 10, 0, 0);
    for (sample, full) in [(&mut earlier, 7), (&mut later, 9)] {
        let hooks = sample.hooks.as_mut().unwrap();
        hooks.table_full = Some(TableFull { refused: full, made_room: 0 });
        sample.stats = Statistics::Proc(StatTotals { drop: full * 1_000, ..StatTotals::default() });
    }
    assert_eq!(last(&[earlier, later]).table_full, 2);
}

#[test]
fn without_hooks_clashes_are_no_table_full_drops_and_without_statistics_none_are_known() {
    let mut later = sample(1000, 10);
    let totals = StatTotals { drop: 30, insert_failed: 25, chain_too_long: 5, ..StatTotals::default() };
    later.stats = Statistics::Ctnetlink { totals, why: String::new() };
    assert_eq!(last(&[sample(0, 10), later.clone()]).table_full, 10);
    later.stats = Statistics::Missing { why: String::new() };
    assert_eq!(last(&[sample(0, 10), later]).table_full, 0);
}

#[test]
fn a_full_table_is_full_now_and_no_limit_is_never_full() {
    assert_eq!(last(&[sample(0, 65_536)]).time_to_full, Some(Duration::ZERO));
    let mut unlimited = [sample(0, 0), sample(1000, 5_000)];
    for sample in &mut unlimited {
        sample.table.max = 0;
    }
    assert_eq!(last(&unlimited).time_to_full, None);
}

#[test]
fn entries_fit_into_what_is_available_while_nobody_waits_for_memory() {
    let memory = |available, pressure| Memory { total: 1 << 30, available, pressure };
    let fit = |memory| Estimate { memory, entry_bytes: 320, ..Estimate::default() }.entries_that_fit();
    assert_eq!(fit(memory(1 << 29, Some(0.5))), ((1 << 29) - (1 << 30) / 20) / 320);
    assert_eq!(fit(memory(1 << 29, None)), fit(memory(1 << 29, Some(0.0))));
    assert_eq!(fit(memory(1 << 29, Some(35.0))), 0);
    assert_eq!(fit(memory(1 << 20, None)), 0);
    assert_eq!(fit(Memory::default()), u64::MAX);
}
