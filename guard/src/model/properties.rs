//! What holds for every history of samples, however strange.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::{Estimate, Load, Model};
use crate::observe::{Census, HookTotals, InState, ResizeEvent, Sample, TableReading, Timeout, Timeouts};

/// Ordinary values, small ones, and the ends of the range.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0_u64..1_000_000, 2 => 0_u64..100, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

fn by_timeout<T: std::fmt::Debug>(what: impl Strategy<Value = T>) -> impl Strategy<Value = BTreeMap<Timeout, T>> {
    proptest::collection::btree_map(proptest::sample::select(&Timeout::ALL[..]), what, 0..6)
}

prop_compose! {
    fn census()(
        at in 0_u64..100_000,
        by in by_timeout(proptest::array::uniform4(number())),
        other in number(),
        unreplied_sources in number(),
    ) -> Census {
        let by: BTreeMap<_, _> = by.into_iter().map(|(timeout, [entries, unreplied, assured, seconds_left])| {
            (timeout, InState { entries, unreplied, assured, seconds_left })
        }).collect();
        Census { at: Duration::from_millis(at), entries: 1, whole: false, by, other, unreplied_sources }
    }
}

/// What a sample says beside its time.
#[derive(Clone, Debug)]
struct Reading {
    /// Milliseconds since the one before; the odd one goes back.
    after: i64,
    count: u64,
    /// Since the one before; the odd one is a jump.
    inserts: u64,
    destroys: [u64; 4],
    hooked: bool,
    census: Option<Census>,
    timeouts: Timeouts,
    resize: Option<(u64, i32)>,
}

prop_compose! {
    fn reading()(
        after in prop_oneof![20 => 1_i64..2_000, 1 => Just(0), 1 => -5_000_i64..1_000_000],
        count in number(),
        inserts in prop_oneof![9 => 0_u64..50_000, 1 => any::<u64>()],
        destroys in proptest::array::uniform4(prop_oneof![9 => 0_u64..20_000, 1 => any::<u64>()]),
        hooked in prop_oneof![9 => Just(true), 1 => Just(false)],
        census in proptest::option::weighted(0.3, census()),
        timeouts in prop_oneof![9 => Just(Timeouts::new()), 1 => by_timeout(number())],
        resize in proptest::option::weighted(0.05, (number(), any::<i32>())),
    ) -> Reading {
        Reading { after, count, inserts, destroys, hooked, census, timeouts, resize }
    }
}

fn sample(reading: &Reading, before: &Sample) -> Sample {
    let (hooks, at) = (before.hooks.clone().unwrap_or_default(), before.at);
    let step = Duration::from_millis(reading.after.unsigned_abs());
    let at = if reading.after < 0 { at.saturating_sub(step) } else { at.saturating_add(step) };
    let mut destroys = hooks.destroys.unwrap_or_default();
    let [time_wait, syn_sent, udp, icmp] = reading.destroys;
    // They wrap: what comes after is less than what was before.
    let add = |sum: &mut u64, more: u64| *sum = sum.wrapping_add(more);
    add(&mut destroys.tcp[7][1], time_wait);
    add(&mut destroys.tcp[1][0], syn_sent);
    add(&mut destroys.udp[0], udp);
    add(&mut destroys.icmp[0], icmp);
    let resizes = reading.resize.map(|(nanos, result)| ResizeEvent {
        at,
        took: Duration::from_nanos(nanos),
        pid: 1,
        comm: String::new(),
        cgroup: 1,
        from: None,
        to: None,
        result,
    });
    let inserts = Some(hooks.inserts.unwrap_or(0).wrapping_add(reading.inserts));
    Sample {
        at,
        table: TableReading { max: 262_144, buckets: 65_536, count: reading.count },
        hooks: reading.hooked.then(|| HookTotals {
            inserts,
            destroys: Some(destroys),
            resizes: resizes.into_iter().collect(),
            ..HookTotals::default()
        }),
        entry_bytes: 320,
        timeouts: reading.timeouts.clone(),
        census: reading.census.clone(),
        ..Sample::default()
    }
}

fn share(value: f64) -> bool {
    (0.0..=1.0).contains(&value)
}

fn check(estimate: &Estimate, after: u64, timeouts: &Timeouts, max: u64) -> Result<(), TestCaseError> {
    let count = estimate.table.count;
    prop_assert!(estimate.forecast >= count && estimate.growth.is_finite(), "{estimate:?}");
    let rates = [estimate.insert_rate, estimate.insert_rate_long, estimate.destroy_rate, estimate.destroy_rate_long];
    prop_assert!(rates.iter().flatten().all(|rate| rate.is_finite() && *rate >= 0.0), "{estimate:?}");
    for (timeout, state) in &estimate.states {
        let fits = state.entries.is_finite() && state.entries >= 0.0 && state.ends.is_finite() && state.ends >= 0.0;
        prop_assert!(fits && state.entries <= 1.001 * count as f64 && share(state.unreplied), "{timeout:?} {state:?}");
    }
    if let Load::Flood { unreplied, entries, .. } = estimate.load {
        prop_assert!(share(unreplied) && entries <= count, "{unreplied} {entries}");
    }
    let stall = estimate.resize_cost.stall(1_000_000);
    prop_assert!(stall >= Duration::from_millis(100) && stall <= Duration::from_secs(20), "{stall:?}");
    // Entries are real numbers in there: of the largest counts the last digits are lost.
    let expected = |seconds, max| estimate.outlook.count(Duration::from_secs(seconds), timeouts, max) as f64;
    let highest = 1.000_001 * max.max(count) as f64 + 1.0;
    prop_assert!(max == 0 || expected(after, max) <= highest, "{} of {max}", expected(after, max));
    prop_assert!(expected(after, max) <= expected(after, 0), "a limit adds no entry");
    let now = expected(0, 0) - count as f64;
    prop_assert!(now.abs() <= 1e-6 * count as f64, "{now} more than are there");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_history_makes_an_estimate_absurd(
        readings in proptest::collection::vec(reading(), 1..60),
        after in prop_oneof![4 => 0_u64..700, 1 => any::<u64>()],
        timeouts in by_timeout(number()),
        max in number(),
        horizon in 1_u64..600,
    ) {
        let mut model = Model::new(Duration::from_secs(horizon));
        let mut last = Sample { at: Duration::from_secs(100), ..Sample::default() };
        for reading in &readings {
            last = sample(reading, &last);
            check(&model.observe(&last), after, &timeouts, max)?;
        }
    }

    /// The same history leads to the same estimates.
    #[test]
    fn nothing_but_the_samples_counts(readings in proptest::collection::vec(reading(), 1..30)) {
        let mut models = [Model::new(Duration::from_secs(10)), Model::new(Duration::from_secs(10))];
        let mut last = Sample::default();
        for reading in &readings {
            last = sample(reading, &last);
            let [one, other] = models.each_mut().map(|model| model.observe(&last));
            prop_assert_eq!(one, other);
        }
    }
}
