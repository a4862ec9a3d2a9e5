use std::time::Duration;

use super::{Host, Limits, Pause, Pauses, Plan, Setting, State, decide, next_tick};
use crate::config::{Bounds, MemoryLimit, Mode, Policy};
use crate::model::{Estimate, InState, Outlook, ResizeCost};
use crate::observe::{TableReading, Timeout, Timeouts};

/// An estimate of a table with buckets enough, at 100 s.
pub(super) fn estimate(count: u64, max: u64, growth: f64) -> Estimate {
    Estimate {
        at: Duration::from_secs(100),
        table: TableReading { max, buckets: 1 << 21, count },
        insert_rate: None,
        destroy_rate: None,
        growth,
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
        forecast: count + (growth * 10.0) as u64,
        time_to_full: None,
        table_full: 0,
        entries: count,
        chains: None,
        resize_stall: ResizeCost::default().stall(count),
        entry_bytes: 320,
        ..Estimate::default()
    }
}

/// An estimate of a table at rest under these kinds of entries: so many a second of each, which end after their timeout as
/// it is in force: those of the kernel where `timeouts` has no other. A census has counted them.
pub(super) fn at_rest(kinds: &[(Timeout, f64)], max: u64, timeouts: &[(Timeout, u64)]) -> Estimate {
    let mut in_force: Timeouts = Timeout::ALL.into_iter().map(|timeout| (timeout, timeout.kernel_default())).collect();
    in_force.extend(timeouts.iter().copied());
    let kinds: Vec<_> = kinds.iter().map(|(timeout, rate)| (*timeout, *rate, in_force[timeout])).collect();
    let outlook = Outlook::at_rest(&kinds);
    let count = outlook.count(Duration::ZERO, &in_force, 0);
    let inserts = kinds.iter().map(|(_, rate, _)| rate).sum();
    let states = kinds.iter().map(|(timeout, rate, seconds)| {
        let entries = rate * *seconds as f64;
        (*timeout, InState { entries, ends: *rate, unreplied: 0.0 })
    });
    Estimate {
        insert_rate: Some(inserts),
        destroy_rate: Some(inserts),
        table_full_hooked: true,
        forecast: count,
        outlook,
        states: states.collect(),
        timeouts: in_force,
        ..estimate(count, max, 0.0)
    }
}

pub(super) fn host(estimate: &Estimate) -> Host {
    Host {
        table: TableReading { count: 0, ..estimate.table },
        memory_total: 16 << 30,
        entry_bytes: estimate.entry_bytes,
        page_bytes: 4096,
        timeouts: estimate.timeouts.clone(),
    }
}

fn plan_of(policy: &Policy, estimate: &Estimate) -> Plan {
    let limits = Limits::new(policy, &host(estimate)).unwrap();
    decide(&State::default(), estimate, policy, &limits).1
}

pub(super) fn values(plan: &Plan) -> Vec<(Setting, u64, u64)> {
    plan.changes.iter().map(|change| (change.setting, change.old, change.new)).collect()
}

pub(super) fn reason(plan: &Plan) -> &str {
    assert_eq!(plan.held.len(), 1, "{plan:?}");
    &plan.held[0].reason
}

pub(super) fn with_ceiling(ceiling: u64) -> Policy {
    let mut policy = Policy::default();
    policy.table.max = Bounds { floor: None, ceiling: Some(ceiling) };
    policy
}

#[test]
fn a_calm_table_of_good_size_is_left_alone() {
    assert_eq!(
        plan_of(&Policy::default(), &estimate(1_000, 262_144, 5.0)),
        Plan { at: Duration::from_secs(100), ..Plan::default() }
    );
}

#[test]
fn max_is_doubled_when_the_forecast_passes_the_mark() {
    let plan = plan_of(&Policy::default(), &estimate(1_000, 8_192, 812.0));
    assert_eq!(values(&plan), [(Setting::Max, 8_192, 16_384)]);
    assert_eq!(plan.changes[0].evidence, "forecast 9,120 entries in 10 s passes 80 % of 8,192; growth 812/s");
    assert_eq!(
        plan.changes[0].predicted,
        "the forecast fills 55.7 % of 16,384; a full table takes 5.0 MiB for entries"
    );
}

#[test]
fn max_is_raised_as_far_as_the_forecast_asks() {
    let plan = plan_of(&Policy::default(), &estimate(1_000, 8_192, 10_000.0));
    assert_eq!(values(&plan), [(Setting::Max, 8_192, 126_250)]);
}

