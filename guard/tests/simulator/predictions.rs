//! What each kind of change was expected to do, held against what came of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use conntrack_guard::config::Window;
use conntrack_guard::observe::Timeout;
use conntrack_guard::policy::{Rule, Setting, Settled};

use crate::closed_loop::run;
use crate::faults::Event;
use crate::foresight::quantile;
use crate::kernel::flow;
use crate::kernel::noise::Noise;
use crate::load::Rate;
use crate::random::whole;
use crate::scenario::Scenario;

/// Decisions of a kind that are judged each time, and in the long run.
const SHARE: usize = 12;
const ALL: usize = 100;
/// The median error of each kind is this at most.
const MOST: f64 = 0.15;
/// No kind takes so many histories.
const HISTORIES: u64 = 400;
/// The timeouts that are ever shortened. How entries of the others end no hook tells: the retransmission timeouts shorten a
/// connection's time in any state, and GRE is counted with protocols that have no tracker.
const CUT: [Timeout; 13] = [
    Timeout::TcpSynSent,
    Timeout::TcpSynRecv,
    Timeout::TcpEstablished,
    Timeout::TcpFinWait,
    Timeout::TcpCloseWait,
    Timeout::TcpLastAck,
    Timeout::TcpTimeWait,
    Timeout::TcpClose,
    Timeout::Udp,
    Timeout::UdpStream,
    Timeout::Icmp,
    Timeout::Icmpv6,
    Timeout::Generic,
];

/// What is judged by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    RaiseMax,
    RelaxMax,
    PresizeBuckets,
    GrowBuckets,
    Shorten(Timeout),
    Relax,
}

impl Kind {
    fn all() -> impl Iterator<Item = Self> {
        let others = [Self::RaiseMax, Self::RelaxMax, Self::PresizeBuckets, Self::GrowBuckets, Self::Relax];
        others.into_iter().chain(CUT.map(Self::Shorten))
    }

    fn of(settled: &Settled) -> Self {
        match (settled.rule, settled.setting) {
            (Rule::ShortenTimeout, Setting::Timeout(timeout)) => Self::Shorten(timeout),
            (Rule::RaiseMax, _) => Self::RaiseMax,
            (Rule::RelaxMax, _) => Self::RelaxMax,
            (Rule::PresizeBuckets, _) => Self::PresizeBuckets,
            (Rule::GrowBuckets, _) => Self::GrowBuckets,
            (Rule::RelaxTimeout | Rule::ShortenTimeout, _) => Self::Relax,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Shorten(timeout) => format!("{} {}", Rule::ShortenTimeout.name(), timeout.name()),
            Self::RaiseMax => Rule::RaiseMax.name().to_owned(),
            Self::RelaxMax => Rule::RelaxMax.name().to_owned(),
            Self::PresizeBuckets => Rule::PresizeBuckets.name().to_owned(),
            Self::GrowBuckets => Rule::GrowBuckets.name().to_owned(),
            Self::Relax => Rule::RelaxTimeout.name().to_owned(),
        }
    }

    /// A history in which such a change is made.
    fn history(self, seed: u64) -> Scenario {
        let mut noise = Noise::new(seed);
        let mut scenario = match self {
            Self::RaiseMax | Self::RelaxMax | Self::PresizeBuckets => growth(&mut noise),
            Self::GrowBuckets => long_chains(&mut noise),
            Self::Shorten(timeout) => under_a_ceiling(timeout, &mut noise),
            Self::Relax => under_a_ceiling(CUT[noise.below(CUT.len())], &mut noise),
        };
        scenario.name = format!("{} {seed}", self.name());
        scenario.seed = noise.bits();
        scenario.machine.resize_nanos = noise.between(300.0, 1_500.0);
        scenario
    }
}

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
fn growth(noise: &mut Noise) -> Scenario {
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
fn long_chains(noise: &mut Noise) -> Scenario {
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
fn under_a_ceiling(timeout: Timeout, noise: &mut Noise) -> Scenario {
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
        let lasts = noise.between(1.5, 4.0) * 3_600.0;
        let rate = full / lasts;
        let load = hill(60.0, 60.0, lasts, 60.0, rate);
        return scenario.load(flow::left_in(timeout), load).lasting(200.0, lasts + 20_000.0).step(5.0);
    }
    // A storm that is over before its timeout has run a few times is over before anything that is cut shows.
    let (rises, stays) = (noise.magnitude(1.0, seconds), noise.between(3.0, 8.0) * seconds.max(30.0));
    let (from, falls) = (noise.between(60.0, 300.0), noise.magnitude(1.0, seconds));
    let load = hill(from, rises, stays, falls, full / seconds);
    let lasts = from + rises + stays + falls + 3.0 * seconds + 400.0;
    scenario.load(flow::left_in(timeout), load).lasting(150.0, lasts).step(if seconds < 60.0 { 0.1 } else { 0.25 })
}

#[test]
fn what_changes_of_sizes_do_is_foreseen() {
    judge(&[Kind::RaiseMax, Kind::RelaxMax, Kind::PresizeBuckets, Kind::GrowBuckets], SHARE);
}

#[test]
#[ignore = "takes minutes, and not yet as it should be for most timeouts: see docs/simulator.md"]
fn what_a_hundred_changes_of_each_kind_do_is_foreseen() {
    judge(&Kind::all().collect::<Vec<_>>(), ALL);
}

/// Collects so many decisions of each of these kinds (or of the one that `KIND` names), prints how far they were off, and
/// holds the medians down.
fn judge(kinds: &[Kind], least: usize) {
    let begin = Instant::now();
    let mut errors: BTreeMap<Kind, Vec<f64>> = BTreeMap::new();
    let mut histories = 0;
    let only = std::env::var("KIND").ok();
    let wanted = |kind: &Kind| kinds.contains(kind) && only.as_ref().is_none_or(|only| *only == kind.name());
    for (number, kind) in (1_u64..).zip(Kind::all()).filter(|(_, kind)| wanted(kind)) {
        for seed in 0..HISTORIES {
            if errors.get(&kind).is_some_and(|errors| errors.len() >= least) {
                break;
            }
            let scenario = kind.history(number * 1_000_000 + seed);
            let outcome = run(&scenario);
            histories += 1;
            for settled in &outcome.settled {
                errors.entry(Kind::of(settled)).or_default().push(settled.error);
            }
        }
    }
    println!(
        "{histories} histories in {:.0} s; error of what was expected, of what came or of 1 % of max if that is more:",
        begin.elapsed().as_secs_f64()
    );
    println!("{:<36} {:>9} {:>8} {:>8}", "kind of change", "decisions", "median", "p90");
    let mut wrong = Vec::new();
    for kind in Kind::all().filter(wanted) {
        let errors = errors.get(&kind).map_or(&[][..], Vec::as_slice);
        let (median, most) = (quantile(errors, 50.0), quantile(errors, 90.0));
        println!("{:<36} {:>9} {:>6.1} % {:>6.1} %", kind.name(), errors.len(), 100.0 * median, 100.0 * most);
        if errors.len() < least || median > MOST {
            wrong.push(kind.name());
        }
    }
    assert!(wrong.is_empty(), "too few or not foreseen: {wrong:?}");
}
