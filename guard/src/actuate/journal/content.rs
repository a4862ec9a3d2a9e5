//! What a journal says, and how it reads what earlier versions of the guard wrote.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::actuate::settings::takes;
use crate::model::ResizeCost;
use crate::policy::Setting;

/// 1: `journal.json` alone, with the changed settings only. 2: every setting from the start on, `sequence`, and the page.
pub(super) const VERSION: u64 = 2;

/// The content of `journal.json` and of the page beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    /// [`VERSION`]
    pub version: u64,
    /// `/proc/sys/kernel/random/boot_id`
    pub boot_id: String,
    /// Grows with each change: the higher one of two is the later one.
    #[serde(default)]
    pub sequence: u64,
    /// The policy's limit for a resize, for a `restore` that knows no policy.
    pub max_stall_ms: u64,
    /// What the guard has learnt of this host's resizes, likewise.
    #[serde(default)]
    pub resize_cost: ResizeCost,
    pub settings: BTreeMap<Setting, Entry>,
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::actuate) struct Entry {
    /// The value to come back to.
    pub original: u64,
    /// When it was found, milliseconds of the Unix epoch.
    pub found_at_unix_ms: u64,
    /// The value that the guard's last finished write left; the original before the first.
    pub wrote: u64,
    /// The value of a write that had begun; the kernel has this or `wrote`.
    pub intended: Option<u64>,
}

impl Entry {
    /// A setting as it was found.
    pub fn found(value: u64, at_unix_ms: u64) -> Self {
        Self { original: value, found_at_unix_ms: at_unix_ms, wrote: value, intended: None }
    }

    /// Whether the guard may have changed it.
    pub fn is_touched(&self) -> bool {
        self.wrote != self.original || self.intended.is_some()
    }

    /// Whether the guard left this value. Anything else was written by somebody else since.
    pub fn is_ours(&self, setting: Setting, current: u64) -> bool {
        current == self.wrote || self.intended.is_some_and(|value| takes(setting, value, current))
    }
}

impl Content {
    /// Nothing found yet.
    pub fn new(boot_id: &str) -> Self {
        Self {
            version: VERSION,
            boot_id: boot_id.into(),
            sequence: 0,
            max_stall_ms: 0,
            resize_cost: ResizeCost::default(),
            settings: BTreeMap::new(),
        }
    }

    /// Reads what this version of the guard or an earlier one wrote; `path` is for the errors.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Header {
            version: u64,
        }
        let damaged = |error: serde_json::Error| Error::Damaged { path: path.into(), reason: error.to_string() };
        let Header { version } = serde_json::from_str(text).map_err(damaged)?;
        if !(1..=VERSION).contains(&version) {
            return Err(Error::Version { path: path.into(), found: version });
        }
        let content: Self = serde_json::from_str(text).map_err(damaged)?;
        if content.settings.values().any(|entry| entry.original == 0 && entry.is_touched()) {
            let reason = "an original of 0, which the guard never changes".into();
            return Err(Error::Damaged { path: path.into(), reason });
        }
        Ok(Self { version: VERSION, ..content })
    }
}