#[test]
fn a_full_table_is_raised_without_any_growth() {
    let mut full = estimate(8_192, 8_192, 0.0);
    full.table_full = 41;
    let plan = plan_of(&Policy::default(), &full);
    assert_eq!(values(&plan), [(Setting::Max, 8_192, 16_384)]);
    assert_eq!(
        plan.changes[0].evidence,
        "8,192 entries are past 80 % of 8,192; growth 0/s; new flows dropped for a full table: 41"
    );
}

#[test]
fn at_the_ceiling_the_reason_names_it() {
    let near = plan_of(&with_ceiling(10_000), &estimate(8_000, 8_192, 0.0));
    assert_eq!(values(&near), [(Setting::Max, 8_192, 10_000)]);
    let at = plan_of(&with_ceiling(8_192), &estimate(8_000, 8_192, 0.0));
    assert_eq!(values(&at), []);
    assert!(reason(&at).starts_with("table.max.ceiling (8,192) lets max rise no further; raise the ceiling"));
    assert!(reason(&near).starts_with("table.max.ceiling (10,000)"));
}

#[test]
fn at_the_memory_limit_the_reason_names_it() {
    let mut policy = Policy::default();
    policy.table.memory_limit = MemoryLimit::Bytes(32 << 20);
    let mut full = estimate(60_000, 65_536, 0.0);
    full.table.buckets = 32_768;
    let plan = plan_of(&policy, &full);
    // 32 MiB, less 8 bytes for each of the 52,224 buckets that the presize will want, for 320 bytes an entry.
    assert_eq!(values(&plan), [(Setting::Max, 65_536, 103_552)]);
    assert!(plan.held[0].reason.starts_with("table.memory-limit (32.0 MiB) lets max rise no further"), "{plan:?}");
}

#[test]
fn a_value_found_out_of_bounds_is_left_and_reported() {
    let above = plan_of(&with_ceiling(4_096), &estimate(8_192, 8_192, 500.0));
    assert_eq!(values(&above), []);
    assert!(reason(&above).starts_with("max as found is above table.max.ceiling (4,096)"));
    assert!(above.max_blocked);

    let mut policy = Policy::default();
    policy.table.max.floor = Some(16_384);
    let below = plan_of(&policy, &estimate(10, 8_192, 0.0));
    assert_eq!(values(&below), []);
    assert!(reason(&below).starts_with("max as found is below table.max.floor (16,384)"));
    assert!(!below.max_blocked, "it rises as soon as it must, so it is watched as closely as any");
    policy.table.max.floor = Some(100_000);
    assert_eq!(values(&plan_of(&policy, &estimate(8_000, 8_192, 0.0))), [(Setting::Max, 8_192, 100_000)]);

    policy = Policy::default();
    policy.table.memory_limit = MemoryLimit::Bytes(18 << 20);
    let over = plan_of(&policy, &estimate(8_000, 8_192, 0.0));
    assert_eq!(values(&over), [], "2,097,152 buckets and 8,192 entries take 18.5 MiB");
    assert!(reason(&over).starts_with("entries at max as found and the buckets take more than table.memory-limit"));
}

#[test]
fn a_max_of_no_limit_is_left() {
    let plan = plan_of(&Policy::default(), &estimate(1_000_000, 0, 1e6));
    assert_eq!(values(&plan), []);
    assert!(reason(&plan).starts_with("max is 0, which means no limit"));
}

#[test]
fn buckets_are_sized_for_the_highest_max_while_the_table_is_small() {
    let mut small = estimate(12, 65_536, 0.0);
    small.table.buckets = 65_536;
    let plan = plan_of(&Policy::default(), &small);
    assert_eq!(values(&plan), [(Setting::Buckets, 65_536, 2_097_152)]);
    assert_eq!(
        plan.changes[0].evidence,
        "12 entries: a resize stalls 8.4 µs (limit 20 ms); with 4,194,304 entries, as max may become, 65,536 buckets \
         have chains of 128.0"
    );
    assert_eq!(plan.changes[0].predicted, "2,097,152 buckets have chains of 4.0 then, and take 16.0 MiB");
}

