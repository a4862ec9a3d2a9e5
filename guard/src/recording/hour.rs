//! The last hour: a few files, of which the oldest goes when a new one begins.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Error, Header, Writer};
use crate::observe::Sample;

/// What one file spans.
const SPAN: Duration = Duration::from_mins(10);
/// One file is no longer than about this, however often the guard looks.
const BYTES: u64 = 2 << 20;
/// Whole files kept beside the one that is being written: an hour.
const KEPT: usize = 6;

/// Keeps the samples of the last hour in a folder: at most seven files, 14 MiB.
#[derive(Debug)]
pub struct Hour {
    folder: PathBuf,
    header: Header,
    current: Option<Writer>,
}

impl Hour {
    /// Makes the folder. What an earlier guard recorded there stays until it is an hour old.
    pub fn keep(folder: &Path, header: Header) -> Result<Self, Error> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|source| Error::Io {
            verb: "make",
            path: folder.into(),
            source,
        })?;
        Ok(Self { folder: folder.into(), header, current: None })
    }

    /// Adds one sample.
    pub fn add(&mut self, sample: &Sample) -> Result<(), Error> {
        let full = |writer: &Writer| writer.spans(sample) >= SPAN || writer.bytes() >= BYTES;
        let mut writer = match self.current.take() {
            Some(writer) if !full(&writer) => writer,
            ended => {
                ended.map(Writer::finish).transpose()?;
                self.next()?
            }
        };
        writer.add(sample)?;
        self.current = Some(writer);
        Ok(())
    }

    /// Writes out everything.
    pub fn finish(self) -> Result<(), Error> {
        self.current.map_or(Ok(()), Writer::finish)
    }

    fn next(&self) -> Result<Writer, Error> {
        let mut files = files(&self.folder)?;
        let number = files.last().map_or(0, |(number, _)| number + 1);
        files.truncate(files.len().saturating_sub(KEPT));
        for (_, path) in files {
            fs::remove_file(&path).map_err(|source| Error::Io { verb: "remove", path, source })?;
        }
        Writer::create(&self.folder.join(format!("{number:08}.json.gz")), &self.header)
    }
}

/// The recordings of a folder in the order in which they were made, with their numbers.
pub(super) fn files(folder: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    let fail = |source| Error::Io { verb: "read", path: folder.into(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".json.gz"));
        if let Some(number) = name.and_then(|name| name.parse().ok()) {
            files.push((number, path));
        }
    }
    files.sort();
    Ok(files)
}
