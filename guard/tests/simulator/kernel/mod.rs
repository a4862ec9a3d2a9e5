//! nf_conntrack's table made of cohorts: how many entries of which protocol and state expire when, not the entries
//! themselves. Counts are real numbers, so that a million connections a second cost no more than a hundred.
//!
//! What the kernel does is modelled where the guard can see or cause it: an entry's timeout is the one in force when its
//! last packet came; over max `early_drop` looks at eight buckets for entries that are not ASSURED; what has expired
//! stays in the count until a lookup or the gc worker meets it; a resize holds up every packet.

mod admission;
mod census;
mod cohorts;
mod counters;
pub mod flow;
mod gc;
pub mod noise;
mod reading;

use conntrack_guard::observe::{ResizeEvent, TableReading, Timeouts};

use self::cohorts::{Entries, Met};
pub use self::cohorts::{Time, steps};
pub use self::counters::Counters;
use self::flow::Flow;
use self::gc::Gc;
use self::noise::Noise;

/// Bytes of a page: buckets come in pages (`nf_ct_alloc_hashtable`).
const BUCKETS_IN_A_PAGE: u64 = 512;

/// The host that the table is on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Seconds of one step of the simulation.
    pub step: f64,
    /// `MemTotal`, bytes.
    pub memory_total: u64,
    /// `MemAvailable` with an empty table, bytes.
    pub memory_free: u64,
    /// Bytes of an entry.
    pub entry_bytes: u64,
    /// Nanoseconds that a resize takes for each entry.
    pub resize_nanos: f64,
    /// Entries that a census looks at.
    pub census: f64,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            step: 0.01,
            memory_total: 64 << 30,
            memory_free: 32 << 30,
            entry_bytes: 384,
            resize_nanos: 450.0,
            census: 2_000.0,
        }
    }
}

/// The table, its settings and what it counted.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The host.
    pub machine: Machine,
    /// `nf_conntrack_max`; 0 is no limit.
    pub max: u64,
    /// Buckets of the hash.
    pub buckets: u64,
    /// The timeouts in force, seconds.
    pub timeouts: Timeouts,
    /// Steps since the simulation began. Stands still while the host is suspended, as jiffies do.
    pub now: Time,
    /// What the hooks and the statistics would have counted.
    pub counters: Counters,
    /// Resizes that no sample has told of yet.
    pub resizes: Vec<ResizeEvent>,
    entries: Entries,
    gc: Gc,
    noise: Noise,
    /// Packets are held up until then.
    stalled_until: Time,
    /// New flows held up by a stall, by flow.
    backlog: Vec<f64>,
}

impl Kernel {
    /// An empty table for these kinds of flows.
    pub fn new(machine: Machine, max: u64, buckets: u64, timeouts: Timeouts, flows: Vec<Flow>, seed: u64) -> Self {
        let backlog = vec![0.0; flows.len()];
        Self {
            entries: Entries::new(flows, machine.step),
            machine,
            max,
            buckets: pages(buckets),
            timeouts,
            now: 0,
            counters: Counters::default(),
            resizes: Vec::new(),
            gc: Gc::default(),
            noise: Noise::new(seed),
            stalled_until: 0,
            backlog,
        }
    }

    /// One step in which so many flows of each kind arrive.
    pub fn step(&mut self, arrivals: &[f64]) {
        self.now += 1;
        let (now, step) = (self.now, self.machine.step);
        for (waiting, more) in self.backlog.iter_mut().zip(arrivals) {
            *waiting += more;
        }
        if now < self.stalled_until {
            return;
        }
        let arrived = self.backlog.clone();
        self.backlog.fill(0.0);
        let met = self.entries.advance(now, &self.timeouts);
        let lookups = self.admit(&arrived);
        self.reap(met, lookups);
        self.collect(step);
    }

    /// max, buckets and the count as proc shows them.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts are small and positive")]
    pub fn table(&self) -> TableReading {
        TableReading { max: self.max, buckets: self.buckets, count: self.entries.count() as u64 }
    }

    /// Entries, those that have expired and were not met yet among them.
    pub fn count(&self) -> f64 {
        self.entries.count()
    }

    /// Those of them whose time has not run out.
    pub fn live(&self) -> f64 {
        self.entries.live()
    }

    /// `nf_conntrack_hash_resize`: every packet waits while all entries move. Answers with the steps until it is done.
    pub fn resize(&mut self, buckets: u64, comm: &str, at: std::time::Duration) -> Time {
        let took = self.count() * self.machine.resize_nanos / 1e9 * self.noise.about_one(0.05);
        let from = std::mem::replace(&mut self.buckets, pages(buckets));
        let took = std::time::Duration::from_secs_f64(took);
        // The call returns after a grace period in which no packet waits.
        let grace = std::time::Duration::from_secs_f64(self.noise.between(0.005, 0.025));
        self.resizes.push(ResizeEvent {
            at: at + took + grace,
            took: took + grace,
            pid: 1,
            comm: comm.to_owned(),
            cgroup: 1,
            from: Some(from),
            to: Some(self.buckets),
            result: 0,
        });
        let steps = steps(took.as_secs_f64(), self.machine.step);
        self.stalled_until = self.now + steps;
        steps
    }

    /// What has expired goes when a lookup walks over it: each is in two chains, and the first packet of a new flow walks
    /// one to its end. The packets that follow find their entry near the head, before those that are older.
    fn reap(&mut self, met: Met, lookups: f64) {
        self.counters.broken += met.broken;
        let each = 2.0 * lookups / self.buckets as f64;
        let freed = self.entries.free_dead(-(-each).exp_m1());
        self.counters.destroyed(freed);
        self.counters.destroyed(met.freed);
    }

    fn collect(&mut self, step: f64) {
        let freed = self.gc.run(&mut self.entries, self.now, step, self.max);
        self.counters.destroyed(freed);
    }
}

fn pages(buckets: u64) -> u64 {
    buckets.max(1).next_multiple_of(BUCKETS_IN_A_PAGE)
}
