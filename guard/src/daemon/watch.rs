//! Notices that the policy file is another one: saved in place, renamed into place by an editor, or swapped by the symlink
//! `..data` above it, as the kubelet does with a ConfigMap.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::warn;

/// Whoever writes a file in several steps is done when nothing more comes for so long.
const QUIET: Duration = Duration::from_millis(300);
/// A file that never comes to rest is read all the same.
const RESTLESS: Duration = Duration::from_secs(3);
/// Beside inotify, which network file systems and a rename further up do not tell through.
const POLL: Duration = Duration::from_mins(1);
/// Where there is no inotify.
const POLL_ALONE: Duration = Duration::from_secs(5);
/// As in the kernel's own resolution of a path (`MAXSYMLINKS`).
const LINKS: usize = 40;

/// What tells one state of the file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Changes with the owner and the mode, too.
    changed: (i64, i64),
}

/// The file's state now; `None` where there is none to see.
pub(super) fn fingerprint(file: &Path) -> Option<Fingerprint> {
    let meta = fs::metadata(file).ok()?;
    Some(Fingerprint {
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.size(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    })
}

/// Notifies each time when `file` has come to rest in another state than `seen`. Never ends.
pub(super) async fn watch(file: PathBuf, mut seen: Option<Fingerprint>, changed: Arc<Notify>) {
    let mut events = Events::new()
        .inspect_err(|error| warn!("no inotify ({error}): {} is looked at every 5 s", file.display()))
        .ok();
    loop {
        if let Some(watching) = &events {
            // Anew each time: the way to the file may be another one by now. What happens before is seen just after.
            watching.cover(&file);
        }
        let mut now = fingerprint(&file);
        if now == seen {
            let poll = if events.is_some() { POLL } else { POLL_ALONE };
            tokio::select! {
                () = next(&mut events) => {}
                () = sleep(poll) => {}
            }
            now = fingerprint(&file);
            if now == seen {
                // A neighbour of the file. In a busy directory they must not keep this busy, too.
                sleep(QUIET).await;
                continue;
            }
        }
        let end = Instant::now() + RESTLESS;
        while now != seen && Instant::now() < end {
            let rested = timeout_at(Instant::now() + QUIET, next(&mut events)).await.is_err();
            let before = std::mem::replace(&mut now, fingerprint(&file));
            if rested && before == now {
                break;
            }
        }
        if now != seen {
            seen = now;
            changed.notify_one();
        }
    }
}

/// Waits for the next event; for ever where there are none.
async fn next(events: &mut Option<Events>) {
    if let Some(some) = events
        && some.next().await.is_err()
    {
        // The poll goes on, at its slow pace.
        *events = None;
    }
    if events.is_none() {
        std::future::pending::<()>().await;
    }
}

/// What happens in the directories on the way to the file.
struct Events {
    inotify: Inotify,
    /// The same, to wait for: it reads like a pipe.
    reader: Receiver,
}

impl Events {
    fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let reader = Receiver::from_owned_fd_unchecked(inotify.as_fd().try_clone_to_owned()?)?;
        Ok(Self { inotify, reader })
    }

    /// Watches the directories that a change of the file shows in. One that is watched already stays so.
    fn cover(&self, file: &Path) {
        let events = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
        for directory in directories(&file) {
            // One that is gone or closed to us since: the poll finds what comes of that.
            let _ = self.inotify.add_watch(&directory, events);
        }
    }

    /// Waits until something has happened; what, the file itself tells.
    async fn next(&self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        self.reader.readable().await?;
        loop {
            match self.reader.try_read(&mut buffer) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// The directories of each symbolic link on the way to a file, and of the file itself; up to the first that is not there.
fn directories(file: &Path) -> BTreeSet<PathBuf> {
    let mut directories = BTreeSet::new();
    let mut at = PathBuf::from("/");
    let mut ahead: VecDeque<OsString> = names(file).collect();
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == OsStr::new("..") {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        if let Ok(target) = fs::read_link(&next) {
            directories.insert(at.clone());
            links += 1;
            if links > LINKS {
                break;
            }
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            for part in names(&target).collect::<Vec<_>>().into_iter().rev() {
                ahead.push_front(part);
            }
        } else if ahead.is_empty() || !next.is_dir() {
            directories.insert(at);
            break;
        } else {
            at = next;
        }
    }
    directories
}

fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
