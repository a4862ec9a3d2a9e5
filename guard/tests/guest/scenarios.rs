//! The simulator's table against the kernel's: the same flows arrive in both, and the counts are compared over time.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use bench::churn::{Churn, Progress};
use bench::conntrack::{self, Statistics};
use bench::netns::{SERVER, Topology};
use bench::udp::Flows;
use conntrack_guard::kernel::{Hooks, Options};
use conntrack_guard::observe::{Timeout, Timeouts};

use crate::kernel::{Table, eventually, insert_assured, set, timeouts};
use simulated::flow::{self, Flow};
use simulated::{Kernel, Machine, steps};

#[allow(dead_code, reason = "the guard's half of the simulator is in the other test program")]
#[path = "../simulator/kernel/mod.rs"]
mod simulated;

/// Between two readings of the count.
const EVERY: Duration = Duration::from_millis(200);
/// The median of the errors may be this.
const MOST: f64 = 0.15;

/// One reading.
#[derive(Clone, Debug)]
struct Reading {
    at: Duration,
    /// Flows that had come.
    came: u64,
    count: u64,
    timeouts: Timeouts,
}

/// Returns when the gc worker has just gone over the table, as it has when the simulation begins.
fn hooks_after_a_sweep(topology: &Topology) -> Hooks {
    let hooks = Hooks::attach(Options::default()).unwrap();
    let before = conntrack::count().unwrap();
    let found = timeouts()[&Timeout::Udp];
    set(Timeout::Udp, 1);
    Flows::one_way(0, 50).send(topology).unwrap();
    eventually("the gc worker sweeps", Duration::from_secs(90), || {
        (conntrack::count().unwrap() <= before).then_some(())
    });
    set(Timeout::Udp, found);
    hooks
}

/// Reads until `lasts` is over, while `act` does what is to be done at each reading and says how many flows have come.
fn watch(lasts: Duration, mut act: impl FnMut(Duration) -> u64) -> Vec<Reading> {
    let begin = Instant::now();
    let mut readings = Vec::new();
    while begin.elapsed() < lasts {
        let came = act(begin.elapsed());
        let count = conntrack::count().unwrap();
        let timeouts = timeouts();
        readings.push(Reading { at: begin.elapsed(), came, count, timeouts });
        let next = EVERY * u32::try_from(readings.len()).unwrap();
        thread::sleep(next.saturating_sub(begin.elapsed()));
    }
    readings
}

/// Feeds the simulator what arrived, prints both counts and holds the error down. Answers with the simulated table.
fn compare(name: &str, readings: &[Reading], table: (u64, u64), flow: Flow, already: Option<(Flow, f64)>) -> Kernel {
    let machine = Machine::default();
    let step = machine.step;
    let at_first = already.as_ref().map_or(0.0, |(_, count)| *count);
    let flows = already.into_iter().map(|(flow, _)| flow).chain([flow]).collect::<Vec<_>>();
    let ours = flows.len() - 1;
    let mut arrivals = vec![0.0; flows.len()];
    let mut kernel = Kernel::new(machine, table.0, table.1, readings[0].timeouts.clone(), flows, 1);
    if ours > 0 {
        arrivals[0] = at_first;
    }
    let (mut came, mut errors, mut printed) = (0, Vec::new(), Duration::ZERO);
    let peak = readings.iter().map(|reading| reading.count).max().unwrap() as f64;
    assert!(peak > 500.0, "{name}: a table of {peak} entries says nothing");
    println!("{name}: seconds, entries in the kernel, in the simulator");
    for reading in readings {
        let until = steps(reading.at.as_secs_f64(), step).max(kernel.now + 1);
        let each = (reading.came - came) as f64 / (until - kernel.now) as f64;
        came = reading.came;
        kernel.timeouts.clone_from(&reading.timeouts);
        while kernel.now < until {
            arrivals[ours] = each;
            kernel.step(&arrivals);
            arrivals[0] = 0.0;
        }
        let (real, simulated) = (reading.count as f64, kernel.count());
        errors.push((simulated - real).abs() / real.max(peak / 100.0));
        if reading.at >= printed {
            println!("  {:>5.1} {real:>8} {simulated:>8.0}", reading.at.as_secs_f64());
            printed += Duration::from_secs(5);
        }
    }
    errors.sort_by(f64::total_cmp);
    let [median, most, worst] = [50, 95, 100].map(|share| errors[(errors.len() - 1) * share / 100]);
    println!(
        "{name}: error of the simulator, median {:.1} %, 95 of 100 below {:.1} %, worst {:.1} %",
        median * 100.0,
        most * 100.0,
        worst * 100.0
    );
    assert!(median <= MOST, "{name}: the simulator is wrong by {:.0} % in the median", median * 100.0);
    kernel
}

