//! A network namespace that threads can enter.

use std::fs::File;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, setns, unshare};

use super::{Error, tool, topology};

/// Where `ip netns` keeps its namespaces.
const NAMED: &str = "/run/netns";
/// The network namespace of the thread that opens it.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace: one of a [`Topology`](super::Topology), as `ip netns` makes them, or one that no other program
/// knows.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    handle: Arc<File>,
}

impl Namespace {
    /// Opens the namespace that `ip netns add NAME` made.
    pub(super) fn open(name: &str) -> Result<Self, Error> {
        let path = format!("{NAMED}/{name}");
        let handle = File::open(&path).map_err(|error| Error::file(path, error))?;
        Ok(Self { name: name.to_owned(), handle: Arc::new(handle) })
    }

    /// That of the calling thread. The name is for messages alone.
    pub(super) fn own(name: &str) -> Result<Self, Error> {
        let handle = File::open(OWN).map_err(|error| Error::file(OWN, error))?;
        Ok(Self { name: name.to_owned(), handle: Arc::new(handle) })
    }

    /// Makes a namespace that holds nothing but a loopback interface, whose packets the kernel tracks. It needs no tidying up:
    /// it goes with its last user. The name is for messages alone.
    pub fn tracked_loopback(name: &str) -> Result<Self, Error> {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| match errno {
                nix::Error::EPERM => Error::NotPermitted { what: "making a network namespace".to_owned() },
                _ => Error::Enter { name: name.to_owned(), source: errno.into() },
            })?;
            tool::ip(&["link", "set", "lo", "up"])?;
            tool::nft(&topology::rules(name))?;
            Self::own(name)
        };
        let outcome = thread::scope(|scope| scope.spawn(make).join());
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// The name; that of a topology's namespace is for `ip netns exec NAME …` as well.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a new thread inside the namespace and waits for its end. Sockets and programs that it opens or starts
    /// belong to the namespace; `/proc/sys/net` shows the namespace's values, `/proc/net` does **not** (use
    /// `/proc/thread-self/net`).
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let outcome = thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter()?;
                    Ok(work())
                })
                .join()
        });
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts `work` on a new thread of the given name inside the namespace.
    pub fn spawn<T: Send + 'static>(
        &self,
        thread_name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<Result<T, Error>>, Error> {
        let namespace = self.clone();
        thread::Builder::new()
            .name(thread_name.to_owned())
            .spawn(move || {
                namespace.enter()?;
                Ok(work())
            })
            .map_err(|source| Error::Enter { name: self.name.clone(), source })
    }

    /// Loads these nftables rules into it. They go with it.
    pub(crate) fn rules(&self, script: &str) -> Result<(), Error> {
        self.run(|| tool::nft(script))?
    }

    /// Moves the calling thread, and no other, into the namespace.
    fn enter(&self) -> Result<(), Error> {
        setns(&*self.handle, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::Enter { name: self.name.clone(), source: errno.into() })
    }
}
