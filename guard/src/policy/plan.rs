//! What is to change, and why: the whole of what `actuate` may do.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::phase::{Phase, Standing};
use super::settle::Settled;
use crate::observe::Timeout;

/// A kernel setting that the guard may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub enum Setting {
    /// `net.netfilter.nf_conntrack_max`, entries.
    Max,
    /// `net.netfilter.nf_conntrack_buckets`, buckets.
    Buckets,
    /// A timeout, seconds.
    Timeout(Timeout),
}

impl Setting {
    /// All of them: max, buckets, and the timeouts in their order.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Max, Self::Buckets].into_iter().chain(Timeout::ALL.map(Self::Timeout))
    }

    /// The setting's name as `sysctl` has it.
    pub fn sysctl(self) -> &'static str {
        match self {
            Self::Max => "nf_conntrack_max",
            Self::Buckets => "nf_conntrack_buckets",
            Self::Timeout(timeout) => timeout.sysctl(),
        }
    }

    /// The setting's name in a plan, in the journal and on the command line: `max`, `buckets`, or that of the timeout.
    pub fn name(self) -> &'static str {
        match self {
            Self::Max => "max",
            Self::Buckets => "buckets",
            Self::Timeout(timeout) => timeout.name(),
        }
    }
}

impl From<Setting> for &'static str {
    fn from(setting: Setting) -> Self {
        setting.name()
    }
}

impl TryFrom<String> for Setting {
    type Error = UnknownSetting;

    fn try_from(name: String) -> Result<Self, UnknownSetting> {
        Self::all().find(|setting| setting.name() == name).ok_or(UnknownSetting(name))
    }
}

/// A name that no setting has.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no setting; known are max, buckets and the timeouts such as tcp-time-wait")]
pub struct UnknownSetting(String);

/// Which rule asks for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The forecast passes the high-water mark within the horizon.
    RaiseMax,
    /// The table is small enough for a resize now and may grow large later.
    PresizeBuckets,
    /// The chains cost more than a long stall does, and the policy's window is open.
    GrowBuckets,
    /// Max may not rise, so entries shall end sooner.
    ShortenTimeout,
    /// Calm has returned: a timeout goes back towards what it was.
    RelaxTimeout,
    /// Calm has returned: max goes back towards what it was.
    RelaxMax,
}

impl Rule {
    /// The rule's name in logs and in the status.
    pub fn name(self) -> &'static str {
        match self {
            Self::RaiseMax => "raise-max",
            Self::PresizeBuckets => "presize-buckets",
            Self::GrowBuckets => "grow-buckets",
            Self::ShortenTimeout => "shorten-timeout",
            Self::RelaxTimeout => "relax-timeout",
            Self::RelaxMax => "relax-max",
        }
    }
}

/// One setting's way from the old to the new value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What is written.
    pub setting: Setting,
    /// The value read before.
    pub old: u64,
    /// The value to write.
    pub new: u64,
    /// The rule that asks for it.
    pub rule: Rule,
    /// The readings that made the rule fire, as one line for people.
    pub evidence: String,
    /// What should follow, as one line for people.
    pub predicted: String,
    /// The same as a figure that will be held against what comes; `None` where nothing can be measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expectation: Option<Expectation>,
}

#[cfg(test)]
impl Change {
    /// A change by itself, for tests of what does not look at its reasons.
    pub(crate) fn bare(setting: Setting, old: u64, new: u64) -> Self {
        let (rule, evidence, predicted) = (Rule::RaiseMax, String::new(), String::new());
        Self { setting, old, new, rule, evidence, predicted, expectation: None }
    }
}

/// What a change should bring about, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expectation {
    /// Of what.
    pub of: Expected,
    /// How much, in the unit of `of`.
    pub value: u64,
    /// Time since boot at which to look.
    pub at: Duration,
}

/// A figure that can be predicted and then read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expected {
    /// Entries in the table.
    Count,
    /// The stall of a resize, microseconds.
    Stall,
}

/// A rule fired, but nothing may be done (or not all that it wanted): the reason. Logged when it is new, not each tick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The setting that stays.
    pub setting: Setting,
    /// The rule that asked.
    pub rule: Rule,
    /// Why not, and what the operator can do about it. Holds no figure that moves from tick to tick.
    pub reason: String,
}

/// All changes of one tick, in the order in which they are to be written.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Plan {
    /// Time since boot of the estimate behind it.
    pub at: Duration,
    /// What to write; empty in calm.
    pub changes: Vec<Change>,
    /// What the rules wanted and could not have.
    pub held: Vec<Held>,
    /// Where the guard stands, and since when.
    pub standing: Standing,
    /// Predictions of earlier plans whose time has come, each beside what came.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub settled: Vec<Settled>,
    /// Whether max cannot rise however full the table gets: for a reason in `held`, or because it is only advised.
    #[serde(skip)]
    pub max_blocked: bool,
}

impl Plan {
    /// Whether the guard is at rest: nothing presses, nothing is to be done and nothing to be taken back.
    pub fn rests(&self) -> bool {
        self.changes.is_empty() && self.standing.phase == Phase::Calm
    }
}
