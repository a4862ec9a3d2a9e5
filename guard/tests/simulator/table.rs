//! The simulated table against what can be worked out by hand.

use conntrack_guard::observe::{Destroys, Timeout, Timeouts};

use crate::kernel::flow::{self, Flow};
use crate::kernel::{Kernel, Machine, steps};

const STEP: f64 = 0.01;

fn kernel(max: u64, buckets: u64, flows: Vec<Flow>) -> Kernel {
    let timeouts: Timeouts = Timeout::ALL.iter().map(|timeout| (*timeout, timeout.kernel_default())).collect();
    Kernel::new(Machine { step: STEP, ..Machine::default() }, max, buckets, timeouts, flows, 7)
}

fn run(kernel: &mut Kernel, rates: &[f64], seconds: f64) {
    let arrivals: Vec<f64> = rates.iter().map(|rate| rate * STEP).collect();
    for _ in 0..steps(seconds, STEP) {
        kernel.step(&arrivals);
    }
}

fn near(found: f64, expected: f64, part: f64) {
    assert!((found - expected).abs() <= expected * part, "{found} instead of {expected}");
}

/// All that came is there or has gone.
#[test]
fn inserts_less_destroys_are_the_count() {
    let flows = vec![flow::tcp(1.0, 1.0, 0.2), flow::dns(), flow::syn_flood(), flow::refused_tcp()];
    let mut kernel = kernel(50_000, 16_384, flows);
    run(&mut kernel, &[500.0, 500.0, 2_000.0, 50.0], 200.0);
    let hooks = kernel.counters.hooks();
    let gone = hooks.destroys.as_ref().map(Destroys::all).unwrap();
    assert!(kernel.counters.evicted > 10_000.0, "evictions are among them");
    near((hooks.inserts.unwrap() - gone) as f64, kernel.count(), 1e-3);
}

/// Little's law: rate times the time that an entry stays. A table of few buckets, so that lookups soon meet the dead.
#[test]
fn a_steady_load_settles_where_littles_law_says() {
    let mut kernel = kernel(0, 8_192, vec![flow::tcp(5.0, 1.0, 0.0)]);
    run(&mut kernel, &[1_000.0], 300.0);
    let live = kernel.live();
    near(live, 1_000.0 * (5.0 + 120.0 + 0.08), 0.02);
    assert!(kernel.count() < 1.1 * live, "{} dead", kernel.count() - live);
}

#[test]
fn a_shorter_timeout_is_for_those_who_come_later() {
    let mut kernel = kernel(0, 8_192, vec![flow::udp_scan()]);
    run(&mut kernel, &[1_000.0], 100.0);
    near(kernel.live(), 30_000.0, 0.02);
    kernel.timeouts.insert(Timeout::Udp, 10);
    run(&mut kernel, &[1_000.0], 10.0);
    near(kernel.live(), 30_000.0, 0.02);
    run(&mut kernel, &[1_000.0], 10.0);
    near(kernel.live(), 20_000.0, 0.02);
    run(&mut kernel, &[1_000.0], 10.0);
    near(kernel.live(), 10_000.0, 0.02);
}

#[test]
fn a_packet_gives_the_timeout_in_force() {
    let mut kernel = kernel(0, 8_192, vec![flow::one_way_udp(1e6)]);
    run(&mut kernel, &[100.0], 10.0);
    kernel.timeouts.insert(Timeout::Udp, 5);
    run(&mut kernel, &[0.0], 60.0);
    near(kernel.live(), 1_000.0, 0.1);
    assert!(kernel.counters.broken < 1e-6, "a packet every two seconds keeps them");
    kernel.timeouts.insert(Timeout::Udp, 1);
    run(&mut kernel, &[0.0], 4.0);
    near(kernel.counters.broken, 1_000.0, 0.1);
}

/// The same load, in steps and in strides.
#[test]
fn strides_come_to_what_steps_come_to() {
    let flows = || vec![flow::tcp(5.0, 1.0, 0.2), flow::dns(), flow::udp_stream(20.0), flow::syn_flood()];
    let rates = [300.0, 200.0, 50.0, 100.0];
    let a_step: f64 = rates.iter().sum::<f64>() * STEP;
    for (max, seconds) in [(0, 300.0), (200_000, 120.0), (30_000, 200.0)] {
        let (mut one, mut other) = (kernel(max, 16_384, flows()), kernel(max, 16_384, flows()));
        let (mut strides, mut second) = (0, 0.0_f64);
        while second < seconds {
            second += 1.0;
            if second.to_bits() == 50.0_f64.to_bits() {
                one.timeouts.insert(Timeout::Udp, 10);
                other.timeouts.insert(Timeout::Udp, 10);
            }
            run(&mut one, &rates, 1.0);
            while other.now < one.now {
                let stride = other.longest_stride(a_step).min(one.now - other.now);
                other.stride(stride, &rates.map(|rate| rate * STEP * stride as f64));
                strides += 1;
            }
            near(other.count(), one.count(), 0.01);
            near(other.live(), one.live(), 0.01);
        }
        let refused = |kernel: &Kernel| kernel.counters.refused + kernel.counters.evicted;
        near(refused(&other), refused(&one), 0.01);
        assert_eq!(refused(&one) > 1_000.0, max == 30_000, "{} of max {max}", refused(&one));
        assert!(max == 30_000 || strides < steps(seconds, STEP) / 20, "{strides} strides");
    }
}

