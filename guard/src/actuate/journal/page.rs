//! The latest state of the journal, written in place and not waited for.
//!
//! It has to outlive the process, not the machine: a power cut takes the kernel's settings away together with what of this
//! page the disk has not got yet. So a write that the kernel's page cache has taken is enough, and an emergency raise of max
//! waits for no disk. Written over itself, it needs no room on a full disk either (but where the file system copies on
//! write).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::content::Content;
#[cfg(test)]
use crate::actuate::testing::{Moment, moment};

const FILE: &str = "journal.latest";
/// All settings with their largest values fit. The kernel copies no more than this at once, so a process that is killed
/// leaves the old state or the new one.
const BYTES: usize = 4096;

/// The open page.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) file: File,
}

impl Page {
    /// Where the page is.
    pub fn path(directory: &Path) -> PathBuf {
        directory.join(FILE)
    }

    /// Makes the page and has the disk take it, so that its room is there from now on.
    pub fn create(directory: &Path, content: &Content) -> io::Result<Self> {
        let mut open = OpenOptions::new();
        let mut file = open.write(true).create(true).truncate(true).mode(0o600).open(Self::path(directory))?;
        file.write_all(&text(content)?)?;
        file.sync_all()?;
        Ok(Self { file })
    }

    /// Opens the page that is there.
    pub fn open(directory: &Path) -> Option<Self> {
        Some(Self { file: OpenOptions::new().write(true).open(Self::path(directory)).ok()? })
    }

    /// Puts a new state in the old one's place.
    pub fn write(&self, content: &Content) -> io::Result<()> {
        self.file.write_all_at(&text(content)?, 0)?;
        #[cfg(test)]
        moment(Moment::Saved)?;
        Ok(())
    }

    /// What the page of a directory says; `None` where there is none or it makes no sense: after a power cut it may be
    /// anything, and `journal.json` holds.
    pub fn read(directory: &Path) -> Option<Content> {
        let path = Self::path(directory);
        Content::parse(&path, &fs::read_to_string(&path).ok()?).ok()
    }
}

fn text(content: &Content) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(content)?;
    if text.len() > BYTES {
        return Err(io::Error::other(format!("{} bytes do not fit into the page of {BYTES}", text.len())));
    }
    text.resize(BYTES, b' ');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::content::Entry;
    use super::*;
    use crate::observe::Timeout;
    use crate::policy::Setting;

    #[test]
    fn all_settings_with_their_largest_values_fit() {
        let mut content = Content::new("b0075000-0000-4000-8000-000000000001");
        (content.sequence, content.max_stall_ms) = (u64::MAX, u64::MAX);
        let entry = Entry { original: u64::MAX, found_at_unix_ms: u64::MAX, wrote: u64::MAX, intended: Some(u64::MAX) };
        let all = [Setting::Max, Setting::Buckets].into_iter().chain(Timeout::ALL.map(Setting::Timeout));
        content.settings = all.map(|setting| (setting, entry.clone())).collect();
        assert_eq!(text(&content).unwrap().len(), BYTES);
    }

    #[test]
    fn a_shorter_state_leaves_nothing_of_a_longer_one() {
        let directory = tempfile::tempdir().unwrap();
        let mut content = Content::new("this-boot");
        content.settings.insert(Setting::Max, Entry::found(65_536, 1));
        let page = Page::create(directory.path(), &content).unwrap();
        content.settings.clear();
        page.write(&content).unwrap();
        assert_eq!(Page::read(directory.path()), Some(content));
    }
}
