use std::time::Duration;

use super::super::tests::{at_rest, host, values, with_ceiling};
use super::super::{Expected, Limits, Pause, Pauses, Plan, Rule, Setting, State, decide};
use crate::config::Policy;
use crate::model::{Estimate, InState, Load};
use crate::observe::Timeout;

const MAX: u64 = 100_000;
/// 84,000 entries at rest, past the mark of 80,000.
const TIME_WAITS: [(Timeout, f64); 1] = [(Timeout::TcpTimeWait, 700.0)];

/// The limits of a host whose timeouts were the kernel's, with max at its ceiling.
fn limits(policy: &Policy, estimate: &Estimate) -> Limits {
    let mut host = host(estimate);
    host.timeouts = Timeout::ALL.into_iter().map(|timeout| (timeout, timeout.kernel_default())).collect();
    Limits::new(policy, &host).unwrap()
}

fn decided(policy: &Policy, estimate: &Estimate) -> Plan {
    decide(&State::default(), estimate, policy, &limits(policy, estimate)).1
}

fn cuts(plan: &Plan) -> Vec<(Timeout, u64, u64)> {
    let changes = plan.changes.iter().filter(|change| change.rule == Rule::ShortenTimeout);
    changes
        .map(|change| match change.setting {
            Setting::Timeout(timeout) => (timeout, change.old, change.new),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn held(plan: &Plan, rule: Rule) -> Vec<(Setting, &str)> {
    let held = plan.held.iter().filter(|held| held.rule == rule);
    held.map(|held| (held.setting, held.reason.as_str())).collect()
}

#[test]
fn at_the_ceiling_what_fills_the_table_is_cut_as_far_as_is_needed() {
    let policy = with_ceiling(MAX);
    let plan = decided(&policy, &at_rest(&TIME_WAITS, MAX, &[]));
    // 72,000 are wanted; 30 s would leave 21,000, and half the cut is enough.
    assert_eq!(cuts(&plan), [(Timeout::TcpTimeWait, 120, 75)]);
    let change = &plan.changes[0];
    assert_eq!(
        change.evidence,
        "84,000 entries press on 100,000 and max is held by table.max.ceiling; 84,000 wait for this timeout, 700/s end by it"
    );
    assert_eq!(change.predicted, "31,500 entries fewer in 2 min; those that are there keep the time they have");
    let expected = change.expectation.unwrap();
    assert_eq!((expected.of, expected.value, expected.at), (Expected::Count, 52_500, Duration::from_secs(220)));
    assert_eq!(held(&plan, Rule::ShortenTimeout), []);
}

#[test]
fn what_will_not_fit_in_a_minute_is_cut_for_before_the_forecast_says_so() {
    let policy = with_ceiling(2 * MAX);
    // 20,000 entries and 3,000 more a second: 200,000 in a minute, under a forecast of 50,000.
    let mut surge = at_rest(&[], MAX, &[]);
    surge.outlook = crate::model::Outlook::growing(20_000, 3_000.0);
    surge.insert_rate = Some(3_000.0);
    (surge.table.count, surge.forecast) = (20_000, 50_000);
    surge.states = [(Timeout::TcpTimeWait, InState { entries: 18_000.0, ends: 0.0, unreplied: 0.0 })].into();
    let limits = limits(&policy, &surge);
    let (mut state, mut made) = (State::default(), Vec::new());
    for second in 0..=10 {
        let (next, plan) = decide(&state, &surge, &policy, &limits);
        state = next;
        assert_eq!(plan.held, [], "what is foreseen may not come");
        made.extend(cuts(&plan).into_iter().map(|cut| (second, cut.0)));
        surge.at += Duration::from_secs(1);
    }
    assert_eq!(made, [(10, Timeout::TcpTimeWait)], "a gust is none");
}

#[test]
fn a_max_that_may_rise_spares_the_timeouts() {
    let plan = decided(&Policy::default(), &at_rest(&TIME_WAITS, MAX, &[]));
    assert_eq!(values(&plan), [(Setting::Max, 100_000, 200_000)]);
}

#[test]
fn the_least_harmful_cuts_come_first_and_only_as_many_as_needed() {
    let policy = with_ceiling(MAX);
    // 36,000 SYN_SENT, 36,000 TIME_WAIT, 18,000 UDP: SYN_SENT cut to 30 s leaves 63,000.
    let kinds = [(Timeout::Udp, 600.0), (Timeout::TcpTimeWait, 300.0), (Timeout::TcpSynSent, 300.0)];
    assert_eq!(cuts(&decided(&policy, &at_rest(&kinds, MAX, &[]))), [(Timeout::TcpSynSent, 120, 30)]);
    // With SYN_SENT at its floor, TIME_WAIT is next; half of its cut leaves 67,500 - 13,500 and is enough.
    let next = at_rest(&[(Timeout::Udp, 1_200.0), kinds[1], kinds[2]], MAX, &[(Timeout::TcpSynSent, 30)]);
    assert_eq!(cuts(&decided(&policy, &next)), [(Timeout::TcpTimeWait, 120, 75)]);
}

#[test]
fn a_cut_that_the_next_one_makes_needless_is_not_made() {
    // Of 90,000, CLOSE could free 5,000: not enough, and TIME_WAIT alone is.
    let kinds = [(Timeout::TcpClose, 1_000.0), (Timeout::TcpTimeWait, 666.0)];
    let plan = decided(&with_ceiling(MAX), &at_rest(&kinds, MAX, &[]));
    assert_eq!(cuts(&plan).iter().map(|cut| cut.0).collect::<Vec<_>>(), [Timeout::TcpTimeWait]);
}

#[test]
fn what_comes_to_little_is_not_cut_and_what_is_missing_is_said() {
    let policy = with_ceiling(MAX);
    let few = at_rest(&[(Timeout::UdpStream, 700.0), (Timeout::TcpSynSent, 5.0)], MAX, &[]);
    let plan = decided(&policy, &few);
    assert_eq!(cuts(&plan), []);
    let missing = held(&plan, Rule::ShortenTimeout);
    assert!(missing.len() == 1 && missing[0].1.starts_with("the timeouts are as short as their floors"), "{plan:?}");
    let mut off = policy.clone();
    off.timeouts.shorten = false;
    let plan = decided(&off, &at_rest(&TIME_WAITS, MAX, &[]));
    assert_eq!((cuts(&plan), held(&plan, Rule::ShortenTimeout)), (vec![], vec![]));
}

#[test]
fn states_of_which_nothing_is_known_are_not_cut() {
    let mut blind = at_rest(&TIME_WAITS, MAX, &[]);
    blind.states.clear();
    let plan = decided(&with_ceiling(MAX), &blind);
    assert_eq!(cuts(&plan), []);
    assert!(
        held(&plan, Rule::ShortenTimeout)[0].1.starts_with("which entries fill the table is not known"),
        "{plan:?}"
    );
}

#[test]
fn a_state_that_fills_for_the_first_time_is_known_from_the_census_alone() {
    let mut first = at_rest(&TIME_WAITS, MAX, &[]);
    // Nothing has ended yet, so the outlook sees no gain.
    first.outlook = crate::model::Outlook::growing(84_000, 0.0);
    assert_eq!(cuts(&decided(&with_ceiling(MAX), &first)), [(Timeout::TcpTimeWait, 120, 75)]);
    let mut open = first.clone();
    open.states = [(Timeout::TcpEstablished, InState { entries: 84_000.0, ends: 0.0, unreplied: 0.0 })].into();
    assert_eq!(cuts(&decided(&with_ceiling(MAX), &open)), [], "how many of the open ones are idle is not known");
}

#[test]
fn a_flood_holds_max_and_costs_only_flows_without_a_reply() {
    let kinds = [(Timeout::TcpSynRecv, 700.0), (Timeout::TcpTimeWait, 400.0)];
    let mut flood = at_rest(&kinds, MAX, &[]);
    flood.load = Load::Flood { unreplied: 0.934, entries: 60_000, sources: 12_345 };
    let plan = decided(&Policy::default(), &flood);
    // To 20 s: 28,000 fewer than 90,000, which is enough; TIME_WAIT has replies.
    assert_eq!(cuts(&plan), [(Timeout::TcpSynRecv, 60, 20)]);
    let reasons = held(&plan, Rule::RaiseMax);
    let expected = "a flood: when it was noticed, 93 % of what came on top of calm had no reply (mostly tcp-syn-recv), from \
                    12,345 sources";
    assert!(reasons.len() == 1 && reasons[0].1.starts_with(expected), "{reasons:?}");
    let mut blind = Policy::default();
    blind.flood.detect = false;
    assert_eq!(values(&decided(&blind, &flood))[0].0, Setting::Max, "without detection every load is growth");
}

#[test]
fn the_reason_for_a_flood_stands_still_while_its_figures_move() {
    let policy = Policy::default();
    let mut flood = at_rest(&[(Timeout::TcpSynRecv, 1_400.0)], MAX, &[]);
    let limits = limits(&policy, &flood);
    let (mut state, mut told) = (State::default(), Vec::new());
    for second in 0_u32..100 {
        flood.at += Duration::from_secs(1);
        flood.load =
            Load::Flood { unreplied: 0.8 + f64::from(second) / 1_000.0, entries: 60_000, sources: u64::from(second) };
        let (next, plan) = decide(&state, &flood, &policy, &limits);
        state = next;
        told.extend(held(&plan, Rule::RaiseMax).into_iter().map(|(_, reason)| reason.to_owned()));
    }
    told.dedup();
    assert_eq!(told.len(), 1, "{told:?}");
}

/// Open connections, 60,000 and 10 more a second, under a ceiling that they pass within two hours.
fn piling_up(minute: u32) -> Estimate {
    let mut open = at_rest(&[(Timeout::UdpStream, 10.0)], MAX, &[]);
    let entries = 60_000.0 + 600.0 * f64::from(minute);
    open.states.insert(Timeout::TcpEstablished, InState { entries, ends: 0.0, unreplied: 0.0 });
    open.table.count = 61_200 + 600 * u64::from(minute);
    open.forecast = open.table.count + 100;
    Estimate { at: Duration::from_mins(minute.into()), ..open }
}

#[test]
fn established_is_cut_before_what_piles_up_fills_the_table_and_left_to_flowtables() {
    let policy = with_ceiling(MAX);
    let limits = limits(&policy, &piling_up(0));
    for flowtables in [false, true] {
        let (mut state, mut told, mut missing) = (State::default(), Vec::new(), Vec::new());
        for minute in 0..=12 {
            let open = Estimate { flowtables, ..piling_up(minute) };
            let (next, plan) = decide(&state, &open, &policy, &limits);
            state = next;
            told.extend(cuts(&plan).into_iter().map(|cut| (minute, cut)));
            missing.extend(held(&plan, Rule::ShortenTimeout).into_iter().map(|(setting, _)| setting));
        }
        // 10 a second are 78,750 before the first of them would end, and a tenth of the table is more than a census errs by.
        let cut = (12, (Timeout::TcpEstablished, 432_000, 7_875));
        assert_eq!(told, if flowtables { vec![] } else { vec![cut] });
        assert!(!flowtables || !missing.contains(&Setting::Max), "{missing:?}");
    }
    let mut full = at_rest(&[(Timeout::UdpStream, 700.0)], MAX, &[]);
    full.flowtables = true;
    full.states.insert(Timeout::TcpEstablished, InState { entries: 10_000.0, ..InState::default() });
    let plan = decided(&policy, &full);
    let reasons = held(&plan, Rule::ShortenTimeout);
    assert_eq!(reasons[0].0, Setting::Timeout(Timeout::TcpEstablished));
    assert!(reasons[0].1.starts_with("flows are offloaded to a flowtable"), "{reasons:?}");
}

#[test]
fn a_round_is_given_time_and_the_cuts_in_force_are_reckoned_with() {
    let policy = with_ceiling(MAX);
    let mut load = at_rest(&TIME_WAITS, MAX, &[]);
    let limits = limits(&policy, &load);
    let (mut state, first) = decide(&State::default(), &load, &policy, &limits);
    assert_eq!(cuts(&first).len(), 1);
    load.timeouts.insert(Timeout::TcpTimeWait, 75);
    for _ in 0..20 {
        // The entries that are there keep their 120 s, so the count stands where it was.
        load.at += Duration::from_secs(1);
        let (next, plan) = decide(&state, &load, &policy, &limits);
        state = next;
        assert_eq!(plan.changes, [], "at {:?}", load.at);
    }
    // Half as much again is new evidence.
    let more = at_rest(&[(Timeout::TcpTimeWait, 1_200.0)], MAX, &[(Timeout::TcpTimeWait, 75)]);
    let (_, more) = decide(&state, &Estimate { at: load.at, ..more }, &policy, &limits);
    assert_eq!(cuts(&more), [(Timeout::TcpTimeWait, 75, 52)]);
}

#[test]
fn what_cannot_be_written_stands_in_the_way_of_nothing_else() {
    let policy = with_ceiling(MAX);
    let kinds = [(Timeout::TcpTimeWait, 400.0), (Timeout::Udp, 1_300.0)];
    let mut load = at_rest(&kinds, MAX, &[]);
    let limits = limits(&policy, &load);
    let (mut state, first) = decide(&State::default(), &load, &policy, &limits);
    assert_eq!(cuts(&first), [(Timeout::TcpTimeWait, 120, 75)]);
    state.told(Setting::Timeout(Timeout::TcpTimeWait), Some("cannot write it; mend it".to_owned()));
    let mut later = Vec::new();
    for _ in 0..20 {
        load.at += Duration::from_millis(1_500);
        let (next, plan) = decide(&state, &load, &policy, &limits);
        state = next;
        for (timeout, _, new) in cuts(&plan) {
            later.push(timeout);
            if timeout == Timeout::Udp {
                load.timeouts.insert(timeout, new);
            } else {
                state.told(Setting::Timeout(timeout), Some("cannot write it; mend it".to_owned()));
            }
        }
    }
    assert!(later.contains(&Timeout::Udp), "{later:?}");
    let tries = later.iter().filter(|timeout| **timeout == Timeout::TcpTimeWait).count();
    assert!(tries <= 4, "tried {tries} times in 30 s");
}

#[test]
fn a_paused_max_has_timeouts_cut_unless_they_are_paused_too() {
    let load = at_rest(&TIME_WAITS, MAX, &[]);
    let policy = Policy::default();
    let limits = limits(&policy, &load);
    let pause = Pause { until: Duration::from_hours(1), words: "until noon".to_owned() };
    let mut pauses = Pauses::default();
    pauses.pause(Setting::Max, pause.clone());
    let plan = decide(&State::default().paused(pauses.clone()), &load, &policy, &limits).1;
    assert_eq!(cuts(&plan).len(), 1);
    pauses.pause(Setting::Timeout(Timeout::TcpTimeWait), pause);
    let plan = decide(&State::default().paused(pauses), &load, &policy, &limits).1;
    assert_eq!((cuts(&plan).len(), plan.held.len()), (0, 2), "{plan:?}");
}
