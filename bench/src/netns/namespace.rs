//! A network namespace that threads can enter.

use std::fs::File;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, setns};

use super::Error;

/// Where `ip netns` keeps its namespaces.
const NAMED: &str = "/run/netns";

/// A network namespace with a name, as `ip netns` makes them.
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

    /// The name, for `ip netns exec NAME …`.
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

    /// Moves the calling thread, and no other, into the namespace.
    fn enter(&self) -> Result<(), Error> {
        setns(&*self.handle, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::Enter { name: self.name.clone(), source: errno.into() })
    }
}
