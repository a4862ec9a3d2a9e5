//! New flows: let in, let in for another's place, or refused.

use super::Kernel;
use super::cohorts::NOTHING;

/// Buckets that `early_drop` looks at (`NF_CT_EVICTION_RANGE`).
const EVICTION_RANGE: f64 = 8.0;
/// The middle of the lengths at which the kernel refuses a longer chain: 50 + random(30).
const LONGEST_CHAIN: f64 = 65.0;
/// A mean length at which none is that long.
const SHORT_CHAINS: f64 = 20.0;
/// Left for the rest of the host: below it an entry cannot be allocated.
const MEMORY_RESERVE: f64 = 64.0 * 1024.0 * 1024.0;

struct Look {
    /// The chance that it finds something to evict.
    found: f64,
    /// What it evicts then.
    at_once: f64,
    /// What has expired that it frees.
    reaped: f64,
    /// So many calls leave what there is much as it was.
    most_tries: f64,
}

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

    /// New flows that are let in whatever comes first: far from max, from the end of the memory and from chains that are
    /// too long.
    pub(super) fn room(&self) -> f64 {
        let count = self.count();
        let below = |most: f64| 0.95 * most - count;
        let by_max = if self.max == 0 { f64::INFINITY } else { below(self.max as f64) };
        let by_chains = below(SHORT_CHAINS / 2.0 * self.buckets as f64);
        by_max.min(by_chains).min(0.9 * self.memory_left()).max(0.0)
    }

    /// Entries that there is memory for.
    fn memory_left(&self) -> f64 {
        let taken = self.count() * self.machine.entry_bytes as f64 + self.buckets as f64 * 8.0;
        let room = (self.machine.memory_free as f64 - MEMORY_RESERVE - taken) / self.machine.entry_bytes as f64;
        room.max(0.0)
    }

    fn without_memory(&self, all: f64) -> f64 {
        (all - self.memory_left()).max(0.0)
    }

    /// Each flow over max looks at eight buckets: what has expired there goes, and so does what is not ASSURED in the first
    /// bucket that has any. The flow gets in if anything was evicted; what else went makes room for those after it.
    fn by_room(&mut self, all: f64) -> f64 {
        if self.max == 0 {
            return all;
        }
        let (mut waiting, mut admitted) = (all, 0.0);
        // What is there to go changes with each try: a fifth of it at a time.
        for _ in 0..32 {
            let room = (self.max as f64 - self.count() - admitted).clamp(0.0, waiting);
            admitted += room;
            waiting -= room;
            if waiting < NOTHING {
                return admitted;
            }
            let look = self.look();
            let room_made = look.reaped + look.found * (look.at_once - 1.0);
            let tries = (waiting / (1.0 + room_made)).min(look.most_tries);
            if tries < NOTHING {
                break;
            }
            let evicted = self.entries.evict(tries * look.found * look.at_once, |phase| !phase.assured);
            self.counters.evicted(evicted, tries * look.found);
            let dead = self.entries.dead();
            if dead > 0.0 {
                let reaped = self.entries.free_dead((tries * look.reaped / dead).min(1.0));
                self.counters.destroyed(reaped);
            }
            let refused = tries * (1.0 - look.found);
            if refused > NOTHING {
                self.gc.table_was_full();
            }
            self.counters.refused += refused;
            waiting -= tries;
            admitted += tries * look.found;
        }
        self.counters.refused += waiting;
        admitted
    }

    /// What one call of `early_drop` meets on average.
    fn look(&self) -> Look {
        let live =
            self.entries.classes.iter().filter(|class| !class.phase.assured).map(|class| class.live).sum::<f64>();
        let dead = self.entries.dead();
        // Each entry is in two chains.
        let in_bucket = |entries: f64| 2.0 * entries / self.buckets as f64;
        let (evictable, expired) = (in_bucket(live), in_bucket(dead));
        let any = -(-evictable).exp_m1();
        let found = -(-EVICTION_RANGE * evictable).exp_m1();
        let buckets = if any > 0.0 { found / any } else { EVICTION_RANGE };
        let at_once = if any > 0.0 { evictable / any } else { 1.0 };
        let reaped = buckets * expired;
        let part = |there: f64, each: f64| if each > 0.0 { (0.2 * there / each).max(1.0) } else { f64::INFINITY };
        Look { found, at_once, reaped, most_tries: part(live, found * at_once).min(part(dead, reaped)) }
    }

    /// The share of inserts that meet a chain which is too long already, in either direction.
    fn too_long(&self) -> f64 {
        let mean = 2.0 * self.count() / self.buckets as f64;
        if mean < SHORT_CHAINS {
            return 0.0;
        }
        // The normal distribution's tail, by the logistic curve: what matters is where it rises.
        let one = 1.0 / (1.0 + (1.702 * (LONGEST_CHAIN - mean) / mean.sqrt()).exp());
        1.0 - (1.0 - one) * (1.0 - one)
    }
}
