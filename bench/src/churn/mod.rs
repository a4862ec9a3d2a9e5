//! Connection churn: real TCP connections through a [`Topology`]: connect, request, reply, close, or another end. Open loop:
//! started at the times of a schedule whether or not earlier ones have ended, so that a slow gateway cannot slow its own load
//! down. Closed loop: so many clients, each starting its next when the last has ended.

mod client;
mod connections;
mod server;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;

pub(crate) use self::connections::raise_file_limit;
pub use self::connections::{Connections, End, Pace};
pub(crate) use self::server::{Server, Service};
use crate::load::Course;
pub use crate::load::{Distribution, Failure, Outcome, Progress, Rate};
use crate::netns::{MAX_SOURCES, Topology};

/// After this long without an answer a connect has failed. The kernel sends the SYN at 0 s, 1 s and 3 s: a connection
/// whose first SYN was dropped still gets a second chance.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// After this long without the whole reply a request has failed.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections open at a time where nothing else is said; an arrival beyond is counted as [`Failure::TooMany`].
pub const MAX_IN_FLIGHT: u64 = 8_192;
/// Bytes of a request.
pub const REQUEST_BYTES: usize = 64;
/// Bytes of a reply.
pub const REPLY_BYTES: usize = 256;

/// One load.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Churn {
    /// Mean of new connections a second, within [`Churn::RATES`].
    pub rate: u32,
    /// For how long connections are started, within [`Churn::DURATIONS`]. Those started last may end [`CONNECT_TIMEOUT`] +
    /// [`REQUEST_TIMEOUT`] later.
    pub duration: Duration,
    /// Client addresses, within [`Churn::SOURCES`], taken at random.
    pub sources: u32,
    /// Starts the random sequence of times and addresses: the same seed gives the same sequence.
    pub seed: u64,
}

impl Default for Churn {
    fn default() -> Self {
        Self { rate: 500, duration: Duration::from_secs(10), sources: 4_096, seed: 1 }
    }
}

impl Churn {
    /// Rates that can be asked for, connections a second.
    pub const RATES: RangeInclusive<u32> = 1..=50_000;
    /// For how long a load may last.
    pub const DURATIONS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_hours(1);
    /// How many client addresses it may use.
    pub const SOURCES: RangeInclusive<u32> = 1..=MAX_SOURCES;

    /// Runs the load and waits until its last connection has ended. Sets `progress` as it goes; ends early, with the
    /// connections still open given up, once `stop` is true.
    pub fn run(&self, topology: &Topology, progress: &Arc<Progress>, stop: &AtomicBool) -> Result<Outcome> {
        self.check()?;
        let connections = Connections { pace: Pace::Open(Rate::constant(self.rate.into())), ..Connections::default() };
        raise_file_limit(connections.most_open())?;
        let Self { duration, sources, seed, .. } = *self;
        connections.run(&Course { duration, sources, seed, number: 0 }, topology, None, progress, stop)
    }

    fn check(&self) -> Result<()> {
        if !Self::RATES.contains(&self.rate) {
            bail!("a rate of {} connections a second: it must be 1 to 50000", self.rate);
        }
        if !Self::DURATIONS.contains(&self.duration) {
            bail!("a duration of {:?}: it must be 100 ms to 1 h", self.duration);
        }
        if !Self::SOURCES.contains(&self.sources) {
            bail!("{} sources: it must be 1 to {MAX_SOURCES}", self.sources);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_out_of_range_are_refused_by_name() {
        let refusal = |churn: Churn| churn.check().unwrap_err().to_string();
        let fine = Churn::default();
        assert!(fine.check().is_ok());
        assert_eq!(refusal(Churn { rate: 0, ..fine }), "a rate of 0 connections a second: it must be 1 to 50000");
        assert_eq!(refusal(Churn { sources: 65_535, ..fine }), "65535 sources: it must be 1 to 65534");
        assert_eq!(
            refusal(Churn { duration: Duration::from_hours(2), ..fine }),
            "a duration of 7200s: it must be 100 ms to 1 h"
        );
    }
}
