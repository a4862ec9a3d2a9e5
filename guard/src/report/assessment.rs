//! What the guard makes of the readings: where it stands, what load it sees, what it has changed, and how right it was.

use serde::{Deserialize, Serialize};

use crate::model::{Doubt, Load};
use crate::observe::{Memory, Timeout};
use crate::policy::{Expected, Phase, Rule, Setting};

/// As of the last tick. Its fields stand in the status itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Assessment {
    /// Where the guard stands between calm and emergency.
    pub standing: StandingNow,
    /// What kind of load fills the table: `growth`, `surge` (far more new entries than in calm, and not yet known what they
    /// are), or `flood` with the share without a reply of what came on top of calm (0 to 1), the `entries` there now that
    /// nobody answered, and the number of their different sources (0: no census).
    pub load: Load,
    /// What the timeouts hold, by estimate; most entries first. Empty where nothing is known of it.
    pub states: Vec<StateNow>,
    /// The host's memory, bytes; `pressure`: the share of the last 10 s in which some task waited for memory, per cent,
    /// `null` without PSI.
    pub memory: Memory,
    /// The last look at the entries themselves; `null`: none yet, or there is no ctnetlink.
    pub census: Option<CensusNow>,
    /// Settings that are not what they were when the guard (or the first of those that followed each other) started: what
    /// is to be taken back. Buckets are among them once one of these guards has changed them.
    pub changed: Vec<ChangedNow>,
    /// Predictions beside what came.
    pub predictions: PredictionsNow,
    /// Readings of the last minute that were no evidence, and were left out.
    pub doubts: Vec<DoubtNow>,
}

/// A phase, and when it began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingNow {
    /// `calm`, `pressed`, `emergency`, `waiting` (for calm to last) or `relaxing`.
    pub phase: Phase,
    /// When it began.
    pub since_ms: u64,
}

/// The entries whose time one timeout sets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateNow {
    /// Which timeout; its name says the protocol and state.
    pub timeout: Timeout,
    /// Entries there.
    pub entries: u64,
    /// Entries that end there, a second.
    pub ends_per_s: f64,
    /// The share of its entries that had no reply, 0 to 1.
    pub unreplied: f64,
}

/// A look at some of the entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CensusNow {
    /// When it was taken.
    pub at_ms: u64,
    /// Entries looked at.
    pub entries: u64,
    /// Whether these were all of this network namespace.
    pub whole: bool,
}

/// A setting that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedNow {
    /// Which.
    pub setting: Setting,
    /// What it was: entries, buckets or seconds. This is what it goes back to.
    pub original: u64,
    /// What it is.
    pub now: u64,
    /// The lowest value that the policy lets it have.
    pub floor: u64,
    /// The rule by which this guard set it; `null`: an earlier guard or another program did.
    pub rule: Option<Rule>,
    /// The readings that made the rule fire; `null` as above.
    pub evidence: Option<String>,
}

/// How right the guard was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PredictionsNow {
    /// Predictions whose time has come since the start.
    pub settled: u64,
    /// The last 16 of them, oldest first.
    pub last: Vec<SettledNow>,
    /// By rule, in the order in which they first settled.
    pub by_rule: Vec<RuleError>,
}

/// A prediction beside what came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SettledNow {
    /// When it came.
    pub at_ms: u64,
    /// When the change was decided.
    pub decided_ms: u64,
    /// The setting that was changed.
    pub setting: Setting,
    /// Its value before.
    pub old: u64,
    /// Its value after.
    pub new: u64,
    /// The rule that changed it.
    pub rule: Rule,
    /// `count` (entries) or `stall` (of a resize, microseconds).
    pub of: Expected,
    /// How much was expected.
    pub expected: u64,
    /// How much came.
    pub real: u64,
    /// The difference as a share of what came; for counts of 1 % of max at least.
    pub error: f64,
}

/// How right one rule's predictions were.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleError {
    /// The rule.
    pub rule: Rule,
    /// Its predictions that have settled since the start.
    pub settled: u64,
    /// The median of the errors of the last 256 of them.
    pub median_error: f64,
}

/// A kind of reading that was no evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoubtNow {
    /// `time`, `late`, `backwards`, `jump` or `missing`.
    pub doubt: Doubt,
    /// Readings of the last minute.
    pub times: u64,
    /// The last one.
    pub last_ms: u64,
}
