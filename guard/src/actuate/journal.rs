//! What was there before the guard changed it: on disk before the first write, so that it comes back even after
//! `kill -9`.
//!
//! A setting's *original* is the last value that somebody else gave it. When another writer changes a setting between
//! two of the guard's changes, that writer's value is the one to come back to: putting back an older one would undo a
//! decision that was none of the guard's.
//!
//! Two files: `journal.json`, whole and on the disk since the start, with every setting that the guard may change; and the
//! page `journal.latest`, which each change is written into before it is made. A write waits for the latter alone, and
//! that one for no disk; `journal.json` follows on a thread of its own.

mod content;
mod page;
mod saver;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::content::{Content, VERSION};
use self::page::Page;
use self::saver::Saver;
#[cfg(test)]
use super::testing::{Moment, moment};
use crate::model::ResizeCost;
use crate::policy::Setting;

pub(super) use self::content::Entry;

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
        "{path} has format version {found}, this conntrack-guard knows versions up to {VERSION}: run `conntrack-guard \
         restore` of the version that wrote it (a later one), or put the settings back by hand and remove the file"
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
    /// What each change is written into first; none before [`Journal::begin`] but an earlier guard's.
    page: Option<Page>,
    /// The thread that has `journal.json` follow; none before the first change.
    saver: Option<Saver>,
}

impl Journal {
    /// An empty journal of this boot. Makes the directory, and finds an unwritable place now and not when the table is
    /// about to overflow.
    pub fn create(directory: &Path, boot_id: &str) -> Result<Self, Error> {
        let fail = |verb, source| Error::Io { verb, path: directory.into(), source };
        let make = || DirBuilder::new().recursive(true).mode(0o700).create(directory);
        make().map_err(|source| fail("make", source))?;
        // An earlier guard's, of a journal that is gone.
        remove(&Page::path(directory))?;
        Ok(Self { directory: directory.into(), content: Content::new(boot_id), page: None, saver: None })
    }

