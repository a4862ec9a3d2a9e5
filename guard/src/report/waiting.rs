//! What a guard answers that has no table yet.

use serde::{Deserialize, Serialize};

use super::status::{FORMAT, Status};

/// A guard that waits for nf_conntrack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Version of this format: 1.
    pub version: u32,
    /// The guard's own version.
    pub guard: String,
    /// Its process.
    pub pid: u32,
    /// False: nothing is guarded.
    pub ready: bool,
    /// What is missing, and what mends it.
    pub waiting: String,
}

impl Waiting {
    /// This process waits, for this reason.
    pub fn new(reason: String) -> Self {
        Self {
            version: FORMAT,
            guard: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            ready: false,
            waiting: reason,
        }
    }
}

/// Either is one JSON object; only one of them has the key `waiting`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// The guard waits.
    Waiting(Waiting),
    /// The guard guards.
    Status(Box<Status>),
}

impl Answer {
    pub(super) fn version(&self) -> u32 {
        match self {
            Self::Waiting(waiting) => waiting.version,
            Self::Status(status) => status.version,
        }
    }
}
