//! `journal.json`: whole and on the disk, or not at all.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use super::content::Content;
use super::{Error, FILE};
use crate::actuate::whole::{fresh_of, replace};
use crate::priority;

/// Where the journal is made before it takes its place.
pub(super) fn fresh(directory: &Path) -> PathBuf {
    fresh_of(directory, FILE)
}

/// Writes the content to a file beside the journal and to the disk, then puts it in the journal's place.
pub(super) fn save(directory: &Path, content: &Content) -> Result<(), Error> {
    let fail = |(path, source)| Error::Io { verb: "write", path, source };
    let text = serde_json::to_vec_pretty(content).map_err(|error| fail((directory.join(FILE), error.into())))?;
    replace(directory, FILE, &text).map_err(fail)
}

/// Saves on a thread of its own: a disk may take seconds, and no change of a setting is to wait for it.
#[derive(Debug)]
pub(super) struct Saver {
    contents: Sender<Content>,
    thread: JoinHandle<()>,
}

impl Saver {
    /// Starts the thread.
    pub fn start(directory: PathBuf) -> io::Result<Self> {
        let (contents, inbox) = channel();
        let thread = thread::Builder::new().name("journal".into()).spawn(move || run(&directory, &inbox))?;
        Ok(Self { contents, thread })
    }

    /// Has this content saved soon; a later one may overtake it.
    pub fn save(&self, content: Content) {
        // The thread only ends after the sender has.
        let _ = self.contents.send(content);
    }

    /// Waits until everything is saved, or has failed.
    pub fn finish(self) {
        drop(self.contents);
        // A panic there has been told by the panic.
        let _ = self.thread.join();
    }
}

fn run(directory: &Path, inbox: &Receiver<Content>) {
    priority::ordinary();
    let mut failing = false;
    while let Ok(first) = inbox.recv() {
        let content = inbox.try_iter().last().unwrap_or(first);
        let saved = save(directory, &content);
        match &saved {
            Ok(()) if failing => tracing::info!("{} is written again", directory.join(FILE).display()),
            Err(error) if !failing => tracing::warn!("{error}. Until then the page beside it holds what is newer"),
            _ => {}
        }
        failing = saved.is_err();
    }
}
