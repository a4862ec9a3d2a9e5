//! What the guard reads.

use std::time::Duration;

use conntrack_guard::observe::{Memory, Sample, Statistics};

use super::Kernel;

impl Kernel {
    /// A sample with everything in it but a census.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes are small and positive")]
    pub fn sample(&mut self, at: Duration, time_of_day: Duration) -> Sample {
        let mut hooks = self.counters.hooks();
        hooks.resizes = std::mem::take(&mut self.resizes);
        let machine = &self.machine;
        let taken = self.entries.count() * machine.entry_bytes as f64 + self.buckets as f64 * 8.0;
        let available = (machine.memory_free as f64 - taken).max(0.0);
        let share = available / machine.memory_total as f64;
        Sample {
            at,
            table: self.table(),
            stats: Statistics::Proc(self.counters.stats()),
            hooks: Some(hooks),
            memory: Memory {
                total: machine.memory_total,
                available: available as u64,
                // Tasks wait for memory when a twentieth of it is left.
                pressure: Some(((0.05 - share) * 1_000.0).clamp(0.0, 50.0)),
            },
            entry_bytes: machine.entry_bytes,
            timeouts: self.timeouts.clone(),
            census: None,
            flowtables: false,
            time_of_day,
        }
    }
}
