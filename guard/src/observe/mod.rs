//! Kernel counters and proc files → one timestamped [`Sample`]. Nothing here judges a reading; `model` does.

mod error;
pub mod memory;
mod sample;
pub mod stats;
pub mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

pub use error::Error;
pub use sample::{
    CHAIN_LENGTHS, Chains, Clashes, Destroys, HookTotals, Memory, Namespaces, RefusedFlow, ResizeEvent, Sample,
    StatTotals, TableFull, TableReading,
};

use crate::kernel::Hooks;

/// Reads one [`Sample`] after another.
pub struct Observer {
    root: PathBuf,
    hooks: Option<Hooks>,
    stats: stats::Stats,
    entry_bytes: u64,
}

impl Observer {
    /// Reads proc files below `root`, and the programs' counters where they could be attached.
    pub fn new(root: &Path, hooks: Option<Hooks>) -> Self {
        let entry_bytes = memory::entry_bytes(root);
        Self { root: root.to_owned(), hooks, stats: stats::Stats::default(), entry_bytes }
    }

    /// Reads everything once. What the host may lack (the statistics file) reads as zeros that never move.
    pub fn sample(&mut self) -> Result<Sample, Error> {
        let stats = match self.stats.read(&self.root) {
            // Kernels without CONFIG_NF_CONNTRACK_PROCFS have no such file.
            Err(Error::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => StatTotals::default(),
            other => other?,
        };
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
        })
    }
}

/// Time since boot, suspended time included.
pub fn since_boot() -> Duration {
    // The clock exists since Linux 2.6.39: there is no error to answer.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}