#[test]
fn buckets_wait_while_the_stall_is_too_long() {
    let mut busy = estimate(28_572, 65_536, 0.0);
    busy.table.buckets = 65_536;
    let plan = plan_of(&Policy::default(), &busy);
    assert_eq!(values(&plan), []);
    assert!(reason(&plan).contains("longer than hash.max-stall (20 ms)"));
    busy.table.count = 28_571;
    busy.resize_stall = ResizeCost::default().stall(28_571);
    assert_eq!(values(&plan_of(&Policy::default(), &busy)).len(), 1);
}

#[test]
fn max_comes_before_buckets_and_in_an_emergency_alone() {
    let settings = |count, growth| -> Vec<_> {
        let mut both = estimate(count, 64, growth);
        both.table.buckets = 512;
        plan_of(&Policy::default(), &both).changes.iter().map(|change| change.setting).collect()
    };
    assert_eq!(settings(50, 100.0), [Setting::Max, Setting::Buckets]);
    assert_eq!(settings(60, 100.0), [Setting::Max]);
}

#[test]
fn a_small_gain_is_no_reason_for_a_resize_but_a_floor_is() {
    let mut near = estimate(12, 65_536, 0.0);
    near.table.buckets = 1_900_544;
    assert_eq!(values(&plan_of(&Policy::default(), &near)), []);
    let mut policy = Policy::default();
    policy.hash.buckets.floor = Some(2_000_000);
    assert_eq!(values(&plan_of(&policy, &near)), [(Setting::Buckets, 1_900_544, 2_097_152)]);
}

#[test]
fn buckets_found_beyond_their_ceiling_are_left() {
    let mut policy = Policy::default();
    policy.hash.buckets.ceiling = Some(65_536);
    let plan = plan_of(&policy, &estimate(12, 65_536, 0.0));
    assert_eq!(values(&plan), []);
    assert!(reason(&plan).starts_with("buckets as found are above hash.buckets.ceiling (65,536)"));
}

#[test]
fn buckets_take_only_the_memory_that_max_leaves() {
    let mut policy = Policy::default();
    policy.table.memory_limit = MemoryLimit::Bytes(22 << 20);
    let mut tight = estimate(12, 65_536, 0.0);
    tight.table.buckets = 1_024;
    // 65,536 × 320 bytes are 20 MiB; 2 MiB are left, of which the target takes what it needs.
    assert_eq!(values(&plan_of(&policy, &tight)), [(Setting::Buckets, 1_024, 35_840)]);
    policy.table.memory_limit = MemoryLimit::Bytes((20 << 20) + 8_192 + 100);
    let none = plan_of(&policy, &tight);
    assert_eq!(values(&none), []);
    assert!(reason(&none).contains("leaves no room for more buckets"));
}

#[test]
fn a_write_that_failed_is_held_with_its_reason_until_one_goes_through() {
    let full = estimate(65_000, 65_536, 0.0);
    let limits = Limits::new(&Policy::default(), &host(&full)).unwrap();
    let (mut state, first) = decide(&State::default(), &full, &Policy::default(), &limits);
    assert_eq!(first.changes[0].setting, Setting::Max);
    state.told(Setting::Max, Some("cannot write /x: read-only; mount it anew".into()));
    let soon = Estimate { at: full.at + Duration::from_millis(500), ..full.clone() };
    let (mut state, plan) = decide(&state, &soon, &Policy::default(), &limits);
    assert_eq!(values(&plan), []);
    assert!(reason(&plan).starts_with("cannot write /x: read-only; mount it anew. It is tried again"), "{plan:?}");
    state.told(Setting::Max, None);
    let undone = decide(&state, &soon, &Policy::default(), &limits).1;
    assert_eq!(values(&undone), [(Setting::Max, 65_536, 131_072)], "it went through and was undone: again at once");
}

#[test]
fn a_write_that_does_not_take_is_tried_ever_more_rarely() {
    let policy = Policy::default();
    let mut estimate = estimate(8_192, 8_192, 0.0);
    let limits = Limits::new(&policy, &host(&estimate)).unwrap();
    let mut state = State::default();
    let mut tries = Vec::new();
    for second in 0..2_000 {
        estimate.at = Duration::from_secs(second);
        let (next, plan) = decide(&state, &estimate, &policy, &limits);
        state = next;
        if plan.changes.is_empty() {
            assert!(reason(&plan).starts_with("the last write did not take"));
        } else {
            tries.push(second);
        }
    }
    assert_eq!(tries, [0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 1_023, 1_623]);
}

