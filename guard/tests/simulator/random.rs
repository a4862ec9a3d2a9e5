//! Histories by chance: a number makes a host, a policy, a load and what goes wrong.

use std::time::Duration;

use conntrack_guard::config::{Bounds, MemoryLimit, Policy, Window};
use conntrack_guard::observe::Timeout;

use crate::faults::{Event, Fault};
use crate::kernel::flow::{self, Flow};
use crate::kernel::noise::Noise;
use crate::load::Rate;
use crate::scenario::Scenario;

/// What a history is to show beside what holds in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Anything happens.
    Anything,
    /// The load stands still: so must the settings, in the end.
    Constant,
    /// A surge under a ceiling that is too low for it, and then calm: all comes back, and nothing swings.
    Calm,
    /// A ramp that is slower than the guard, with room for it within the bounds: nothing may be dropped.
    Ramp,
}

/// The history of this number.
pub fn history(seed: u64) -> (Kind, Scenario) {
    let mut noise = Noise::new(seed);
    let kind = match noise.below(8) {
        0..3 => Kind::Anything,
        3..6 => Kind::Ramp,
        6 => Kind::Constant,
        _ => Kind::Calm,
    };
    let mut scenario = Scenario::new(&format!("history-{seed}"));
    scenario.seed = noise.bits();
    scenario.machine.step = 0.05;
    scenario.strides = true;
    // With the programs there a surge wakes the guard; without, it has to look by itself, and that costs.
    let looks = if matches!(kind, Kind::Constant | Kind::Calm) { 10 } else { 4 };
    scenario.cpus = if noise.once_in(looks) { None } else { Some([1, 4, 64][noise.below(3)]) };
    scenario.machine.resize_nanos = noise.between(300.0, 1_500.0);
    let machine = &mut scenario.machine;
    machine.memory_total = whole(noise.magnitude(512e6, 64e9));
    machine.memory_free = whole(machine.memory_total as f64 * noise.between(0.3, 0.9));
    machine.entry_bytes = [384, 448, 512][noise.below(3)];
    match kind {
        Kind::Anything => anything(&mut scenario, &mut noise),
        Kind::Constant => constant(&mut scenario, &mut noise),
        Kind::Calm => calm(&mut scenario, &mut noise),
        Kind::Ramp => ramp(&mut scenario, &mut noise),
    }
    (kind, scenario)
}

fn anything(scenario: &mut Scenario, noise: &mut Noise) {
    scenario.max = whole(noise.magnitude(2_000.0, 500_000.0));
    scenario.buckets = whole(scenario.max as f64 / noise.between(0.5, 8.0));
    scenario.policy = policy(noise, scenario.max);
    scenario.lasts = noise.between(40.0, 120.0);
    scenario.before = noise.between(0.0, 60.0);
    let scale = scenario.max as f64;
    for _ in 0..=noise.below(3) {
        let lasts = scenario.lasts;
        let (low, high) = (noise.magnitude(0.0005, 0.01), noise.magnitude(0.002, 0.3));
        let rate = match noise.below(4) {
            0 => Rate::Constant(scale * low),
            1 => Rate::surge(scale * low, noise.between(0.0, lasts), noise.between(1.0, 40.0), scale * high),
            2 => Rate::Points(vec![
                (noise.between(0.0, lasts / 2.0), scale * low),
                (noise.between(lasts / 2.0, lasts), scale * high),
            ]),
            _ => Rate::Wave { low: scale * low / 4.0, high: scale * low, period: noise.between(10.0, 60.0) },
        };
        scenario.load.push((any_flow(noise), rate));
    }
    for _ in 0..noise.below(5) {
        let at = noise.between(0.0, scenario.lasts);
        let fault = any_fault(noise);
        match noise.below(8) {
            0..4 => {
                scenario.events.push((at, Event::Begin(fault)));
                scenario.events.push((at + noise.magnitude(0.5, 60.0), Event::End(fault)));
            }
            4 => scenario.events.push((at, Event::Reload)),
            5 => scenario.events.push((at, Event::Suspend(noise.magnitude(1.0, 100_000.0)))),
            6 => scenario.events.push((at, Event::HeldUp(noise.magnitude(1.0, 60.0)))),
            _ => another_writer(scenario, noise, at),
        }
    }
    scenario.events.sort_by(|(one, _), (other, _)| one.total_cmp(other));
}

/// Nothing stops a program from setting no limit, or next to none.
fn another_writer(scenario: &mut Scenario, noise: &mut Noise, at: f64) {
    let value = match noise.below(6) {
        0 => 0,
        1 => 1,
        _ => whole(scenario.max as f64 * noise.magnitude(0.1, 8.0)),
    };
    let event = if noise.once_in(4) { Event::SetBuckets(value.max(1)) } else { Event::SetMax(value) };
    scenario.events.push((at, event));
}

/// Relaxed after a minute, so that the last of 17 show whether it comes to rest.
fn constant(scenario: &mut Scenario, noise: &mut Noise) {
    scenario.max = whole(noise.magnitude(4_000.0, 300_000.0));
    scenario.buckets = scenario.max;
    scenario.policy.relax.after = Duration::from_mins(1);
    if noise.once_in(2) {
        scenario.policy.table.max.ceiling = Some(whole(scenario.max as f64 * noise.between(1.0, 3.0)));
    }
    scenario.machine.step = 0.2;
    scenario.lasts = 1_000.0;
    scenario.before = noise.between(0.0, 300.0);
    for _ in 0..=noise.below(2) {
        let flow = [flow::tcp(5.0, 5.0, 0.1), flow::dns(), flow::udp_stream(20.0), flow::one_way_udp(20.0)];
        let rate = scenario.max as f64 * noise.magnitude(0.0005, 0.01);
        scenario.load.push((flow[noise.below(4)].clone(), Rate::Constant(rate)));
    }
}