    /// Reads the journal of a state directory, this version's or an earlier one's. Changes nothing.
    pub fn find(directory: &Path, boot_id: &str) -> Result<Found, Error> {
        let path = directory.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(source) => return Err(Error::Io { verb: "read", path, source }),
        };
        let saved = Content::parse(&path, &text)?;
        if saved.boot_id != boot_id {
            return Ok(Found::EarlierBoot);
        }
        let latest = Page::read(directory);
        let later = latest.filter(|latest| latest.boot_id == boot_id && latest.sequence > saved.sequence);
        Ok(Found::ThisBoot(Self {
            directory: directory.into(),
            content: later.unwrap_or(saved),
            page: Page::open(directory),
            saver: None,
        }))
    }

    /// Removes a directory's journal, if there is one.
    pub fn remove(directory: &Path) -> Result<(), Error> {
        // In this order: without it the page says nothing.
        let journal = directory.join(FILE);
        remove(&journal)?;
        remove(&Page::path(directory))?;
        // Of a guard that was killed while it saved.
        remove(&saver::fresh(directory))?;
        let sync = match File::open(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            directory => directory.and_then(|directory| directory.sync_all()),
        };
        sync.map_err(|source| Error::Io { verb: "remove", path: journal, source })
    }

    /// Takes down the settings as they are found, but for those that are this guard's or an earlier one's own: what it may
    /// change later is then on the disk already. From here on each change goes into the page.
    pub fn begin(&mut self, found: &[(Setting, u64)], max_stall: Duration) -> Result<(), Error> {
        let now = unix_ms();
        self.content.settings.retain(|setting, _| found.iter().any(|(found, _)| found == setting));
        for &(setting, value) in found {
            let theirs =
                |entry: &Entry| !entry.is_touched() || !entry.is_ours(setting, value) || value == entry.original;
            if self.entry(setting).is_none_or(theirs) {
                self.content.settings.insert(setting, Entry::found(value, now));
            }
        }
        self.set_max_stall(max_stall);
        self.content.sequence = self.content.sequence.saturating_add(1);
        saver::save(&self.directory, &self.content)?;
        match Page::create(&self.directory, &self.content) {
            Ok(page) => self.page = Some(page),
            Err(source) => {
                if self.touched().is_empty() {
                    // Nothing to come back to: best effort, a leftover says so too.
                    let _ = Self::remove(&self.directory);
                }
                return Err(Error::Io { verb: "write", path: Page::path(&self.directory), source });
            }
        }
        Ok(())
    }

    /// The longest resize that a restore may cause.
    pub fn max_stall(&self) -> Duration {
        Duration::from_millis(self.content.max_stall_ms)
    }

    /// Takes the limit of the policy now in force; on disk with the next write.
    pub fn set_max_stall(&mut self, limit: Duration) {
        self.content.max_stall_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    }

    /// What a resize costs on this host, as far as a guard has learnt it.
    pub fn resize_cost(&self) -> ResizeCost {
        self.content.resize_cost
    }

    /// Takes what the guard has learnt; on disk with the next write.
    pub fn set_resize_cost(&mut self, cost: ResizeCost) {
        self.content.resize_cost = cost;
    }

    /// The settings that the guard may have changed.
    pub(super) fn touched(&self) -> Vec<Setting> {
        let touched = self.content.settings.iter().filter(|(_, entry)| entry.is_touched());
        touched.map(|(setting, _)| *setting).collect()
    }

    pub(super) fn entry(&self, setting: Setting) -> Option<&Entry> {
        self.content.settings.get(&setting)
    }

    /// Records that `current` is about to become `new`. When this returns, a guard or a `restore` after this process knows
    /// of it, and the value found first is on disk.
    pub(super) fn intend(&mut self, setting: Setting, current: u64, new: u64) -> Result<(), Error> {
        let before = self.entry(setting).cloned();
        let original = match &before {
            Some(entry) if entry.is_ours(setting, current) => (entry.original, entry.found_at_unix_ms),
            _ => (current, unix_ms()),
        };
        let entry = Entry { original: original.0, found_at_unix_ms: original.1, wrote: current, intended: Some(new) };
        self.content.settings.insert(setting, entry);
        // A setting that was not there at the start.
        let noted = if before.is_none() { self.save() } else { self.note() };
        noted.inspect_err(|_| {
            // What nobody could read does not count.
            match before {
                Some(entry) => self.content.settings.insert(setting, entry),
                None => self.content.settings.remove(&setting),
            };
        })
    }

    /// Records what the write has left. A failure is harmless: the recorded intention covers it. What is neither the value
    /// before nor the new one has come from somebody else in the same moment, and is the one to come back to.
    pub(super) fn settle(&mut self, setting: Setting, left: u64) -> Result<(), Error> {
        if let Some(entry) = self.content.settings.get_mut(&setting) {
            if entry.is_ours(setting, left) {
                entry.wrote = left;
                entry.intended = None;
            } else {
                *entry = Entry::found(left, unix_ms());
            }
        }
        self.note()?;
        self.save_later()
    }

    /// Forgets settings that have come back, or that somebody else has taken over. An empty journal is removed, which needs
    /// no room on the disk.
    pub(super) fn forget(&mut self, settings: &[Setting]) -> Result<(), Error> {
        self.content.settings.retain(|setting, entry| entry.is_touched() && !settings.contains(setting));
        if !self.content.settings.is_empty() {
            return self.save();
        }
        self.finish();
        self.page = None;
        Self::remove(&self.directory)
    }

    /// Puts the content on the disk, and waits for it. The page alone does where the disk has no room.
    pub(super) fn save(&mut self) -> Result<(), Error> {
        self.finish();
        let noted = if self.page.is_some() { self.note().is_ok() } else { false };
        match saver::save(&self.directory, &self.content) {
            Err(error) if noted => tracing::warn!("{error}. Until then the page beside it holds what is newer"),
            saved => return saved,
        }
        Ok(())
    }

    /// Puts the content into the page; without one onto the disk.
    fn note(&mut self) -> Result<(), Error> {
        self.content.sequence = self.content.sequence.saturating_add(1);
        let Some(page) = &self.page else { return saver::save(&self.directory, &self.content) };
        page.write(&self.content).map_err(|source| {
            let path = Page::path(&self.directory);
            Error::Io { verb: "write", path, source }
        })
    }

    fn save_later(&mut self) -> Result<(), Error> {
        let saver = match self.saver.take() {
            Some(saver) => saver,
            None => Saver::start(self.directory.clone()).map_err(|source| {
                let path = self.directory.join(FILE);
                Error::Io { verb: "start a thread for", path, source }
            })?,
        };
        saver.save(self.content.clone());
        self.saver = Some(saver);
        Ok(())
    }

    /// Waits for the thread, so that it writes nothing over what is newer.
    fn finish(&mut self) {
        if let Some(saver) = self.saver.take() {
            saver.finish();
        }
    }
}

#[cfg(test)]
impl Journal {
    /// Has every further write of the page fail.
    pub(super) fn break_page(&mut self) {
        self.page = Some(Page { file: File::open(Page::path(&self.directory)).unwrap() });
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.finish();
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    #[cfg(test)]
    moment(Moment::Saved).map_err(|source| Error::Io { verb: "remove", path: path.into(), source })?;
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Io { verb: "remove", path: path.into(), source })
        }
        _ => Ok(()),
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
