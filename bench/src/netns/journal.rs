//! What a run has made, on disk before it is made, so that the next run can remove it after a kill.
//!
//! Each run holds a lock on its own file while it lives; a file whose lock is free belongs to a run that was killed.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::forwarding::Forwarding;
use super::ipvs::Ipvs;
use super::settings::Settings;
use super::{Error, Kind, Shape, tool};
use crate::processes;

/// Gone after a reboot, like all that the files name.
const DIRECTORY: &str = "/run/conntrack-guard-bench";
/// Files of the programs that runs start.
const FILES: &str = "/run/conntrack-guard-bench-files";
/// Those programs end at once when they are asked to; they are killed otherwise.
const PATIENCE: Duration = Duration::from_secs(10);
/// Topologies that this process has made.
static RUNS: AtomicU32 = AtomicU32::new(0);

/// The record of one run: what its parts are called and what was there before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Name of the run: prefix of its namespaces, name of its nftables table.
    pub id: String,
    /// Inode of the gateway's network namespace, which tells it apart from others.
    pub gateway: u64,
    /// Whether the gateway forwarded before the run.
    #[serde(flatten)]
    pub forwarding: Forwarding,
    /// What else was set before.
    #[serde(default)]
    settings: Settings,
    /// Where IPVS balances.
    #[serde(default)]
    ipvs: Option<Ipvs>,
}

impl Record {
    /// The record of this process in the caller's namespace.
    fn new(shape: Shape) -> Result<Self, Error> {
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            id: format!("cgb{}_{run}", std::process::id()),
            gateway: gateway()?,
            forwarding: Forwarding::read()?,
            settings: Settings::read(shape)?,
            ipvs: matches!(shape.kind, Kind::Ipvs { .. }).then(|| Ipvs::read(shape)),
        })
    }

    /// Name of the clients' namespace.
    pub fn clients(&self) -> String {
        format!("{}-clients", self.id)
    }

    /// Name of the servers' namespace.
    pub fn servers(&self) -> String {
        format!("{}-servers", self.id)
    }

    /// The gateway's interface towards the clients. Interface names may have 15 characters.
    pub fn to_clients(&self) -> String {
        format!("{}c", self.id)
    }

    /// The gateway's interface towards the servers.
    pub fn to_servers(&self) -> String {
        format!("{}s", self.id)
    }

    /// Makes what `command` starts known as this run's.
    pub fn mark(&self, command: &mut Command) {
        processes::mark(command, &self.id);
    }

    /// The folder for their files, made if it is not there.
    pub fn folder(&self) -> Result<PathBuf, Error> {
        let folder = Path::new(FILES).join(&self.id);
        fs::create_dir_all(&folder).map_err(|error| Error::file(&folder, error))?;
        Ok(folder)
    }

    /// Removes what this record names, as far as it is there: programs, namespaces, and in the gateway, if the caller still is in
    /// it, the links, the rules, the service and whether it forwards. Goes on after an error and returns the first.
    pub fn remove(&self) -> Result<(), Error> {
        let mut first = Ok(());
        let mut note = |outcome: Result<(), Error>| {
            if first.is_ok() {
                first = outcome;
            }
        };
        let in_gateway = gateway()? == self.gateway;
        // First: they would be in the way of what they use.
        note(processes::end(&self.id, PATIENCE).map_err(|error| Error::file("/proc", error)));
        if in_gateway {
            // A link goes with its namespace, but later, by a worker of the kernel; its routes would be in the next run's way.
            let links = "/proc/thread-self/net/dev";
            let links = fs::read_to_string(links).map_err(|error| Error::file(links, error))?;
            for name in [self.to_clients(), self.to_servers()] {
                if links.contains(&format!("{name}:")) {
                    note(tool::ip(&["link", "delete", &name]));
                }
            }
        }
        for name in [self.clients(), self.servers()] {
            if Path::new("/run/netns").join(&name).exists() {
                note(tool::ip(&["netns", "delete", &name]));
            }
        }
        if in_gateway {
            // Declared and then deleted: so it is no error where it never came to be.
            note(tool::nft(&format!("table inet {0}\ndelete table inet {0}\n", self.id)));
            if let Some(ipvs) = &self.ipvs {
                note(ipvs.remove());
            }
            note(self.settings.write());
            note(self.forwarding.write());
        }
        let files = Path::new(FILES).join(&self.id);
        if files.exists() {
            note(fs::remove_dir_all(&files).map_err(|error| Error::file(&files, error)));
        }
        first
    }
}

fn gateway() -> Result<u64, Error> {
    let path = "/proc/thread-self/ns/net";
    Ok(fs::metadata(path).map_err(|error| Error::file(path, error))?.ino())
}