#[test]
fn a_value_put_back_later_is_a_new_matter() {
    let policy = Policy::default();
    let full = estimate(8_192, 8_192, 0.0);
    let limits = Limits::new(&policy, &host(&full)).unwrap();
    let (state, first) = decide(&State::default(), &full, &policy, &limits);
    assert_eq!(values(&first), [(Setting::Max, 8_192, 16_384)]);
    let (state, calm) = decide(&state, &estimate(8_192, 16_384, 0.0), &policy, &limits);
    assert_eq!(values(&calm), []);
    let (_, again) = decide(&state, &full, &policy, &limits);
    assert_eq!(values(&again), [(Setting::Max, 8_192, 16_384)]);
}

/// A quiet table while another network namespace is refused flows, told apart by the hooks.
fn refused_elsewhere(max: u64, second: u64) -> Estimate {
    Estimate { at: Duration::from_secs(second), table_full: 7, table_full_hooked: true, ..estimate(12, max, 0.0) }
}

#[test]
fn max_is_raised_for_a_table_that_is_full_in_another_namespace() {
    let policy = Policy::default();
    let mut estimate = refused_elsewhere(8_192, 1);
    let limits = Limits::new(&policy, &host(&estimate)).unwrap();
    let (state, plan) = decide(&State::default(), &estimate, &policy, &limits);
    assert_eq!(values(&plan), [(Setting::Max, 8_192, 16_384)]);
    assert_eq!(
        plan.changes[0].evidence,
        "a table is full in another network namespace; this one has 12 entries; growth 0/s; new flows dropped for a full \
         table: 7"
    );
    // Refused before the raise was written, seen after it.
    estimate.table.max = 16_384;
    estimate.at += Duration::from_secs(1);
    let (state, after) = decide(&state, &estimate, &policy, &limits);
    assert_eq!(values(&after), []);
    estimate.at += Duration::from_secs(1);
    let (_, more) = decide(&state, &estimate, &policy, &limits);
    assert_eq!(values(&more), [(Setting::Max, 16_384, 32_768)], "still not enough");
}

#[test]
fn without_its_hook_the_statistic_of_drops_is_no_sign_of_a_full_table() {
    let policy = Policy::default();
    let mut estimate = Estimate { table_full_hooked: false, ..refused_elsewhere(8_192, 1) };
    let limits = Limits::new(&policy, &host(&estimate)).unwrap();
    let mut state = State::default();
    for _ in 0..5 {
        estimate.at += Duration::from_secs(1);
        let (next, plan) = decide(&state, &estimate, &policy, &limits);
        state = next;
        assert_eq!((values(&plan), plan.held), (vec![], vec![]));
    }
}

#[test]
fn refusals_now_and_then_at_the_ceiling_are_told_once() {
    let policy = with_ceiling(8_192);
    let limits = Limits::new(&policy, &host(&refused_elsewhere(8_192, 1))).unwrap();
    let mut state = State::default();
    let mut told = Vec::new();
    for second in 0..300 {
        let mut estimate = refused_elsewhere(8_192, second);
        estimate.table_full = u64::from(second < 200 && second % 10 == 5);
        let (next, plan) = decide(&state, &estimate, &policy, &limits);
        state = next;
        assert_eq!(values(&plan), []);
        told.push(plan.held.first().map(|held| held.reason.clone()));
    }
    told.dedup();
    assert_eq!(told.len(), 3, "nothing, the ceiling, nothing: {told:?}");
}

#[test]
fn a_fight_with_another_writer_is_limited() {
    let policy = Policy::default();
    let mut estimate = estimate(8_000, 8_192, 0.0);
    let limits = Limits::new(&policy, &host(&estimate)).unwrap();
    let mut state = State::default();
    let mut raised = Vec::new();
    let mut reasons = Vec::new();
    // Every 100 ms a look; in between, the raise has been read once and another program has undone it.
    for tenth in 0..3_000 {
        estimate.at = Duration::from_millis(100 * tenth);
        estimate.table.max = 8_192;
        let (next, plan) = decide(&state, &estimate, &policy, &limits);
        state = next;
        reasons.extend(plan.held.iter().map(|held| held.reason.clone()));
        if let Some(change) = plan.changes.first() {
            raised.push(tenth / 10);
            estimate.at += Duration::from_millis(50);
            estimate.table.max = change.new;
            let (next, plan) = decide(&state, &estimate, &policy, &limits);
            state = next;
            assert_eq!(plan.changes, []);
        }
    }
    reasons.dedup();
    assert!(reasons.len() == 1 && reasons[0].starts_with("another program sets it back"), "{reasons:?}");
    assert_eq!(raised[..4], [0, 0, 0, 0], "the first ones are answered at once");
    // 1 s, 2 s, 4 s … 60 s apart: 300 s have room for 13.
    assert!(raised.len() <= 13, "{raised:?}");
}

