//! One file.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;

use super::{Error, Header};
use crate::observe::Sample;

/// What is not older than this may be lost when the guard is killed.
const FLUSH_EVERY: Duration = Duration::from_secs(10);

/// Writes a recording.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    lines: GzEncoder<File>,
    began: Option<Duration>,
    flushed: Duration,
}

impl Writer {
    /// A new file, in the place of an older one.
    pub fn create(path: &Path, header: &Header) -> Result<Self, Error> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        let file = file.map_err(|source| Error::Io { verb: "write", path: path.into(), source })?;
        let lines = GzEncoder::new(file, Compression::fast());
        let mut writer = Self { path: path.into(), lines, began: None, flushed: Duration::ZERO };
        writer.line(header)?;
        Ok(writer)
    }

    /// Adds one sample.
    pub fn add(&mut self, sample: &Sample) -> Result<(), Error> {
        self.line(sample)?;
        self.began.get_or_insert(sample.at);
        if sample.at.saturating_sub(self.flushed) >= FLUSH_EVERY {
            self.flushed = sample.at;
            self.lines.flush().map_err(|source| self.error(source))?;
        }
        Ok(())
    }

    /// How long a time the recording spans at this sample.
    pub(super) fn spans(&self, sample: &Sample) -> Duration {
        self.began.map_or(Duration::ZERO, |began| sample.at.saturating_sub(began))
    }

    /// Bytes on disk so far, but for what waits to be compressed.
    pub(super) fn bytes(&self) -> u64 {
        self.lines.get_ref().metadata().map_or(0, |file| file.len())
    }

    /// Writes out everything and ends the file.
    pub fn finish(self) -> Result<(), Error> {
        let Self { path, lines, .. } = self;
        lines.finish().map(drop).map_err(|source| Error::Io { verb: "write", path, source })
    }

    fn line(&mut self, line: &impl Serialize) -> Result<(), Error> {
        let mut text = serde_json::to_vec(line).map_err(|error| self.error(error.into()))?;
        text.push(b'\n');
        self.lines.write_all(&text).map_err(|source| self.error(source))
    }

    fn error(&self, source: std::io::Error) -> Error {
        Error::Io { verb: "write", path: self.path.clone(), source }
    }
}
