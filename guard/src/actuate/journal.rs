//! What was there before the guard changed it: on disk before the first write, so that it comes back even after
//! `kill -9`.
//!
//! A setting's *original* is the last value that somebody else gave it. When another writer changes a setting between
//! two of the guard's changes, that writer's value is the one to come back to: putting back an older one would undo a
//! decision that was none of the guard's.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::settings::takes;
use crate::policy::Setting;

const VERSION: u64 = 1;
const FILE: &str = "journal.json";

/// The journal cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk.
    #[error("cannot {verb} {path}: {source}; make it writable, or name another directory with --state-dir")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Written by another version of the guard.
    #[error(
        "{path} has format version {found}, this conntrack-guard knows version {VERSION} only: restore with the version \
         that wrote it, or put the settings back by hand and remove the file"
    )]
    Version {
        /// The journal.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// Damaged.
    #[error(
        "{path} is damaged ({reason}), so the settings found before the first change are unknown: look into it, set \
         nf_conntrack_max and nf_conntrack_buckets by hand, then remove the file"
    )]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// What a state directory holds.
#[derive(Debug)]
pub enum Found {
    /// No journal: nothing to put back.
    Nothing,
    /// A journal of an earlier boot: the kernel forgot those settings by itself.
    EarlierBoot,
    /// A journal of this boot.
    ThisBoot(Journal),
}

/// The originals of this boot, and where they are kept.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    content: Content,
}

/// The file's content.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Content {
    /// [`VERSION`]
    version: u64,
    /// `/proc/sys/kernel/random/boot_id`
    boot_id: String,
    /// The policy's limit for a resize, for a `restore` that knows no policy.
    max_stall_ms: u64,
    settings: BTreeMap<Setting, Entry>,
}

/// One changed setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
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
    /// Whether the guard left this value. Anything else was written by somebody else since.
    pub fn is_ours(&self, setting: Setting, current: u64) -> bool {
        current == self.wrote || self.intended.is_some_and(|value| takes(setting, value, current))
    }
}

impl Journal {
    /// An empty journal of this boot; no file is written before the first [`Journal::intend`]. Makes the directory, so
    /// that an unwritable place is found at start and not when the table is about to overflow.
    pub fn create(directory: &Path, boot_id: &str, max_stall: Duration) -> Result<Self, Error> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|source| Error::Io {
            verb: "make",
            path: directory.into(),
            source,
        })?;
        let content = Content { version: VERSION, boot_id: boot_id.into(), max_stall_ms: 0, settings: BTreeMap::new() };
        let mut journal = Self { directory: directory.into(), content };
        journal.set_max_stall(max_stall);
        // The directory may be on a read-only file system.
        let probe = journal.write_beside().map_err(|(path, source)| Error::Io { verb: "write", path, source })?;
        fs::remove_file(&probe).map_err(|source| Error::Io { verb: "remove", path: probe, source })?;
        Ok(journal)
    }

    /// Reads the journal of a state directory. Changes nothing.
    pub fn find(directory: &Path, boot_id: &str) -> Result<Found, Error> {
        #[derive(Deserialize)]
        struct Header {
            version: u64,
        }
        let path = directory.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(source) => return Err(Error::Io { verb: "read", path, source }),
        };
        let damaged = |error: serde_json::Error| Error::Damaged { path: path.clone(), reason: error.to_string() };
        let header: Header = serde_json::from_str(&text).map_err(damaged)?;
        if header.version != VERSION {
            return Err(Error::Version { path, found: header.version });
        }
        let content: Content = serde_json::from_str(&text).map_err(damaged)?;
        if content.boot_id != boot_id {
            return Ok(Found::EarlierBoot);
        }
        if content.settings.values().any(|entry| entry.original == 0) {
            return Err(Error::Damaged { path, reason: "an original of 0, which the guard never journals".into() });
        }
        Ok(Found::ThisBoot(Self { directory: directory.into(), content }))
    }

    /// Removes a directory's journal, if there is one.
    pub fn remove(directory: &Path) -> Result<(), Error> {
        let path = directory.join(FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other,
        }
        .and_then(|()| File::open(directory)?.sync_all())
        .map_err(|source| Error::Io { verb: "remove", path, source })
    }

    /// The longest resize that a restore may cause.
    pub fn max_stall(&self) -> Duration {
        Duration::from_millis(self.content.max_stall_ms)
    }

    /// Takes the limit of the policy now in force; on disk with the next write.
    pub fn set_max_stall(&mut self, limit: Duration) {
        self.content.max_stall_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    }

    pub(super) fn settings(&self) -> impl Iterator<Item = Setting> + use<> {
        self.content.settings.keys().copied().collect::<Vec<_>>().into_iter()
    }

    pub(super) fn entry(&self, setting: Setting) -> Option<&Entry> {
        self.content.settings.get(&setting)
    }

    /// Records that `current` is about to become `new`. When this returns, the original is on disk.
    pub(super) fn intend(&mut self, setting: Setting, current: u64, new: u64) -> Result<(), Error> {
        let before = self.entry(setting).cloned();
        let original = match &before {
            Some(entry) if entry.is_ours(setting, current) => (entry.original, entry.found_at_unix_ms),
            _ => (current, unix_ms()),
        };
        let entry = Entry { original: original.0, found_at_unix_ms: original.1, wrote: current, intended: Some(new) };
        self.content.settings.insert(setting, entry);
        self.save().inspect_err(|_| {
            // What is not on disk does not count.
            match before {
                Some(entry) => self.content.settings.insert(setting, entry),
                None => self.content.settings.remove(&setting),
            };
        })
    }

    /// Records what the write has left. A failure to save is harmless: the intention on disk covers it.
    pub(super) fn settle(&mut self, setting: Setting, left: u64) -> Result<(), Error> {
        if let Some(entry) = self.content.settings.get_mut(&setting) {
            entry.wrote = left;
            entry.intended = None;
            if entry.original == left {
                self.content.settings.remove(&setting);
            }
        }
        self.save()
    }

    /// Forgets settings that have come back, or that somebody else has taken over.
    pub(super) fn forget(&mut self, settings: &[Setting]) -> Result<(), Error> {
        self.content.settings.retain(|setting, _| !settings.contains(setting));
        self.save()
    }

    fn save(&self) -> Result<(), Error> {
        if self.content.settings.is_empty() {
            return Self::remove(&self.directory);
        }
        let fail = |(path, source)| Error::Io { verb: "write", path, source };
        let fresh = self.write_beside().map_err(fail)?;
        fs::rename(&fresh, self.directory.join(FILE))
            .and_then(|()| File::open(&self.directory)?.sync_all())
            .map_err(|source| fail((fresh, source)))
    }

    /// Writes the content to a file beside the journal and to the disk, so that the rename can only put a whole one in
    /// its place.
    fn write_beside(&self) -> Result<PathBuf, (PathBuf, io::Error)> {
        let path = self.directory.join("journal.json.new");
        let write = || {
            let text = serde_json::to_vec_pretty(&self.content)?;
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            file.write_all(&text)?;
            file.sync_all()
        };
        match write() {
            Ok(()) => Ok(path),
            Err(error) => {
                // Best effort: a leftover does no harm, the next write replaces it.
                let _ = fs::remove_file(&path);
                Err((path, error))
            }
        }
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
