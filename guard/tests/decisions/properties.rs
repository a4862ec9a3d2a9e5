//! What holds for every sample, estimate and policy, however strange.

use std::collections::BTreeMap;
use std::time::Duration;

use conntrack_guard::config::Policy;
use conntrack_guard::model::{Estimate, InState, Load, Model, Outlook, ResizeCost};
use conntrack_guard::observe::{
    CHAIN_LENGTHS, Chains, Destroys, HookTotals, Memory, Sample, StatTotals, Statistics, TableFull, TableReading,
    Timeout, Timeouts,
};
use conntrack_guard::policy::{Host, InForce, Limits, Phase, Plan, Rule, Setting, State, bounds, decide, next_tick};
use proptest::prelude::*;

use crate::policy_files::policy;

/// Ordinary values, small ones, and the ends of the range.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0_u64..10_000_000,
        2 => 0_u64..100,
        1 => any::<u64>(),
        1 => Just(u64::MAX),
        1 => Just(0),
    ]
}

fn rate() -> impl Strategy<Value = f64> {
    prop_oneof![4 => -1e6_f64..1e6, 2 => any::<f64>(), 1 => Just(f64::NAN), 1 => Just(f64::INFINITY)]
}

fn moment() -> impl Strategy<Value = Duration> {
    prop_oneof![
        6 => (0_u64..100_000).prop_map(Duration::from_millis),
        1 => any::<u64>().prop_map(Duration::from_nanos),
        1 => Just(Duration::MAX),
        1 => Just(Duration::ZERO),
    ]
}

prop_compose! {
    fn table()(max in number(), buckets in number(), count in number()) -> TableReading {
        TableReading { max, buckets, count }
    }
}

prop_compose! {
    fn hooks()(
        inserts in proptest::option::of(number()),
        destroys in proptest::option::of(proptest::array::uniform2(number())),
        table_full in proptest::option::of(proptest::array::uniform2(number())),
        missed in proptest::option::of(number()),
        lengths in proptest::sample::select(vec![0, 1, CHAIN_LENGTHS]),
        fill in proptest::array::uniform2(number()),
    ) -> HookTotals {
        let chains = Chains { original: vec![fill[0]; lengths], reply: vec![fill[1]; lengths], ..Chains::default() };
        HookTotals {
            inserts,
            destroys: destroys.map(|[udp, tcp]| Destroys { udp: [udp; 2], tcp: [[tcp; 2]; 16], ..Destroys::default() }),
            table_full: table_full.map(|[refused, made_room]| TableFull { refused, made_room }),
            chains: Some(chains),
            missed,
            ..HookTotals::default()
        }
    }
}

prop_compose! {
    fn sample()(
        at in moment(),
        table in table(),
        stats in proptest::array::uniform7(number()),
        hooks in proptest::option::of(hooks()),
        memory in proptest::array::uniform2(number()),
        entry_bytes in number(),
    ) -> Sample {
        let [drop, early_drop, insert_failed, chain_too_long, clash_resolved, invalid, icmp_error] = stats;
        Sample {
            at,
            table,
            stats: Statistics::Proc(StatTotals {
                drop,
                early_drop,
                insert_failed,
                chain_too_long,
                clash_resolved,
                invalid,
                icmp_error,
            }),
            hooks,
            memory: Memory { total: memory[0], available: memory[1], pressure: None },
            entry_bytes,
            ..Sample::default()
        }
    }
}

fn load() -> impl Strategy<Value = Load> {
    let flood = (any::<f64>(), number(), number());
    let flood = flood.prop_map(|(unreplied, entries, sources)| Load::Flood { unreplied, entries, sources });
    prop_oneof![3 => Just(Load::Growth), 1 => Just(Load::Surge), 1 => flood]
}

prop_compose! {
    fn memory()(total in number(), available in number(), pressure in proptest::option::of(rate())) -> Memory {
        Memory { total, available, pressure }
    }
}

prop_compose! {
    fn state()(entries in rate(), ends in rate(), unreplied in any::<f64>()) -> InState {
        InState { entries, ends, unreplied }
    }
}

fn by_timeout<T: std::fmt::Debug>(what: impl Strategy<Value = T>) -> impl Strategy<Value = BTreeMap<Timeout, T>> {
    proptest::collection::btree_map(proptest::sample::select(&Timeout::ALL[..]), what, 0..6)
}

