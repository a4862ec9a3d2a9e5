//! What the samples mean.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::outlook::Outlook;
use super::stall::{ResizeCost, Stalled};
use crate::observe::{Memory, Sample, TableReading, Timeout, Timeouts};

/// The state of the table and where it is going, at the time of one sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Estimate {
    /// Time since boot of the sample behind this estimate.
    pub at: Duration,
    /// The table as read.
    pub table: TableReading,
    /// New entries a second; `None` without the insert hook (no kernel statistic has it) or before the second sample.
    pub insert_rate: Option<f64>,
    /// Entries freed a second; `None` without either hook: what goes says little where nobody knows what comes.
    pub destroy_rate: Option<f64>,
    /// The same two over the last half minute.
    pub insert_rate_long: Option<f64>,
    /// As [`Self::destroy_rate`].
    pub destroy_rate_long: Option<f64>,
    /// Entries a second by which the count grows: the larger of a short and a long average. From the hooks where they
    /// are (all network namespaces), else from the count. Never NaN; negative when the table drains.
    pub growth: f64,
    /// Entries that there may be after the policy's horizon, as a raise of max has to see it: of the growth going on as it
    /// is and of the outlook (if the present rate has held for a second), whichever is more, and never fewer than there
    /// are now. What is held against the count that comes is [`Outlook::count`].
    pub forecast: u64,
    /// How many entries are expected when, and under which timeouts.
    pub outlook: Outlook,
    /// Time until the count reaches max at this growth; zero when it is there already, `None` when it does not grow or
    /// max is 0 (no limit).
    pub time_to_full: Option<Duration>,
    /// New flows refused for a full table since the previous sample. Without hooks: `drop` less the lost clashes, so that
    /// failed allocations are among them.
    pub table_full: u64,
    /// Whether a hook on `early_drop` counted those, so that nothing else is among them.
    pub table_full_hooked: bool,
    /// Entries in the table, which is one for all network namespaces: the count, or what the hooks saw come and go since the
    /// start if that is more. Entries that other namespaces had before are not known.
    pub entries: u64,
    /// Chain lengths over the inserts of the last 10 s; `None` without hooks or where none was measured in that time.
    pub chains: Option<ChainStats>,
    /// How long a resize would stall all conntrack packets now (`nf_conntrack_hash_resize` rehashes every tuple).
    pub resize_stall: Duration,
    /// What one entry adds to that, as learnt from the resizes seen on this host.
    pub resize_cost: ResizeCost,
    /// How long the last resize since the previous sample held them up; `None` where there was none, or no hook saw it.
    pub resized: Option<Stalled>,
    /// Bytes one entry takes.
    pub entry_bytes: u64,
    /// The timeouts in force.
    pub timeouts: Timeouts,
    /// What each timeout holds in the table; those of which nothing is known are not there.
    pub states: BTreeMap<Timeout, InState>,
    /// Entries at which the count would settle if flows went on coming and ending as they do now (Little's law: for each
    /// timeout the rate at which entries come that it will end, times the timeout); `None` without hooks, and until it is
    /// known how nine in ten of the entries that come will end: at first none has.
    pub steady: Option<u64>,
    /// What kind of load this is.
    pub load: Load,
    /// How soon the entries should be looked at again, for what they are to be known; `None`: at leisure.
    pub look_within: Option<Duration>,
    /// The host's memory.
    pub memory: Memory,
    /// Whether flows are offloaded to a flowtable.
    pub flowtables: bool,
    /// Time since midnight, UTC.
    pub time_of_day: Duration,
    /// What in this sample is no evidence, and was left out.
    pub doubts: Vec<Doubt>,
}

impl Estimate {
    /// Takes over what was read again after the sample was judged: the timeouts and the flowtables. How the entries that are
    /// there will end does not depend on them.
    pub fn refresh(&mut self, sample: &Sample) {
        self.timeouts.clone_from(&sample.timeouts);
        self.flowtables = sample.flowtables;
    }

    /// How many more entries fit into the memory that is available, with a twentieth of the host's left to others. None
    /// while tasks wait for memory: `MemAvailable` promises too much then. A host whose memory is not known sets no limit.
    pub fn entries_that_fit(&self) -> u64 {
        /// Per cent of the last 10 s.
        const PRESSED: f64 = 10.0;
        if self.memory.total == 0 {
            return u64::MAX;
        }
        if self.memory.pressure.is_some_and(|pressure| pressure >= PRESSED) {
            return 0;
        }
        self.memory.available.saturating_sub(self.memory.total / 20) / self.entry_bytes.max(1)
    }
}

/// The entries whose time one timeout sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InState {
    /// Entries there now, estimated from the census, or from the ends and the timeout.
    pub entries: f64,
    /// Entries that end there, a second.
    pub ends: f64,
    /// The share of its entries that had no reply, 0 to 1.
    pub unreplied: f64,
}

/// What kind of load fills the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// Nothing out of the ordinary, or growth by flows that are answered, or not enough is known to tell.
    #[default]
    Growth,
    /// Far more new entries than in calm, and the look at them that tells of what kind they are is yet to come: a matter of
    /// seconds.
    Surge,
    /// A surge of flows that nobody answers, far above what this host sees in calm: more room would only feed it.
    Flood {
        /// The share of what came on top of calm that had no reply, 0.5 to 1. From which share on it matters, the policy
        /// says (`flood.unreplied`).
        unreplied: f64,
        /// Entries there now that nobody answered.
        entries: u64,
        /// Different sources of unreplied entries among those that the census looked at; 0 without a census.
        sources: u64,
    },
}

/// A reading that is no evidence of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Doubt {
    /// It was taken at the same time as the last one, or before it.
    Time,
    /// It came so late that nobody knows what was in between: the host was suspended, or the guard was held up.
    Late,
    /// A counter went backwards: the programs were loaded anew, or the reading was wrong.
    Backwards,
    /// A counter moved further than any traffic moves it.
    Jump,
    /// A signal that was there is gone.
    Missing,
}

/// Chain lengths at insert over the last 10 s, both directions together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChainStats {
    /// One insert in so many is measured.
    pub one_in: u64,
    /// Chains measured: two for each insert that is.
    pub measured: u64,
    /// Mean number of other entries in the chain.
    pub mean: f64,
    /// Half of the chains were no longer than this.
    pub p50: u64,
    /// 99 of 100 chains were no longer than this.
    pub p99: u64,
    /// The longest.
    pub max: u64,
    /// The mean that an even hash gives: 2 × entries / buckets, each moment weighted by the inserts then.
    pub expected_mean: f64,
    /// The same for `p99`: of the Poisson distributions around those means.
    pub expected_p99: u64,
    /// What chance does not explain.
    pub skew: Option<Skew>,
}

/// Chains that an even hash does not make of the load. The hash is keyed at boot, so one who does not know the key
/// cannot choose the chain; entries that differ in nothing the hash takes in share one all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Skew {
    /// Some chains are far longer than the others: less than once in a million windows by chance.
    LongChains,
    /// Most are longer than the entries that are known make them: there are entries of other network namespaces from
    /// before the start, or most inserts meet the same chains.
    Unaccounted,
}

impl Skew {
    /// What it means, for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::LongChains => "some are far longer than chance makes them",
            Self::Unaccounted => {
                "most are longer than the known entries make them (other namespaces' older entries, or collisions)"
            }
        }
    }
}
