//! The connections of one load: how fast they come, and how they end.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;

use super::server::{Server, Service};
use super::{MAX_IN_FLIGHT, REQUEST_BYTES, client};
use crate::load::{Course, Floods, Outcome, Progress, Rate};
use crate::netns::Topology;
use crate::ports;

/// Whole TCP connections: connect, request, reply, and an end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Connections {
    /// How fast they come.
    #[serde(flatten)]
    pub pace: Pace,
    /// How they end.
    pub end: End,
    /// For how long each is kept after its reply, at most to the end of the load.
    pub hold: Duration,
    /// While it is kept, a further request is due each so often; `None`: it is idle.
    pub every: Option<Duration>,
    /// Connections open at a time; one that comes beyond is not tried and counted as
    /// [`Failure::TooMany`](super::Failure::TooMany).
    pub most: u64,
}

impl Default for Connections {
    fn default() -> Self {
        Self { pace: Pace::Clients(1), end: End::Close, hold: Duration::ZERO, every: None, most: MAX_IN_FLIGHT }
    }
}

/// How fast connections come.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// Open loop: at these rates, whatever becomes of earlier ones.
    Open(Rate),
    /// Closed loop: so many clients, each starting its next connection when its last has ended.
    Clients(u32),
}

impl Pace {
    /// Of an open loop.
    pub fn rate(&self) -> Option<&Rate> {
        match self {
            Self::Open(rate) => Some(rate),
            Self::Clients(_) => None,
        }
    }
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// FIN from both sides; the server's comes first where nothing is held.
    Close,
    /// The client resets it (`SO_LINGER` with a time of 0).
    Reset,
    /// The client sends its FIN after the reply and the server its own not before the hold is over: CLOSE_WAIT until then.
    HalfClosed,
}

impl Connections {
    /// Connections that may be open at a time.
    pub fn most_open(&self) -> u64 {
        match self.pace {
            Pace::Open(_) => self.most,
            Pace::Clients(clients) => clients.into(),
        }
    }

    /// Runs to the end of the course and until the last connection has ended. Sets `progress` as it goes; ends early, with
    /// the connections still open given up, once `stop` is true. `floods` are after its start.
    pub(crate) fn run(
        &self,
        course: &Course,
        topology: &Topology,
        floods: Option<Floods>,
        progress: &Arc<Progress>,
        stop: &AtomicBool,
    ) -> Result<Outcome> {
        let port = ports::TCP.saturating_add(course.number);
        let server = Server::start(topology, port, Service::Churn).context("the server")?;
        let shape = topology.shape();
        let run = || client::run(self, course, floods, (shape, port), progress, stop);
        let outcome = topology.clients().run(run)?.context("the clients")?;
        server.stop()?;
        Ok(outcome)
    }

    /// What the server is to do, as it stands at the begin of a request.
    pub(super) fn request(&self) -> [u8; REQUEST_BYTES] {
        let mut request = [0; REQUEST_BYTES];
        let (manner, wait) = match self.end {
            End::Close if self.hold.is_zero() => (Manner::Close, Duration::ZERO),
            End::Close | End::Reset => (Manner::Wait, Duration::ZERO),
            End::HalfClosed => (Manner::Delay, self.hold),
        };
        request[0] = manner as u8;
        request[1..9].copy_from_slice(&u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).to_be_bytes());
        request
    }
}

/// What the server does after its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Manner {
    /// Closes at once.
    Close = b'c',
    /// Answers what is asked further, and closes when the client has closed or reset.
    Wait = b'w',
    /// Closes some time after the client.
    Delay = b'd',
}

impl Manner {
    /// Of a request, with the time to wait.
    pub fn of(request: &[u8; REQUEST_BYTES]) -> Option<(Self, Duration)> {
        let manner = [Self::Close, Self::Wait, Self::Delay].into_iter().find(|manner| *manner as u8 == request[0])?;
        let millis = request[1..9].try_into().map(u64::from_be_bytes).ok()?;
        Some((manner, Duration::from_millis(millis)))
    }
}

/// Makes room for so many connections: each takes a file on both sides, and both sides are this process.
pub(crate) fn raise_file_limit(connections: u64) -> Result<()> {
    let needed = connections.saturating_mul(2).saturating_add(256);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("the limit of open files")?;
    if soft < needed {
        setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed))
            .with_context(|| format!("the limit of open files is {soft} and cannot be raised to {needed}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_reads_what_the_client_asks_for() {
        let asked = |end, millis| {
            let hold = Duration::from_millis(millis);
            Manner::of(&Connections { end, hold, ..Connections::default() }.request()).unwrap()
        };
        assert_eq!(asked(End::Close, 0), (Manner::Close, Duration::ZERO));
        assert_eq!(asked(End::Close, 1), (Manner::Wait, Duration::ZERO));
        assert_eq!(asked(End::Reset, 0), (Manner::Wait, Duration::ZERO));
        assert_eq!(asked(End::HalfClosed, 70_000), (Manner::Delay, Duration::from_secs(70)));
        assert_eq!(Manner::of(&[0; REQUEST_BYTES]), None);
    }
}
