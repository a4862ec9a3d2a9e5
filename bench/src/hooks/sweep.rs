//! One look at the costs: the same work at each load.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use bench::conntrack::Settings;
use bench::netns::Namespace;
use serde::Serialize;

use super::connections::Connections;
use super::figures::median;
use super::filler::Filler;
use super::flows::Flows;

/// Entries that fill the table.
pub(super) const ENTRIES: u64 = 16_384;
/// Entries it may hold: the flows of a batch come on top.
const MAX: u64 = 65_536;
/// UDP flows of a batch: few beside the entries that fill the table, many beside the timer's interrupts.
pub(super) const FLOWS: u16 = 512;
/// TCP connections of a batch. With half as many the UDP flows after them find the allocators in varying states: ±50 instead
/// of ±10.
pub(super) const CONNECTIONS: u16 = 128;
/// Batches at each load; their median is the sweep's figure.
pub(super) const BATCHES: usize = 5;
/// What the kernel does after a change in threads of its own (RCU, freeing the old table) is over after that.
const SETTLE: Duration = Duration::from_millis(200);

/// How full the hash table is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Load {
    /// Entries a bucket.
    pub factor: f64,
    /// `nf_conntrack_buckets`.
    pub buckets: u64,
}

/// All loads, with the same entries: what differs is the number of buckets.
pub(super) const LOADS: [Load; 4] = [
    Load { factor: 0.25, buckets: ENTRIES * 4 },
    Load { factor: 1.0, buckets: ENTRIES },
    Load { factor: 4.0, buckets: ENTRIES / 4 },
    Load { factor: 8.0, buckets: ENTRIES / 8 },
];

impl Load {
    /// Other entries in the two chains that a new flow joins, on average: each entry is in two chains.
    pub fn nodes(self) -> f64 {
        4.0 * self.factor
    }
}

/// Instructions for one flow.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cost {
    /// A UDP flow's first datagram.
    pub insert: f64,
    /// Its entry's removal.
    pub destroy: f64,
    /// Both.
    pub life: f64,
    /// A whole TCP connection.
    pub connection: f64,
}

/// Where the flows are made.
pub(super) struct Bench {
    namespace: Namespace,
    flows: Flows,
    connections: Connections,
    filler: Filler,
}

impl Bench {
    /// Fills the table and opens the sockets.
    pub fn new() -> Result<Self> {
        Settings { max: MAX, buckets: ENTRIES }.write()?;
        let filler = Filler::new(ENTRIES)?;
        let namespace = Namespace::tracked_loopback("flows")?;
        let (flows, connections) = namespace.run(|| -> Result<_> { Ok((Flows::open()?, Connections::open()?)) })??;
        Ok(Self { namespace, flows, connections, filler })
    }

    /// Where the measured flows are tracked.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Sets the load to one entry a bucket.
    pub fn settle(&self) -> Result<()> {
        Settings { max: MAX, buckets: ENTRIES }.write()?;
        thread::sleep(SETTLE);
        self.filler.check(ENTRIES)
    }

    /// Measures at each load, beginning with the `first`.
    pub fn sweep(&mut self, first: usize, stop: &AtomicBool) -> Result<[Cost; LOADS.len()]> {
        let mut costs = [Cost::default(); LOADS.len()];
        for step in 0..LOADS.len() {
            let index = (first + step) % LOADS.len();
            ensure!(!stop.load(Ordering::Relaxed), "stopped; everything is put back");
            Settings { max: MAX, buckets: LOADS[index].buckets }.write()?;
            thread::sleep(SETTLE);
            let (flows, connections) = (&mut self.flows, &self.connections);
            costs[index] = self.namespace.run(|| measure(flows, connections))??;
        }
        self.filler.check(ENTRIES)?;
        Ok(costs)
    }
}

fn measure(flows: &mut Flows, connections: &Connections) -> Result<Cost> {
    // Thrown away: it fills the caches of the kernel's allocators.
    flows.batch(FLOWS)?;
    connections.batch(CONNECTIONS)?;
    let mut batches = Vec::new();
    for _ in 0..BATCHES {
        let life = flows.batch(FLOWS)?;
        let (insert, destroy) = (life.insert as f64 / f64::from(FLOWS), life.destroy as f64 / f64::from(FLOWS));
        let connection = connections.batch(CONNECTIONS)? as f64 / f64::from(CONNECTIONS);
        batches.push(Cost { insert, destroy, life: insert + destroy, connection });
    }
    let of = |quantity: fn(&Cost) -> f64| median(batches.iter().map(quantity));
    Ok(Cost {
        insert: of(|cost| cost.insert),
        destroy: of(|cost| cost.destroy),
        life: of(|cost| cost.life),
        connection: of(|cost| cost.connection),
    })
}
