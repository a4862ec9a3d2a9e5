//! Histories by chance in which one kind of change is made.

use std::time::Duration;

use conntrack_guard::config::Window;
use conntrack_guard::observe::Timeout;

use crate::faults::Event;
use crate::kernel::flow;
use crate::kernel::noise::Noise;
use crate::load::Rate;
use crate::random::whole;
use crate::scenario::Scenario;

/// What most hosts see all the time: so many entries of it.
fn background(scenario: Scenario, entries: f64, noise: &mut Noise) -> Scenario {
    let web = noise.between(0.2, 0.7);
    scenario
        .load(flow::tcp(5.0, 1.0, 0.05), Rate::Constant(entries * web / 125.0))
        .load(flow::dns(), Rate::Constant(entries * (1.0 - web) / 30.0))
}

/// Rises in the one time, stays for the other, and falls.
fn hill(from: f64, rises: f64, stays: f64, falls: f64, rate: f64) -> Rate {
    let top = from + rises;
    Rate::Points(vec![(from, 0.0), (top, rate), (top + stays, rate), (top + stays + falls, 0.0)])
}

/// Bursts, ramps and waves with room for them.
pub fn growth(noise: &mut Noise) -> Scenario {
    let max = noise.magnitude(10_000.0, 300_000.0);
    let scenario = Scenario::new("").table(whole(max), whole(max / noise.between(4.0, 16.0)));
    let mut scenario = background(scenario, max * noise.between(0.05, 0.4), noise).step(0.1);
    scenario.policy.relax.after = Duration::from_mins(1);
    let flow = [flow::tcp(5.0, 1.0, 0.05), flow::dns(), flow::udp_stream(30.0), flow::tcp(0.5, 0.5, 0.9)];
    let flow = flow[noise.below(4)].clone();
    // As many as fill max so often in two minutes.
    let rate = max * noise.between(0.5, 4.0) / 120.0;
    let hill = hill(30.0, noise.magnitude(1.0, 600.0), noise.magnitude(10.0, 300.0), noise.magnitude(1.0, 300.0), rate);
    let Rate::Points(points) = &hill else { return scenario };
    let over = points[3].0;
    scenario.load(flow, hill).lasting(noise.between(0.0, 200.0), over + 700.0)
}

/// A table that is too large for a resize within the stall, in too few buckets, with the window open.
pub fn long_chains(noise: &mut Noise) -> Scenario {
    let entries = noise.magnitude(100_000.0, 600_000.0);
    let buckets = whole(entries / noise.between(3.0, 8.0));
    let mut scenario = Scenario::new("").table(whole(entries * 2.0), buckets).step(0.1);
    scenario.policy.table.max.ceiling = Some(whole(entries * noise.between(2.0, 6.0)));
    scenario.policy.hash.resize_window =
        Some(Window { from: Duration::ZERO, to: Duration::from_secs(whole(noise.between(9.0, 23.0)) * 3_600) });
    // What a resize costs here is known from the operator's.
    let scenario = scenario.event(0.0, Event::SetBuckets(buckets - buckets / 8));
    scenario.load(flow::dns(), Rate::Constant(entries / 45.0)).lasting(90.0, 640.0)
}

/// What ends by this timeout rises beyond what the ceiling leaves room for.
pub fn under_a_ceiling(timeout: Timeout, noise: &mut Noise) -> Scenario {
    let ceiling = noise.magnitude(20_000.0, 300_000.0);
    let max = ceiling / [1.0, 1.0, 2.0, 4.0][noise.below(4)];
    let scenario = Scenario::new("").table(whole(max), whole(ceiling / 2.0));
    let others = if timeout == Timeout::TcpEstablished { 0.005 } else { noise.between(0.02, 0.2) };
    let mut scenario = background(scenario, ceiling * others, noise);
    scenario.policy.table.max.ceiling = Some(whole(ceiling));
    scenario.policy.relax.after = Duration::from_mins(1);
    // Those that are left alone by default are cut to a third.
    if scenario.policy.timeouts.floor(timeout) == timeout.kernel_default() {
        scenario.policy.timeouts.floors.insert(timeout, timeout.kernel_default() / 3);
    }
    let seconds = timeout.kernel_default() as f64;
    let full = ceiling * noise.between(0.85, 1.8);
    if timeout == Timeout::TcpEstablished {
        // They pile up for hours, and nothing else is changed until the effect shows.
        scenario.policy.relax.after = Duration::from_hours(24);
        let lasts = noise.between(3.0, 8.0) * scenario.policy.timeouts.floor(timeout) as f64;
        let load = hill(60.0, 60.0, lasts, 60.0, full / lasts);
        return scenario.load(flow::left_in(timeout), load).lasting(200.0, lasts + 1_000.0).step(5.0);
    }
    // A storm that is over before its timeout has run a few times is over before anything that is cut shows.
    let (rises, stays) = (noise.magnitude(1.0, seconds), noise.between(3.0, 8.0) * seconds.max(30.0));
    let (from, falls) = (noise.between(60.0, 300.0), noise.magnitude(1.0, seconds));
    let load = hill(from, rises, stays, falls, full / seconds);
    let lasts = from + rises + stays + falls + 3.0 * seconds + 400.0;
    scenario.load(flow::left_in(timeout), load).lasting(150.0, lasts).step(if seconds < 60.0 { 0.1 } else { 0.25 })
}
