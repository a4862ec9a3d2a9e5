//! Samples kept on disk, for the incident that nobody watched: the last hour always, more on request.
//!
//! A recording is gzip over lines of JSON, so that `zcat FILE | jq` reads it. The first line is the [`Header`], every other
//! line one [`Sample`] as the guard read it; keys that are `null` or unknown to the reader do no harm, and the version goes
//! up when a key changes its meaning.

mod hour;
mod reader;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

pub use hour::Hour;
pub use reader::{Reader, Recorded};
pub use writer::Writer;

use crate::observe::Sample;
use crate::policy::Host;
use crate::priority;

/// Of the format.
const VERSION: u32 = 2;
/// What every recording begins with.
const FORMAT: &str = "conntrack-guard recording";
/// The folder of the state directory that holds the last hour.
pub const FOLDER: &str = "recording";

/// The first line of a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`]
    format: String,
    /// [`VERSION`]
    version: u32,
    /// The boot that the samples' times count from (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// When the recording began, milliseconds of the Unix epoch.
    pub began_unix_ms: u64,
    /// The host as the guard found it: what a policy's open bounds are settled by.
    pub host: Host,
}

impl Header {
    /// Of a recording that begins now.
    pub fn now(boot_id: String, host: Host) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let began_unix_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        Self { format: FORMAT.to_owned(), version: VERSION, boot_id, began_unix_ms, host }
    }

    /// Whether both are of one start of a guard, whose recording went on in another file.
    pub fn same_start(&self, other: &Self) -> bool {
        self == other
    }
}

/// A recording cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk.
    #[error("cannot {verb} {path}: {source}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not one of ours.
    #[error(
        "{path} is no recording of conntrack-guard: {why}; give a file that `run --record` wrote, or a folder of them"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it lacks.
        why: String,
    },
    /// Written by another version.
    #[error(
        "{path} has format version {found}, this conntrack-guard reads version {VERSION}: use the one that wrote it"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// Damaged in the middle.
    #[error("{path}:{line}: no sample: {why}; the file is damaged from there on")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1, after decompression.
        line: u64,
        /// What is wrong.
        why: String,
    },
    /// A folder without a recording in it.
    #[error(
        "{path} holds no recording; the guard keeps the last hour in STATE-DIR/{FOLDER} once it has run for a while"
    )]
    Nothing {
        /// The folder.
        path: PathBuf,
    },
}

/// Takes every sample of a running guard to its files, on a thread of its own: a disk that hangs must not hold up the
/// guard. Samples that the thread cannot keep up with are left out.
#[derive(Debug)]
pub struct Recorder {
    samples: Option<SyncSender<Vec<Sample>>>,
    /// What is handed over together: each time wakes the thread.
    together: Vec<Sample>,
    /// Hears when everything is written.
    ended: Receiver<()>,
}

/// Samples of this long are handed over together, and no more than so many.
const TOGETHER: Duration = Duration::from_secs(10);
const MOST_TOGETHER: usize = 16;
/// So many of them may wait for the disk: half a minute's samples at 50 ms, about 1 MiB.
const WAITING: usize = 32;
/// A stop waits no longer than this for the last of them.
const LAST_WRITES: Duration = Duration::from_secs(2);

impl Recorder {
    /// Records the last hour below the state directory, and everything into `file` if one is named. Each ends by itself,
    /// with a warning, when its disk fails.
    pub fn start(hour: Option<Hour>, file: Option<Writer>) -> Self {
        let (samples, arriving) = sync_channel::<Vec<Sample>>(WAITING);
        let (end, ended) = sync_channel(1);
        thread::spawn(move || {
            priority::ordinary();
            let (mut hour, mut file) = (hour, file);
            for sample in arriving.into_iter().flatten() {
                hour = hour.and_then(|mut hour| kept(&hour.add(&sample), "the last hour").then_some(hour));
                file = file.and_then(|mut file| kept(&file.add(&sample), "--record").then_some(file));
            }
            for ended in [hour.map(Hour::finish), file.map(Writer::finish)].into_iter().flatten() {
                kept(&ended, "what was left");
            }
            let _ = end.send(());
        });
        Self { samples: Some(samples), together: Vec::new(), ended }
    }

    /// Hands one over, now or with those that follow; never waits.
    pub fn add(&mut self, sample: Sample) {
        self.together.push(sample);
        let spans = |first: &Sample, last: &Sample| last.at.saturating_sub(first.at) >= TOGETHER;
        let enough = self.together.first().zip(self.together.last()).is_some_and(|(first, last)| spans(first, last));
        if enough || self.together.len() >= MOST_TOGETHER {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        let together = std::mem::take(&mut self.together);
        // Full, or its thread has ended: what is lost is samples of a recording.
        if let Some(samples) = &self.samples {
            let _ = samples.try_send(together);
        }
    }
}

impl Drop for Recorder {
    /// Waits until everything is written, or until a disk has hung for too long.
    fn drop(&mut self) {
        self.hand_over();
        self.samples = None;
        if self.ended.recv_timeout(LAST_WRITES).is_err() {
            tracing::warn!("the disk is too slow for the recording: its end is missing");
        }
    }
}

fn kept(written: &Result<(), Error>, what: &str) -> bool {
    if let Err(error) = written {
        tracing::warn!("{what} is recorded no further: {error}");
    }
    written.is_ok()
}

#[cfg(test)]
mod tests;