/// Runs one load after the other while the table is watched.
fn churn(topology: &Topology, loads: &[(u32, u64)], lasts: u64, mut also: impl FnMut(Duration)) -> Vec<Reading> {
    let mut hooks = hooks_after_a_sweep(topology);
    let before = hooks.read().inserts.unwrap();
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            for (seed, (rate, seconds)) in (1..).zip(loads) {
                let load = Churn { rate: *rate, duration: Duration::from_secs(*seconds), seed, ..Churn::default() };
                load.run(topology, &Arc::new(Progress::default()), &AtomicBool::new(false)).unwrap();
            }
        });
        let readings = watch(Duration::from_secs(lasts), |at| {
            also(at);
            hooks.read().inserts.unwrap() - before
        });
        load.join().unwrap();
        readings
    })
}

#[test]
fn a_burst_of_connections() {
    let _table = Table::with(262_144, 16_384);
    set(Timeout::TcpTimeWait, 15);
    let topology = Topology::create().unwrap();
    let readings = churn(&topology, &[(20, 10), (200, 10), (20, 20)], 60, |_| {});
    compare("burst", &readings, (262_144, 16_384), flow::tcp(0.02, 0.01, 0.0), None);
}

/// In mid-storm the timeout is cut: those that are there keep what they got.
#[test]
fn a_time_wait_storm() {
    let _table = Table::with(262_144, 4_096);
    set(Timeout::TcpTimeWait, 20);
    let topology = Topology::create().unwrap();
    let mut cut = false;
    let readings = churn(&topology, &[(150, 45)], 60, |at| {
        if at >= Duration::from_secs(20) && !cut {
            set(Timeout::TcpTimeWait, 8);
            cut = true;
        }
    });
    compare("time-wait-storm", &readings, (262_144, 4_096), flow::tcp(0.02, 0.01, 0.0), None);
}

/// Connections that are opened and left: they go when `established` has run.
#[test]
fn an_idle_pile_up() {
    const CONNECTIONS: u32 = 1_200;
    let _table = Table::with(262_144, 4_096);
    set(Timeout::TcpEstablished, 25);
    let topology = Topology::create().unwrap();
    let listener = topology.servers().run(|| TcpListener::bind((SERVER, 8081))).unwrap().unwrap();
    let mut hooks = hooks_after_a_sweep(&topology);
    let before = hooks.read().inserts.unwrap();
    let open = || {
        let begin = Instant::now();
        let connections = (1..=CONNECTIONS).map(|number| {
            thread::sleep((Duration::from_millis(15) * number).saturating_sub(begin.elapsed()));
            TcpStream::connect((SERVER, 8081)).unwrap()
        });
        connections.collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let accepting = scope.spawn(|| (0..CONNECTIONS).map(|_| listener.accept().unwrap()).collect::<Vec<_>>());
        let opening = scope.spawn(|| topology.clients().run(open).unwrap());
        let readings = watch(Duration::from_secs(75), |_| hooks.read().inserts.unwrap() - before);
        compare("idle-pile-up", &readings, (262_144, 4_096), flow::abandoned(), None);
        // The connections stay open until here.
        drop((opening.join().unwrap(), accepting.join().unwrap()));
    });
}

/// A table that is full of entries of which some may be evicted.
#[test]
fn a_flood_of_a_full_table() {
    const ASSURED: u16 = 1_500;
    let _table = Table::with(2_000, 4_096);
    set(Timeout::Udp, 15);
    let topology = Topology::create().unwrap();
    insert_assured(0..ASSURED);
    drop(hooks_after_a_sweep(&topology));
    let before = Statistics::read().unwrap();
    let mut sent = 100;
    let readings = watch(Duration::from_secs(30), |at| {
        if at < Duration::from_secs(20) {
            sent += Flows::one_way(sent, 40).send(&topology).unwrap().sent;
        }
        sent - 100
    });
    let drops = Statistics::read().unwrap().drops_since(&before);
    let assured = (flow::tcp(1e6, 1.0, 0.0), f64::from(ASSURED));
    let kernel = compare("flood", &readings, (2_000, 4_096), flow::udp_scan(), Some(assured));
    let (refused, evicted) = (kernel.counters.refused, kernel.counters.evicted);
    println!(
        "refused {} in the kernel, {refused:.0} in the simulator; evicted {} and {evicted:.0}",
        drops.table_full, drops.evicted
    );
    for (real, simulated) in [(drops.table_full as f64, refused), (drops.evicted as f64, evicted)] {
        assert!((simulated - real).abs() <= 0.35 * real.max(100.0), "{simulated} instead of {real}");
    }
}
