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

use self::cohorts::{Entries, Met, NOTHING};
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
        self.stride(1, arrivals);
    }

    /// So many steps in one, in which so many flows of each kind arrive: in the middle, as evenly spread ones do on average.
    /// [`Kernel::longest_stride`] says of how many it makes no difference.
    pub fn stride(&mut self, steps: Time, arrivals: &[f64]) {
        let from = self.now + 1;
        self.now += steps;
        for (waiting, more) in self.backlog.iter_mut().zip(arrivals) {
            *waiting += more;
        }
        if self.now < self.stalled_until {
            return;
        }
        let mut met = Met::default();
        let mut arrived = std::mem::take(&mut self.backlog);
        let middle = self.now - steps / 2;
        self.entries.advance(from, middle, &self.timeouts, &mut met);
        let lookups = self.admit(&arrived);
        arrived.fill(0.0);
        self.backlog = arrived;
        if steps > 1 {
            self.meet(lookups / 2.0);
            self.entries.advance(from, self.now, &self.timeouts, &mut met);
            self.meet(lookups / 2.0);
        } else {
            self.meet(lookups);
        }
        self.counters.broken += met.broken;
        self.counters.destroyed(met.freed);
        self.collect(steps as f64 * self.machine.step);
    }

    /// How many steps may be one if so many flows arrive in a step at most: while no packet is held up, none of them is
    /// refused and the gc worker begins no sweep, it does not matter when within a second which comes first.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    pub fn longest_stride(&self, a_step: f64) -> Time {
        let sweep = self.gc.next().map_or(1, |next| next.saturating_sub(self.now));
        let within_a_second = (1.0 / self.machine.step) as Time;
        if self.now < self.stalled_until {
            return 1;
        }
        // What comes by chance may be twice as much.
        let fits = (self.room() / (2.0 * a_step).max(NOTHING)) as Time;
        fits.min(sweep).min(within_a_second).max(1)
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
    fn meet(&mut self, lookups: f64) {
        let each = 2.0 * lookups / self.buckets as f64;
        let freed = self.entries.free_dead(-(-each).exp_m1());
        self.counters.destroyed(freed);
    }

    fn collect(&mut self, seconds: f64) {
        let freed = self.gc.run(&mut self.entries, self.now, self.machine.step, seconds, self.max);
        self.counters.destroyed(freed);
    }
}

fn pages(buckets: u64) -> u64 {
    buckets.max(1).next_multiple_of(BUCKETS_IN_A_PAGE)
}
