//! Kernel counters and proc files → one timestamped [`Sample`]. Nothing here judges a reading; `model` does.

mod census;
mod error;
pub mod memory;
mod sample;
mod seldom;
pub mod stats;
pub mod table;
pub mod timeouts;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

pub use census::{Census, InState};
pub use error::Error;
pub use sample::{
    CHAIN_LENGTHS, Chains, Clashes, Destroys, HookTotals, Memory, NamespaceInserts, Namespaces, RefusedFlow,
    ResizeEvent, Sample, StatTotals, Statistics, TableFull, TableReading,
};

pub use timeouts::{Timeout, Timeouts};

use crate::kernel::Hooks;
use crate::kernel::ctnetlink::Presence;

/// Reads one [`Sample`] after another.
pub struct Observer {
    root: PathBuf,
    hooks: Option<Hooks>,
    stats: stats::Stats,
    entry_bytes: u64,
    census: census::Taker,
    seldom: seldom::Seldom,
}

impl Observer {
    /// Reads proc files below `root`, and the programs' counters where they could be attached.
    pub fn new(root: &Path, hooks: Option<Hooks>) -> Self {
        let entry_bytes = memory::entry_bytes(root);
        let presence = Presence::new(hooks.as_ref().map(Hooks::ctnetlink_is_built_in));
        let (stats, census) = (stats::Stats::new(presence), census::Taker::new(presence));
        Self { root: root.to_owned(), hooks, stats, entry_bytes, census, seldom: seldom::Seldom::default() }
    }

    /// Reads once. The statistics may be missing; without the table's size and count there is no sample.
    pub fn sample(&mut self) -> Result<Sample, Error> {
        let stats = self.stats.read(&self.root);
        // The counters before the count: an entry that comes between the two is then in the count already, so growth
        // by the one never runs ahead of the other.
        let hooks = self.hooks.as_mut().map(Hooks::read);
        let mut sample = Sample {
            at: since_boot(),
            table: table::read(&self.root)?,
            stats,
            hooks,
            memory: memory::read(&self.root)?,
            entry_bytes: self.entry_bytes,
            census: self.census.last(),
            time_of_day: time_of_day(),
            ..Sample::default()
        };
        self.seldom.complete(&self.root, &mut sample)?;
        Ok(sample)
    }

    /// Whether the samples that follow may have the timeouts and the flowtables of up to 10 s before.
    pub fn may_be_old(&mut self, may_be_old: bool) {
        self.seldom.may_be_old(may_be_old);
    }

    /// Reads again what the last sample has of before, for a decision that may depend on it; whether any of it changed.
    pub fn refresh(&mut self, sample: &mut Sample) -> Result<bool, Error> {
        self.seldom.refresh(&self.root, sample)
    }

    /// Looks at the entries themselves if it is time, for the samples that follow; sooner where the last look is as old as
    /// `within`. Takes a few milliseconds, so it is for the time between two ticks: nothing that is urgent shall wait for it.
    pub fn look_at_entries(&mut self, table: &TableReading, within: Option<Duration>) {
        self.census.look(&self.root, table, within);
    }
}

impl Observer {
    /// How many CPUs count down a credit; `None` where no program sees the inserts.
    pub fn counting_cpus(&self) -> Option<u64> {
        self.hooks.as_ref().and_then(Hooks::counting_cpus)
    }

    /// Entries inserted since the last sample.
    pub fn inserts_since_sample(&self) -> u64 {
        self.hooks.as_ref().map_or(0, Hooks::inserts_since_reading)
    }

    /// Grants each CPU so many inserts until [`Self::credit_spent`] returns; 0: it does not.
    pub fn grant(&mut self, inserts: u64) {
        if let Some(hooks) = &mut self.hooks {
            hooks.credit().grant(inserts);
        }
    }

    /// Returns when a CPU has spent its credit: the time since boot at which it did. Never where no program counts.
    pub async fn credit_spent(&mut self) -> Duration {
        if let Some(hooks) = &mut self.hooks {
            match hooks.credit().spent().await {
                Ok(at) => return at,
                Err(error) => tracing::warn!("a surge wakes nobody, so it waits for the next tick: {error}"),
            }
        }
        std::future::pending().await
    }
}

/// Time since boot, suspended time included.
pub fn since_boot() -> Duration {
    // The clock exists since Linux 2.6.39: there is no error to answer.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// Time since midnight, UTC.
fn time_of_day() -> Duration {
    const DAY: u64 = 24 * 60 * 60;
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_secs(since_epoch.as_secs() % DAY)
}