/// What the daemon's host has, and now and then what none has.
fn timeouts() -> impl Strategy<Value = Timeouts> {
    let kernel: Timeouts = Timeout::ALL.into_iter().map(|timeout| (timeout, timeout.kernel_default())).collect();
    (by_timeout(number()), any::<bool>()).prop_map(move |(odd, whole)| {
        let mut timeouts = if whole { kernel.clone() } else { Timeouts::new() };
        timeouts.extend(odd);
        timeouts
    })
}

prop_compose! {
    fn estimate()(
        at in moment(),
        table in table(),
        rates in (proptest::option::of(rate()), proptest::option::of(rate()), rate()),
        forecast in number(),
        time_to_full in proptest::option::of(moment()),
        table_full in number(),
        entry_bytes in prop_oneof![3 => 256_u64..1024, 1 => number()],
        beside in (load(), memory(), by_timeout(state()), timeouts(), any::<bool>(), moment()),
    ) -> Estimate {
        let (load, memory, states, timeouts, flowtables, time_of_day) = beside;
        Estimate {
            at,
            table,
            outlook: Outlook::growing(table.count, rates.2),
            load,
            memory,
            states,
            timeouts,
            flowtables,
            time_of_day,
            insert_rate: rates.0,
            destroy_rate: rates.1,
            growth: rates.2,
            forecast,
            time_to_full,
            table_full,
            entries: table.count,
            chains: None,
            resize_stall: ResizeCost::default().stall(table.count),
            entry_bytes,
            ..Estimate::default()
        }
    }
}

/// A host on which the policy can be kept, or none.
fn limits(policy: &Policy, table: TableReading, memory_total: u64) -> Option<Limits> {
    // 64 KiB pages are the other size in use.
    let page_bytes = if memory_total.is_multiple_of(2) { 4096 } else { 65_536 };
    let timeouts = Timeout::ALL.into_iter().map(|timeout| (timeout, timeout.kernel_default())).collect();
    Limits::new(policy, &Host { table, memory_total, entry_bytes: 320, page_bytes, timeouts }).ok()
}

fn apply(plan: &Plan, estimate: &mut Estimate) {
    for change in &plan.changes {
        match change.setting {
            Setting::Max => estimate.table.max = change.new,
            Setting::Buckets => estimate.table.buckets = change.new,
            Setting::Timeout(timeout) => drop(estimate.timeouts.insert(timeout, change.new)),
        }
    }
}

