//! What a history came to.

use crate::foresight::Foresight;
use conntrack_guard::observe::{TableReading, Timeouts};
use conntrack_guard::policy::{Change, Rule, Setting, Settled};

/// A change, and when.
#[derive(Clone, Debug)]
pub struct Made {
    /// Seconds after the guard's start.
    pub at: f64,
    /// As planned.
    pub change: Change,
    /// The count then.
    pub count: u64,
}

/// A reason that a plan held something back with, and when it first did.
#[derive(Clone, Debug)]
pub struct Told {
    /// Seconds after the guard's start.
    pub at: f64,
    /// The setting and the reason.
    pub setting: Setting,
    /// The rule.
    pub rule: Rule,
    /// The reason.
    pub reason: String,
}

/// All that is left of a history.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Changes, in order.
    pub changes: Vec<Made>,
    /// Reasons, each time that one is new, in order.
    pub told: Vec<Told>,
    /// What must never happen, and did.
    pub offences: Vec<String>,
    /// The table at the guard's start.
    pub found: TableReading,
    /// Timeouts then.
    pub found_timeouts: Timeouts,
    /// The table at the end.
    pub table: TableReading,
    /// Timeouts then.
    pub timeouts: Timeouts,
    /// Since the guard's start:
    pub flows: f64,
    /// New flows refused for a full table.
    pub refused: f64,
    /// New flows refused for long chains.
    pub too_long: f64,
    /// New flows refused for want of memory.
    pub no_memory: f64,
    /// Entries evicted.
    pub evicted: f64,
    /// Entries that ended before their flow did.
    pub broken: f64,
    /// The highest count, and when.
    pub peak: (f64, f64),
    /// The highest max.
    pub highest_max: u64,
    /// Looks that the guard took.
    pub ticks: u64,
    /// What the model expected.
    pub foresight: Foresight,
    /// What changes were expected to do, beside what came of them.
    pub settled: Vec<Settled>,
    /// Plans that the bounds refused.
    pub refused_plans: Vec<String>,
}

impl Outcome {
    /// New flows dropped, whatever for.
    pub fn dropped(&self) -> f64 {
        self.refused + self.too_long + self.no_memory
    }

    /// Changes by this rule.
    pub fn by(&self, rule: Rule) -> impl Iterator<Item = &Made> {
        self.changes.iter().filter(move |made| made.change.rule == rule)
    }

    /// Changes after this second.
    pub fn after(&self, second: f64) -> usize {
        self.changes.iter().filter(|made| made.at > second).count()
    }

    /// Whether a reason of this rule held these words.
    pub fn said(&self, rule: Rule, words: &str) -> bool {
        self.told.iter().any(|told| told.rule == rule && told.reason.contains(words))
    }
}