fn calm(scenario: &mut Scenario, noise: &mut Noise) {
    scenario.max = whole(noise.magnitude(4_000.0, 300_000.0));
    scenario.buckets = scenario.max;
    scenario.policy.relax.after = Duration::from_mins(1);
    scenario.policy.table.max.ceiling = Some(whole(scenario.max as f64 * noise.between(1.0, 3.0)));
    scenario.machine.step = 0.2;
    scenario.lasts = 1_300.0;
    scenario.before = 150.0;
    let flow =
        [flow::tcp(2.0, 5.0, 0.1), flow::tcp(0.5, 5.0, 0.9), flow::dns(), flow::udp_scan()][noise.below(4)].clone();
    // Around the rate at which 120 s of TIME_WAIT or 30 s of UDP fill max.
    let high = scenario.max as f64 * noise.magnitude(0.008, 0.1);
    let rate = Rate::surge(scenario.max as f64 / 1_000.0, 60.0, noise.between(30.0, 200.0), high);
    scenario.load.push((flow, rate));
}

fn ramp(scenario: &mut Scenario, noise: &mut Noise) {
    scenario.max = whole(noise.magnitude(8_000.0, 300_000.0));
    scenario.buckets = scenario.max;
    scenario.machine.memory_total = 64 << 30;
    scenario.machine.memory_free = 48 << 30;
    scenario.lasts = noise.between(60.0, 120.0);
    scenario.before = 30.0;
    scenario.policy.table.high_water = noise.between(0.6, 0.85);
    // With a fifth of max free above the mark, this leaves the guard two seconds and more.
    let fastest = scenario.max as f64 * (1.0 - scenario.policy.table.high_water) / 2.5;
    let rate = noise.between(0.1, 1.0) * fastest;
    let begin = noise.between(5.0, 30.0);
    let end = begin + noise.between(0.0, 60.0);
    let flow = [flow::tcp(10.0, 5.0, 0.0), flow::dns(), flow::udp_stream(20.0)][noise.below(3)].clone();
    scenario.load.push((flow, Rate::Points(vec![(begin, rate / 20.0), (end, rate)])));
    // All that can come in the time, twice over.
    let most = (rate * (scenario.lasts + scenario.before) * 2.0).max(scenario.max as f64 * 4.0);
    scenario.policy.table.max = Bounds { floor: None, ceiling: Some(whole(most)) };
}

fn any_flow(noise: &mut Noise) -> Flow {
    let open = noise.magnitude(0.2, 300.0);
    match noise.below(11) {
        0 | 1 => flow::tcp(open, noise.between(1.0, 10.0), noise.unit() * noise.unit()),
        2 => flow::abandoned(),
        3 => flow::syn_flood(),
        4 => flow::answered_syn_flood(),
        5 => flow::udp_scan(),
        6 => flow::dns(),
        7 => flow::udp_stream(open),
        8 => flow::ping(),
        9 => flow::one_way_udp(open),
        _ => flow::one_way_tcp(open),
    }
}

fn any_fault(noise: &mut Noise) -> Fault {
    let all = [
        Fault::NoSamples,
        Fault::NoHooks,
        Fault::NoDestroys,
        Fault::NoCensus,
        Fault::Wrapped,
        Fault::FixedBuckets,
        Fault::FixedTimeouts,
        Fault::Deaf,
    ];
    all[noise.below(all.len())]
}

fn policy(noise: &mut Noise, max: u64) -> Policy {
    let mut policy = Policy::default();
    let around = |noise: &mut Noise| Some(whole(max as f64 * noise.magnitude(0.2, 30.0)));
    if noise.once_in(2) {
        policy.table.max.ceiling = around(noise);
    }
    if noise.once_in(3) {
        policy.table.max.floor = around(noise).map(|floor| floor.min(policy.table.max.ceiling.unwrap_or(floor)));
    }
    if noise.once_in(3) {
        policy.hash.buckets.ceiling = around(noise);
    }
    if noise.once_in(3) {
        policy.table.memory_limit = MemoryLimit::Percent(noise.between(1.0, 90.0));
    }
    if noise.once_in(3) {
        // Enough for what there is at the start.
        policy.table.memory_limit = MemoryLimit::Bytes(whole(max as f64 * noise.between(600.0, 4_000.0)));
    }
    policy.table.high_water = noise.between(0.3, 0.95);
    policy.table.horizon = Duration::from_secs_f64(noise.magnitude(1.0, 120.0));
    policy.hash.max_stall = Duration::from_secs_f64(noise.magnitude(0.001, 1.0));
    if noise.once_in(4) {
        let hour = |noise: &mut Noise| Duration::from_hours(noise.below(24) as u64);
        policy.hash.resize_window = Some(Window { from: hour(noise), to: hour(noise) });
    }
    policy.timeouts.shorten = !noise.once_in(4);
    for timeout in Timeout::ALL {
        if noise.once_in(8) {
            policy.timeouts.floors.insert(timeout, whole(noise.magnitude(1.0, 500.0)));
        }
    }
    policy.relax.after = Duration::from_mins(1);
    policy.flood.detect = !noise.once_in(4);
    policy.flood.unreplied = noise.between(0.5, 1.0);
    policy
}

/// Without its fraction.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes are positive, and `as` saturates")]
pub fn whole(size: f64) -> u64 {
    size as u64
}