/// Lowering max evicts nothing; new flows are refused until something expires.
#[test]
fn a_lower_max_evicts_nothing() {
    let mut kernel = kernel(0, 8_192, vec![flow::tcp(1e5, 10.0, 0.0)]);
    run(&mut kernel, &[1_000.0], 20.0);
    kernel.max = 10_000;
    let before = kernel.count();
    run(&mut kernel, &[1_000.0], 10.0);
    near(kernel.count(), before, 1e-3);
    near(kernel.counters.refused, 10_000.0, 0.05);
}

/// 10,000 of 20,000 may go, in 262,144 buckets: eight buckets hold one with a chance of 1 - e^(-8 × 2 × 10,000 / 262,144).
#[test]
fn a_full_table_of_many_buckets_refuses_by_chance() {
    let mut kernel = kernel(20_000, 262_144, vec![flow::tcp(1e5, 10.0, 0.0), flow::syn_flood()]);
    run(&mut kernel, &[1_000.0, 1_000.0], 10.5);
    let (before, evicted) = (kernel.counters.refused, kernel.counters.evicted);
    run(&mut kernel, &[0.0, 1_000.0], 4.0);
    let share = 1.0 - (-8.0_f64 * 2.0 * 10_000.0 / 262_144.0).exp();
    near(kernel.counters.refused - before, 4_000.0 * (1.0 - share), 0.06);
    near(kernel.counters.evicted - evicted, 4_000.0 * share, 0.12);
    assert!(kernel.count() <= 20_001.0, "{}", kernel.count());
}

#[test]
fn chains_that_are_too_long_refuse_whatever_max_is() {
    let mut kernel = kernel(0, 512, vec![flow::tcp(1e5, 10.0, 0.0)]);
    run(&mut kernel, &[2_000.0], 30.0);
    assert!(kernel.counters.too_long > 10_000.0, "{}", kernel.counters.too_long);
    let mean = 2.0 * kernel.count() / 512.0;
    assert!((50.0..80.0).contains(&mean), "chains of {mean}");
}

/// What has expired in a wide and quiet table stays in the count until the worker comes.
#[test]
fn the_dead_are_counted_until_they_are_met() {
    let mut kernel = kernel(0, 4_194_304, vec![flow::dns()]);
    run(&mut kernel, &[1_000.0], 45.0);
    let most = kernel.count();
    assert!(most > 35_000.0, "{most}: 30,000 live, the others dead");
    run(&mut kernel, &[0.0], 120.0);
    assert!(kernel.count() < 1.0, "{}", kernel.count());
}

#[test]
fn a_resize_holds_up_packets_in_proportion() {
    let mut kernel = kernel(0, 65_536, vec![flow::syn_flood()]);
    run(&mut kernel, &[10_000.0], 100.0);
    let before = kernel.count();
    let stall = kernel.resize(262_000, "sysctl", std::time::Duration::ZERO);
    near(stall as f64 * STEP, before * 450e-9, 0.2);
    assert_eq!((kernel.buckets, kernel.resizes.len()), (262_144, 1), "a page has 512 buckets");
    run(&mut kernel, &[10_000.0], stall as f64 * STEP - 2.0 * STEP);
    near(kernel.count(), before, 1e-6);
    run(&mut kernel, &[10_000.0], 1.0);
    near(kernel.count(), before + 10_000.0 * (1.0 + stall as f64 * STEP), 0.01);
}

#[test]
fn a_census_is_a_fair_sample() {
    let mut kernel = kernel(0, 65_536, vec![flow::syn_flood(), flow::udp_scan(), flow::dns()]);
    run(&mut kernel, &[1_000.0, 1_000.0, 1_000.0], 60.0);
    let census = kernel.census(std::time::Duration::ZERO);
    assert!(!census.whole);
    near(census.entries as f64, 2_000.0, 0.1);
    let (syn, udp) = (census.by[&Timeout::TcpSynSent], census.by[&Timeout::Udp]);
    near(syn.entries as f64, 1_000.0, 0.15);
    near(udp.unreplied as f64, 500.0, 0.2);
    near(syn.seconds_left as f64 / syn.entries as f64, 90.0, 0.05);
    assert!((syn.entries..=syn.entries + 10).contains(&census.unreplied_sources), "{census:?}");
}
