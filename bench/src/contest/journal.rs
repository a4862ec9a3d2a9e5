//! What was found, on disk before anything is changed, so that the next contest can put it back after a kill.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::process;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bench::{netns, processes};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::ctnetlink;
use crate::put_back::{RunFolder, run_name};
use crate::sysctls::Sysctls;

/// Gone after a reboot, like all that it tells of. Empty where nothing is to be put back.
const PATH: &str = "/run/conntrack-guard-bench-contest.json";
/// The guard puts back what it changed when it is asked to end.
const PATIENCE: Duration = Duration::from_mins(2);

#[derive(Serialize, Deserialize)]
struct Record {
    /// The process that writes it.
    pid: u32,
    /// The settings before its first run.
    settings: Sysctls,
}

/// Held while a contest lives: one at a time.
#[derive(Debug)]
pub(super) struct Journal(Flock<File>);

impl Journal {
    /// Puts back what a killed contest left, and what killed runs did; a line about each. Touches neither settings nor
    /// entries where `check` refuses, which it is asked once nothing of the killed contest runs any more.
    pub fn open(check: impl FnOnce() -> Result<()>) -> Result<(Self, Vec<String>)> {
        let (mut journal, killed) = Self::lock(Path::new(PATH))?;
        if let Some(killed) = &killed {
            processes::end(&run_name(killed.pid), PATIENCE).context("ending what a killed contest started")?;
        }
        check()?;
        let mut lines = netns::tidy()?;
        if let Some(Record { pid, settings }) = killed {
            // Of its load.
            ctnetlink::flush()?;
            let changed = settings.changed()?.len();
            settings.put_back().with_context(|| {
                format!("cannot put back what a killed contest set; with {PATH} removed nothing more is tried")
            })?;
            let folder = RunFolder::of(pid);
            if folder.exists() {
                fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
            }
            journal.clear()?;
            lines.push(format!("the contest {pid} was killed: put back {changed} settings"));
        }
        Ok((journal, lines))
    }

    /// The file, and what is to be put back.
    fn lock(path: &Path) -> Result<(Self, Option<Record>)> {
        let place = || path.display().to_string();
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = match Flock::lock(file.with_context(place)?, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((_, nix::Error::EWOULDBLOCK)) => bail!("another contest is at work here: wait for its end"),
            Err((_, errno)) => return Err(errno).with_context(place),
        };
        let mut text = String::new();
        file.read_to_string(&mut text).with_context(place)?;
        // What was cut short was written before anything was changed.
        Ok((Self(file), serde_json::from_str(&text).ok()))
    }

    /// From here on a kill leaves something to be put back: these settings.
    pub fn begin(&mut self, settings: &Sysctls) -> Result<()> {
        let record = Record { pid: process::id(), settings: settings.clone() };
        // One that was cut short is still there.
        self.clear()?;
        self.0.write_all(&serde_json::to_vec(&record)?).and_then(|()| self.0.sync_data()).context(PATH)
    }

    /// Nothing is left to be put back.
    pub fn close(mut self) -> Result<()> {
        self.clear()
    }

    fn clear(&mut self) -> Result<()> {
        self.0.set_len(0).and_then(|()| self.0.rewind()).context(PATH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kill_cut_short_does_not_spoil_the_next_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        fs::write(&path, r#"{"pid":7,"settings":{"/proc/sys/net/a":"1"#).unwrap();
        let (mut journal, cut) = Journal::lock(&path).unwrap();
        assert!(cut.is_none());
        let settings: Sysctls =
            serde_json::from_str(r#"{"/proc/sys/net/netfilter/nf_conntrack_max":"8192\n"}"#).unwrap();
        journal.begin(&settings).unwrap();
        // As after a kill: nothing was cleared.
        drop(journal);
        let (journal, killed) = Journal::lock(&path).unwrap();
        let killed = killed.unwrap();
        assert_eq!((killed.pid, killed.settings), (process::id(), settings));
        journal.close().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }
}
