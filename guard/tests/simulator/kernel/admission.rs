//! New flows: let in, let in for another's place, or refused.

use super::Kernel;
use super::cohorts::NOTHING;

/// Buckets that `early_drop` looks at (`NF_CT_EVICTION_RANGE`).
const EVICTION_RANGE: f64 = 8.0;
/// The middle of the lengths at which the kernel refuses a longer chain: 50 + random(30).
const LONGEST_CHAIN: f64 = 65.0;
/// Left for the rest of the host: below it an entry cannot be allocated.
const MEMORY_RESERVE: f64 = 64.0 * 1024.0 * 1024.0;

impl Kernel {
    /// Lets in what it may of the new flows of one step, by flow. Answers with the lookups it took.
    pub(super) fn admit(&mut self, arrived: &[f64]) -> f64 {
        let all: f64 = arrived.iter().sum();
        if all <= 0.0 {
            return 0.0;
        }
        let no_memory = self.without_memory(all);
        let by_room = self.by_room(all - no_memory);
        let too_long = by_room * self.too_long();
        let admitted = by_room - too_long;
        self.counters.no_memory += no_memory;
        self.counters.too_long += too_long;
        self.counters.chained(admitted, 2.0 * self.count() / self.buckets as f64);
        for (flow, arrived) in arrived.iter().enumerate() {
            let share = arrived / all;
            let clashes = admitted * share * self.entries.flows[flow].clashes;
            self.counters.clashed(clashes);
            self.counters.inserted(admitted * share);
            self.entries.begin(flow, admitted * share, &self.timeouts);
        }
        all
    }

    fn without_memory(&self, all: f64) -> f64 {
        let taken = self.count() * self.machine.entry_bytes as f64 + self.buckets as f64 * 8.0;
        let room = (self.machine.memory_free as f64 - MEMORY_RESERVE - taken) / self.machine.entry_bytes as f64;
        (all - room.max(0.0)).max(0.0)
    }

    /// Each flow over max looks at eight buckets: what it finds there without ASSURED goes, and what has expired. It gets
    /// in if anything was evicted.
    fn by_room(&mut self, all: f64) -> f64 {
        if self.max == 0 {
            return all;
        }
        let (mut waiting, mut admitted) = (all, 0.0);
        // What one eviction more than its own place frees, the next flow takes without one.
        for _ in 0..8 {
            let room = (self.max as f64 - self.count() - admitted).clamp(0.0, waiting);
            admitted += room;
            waiting -= room;
            if waiting < NOTHING {
                return admitted;
            }
            let evictable: f64 =
                self.entries.classes.iter().filter(|class| !class.phase.assured).map(|class| class.live).sum();
            let in_bucket = 2.0 * evictable / self.buckets as f64;
            let found = -(-EVICTION_RANGE * in_bucket).exp_m1();
            if found < 1e-12 {
                break;
            }
            // The first bucket that has any is emptied of them.
            let at_once = in_bucket / -(-in_bucket).exp_m1();
            let tries = waiting.min(0.2 * evictable / at_once / found).max(0.0);
            let evicted = self.entries.evict(tries * found * at_once, |phase| !phase.assured);
            self.counters.evicted(evicted, tries * found);
            self.counters.refused += tries * (1.0 - found);
            waiting -= tries;
            admitted += tries * found;
            if waiting < NOTHING {
                return admitted;
            }
        }
        self.gc.table_was_full();
        self.counters.refused += waiting;
        admitted
    }

    /// The share of inserts that meet a chain which is too long already, in either direction.
    fn too_long(&self) -> f64 {
        let mean = 2.0 * self.count() / self.buckets as f64;
        if mean < 20.0 {
            return 0.0;
        }
        // The normal distribution's tail, by the logistic curve: what matters is where it rises.
        let one = 1.0 / (1.0 + (1.702 * (LONGEST_CHAIN - mean) / mean.sqrt()).exp());
        1.0 - (1.0 - one) * (1.0 - one)
    }
}
