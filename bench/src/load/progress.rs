//! How far a load has come.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of a running load, for whoever shows them. All only grow, but [`Progress::in_flight`] and [`Progress::open`].
#[derive(Debug, Default)]
pub struct Progress {
    started: AtomicU64,
    made: AtomicU64,
    failed: AtomicU64,
    held: AtomicU64,
}

impl Progress {
    /// Started.
    pub fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// What went all the way; see [`Outcome::made`](super::Outcome::made).
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Failed, whatever the cause.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Neither made nor failed yet.
    pub fn in_flight(&self) -> u64 {
        self.started().saturating_sub(self.made() + self.failed())
    }

    /// Connections open or opening: those in flight, and those that are kept open after their reply.
    pub fn open(&self) -> u64 {
        self.in_flight() + self.held.load(Ordering::Relaxed)
    }

    pub(crate) fn start(&self, count: u64) {
        self.started.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn make(&self, count: u64) {
        self.made.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn fail(&self, count: u64) {
        self.failed.fetch_add(count, Ordering::Relaxed);
    }

    /// One more is kept open, until what is returned is dropped.
    pub(crate) fn hold(&self) -> Held<'_> {
        self.held.fetch_add(1, Ordering::Relaxed);
        Held(self)
    }
}

/// A connection that is kept open.
pub(crate) struct Held<'p>(&'p Progress);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_made_nor_failed_is_in_flight_and_open_with_what_is_held() {
        let progress = Progress::default();
        progress.start(10);
        progress.make(6);
        progress.fail(1);
        assert_eq!((progress.in_flight(), progress.open()), (3, 3));
        let held = progress.hold();
        assert_eq!((progress.in_flight(), progress.open()), (3, 4));
        drop(held);
        assert_eq!(progress.open(), 3);
    }
}
