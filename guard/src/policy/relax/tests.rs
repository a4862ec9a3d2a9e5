use std::collections::BTreeMap;
use std::time::Duration;

use super::super::tests::{at_rest, host};
use super::super::{Limits, Phase, Plan, Setting, State, decide, table_bytes};
use crate::config::Policy;
use crate::model::{Doubt, Estimate, Load};
use crate::observe::Timeout;

const MAX: u64 = 100_000;
const TIME_WAIT: Setting = Setting::Timeout(Timeout::TcpTimeWait);
const MINUTE: Duration = Duration::from_mins(1);

/// A host that was found with a max of 100,000 and the kernel's timeouts, and the guard in charge of it.
struct Host {
    policy: Policy,
    limits: Limits,
    state: State,
    estimate: Estimate,
}

impl Host {
    fn new(policy: Policy, estimate: Estimate) -> Self {
        Self::found_with(MAX, policy, estimate)
    }

    fn found_with(max: u64, policy: Policy, estimate: Estimate) -> Self {
        let mut found = host(&at_rest(&[], max, &[]));
        found.timeouts = Timeout::ALL.into_iter().map(|timeout| (timeout, timeout.kernel_default())).collect();
        let limits = Limits::new(&policy, &found).unwrap();
        Self { policy, limits, state: State::default(), estimate }
    }

    /// One second passes under this load; changes are carried out.
    fn tick(&mut self, kinds: &[(Timeout, f64)]) -> Plan {
        let at = self.estimate.at + Duration::from_secs(1);
        let timeouts: Vec<_> = self.estimate.timeouts.iter().map(|(timeout, seconds)| (*timeout, *seconds)).collect();
        let load = self.estimate.load;
        self.estimate = Estimate { at, load, ..at_rest(kinds, self.estimate.table.max, &timeouts) };
        let (state, plan) = decide(&self.state, &self.estimate, &self.policy, &self.limits);
        self.state = state;
        for change in &plan.changes {
            match change.setting {
                Setting::Max => self.estimate.table.max = change.new,
                Setting::Buckets => self.estimate.table.buckets = change.new,
                Setting::Timeout(timeout) => drop(self.estimate.timeouts.insert(timeout, change.new)),
            }
        }
        plan
    }

    /// The same for so long; answers with what changed when, in minutes since the start.
    fn run(&mut self, kinds: &[(Timeout, f64)], time: Duration) -> Vec<(u64, Setting, u64)> {
        let begun = self.estimate.at;
        let mut changes = Vec::new();
        while self.estimate.at < begun + time {
            for change in self.tick(kinds).changes {
                changes.push((self.estimate.at.saturating_sub(begun).as_secs() / 60, change.setting, change.new));
            }
        }
        changes
    }
}

/// As an earlier guard left it: max raised twice, TIME_WAIT and then UDP shortened.
fn changed() -> Host {
    let mut host =
        Host::new(Policy::default(), at_rest(&[], 400_000, &[(Timeout::TcpTimeWait, 30), (Timeout::Udp, 15)]));
    // The buckets are as they should be.
    host.estimate.table.buckets = 1 << 21;
    host
}

const LITTLE: [(Timeout, f64); 2] = [(Timeout::TcpTimeWait, 50.0), (Timeout::Udp, 50.0)];

#[test]
fn after_calm_timeouts_go_back_step_by_step_and_then_max() {
    let changes = changed().run(&LITTLE, 30 * MINUTE);
    let expected = [
        (10, Setting::Timeout(Timeout::Udp), 30),
        (11, TIME_WAIT, 60),
        (12, TIME_WAIT, 120),
        (14, Setting::Max, 200_000),
        (15, Setting::Max, 100_000),
    ];
    assert_eq!(changes, expected);
}

#[test]
fn phases_follow_the_way_back() {
    let mut host = changed();
    let phase = |host: &mut Host| host.tick(&LITTLE).standing.phase;
    assert_eq!(phase(&mut host), Phase::Waiting);
    host.run(&LITTLE, 10 * MINUTE);
    assert_eq!(phase(&mut host), Phase::Relaxing);
    host.run(&LITTLE, 10 * MINUTE);
    assert_eq!(phase(&mut host), Phase::Calm);
}

#[test]
fn nothing_goes_back_that_the_load_has_no_room_for_and_the_reason_says_so() {
    // 30,000 TIME_WAIT at 30 s would be 120,000 at 120 s: past three quarters of the mark of 100,000, and at 60 s just so.
    let load = [(Timeout::TcpTimeWait, 1_000.0)];
    let mut host = Host::new(Policy::default(), at_rest(&[], MAX, &[(Timeout::TcpTimeWait, 30)]));
    assert_eq!(host.run(&load, 60 * MINUTE), [(10, TIME_WAIT, 60)]);
    let plan = host.tick(&load);
    assert_eq!(plan.held.len(), 1, "{plan:?}");
    assert!(plan.held[0].reason.starts_with("nothing presses any more, but with the load there is"), "{plan:?}");
    assert_eq!((plan.held[0].setting, plan.standing.phase), (TIME_WAIT, Phase::Waiting));
    // With half the load it goes on, once there has been room for it for long enough.
    assert_eq!(host.run(&[(Timeout::TcpTimeWait, 400.0)], 60 * MINUTE), [(10, TIME_WAIT, 120)]);
}

