//! Kernel counters and proc files → one timestamped [`Sample`]. Nothing here judges a reading; `model` does.

mod census;
mod error;
pub mod memory;
mod sample;
pub mod stats;
pub mod table;
pub mod timeouts;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

pub use census::{Census, InState};
pub use error::Error;
pub use sample::{
    CHAIN_LENGTHS, Chains, Clashes, Destroys, HookTotals, Memory, Namespaces, RefusedFlow, ResizeEvent, Sample,
    StatTotals, Statistics, TableFull, TableReading,
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
}

impl Observer {
    /// Reads proc files below `root`, and the programs' counters where they could be attached.
    pub fn new(root: &Path, hooks: Option<Hooks>) -> Self {
        let entry_bytes = memory::entry_bytes(root);
        let presence = Presence::new(hooks.as_ref().map(Hooks::ctnetlink_is_built_in));
        let (stats, census) = (stats::Stats::new(presence), census::Taker::new(presence));
        Self { root: root.to_owned(), hooks, stats, entry_bytes, census }
    }

    /// Reads everything once. The statistics may be missing; without the table's size and count there is no sample.
    pub fn sample(&mut self) -> Result<Sample, Error> {
        let stats = self.stats.read(&self.root);
        // The counters before the count: an entry that comes between the two is then in the count already, so growth
        // by the one never runs ahead of the other.
        let hooks = self.hooks.as_mut().map(Hooks::read);
        Ok(Sample {
            at: since_boot(),
            table: table::read(&self.root)?,
            stats,
            hooks,
            memory: memory::read(&self.root)?,
            entry_bytes: self.entry_bytes,
            timeouts: timeouts::read(&self.root)?,
            census: self.census.last(),
            flowtables: flowtables(&self.root),
            time_of_day: time_of_day(),
        })
    }

    /// Looks at the entries themselves if it is time, for the samples that follow. Takes a few milliseconds, so it is for
    /// the time between two ticks: nothing that is urgent shall wait for it.
    pub fn look_at_entries(&mut self, table: &TableReading) {
        self.census.look(&self.root, table);
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

/// Whether nf_flow_table is loaded and somebody uses it: third column of /proc/modules (`m_show` in kernel/module/procfs.c).
fn flowtables(root: &Path) -> bool {
    let modules = std::fs::read_to_string(root.join("proc/modules")).unwrap_or_default();
    let mut lines = modules.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    lines.any(|cells| cells.first() == Some(&"nf_flow_table") && cells.get(2).is_some_and(|users| *users != "0"))
}
