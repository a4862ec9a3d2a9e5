//! The only writer of kernel settings. It has no choices left to it: it carries out what `bounds` approved, journals
//! the originals first, reads back what came of it, and puts the originals back.

mod access;
mod dry;
mod inherited;
mod journal;
mod live;
#[cfg(test)]
mod lives;
mod restore;
mod room;
mod settings;
#[cfg(test)]
pub(crate) mod testing;
mod whole;

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use access::{Access, Error as AccessError};
pub use dry::DryRun;
pub use inherited::Inherited;
pub use journal::{Error as JournalError, Found, Journal};
pub use live::Live;
pub use restore::{Put, Restored, restore};
pub use settings::{Error as SettingsError, Settings};
pub(crate) use whole::replace;

use crate::config::Restore;
use crate::model::ResizeCost;
use crate::policy::{Approved, Change};

/// Where the journal is kept unless `--state-dir` says otherwise.
pub const STATE_DIR: &str = "/var/lib/conntrack-guard";

/// Carries out approved changes.
pub trait Actuator: Send {
    /// Writes the changes in their order; one outcome each, whatever became of the ones before. Blocks while the
    /// kernel rehashes.
    fn apply(&mut self, approved: &Approved) -> Vec<Outcome>;

    /// Takes the limit for a resize, of the policy now in force, for a `restore` that knows no policy.
    fn set_max_stall(&mut self, limit: Duration);

    /// Puts back the originals of what `apply` changed, as the policy's `stop.restore` has it. `cost` is what resizes were
    /// seen to cost here.
    fn restore(&mut self, how: Restore, cost: ResizeCost) -> Vec<Restored>;
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The change as it was approved.
    pub change: Change,
    /// What came of it.
    pub result: Effect,
}

/// What a write did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Effect {
    /// Written, and the kernel has it (buckets may have been rounded up to a whole page).
    Applied {
        /// The value read after the write.
        read_back: u64,
        /// How long the write took, for buckets with the whole rehash.
        #[serde(rename = "took_us", with = "micros")]
        took: Duration,
    },
    /// The write succeeded, yet the setting reads otherwise: something swallowed or replaced it.
    NoEffect {
        /// The value read after the write.
        read_back: u64,
        /// How long the write took.
        #[serde(rename = "took_us", with = "micros")]
        took: Duration,
    },
    /// Not written.
    Refused {
        /// What failed, with the file and the system's reason.
        error: String,
        /// What the operator can do about it.
        way_out: String,
    },
    /// Not written: this guard only advises.
    Advised,
}

impl Effect {
    /// Why the setting is not what it should be, with the way out; `None` where nothing failed. Holds no figure, so that
    /// the same failure reads the same whatever was to be written.
    pub fn failure(&self) -> Option<String> {
        match self {
            Self::Applied { .. } | Self::Advised => None,
            Self::NoEffect { .. } => Some(
                "the last write went through and changed nothing: another program holds this setting (look for a cgroup's \
                 sysctl program, or for who writes it)"
                    .into(),
            ),
            Self::Refused { error, way_out } => Some(format!("{error}; {way_out}")),
        }
    }
}

/// Durations as whole microseconds.
mod micros {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(took: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(took.as_micros()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_micros)
    }
}

/// Why the journal's keeper cannot start, or nothing can be restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A kernel file.
    #[error("{}", .0.with_way_out())]
    Settings(#[from] SettingsError),
}

/// Finds the journal of a state directory that belongs to the running boot; changes nothing.
pub fn find_journal(state_dir: &Path, settings: &Settings) -> Result<Found, Error> {
    Ok(Journal::find(state_dir, &settings.boot_id()?)?)
}