#[test]
fn max_keeps_room_above_the_count_and_the_mark() {
    // 45,000 entries: 100,000 would hold them under three quarters of its mark (60,000); 200,000 is twice that.
    let mut host = Host::new(Policy::default(), at_rest(&[], 200_000, &[]));
    assert_eq!(host.run(&[(Timeout::UdpStream, 375.0)], 30 * MINUTE), [(10, Setting::Max, 100_000)]);
    let mut host = Host::new(Policy::default(), at_rest(&[], 200_000, &[]));
    assert_eq!(host.run(&[(Timeout::UdpStream, 525.0)], 30 * MINUTE), [], "63,000 are too many");
}

#[test]
fn a_small_table_comes_all_the_way_back() {
    // 200 entries are a fifth of the 1,024 that were found.
    let mut host = Host::found_with(1_024, Policy::default(), at_rest(&[], 4_096, &[]));
    host.estimate.table.buckets = 1 << 21;
    let changes = host.run(&[(Timeout::UdpStream, 200.0 / 120.0)], 30 * MINUTE);
    assert_eq!(changes, [(10, Setting::Max, 2_048), (11, Setting::Max, 1_024)]);
}

#[test]
fn a_flood_a_refusal_or_an_unseen_time_is_no_calm() {
    let mut host = changed();
    host.run(&LITTLE, 9 * MINUTE);
    host.estimate.load = Load::Flood { unreplied: 0.9, entries: 60_000, sources: 9 };
    host.tick(&LITTLE);
    host.estimate.load = Load::Growth;
    assert_eq!(host.run(&LITTLE, 9 * MINUTE), []);
    let asleep = Estimate { doubts: vec![Doubt::Late], ..host.estimate.clone() };
    host.state = decide(&host.state, &asleep, &host.policy, &host.limits).0;
    assert_eq!(host.run(&LITTLE, 9 * MINUTE), []);
    assert_eq!(host.run(&LITTLE, Duration::from_secs(90)).len(), 1);
}

#[test]
fn what_is_taken_back_too_early_waits_for_twice_as_long() {
    let mut host = changed();
    assert_eq!(host.run(&LITTLE, 21 * MINUTE).len(), 5);
    // 110,000 entries on a max of 100,000: raised again, 6 minutes after the last step.
    let raised = host.run(&[(Timeout::UdpStream, 920.0)], Duration::from_secs(3));
    assert_eq!(raised, [(0, Setting::Max, 200_000)]);
    assert_eq!(host.run(&LITTLE, 40 * MINUTE), [(20, Setting::Max, 100_000)]);
    // And it comes to rest: no third way up and down without a cause.
    assert_eq!(host.run(&LITTLE, 600 * MINUTE), []);
}

#[test]
fn what_another_program_sets_is_left_to_it() {
    let mut host = changed();
    host.run(&LITTLE, 2 * MINUTE);
    host.estimate.table.max = 300_000;
    host.estimate.timeouts.insert(Timeout::TcpTimeWait, 45);
    let changes = host.run(&LITTLE, 60 * MINUTE);
    assert_eq!(changes, [(8, Setting::Timeout(Timeout::Udp), 30)]);
}

#[test]
fn max_stays_where_another_namespace_was_refused_flows() {
    let mut host = Host::new(Policy::default(), at_rest(&[], MAX, &[]));
    host.tick(&LITTLE);
    host.estimate.table_full = 5;
    let (state, plan) = decide(&host.state, &host.estimate, &host.policy, &host.limits);
    assert_eq!(plan.changes[0].new, 200_000, "{plan:?}");
    (host.state, host.estimate.table.max, host.estimate.table_full) = (state, 200_000, 0);
    assert_eq!(host.run(&LITTLE, 60 * MINUTE), []);
    let plan = host.tick(&LITTLE);
    assert!(plan.held[0].reason.starts_with("with a max of 100,000 the table of another network namespace was full"));
    assert_eq!(plan.standing.phase, Phase::Calm);
}

#[test]
fn a_setting_that_cannot_be_written_does_not_keep_the_others_from_going_back() {
    let mut host = changed();
    let mut changes = BTreeMap::new();
    for _ in 0..40 * 60 {
        for change in host.tick(&LITTLE).changes {
            *changes.entry(change.setting).or_insert(0) += 1;
            if change.setting == Setting::Timeout(Timeout::Udp) {
                host.estimate.timeouts.insert(Timeout::Udp, 15);
            }
        }
    }
    assert_eq!((host.estimate.table.max, host.estimate.timeouts[&Timeout::TcpTimeWait]), (MAX, 120));
    assert!(changes[&Setting::Timeout(Timeout::Udp)] <= 12, "{changes:?}");
}

#[test]
fn no_step_back_leaves_max_over_the_memory_limit() {
    // The buckets alone take 16 MiB.
    for (memory, steps) in [(60 << 20, true), (20 << 20, false)] {
        let mut host = changed();
        let (entry_bytes, buckets) = (host.estimate.entry_bytes, host.estimate.table.buckets);
        host.limits.memory = memory;
        let changes = host.run(&[], 60 * MINUTE);
        let steps_of_max = changes.iter().filter(|(_, setting, _)| *setting == Setting::Max).map(|(_, _, new)| *new);
        let steps_of_max: Vec<u64> = steps_of_max.collect();
        assert_eq!(!steps_of_max.is_empty(), steps, "{changes:?}");
        assert!(steps_of_max.iter().all(|max| table_bytes(*max, entry_bytes, buckets) <= memory), "{changes:?}");
    }
}
