//! The loop closed: the plans change the table that the next samples read.

use std::time::Duration;

use conntrack_guard::config::Policy;
use conntrack_guard::observe::TableReading;
use conntrack_guard::policy::{Plan, Setting};
use proptest::prelude::*;

use crate::table::Simulation;

const CALM: Duration = Duration::from_secs(5);

fn table(max: u64) -> TableReading {
    TableReading { max, buckets: 65_536, count: 0 }
}

fn changes(plans: &[Plan], setting: Setting) -> usize {
    plans.iter().flat_map(|plan| &plan.changes).filter(|change| change.setting == setting).count()
}

proptest! {
    /// A surge that begins at any moment between two ticks finds max raised before the table is full, unless it fills the
    /// table within one tick of 50 ms.
    #[test]
    fn max_is_raised_before_the_table_is_full(
        (max, rate) in (4_096_u32..=262_144).prop_flat_map(|max| {
            (Just(max), 1.0..(f64::from(max) * 15.0).min(100_000.0))
        }),
        quiet in 0_u64..1_000,
        floor in proptest::option::of(Just(1_000_000)),
        with_hooks: bool,
    ) {
        let mut policy = Policy::default();
        policy.table.max.floor = floor;
        let mut simulation = Simulation::new(policy, table(u64::from(max)), with_hooks);
        simulation.run(0.0, CALM);
        // The surge begins `quiet` after a tick, or at the next tick if that comes first.
        let (_, wait) = simulation.tick();
        let quiet = Duration::from_millis(quiet).min(wait);
        simulation.grow(0.0, quiet);
        simulation.grow(rate, wait.saturating_sub(quiet));
        simulation.run(rate, Duration::from_secs(20));
        prop_assert_eq!(simulation.dropped, 0, "{:?}", simulation.table);
    }

    /// Once the load stands still, so do the settings.
    #[test]
    fn constant_load_comes_to_rest(rate in 1.0_f64..50_000.0, max in 1_024_u64..=262_144, with_hooks: bool) {
        let mut simulation = Simulation::new(Policy::default(), table(max), with_hooks);
        simulation.run(rate, Duration::from_secs(10));
        simulation.run(0.0, Duration::from_secs(1));
        let settled = simulation.table;
        let plans = simulation.run(0.0, Duration::from_mins(5));
        prop_assert_eq!(changes(&plans, Setting::Max) + changes(&plans, Setting::Buckets), 0);
        prop_assert_eq!(simulation.table, settled);
    }
}

#[test]
fn few_raises_carry_a_table_from_small_to_large() {
    let mut simulation = Simulation::new(Policy::default(), table(8_192), true);
    let plans = simulation.run(20_000.0, Duration::from_mins(1));
    assert_eq!((simulation.dropped, simulation.table.count >= 1_190_000), (0, true));
    let raises = changes(&plans, Setting::Max);
    assert!((2..=9).contains(&raises), "{raises} raises");
    assert_eq!(changes(&plans, Setting::Buckets), 1, "buckets are sized once, at the start");
}

#[test]
fn at_the_ceiling_flows_are_dropped_and_the_reason_stands_still() {
    let mut policy = Policy::default();
    policy.table.max.ceiling = Some(16_384);
    let mut simulation = Simulation::new(policy, table(8_192), true);
    let plans = simulation.run(2_000.0, Duration::from_secs(30));
    assert_eq!(simulation.table.max, 16_384);
    assert!(simulation.dropped > 0, "the model of the table must be able to drop");
    let mut told: Vec<_> = plans.iter().map(|plan| plan.held.first().map(|held| &held.reason)).collect();
    told.dedup();
    // Nothing, then the one reason until the end: no gap in which it would be news again.
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].is_some_and(|reason| reason.starts_with("table.max.ceiling (16,384)")), "{told:?}");
}