#[test]
fn a_fight_over_steps_of_a_growing_table_is_limited_as_well() {
    let policy = Policy::default();
    let mut estimate = estimate(8_000, 8_192, 0.0);
    let limits = Limits::new(&policy, &host(&estimate)).unwrap();
    let mut state = State::default();
    let mut raised = 0;
    for tick in 0..600 {
        estimate.at = Duration::from_millis(50 * tick);
        // Two raises, then the other program's value.
        estimate.table.count = if tick % 3 == 1 { 16_000 } else { 8_000 };
        if tick % 3 == 0 {
            estimate.table.max = 8_192;
        }
        let (next, plan) = decide(&state, &estimate, &policy, &limits);
        state = next;
        for change in &plan.changes {
            estimate.table.max = change.new;
            raised += 1;
        }
    }
    assert!(raised <= 30, "{raised} raises in 30 s");
}

#[test]
fn advice_is_given_once_and_again_when_more_is_wanted() {
    let policy = Policy { mode: Mode::Advise, ..Policy::default() };
    let mut estimate = estimate(7_000, 8_192, 0.0);
    let limits = Limits::new(&policy, &host(&estimate)).unwrap();
    let mut state = State::default();
    let mut advice = Vec::new();
    for second in 0..100 {
        estimate.at = Duration::from_secs(second);
        if second == 50 {
            estimate.forecast = 40_000;
        }
        let (next, plan) = decide(&state, &estimate, &policy, &limits);
        state = next;
        assert_eq!(plan.held, []);
        advice.extend(plan.changes.iter().map(|change| (second, change.new)));
    }
    assert_eq!(advice, [(0, 16_384), (50, 50_000)]);
}

#[test]
fn advice_that_nobody_takes_is_not_given_anew_for_each_flow_and_costs_no_more_looks() {
    let policy = Policy { mode: Mode::Advise, ..Policy::default() };
    let mut full = estimate(8_192, 8_192, 0.0);
    let limits = Limits::new(&policy, &host(&full)).unwrap();
    let mut state = State::default();
    let mut advice = Vec::new();
    for second in 0..100 {
        (full.at, full.forecast) = (Duration::from_secs(second), 40_000 + 400 * second);
        let (next, plan) = decide(&state, &full, &policy, &limits);
        state = next;
        assert_eq!(next_tick(&full, &plan, false), Duration::from_secs(1));
        advice.extend(plan.changes.iter().map(|change| change.new));
    }
    assert!((4..=6).contains(&advice.len()), "an eighth more each time: {advice:?}");
    assert!(advice.last().is_some_and(|last| *last >= 90_000), "{advice:?}");
}

#[test]
fn a_paused_max_stays_and_was_never_asked_for() {
    let policy = Policy::default();
    let mut full = estimate(8_192, 8_192, 0.0);
    let limits = Limits::new(&policy, &host(&full)).unwrap();
    let mut pauses = Pauses::default();
    pauses.pause(Setting::Max, Pause { until: full.at + Duration::from_mins(1), words: "until noon".to_owned() });
    let mut state = State::default().paused(pauses);
    for _ in 0..60 {
        let (next, plan) = decide(&state, &full, &policy, &limits);
        assert_eq!(values(&plan), []);
        assert!(plan.max_blocked && reason(&plan).starts_with("paused until noon;"), "{}", reason(&plan));
        state = next;
        full.at += Duration::from_secs(1);
    }
    let (_, plan) = decide(&state, &full, &policy, &limits);
    assert_eq!(values(&plan), [(Setting::Max, 8_192, 16_384)], "at once, as a first try");
}

#[test]
fn off_decides_nothing() {
    let policy = Policy { mode: Mode::Off, ..Policy::default() };
    let full = estimate(8_192, 8_192, 1e6);
    assert_eq!(plan_of(&policy, &full), Plan { at: full.at, ..Plan::default() });
}
