//! The signals that end the guard, and the one that reloads its policy.

use anyhow::Context as _;
use nix::sys::signal::{SigSet, Signal as Number};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT.
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    pub fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: listen(Number::SIGTERM, SignalKind::terminate())?,
            interrupt: listen(Number::SIGINT, SignalKind::interrupt())?,
        })
    }

    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// SIGHUP.
pub(super) fn hangup() -> anyhow::Result<Signal> {
    listen(Number::SIGHUP, SignalKind::hangup())
}

fn listen(number: Number, kind: SignalKind) -> anyhow::Result<Signal> {
    // Whoever started the guard may have had it blocked, and a blocked signal never comes.
    SigSet::from_iter([number]).thread_unblock().with_context(|| format!("cannot unblock {number}"))?;
    signal(kind).context("cannot listen for signals")
}