/// A run's file, locked while the run lives.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Journal {
    /// Removes what killed runs left, then writes and locks the record of a new run; returns both, and a line about each
    /// killed run.
    pub fn open(shape: Shape) -> Result<(Self, Record, Vec<String>), Error> {
        let directory = Path::new(DIRECTORY);
        let _turn = take_turn(directory)?;
        let lines = remove_leftovers(directory)?;
        // Not before: it notes what was set before any run.
        let record = Record::new(shape)?;
        Ok((Self::write(directory, &record)?, record, lines))
    }

    fn write(directory: &Path, record: &Record) -> Result<Self, Error> {
        let path = directory.join(format!("{}.json", record.id));
        let file = File::create(&path).map_err(|error| Error::file(&path, error))?;
        let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| Error::file(&path, errno.into()))?;
        let text = serde_json::to_vec(record).map_err(|error| Error::file(&path, error.into()))?;
        lock.write_all(&text).and_then(|()| lock.sync_data()).map_err(|error| Error::file(&path, error))?;
        Ok(Self { path, _lock: lock })
    }

    /// The run is over and nothing of it is left.
    pub fn close(&self) -> Result<(), Error> {
        fs::remove_file(&self.path).map_err(|error| Error::file(&self.path, error))
    }
}

/// Removes what killed runs left around the network namespace of the calling thread; a line about each. Refuses where a living
/// run has its topology there.
pub fn tidy() -> Result<Vec<String>, Error> {
    let directory = Path::new(DIRECTORY);
    let _turn = take_turn(directory)?;
    remove_leftovers(directory)
}

/// One run at a time: a file that is not locked yet would look like a killed run's.
fn take_turn(directory: &Path) -> Result<Flock<File>, Error> {
    fs::create_dir_all(directory).map_err(|error| Error::file(directory, error))?;
    let entrance = File::open(directory).map_err(|error| Error::file(directory, error))?;
    Flock::lock(entrance, FlockArg::LockExclusive).map_err(|(_, errno)| Error::file(directory, errno.into()))
}

/// Removes what killed runs left in this gateway, names what they left around another one (its rules can be removed only
/// from there), and returns a line about each. Refuses where a living run has its topology here.
fn remove_leftovers(directory: &Path) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    let here = gateway()?;
    for (path, found) in runs(directory)? {
        match found {
            Run::Alive(record) if record.gateway == here => return Err(Error::Busy { owner: record.id }),
            Run::Alive(_) => continue,
            Run::Killed(Some(record)) if record.gateway != here => {
                let (id, clients, servers) = (&record.id, record.clients(), record.servers());
                lines.push(format!(
                    "{id} was killed in another network namespace; if that is gone: `ip netns delete {clients}; \
                     ip netns delete {servers}; rm {}`",
                    path.display()
                ));
                continue;
            }
            Run::Killed(Some(record)) => {
                record.remove()?;
                lines.push(format!("{} was killed: removed what it had left", record.id));
            }
            Run::Killed(None) => {}
        }
        fs::remove_file(&path).map_err(|error| Error::file(&path, error))?;
    }
    Ok(lines)
}

#[derive(Debug, PartialEq, Eq)]
enum Run {
    Alive(Record),
    /// `None`: killed before its record was written, so before it made anything.
    Killed(Option<Record>),
}

fn runs(directory: &Path) -> Result<Vec<(PathBuf, Run)>, Error> {
    let entries = fs::read_dir(directory).map_err(|error| Error::file(directory, error))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| Error::file(directory, error))?.path();
        let mut text = String::new();
        let read = File::open(&path).and_then(|mut file| file.read_to_string(&mut text).map(|_| file));
        let file = match read {
            Ok(file) => file,
            // A run that has just ended.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::file(path, error)),
        };
        let record: Option<Record> = serde_json::from_str(&text).ok();
        match (Flock::lock(file, FlockArg::LockExclusiveNonblock), record) {
            (Ok(_), record) => found.push((path, Run::Killed(record))),
            (Err(_), Some(record)) => found.push((path, Run::Alive(record))),
            // A run that is just starting: it has made nothing yet.
            (Err(_), None) => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> Record {
        let (forwarding, settings) = (Forwarding::default(), Settings::default());
        Record { id: id.to_owned(), gateway: 7, forwarding, settings, ipvs: None }
    }

    #[test]
    fn the_record_of_an_older_program_is_still_read() {
        let old: Record = serde_json::from_str(r#"{"id":"cgb7_0","gateway":7,"ip_forward":"0"}"#).unwrap();
        assert_eq!((&*old.id, old.settings, old.ipvs), ("cgb7_0", Settings::default(), None));
    }

    #[test]
    fn a_held_lock_is_a_living_run_and_a_free_one_a_killed_run() {
        let directory = tempfile::tempdir().unwrap();
        let alive = Journal::write(directory.path(), &record("cgb1")).unwrap();
        drop(Journal::write(directory.path(), &record("cgb2")).unwrap());
        fs::write(directory.path().join("cgb3.json"), "").unwrap();

        let mut found: Vec<Run> = runs(directory.path()).unwrap().into_iter().map(|(_, run)| run).collect();
        found.sort_by_key(|run| format!("{run:?}"));
        assert_eq!(found, [Run::Alive(record("cgb1")), Run::Killed(None), Run::Killed(Some(record("cgb2")))]);

        alive.close().unwrap();
        assert_eq!(runs(directory.path()).unwrap().len(), 2);
    }
}
