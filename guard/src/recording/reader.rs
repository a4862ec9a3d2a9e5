//! Recordings back into samples.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;

use super::hour::files;
use super::{Error, FORMAT, Header, VERSION};
use crate::observe::Sample;

/// One step of a recording.
#[derive(Clone, Debug, PartialEq)]
pub enum Recorded {
    /// A file begins: another start of the guard, perhaps on another boot, if its host or boot are not those before.
    Begins(Box<Header>),
    /// The next sample.
    Sample(Box<Sample>),
    /// The file ends in the middle: the guard was killed. What was written before is whole.
    Cut(PathBuf),
}

/// Reads a recording, or all of a folder, in order.
#[derive(Debug)]
pub struct Reader {
    waiting: VecDeque<PathBuf>,
    open: Option<Lines>,
}

#[derive(Debug)]
struct Lines {
    path: PathBuf,
    text: BufReader<MultiGzDecoder<File>>,
    line: u64,
}

impl Reader {
    /// `path` is one file, or a folder such as `STATE-DIR/recording`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let waiting: VecDeque<PathBuf> = if path.is_dir() {
            files(path)?.into_iter().map(|(_, path)| path).collect()
        } else {
            [path.to_owned()].into()
        };
        if waiting.is_empty() {
            return Err(Error::Nothing { path: path.into() });
        }
        Ok(Self { waiting, open: None })
    }

    fn step(&mut self) -> Result<Option<Recorded>, Error> {
        loop {
            let Some(lines) = &mut self.open else {
                let Some(path) = self.waiting.pop_front() else { return Ok(None) };
                let (lines, header) = Lines::open(path)?;
                self.open = Some(lines);
                return Ok(Some(Recorded::Begins(Box::new(header))));
            };
            match lines.next()? {
                Some(recorded) => {
                    if matches!(recorded, Recorded::Cut(_)) {
                        self.open = None;
                    }
                    return Ok(Some(recorded));
                }
                None => self.open = None,
            }
        }
    }
}

impl Iterator for Reader {
    type Item = Result<Recorded, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            // Nothing after an error is to be trusted.
            (self.waiting, self.open) = (VecDeque::new(), None);
        }
        step.transpose()
    }
}

impl Lines {
    fn open(path: PathBuf) -> Result<(Self, Header), Error> {
        #[derive(Deserialize)]
        struct Head {
            format: String,
            version: u32,
        }
        let file = File::open(&path).map_err(|source| Error::Io { verb: "read", path: path.clone(), source })?;
        let mut lines = Self { text: BufReader::new(MultiGzDecoder::new(file)), path, line: 0 };
        let path = lines.path.clone();
        let foreign = |why: String| Error::Foreign { path: path.clone(), why };
        let first = lines.line().map_err(|error| foreign(error.to_string()))?;
        let first = first.ok_or_else(|| foreign("it is empty".to_owned()))?;
        let head: Head = serde_json::from_slice(&first).map_err(|error| foreign(error.to_string()))?;
        if head.format != FORMAT {
            return Err(foreign(format!("its first line says {:?}", head.format)));
        }
        if head.version != VERSION {
            return Err(Error::Version { path, found: head.version });
        }
        let header = serde_json::from_slice(&first).map_err(|error| foreign(error.to_string()))?;
        Ok((lines, header))
    }

    /// The next sample; `None` at the end.
    fn next(&mut self) -> Result<Option<Recorded>, Error> {
        let text = match self.line() {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return Ok(Some(Recorded::Cut(self.path.clone())));
            }
            Err(source) => return Err(Error::Io { verb: "read", path: self.path.clone(), source }),
        };
        match serde_json::from_slice(&text) {
            Ok(sample) => Ok(Some(Recorded::Sample(Box::new(sample)))),
            Err(error) => Err(Error::Line { path: self.path.clone(), line: self.line, why: error.to_string() }),
        }
    }

    /// One line; an end without its newline is `UnexpectedEof`, as is one within the compressed data.
    fn line(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let mut text = Vec::new();
        self.text.read_until(b'\n', &mut text)?;
        self.line += 1;
        match text.last() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(text)),
            Some(_) => Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}