fn check_plan(plan: &Plan, policy: &Policy, limits: &Limits, estimate: &Estimate) -> Result<(), TestCaseError> {
    let found =
        InForce { table: estimate.table, timeouts: estimate.timeouts.clone(), time_of_day: estimate.time_of_day };
    let verdict = bounds::check(plan, limits, &found, estimate.entry_bytes, estimate.resize_cost);
    prop_assert!(verdict.is_ok(), "{:?} for {plan:?} with {limits:?} on {estimate:?}", verdict.err());
    for change in &plan.changes {
        let up = change.new > change.old;
        let (direction, setting) = match change.rule {
            Rule::RaiseMax => (up, change.setting == Setting::Max),
            Rule::RelaxMax => (!up, change.setting == Setting::Max),
            Rule::PresizeBuckets | Rule::GrowBuckets => (up, change.setting == Setting::Buckets),
            Rule::ShortenTimeout => (!up, matches!(change.setting, Setting::Timeout(_))),
            Rule::RelaxTimeout => (up, matches!(change.setting, Setting::Timeout(_))),
        };
        prop_assert!(direction && setting && change.old > 0, "{change:?}");
        prop_assert!(!change.evidence.contains('\n') && !change.predicted.contains('\n'));
        prop_assert!(change.expectation.is_some(), "{change:?}");
        if change.setting == Setting::Timeout(Timeout::TcpEstablished) && change.rule == Rule::ShortenTimeout {
            prop_assert!(!estimate.flowtables, "{change:?}");
        }
    }
    for held in &plan.held {
        prop_assert!(!held.reason.is_empty() && !held.reason.contains('\n'), "{held:?}");
    }
    let max = plan.changes.iter().position(|change| change.setting == Setting::Max);
    let raises = plan.changes.iter().any(|change| change.rule == Rule::RaiseMax);
    prop_assert!(!raises || max == Some(0), "max never waits for anything");
    if let Load::Flood { unreplied, entries, .. } = estimate.load
        && policy.flood.detect
        && unreplied >= policy.flood.unreplied
    {
        // Room for what is answered and five seconds of what comes.
        let new = (5.0 * estimate.insert_rate.unwrap_or(estimate.growth)).max(0.0).min(limits.found_max as f64);
        let needed = estimate.table.count.saturating_sub(entries) as f64 + new;
        let enough = |max: u64| max as f64 * policy.table.high_water <= 1.000_001 * needed + 2.0;
        let fed = plan.changes.iter().any(|change| change.rule == Rule::RaiseMax && !enough(change.new));
        prop_assert!(!fed, "a flood is fed: {plan:?} on {estimate:?}");
    }
    let emergency = plan.standing.phase == Phase::Emergency;
    prop_assert!(!raises || !emergency || plan.changes.len() == 1, "in an emergency max comes alone");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_plan_passes_the_bounds(
        policy in policy(),
        found in table(),
        memory_total in prop_oneof![3 => 1_u64 << 28..1 << 40, 1 => number()],
        estimates in proptest::collection::vec(estimate(), 1..5),
    ) {
        let found = TableReading { count: found.count % 10_000, ..found };
        if let Some(limits) = limits(&policy, found, memory_total) {
            let mut state = State::default();
            for estimate in &estimates {
                let (next, plan) = decide(&state, estimate, &policy, &limits);
                state = next;
                check_plan(&plan, &policy, &limits, estimate)?;
            }
        }
    }

    /// The same load after the plan was carried out asks for nothing more.
    #[test]
    fn a_plan_carried_out_leaves_nothing_to_plan(
        policy in policy(),
        memory_total in 1_u64 << 28..1 << 40,
        max in 1_u64..1 << 22,
        buckets in 512_u64..1 << 20,
        estimate in estimate(),
        small in 0_u64..40_000,
    ) {
        let mut estimate = estimate;
        estimate.table = TableReading { max, buckets, count: small };
        estimate.resize_stall = ResizeCost::default().stall(small);
        if let Some(limits) = limits(&policy, estimate.table, memory_total) {
            let mut state = State::default();
            let mut plans = Vec::new();
            // Max alone in an emergency, then the rest, then what a limit of the first round lets through.
            for _ in 0..4 {
                let (next, plan) = decide(&state, &estimate, &policy, &limits);
                check_plan(&plan, &policy, &limits, &estimate)?;
                apply(&plan, &mut estimate);
                state = next;
                plans.push(plan);
            }
            prop_assert_eq!(&plans[3].changes, &vec![], "after {:?}", plans);
        }
    }

    #[test]
    fn the_model_yields_only_numbers(
        samples in proptest::collection::vec(sample(), 1..12),
        horizon in 1_u64..600,
    ) {
        let mut model = Model::new(Duration::from_secs(horizon));
        for sample in &samples {
            let estimate = model.observe(sample);
            prop_assert!(estimate.growth.is_finite(), "{estimate:?}");
            prop_assert!(estimate.forecast >= sample.table.count, "{estimate:?}");
            for rate in [estimate.insert_rate, estimate.destroy_rate].into_iter().flatten() {
                prop_assert!(rate.is_finite() && rate >= 0.0, "{estimate:?}");
            }
            if let Some(chains) = estimate.chains {
                prop_assert!(chains.mean.is_finite() && chains.mean >= 0.0, "{chains:?}");
                prop_assert!(chains.expected_mean.is_finite() && chains.expected_mean >= 0.0, "{chains:?}");
                prop_assert!(chains.p50 <= chains.p99 && chains.p99 <= chains.max && chains.measured > 0, "{chains:?}");
            }
        }
    }

    /// Samples of any kind through model, policy and bounds.
    #[test]
    fn no_history_leads_out_of_bounds(
        policy in policy(),
        samples in proptest::collection::vec(sample(), 2..12),
        memory_total in 1_u64 << 28..1 << 40,
    ) {
        let found = TableReading { count: 0, buckets: 65_536, max: 65_536 };
        if let Some(limits) = limits(&policy, found, memory_total) {
            let mut model = Model::new(policy.table.horizon);
            let mut state = State::default();
            for sample in &samples {
                let estimate = model.observe(sample);
                let (next, plan) = decide(&state, &estimate, &policy, &limits);
                state = next;
                check_plan(&plan, &policy, &limits, &estimate)?;
            }
        }
    }

    #[test]
    fn the_next_tick_is_never_later_than_a_second_nor_sooner_than_50_ms(estimate in estimate()) {
        let wait = next_tick(&estimate, &Plan::default(), false);
        prop_assert!((Duration::from_millis(50)..=Duration::from_secs(1)).contains(&wait), "{wait:?}");
        if estimate.table.max > 0 && estimate.time_to_full.is_some_and(|time| time <= Duration::from_secs(1)) {
            prop_assert_eq!(wait, Duration::from_millis(50));
        }
    }
}
