//! What a load is: traffic of one kind from a start on, at a rate that may change, from so many addresses.

mod arrivals;
mod datagrams;
mod floods;
mod outcome;
mod packets;
mod progress;
mod rate;
mod schedule;
mod wrk;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

pub use self::arrivals::SplitMix64;
pub(crate) use self::arrivals::{Arrival, Arrivals};
use self::datagrams::Tuples;
pub use self::floods::{Floods, UnderFlood};
pub use self::outcome::{Distribution, Failure, Outcome};
pub use self::packets::Protocol;
pub use self::progress::Progress;
pub use self::rate::{Point, Rate};
pub(crate) use self::schedule::{Schedule, wait_until};
pub(crate) use self::wrk::answer as answer_http;
use crate::churn::Connections;
use crate::netns::{Kind, Tool, Topology};

/// How often a waiting load looks whether it is to stop.
pub(crate) const STOP_CHECK: Duration = Duration::from_millis(100);

/// One load of a scenario.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Load {
    /// What it is called in the results.
    pub name: String,
    /// When it starts, after the start of the scenario.
    pub start: Duration,
    /// What every kind of traffic has.
    #[serde(flatten)]
    pub course: Course,
    /// What it sends.
    pub traffic: Traffic,
}

/// What the loads of all kinds have in common.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Course {
    /// For how long it starts connections, flows or packets.
    pub duration: Duration,
    /// Client addresses that it uses.
    pub sources: u32,
    /// Starts the random sequence of times and addresses: the same seed gives the same sequence.
    pub seed: u64,
    /// Number of the load in its scenario, from 0: loads that run at the same time have ports of their own.
    pub number: u16,
}

/// What a load sends.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Traffic {
    /// Whole TCP connections.
    Tcp(Connections),
    /// Datagrams, each of a flow of its own.
    Udp {
        /// How many a second.
        rate: Rate,
        /// Whether each is answered once; else it is one-way traffic.
        answered: bool,
    },
    /// Questions and answers of one datagram each, from a few sockets.
    Dns {
        /// How many a second.
        rate: Rate,
        /// Source ports; each is used with all addresses.
        sockets: u16,
    },
    /// SYNs that nobody completes.
    Syn {
        /// How many a second.
        rate: Rate,
        /// Whether they are answered (entries in SYN_RECV, else in SYN_SENT).
        answered: bool,
    },
    /// Packets to one closed port after the other.
    Scan {
        /// How many a second.
        rate: Rate,
        /// What they are.
        protocol: Protocol,
    },
    /// What the program wrk sends: requests over HTTP, each on a connection of its own.
    Wrk {
        /// Connections at a time: a closed loop.
        clients: u32,
    },
}

impl Traffic {
    /// How fast it starts what it sends; `None` for a closed loop.
    pub fn rate(&self) -> Option<&Rate> {
        match self {
            Self::Tcp(connections) => connections.pace.rate(),
            Self::Udp { rate, .. } | Self::Dns { rate, .. } | Self::Syn { rate, .. } | Self::Scan { rate, .. } => {
                Some(rate)
            }
            Self::Wrk { .. } => None,
        }
    }

    /// Why it cannot be sent through a topology of this kind, and the way out.
    pub(crate) fn goes_with(&self, kind: Kind) -> Result<(), &'static str> {
        match (kind, self) {
            (Kind::Host | Kind::Haproxy, Self::Syn { answered: false, .. }) => Err(
                "SYNs that a host does not answer make no entries in its own table; remove `answered`, or let `topology.kind` \
                 be another",
            ),
            (Kind::Haproxy, Self::Udp { .. } | Self::Dns { .. }) => {
                Err("haproxy balances TCP alone; remove the load, or let `topology.kind` be another")
            }
            _ => Ok(()),
        }
    }

    /// The program that has to be installed for it.
    pub(crate) fn tool(&self) -> Option<Tool> {
        matches!(self, Self::Wrk { .. }).then_some(wrk::WRK)
    }

    /// What may be open at a time, each with a file on both sides.
    pub(crate) fn most_open(&self) -> u64 {
        match self {
            Self::Tcp(connections) => connections.most_open(),
            Self::Udp { .. } | Self::Dns { .. } => datagrams::MOST_SOCKETS,
            Self::Syn { .. } | Self::Scan { .. } => 1,
            Self::Wrk { clients } => (*clients).into(),
        }
    }
}

impl Load {
    /// Waits for its start, runs to its end and waits for what it has started. Counts in `progress` as it goes; ends early,
    /// with what is open given up, once `stop` is true. What TCP connections do under the `floods` of the scenario is counted
    /// by itself as well.
    pub fn run(
        &self,
        topology: &Topology,
        floods: Option<&Floods>,
        progress: &Arc<Progress>,
        stop: &AtomicBool,
    ) -> Result<Outcome> {
        if !wait(self.start, stop) {
            return Outcome::new();
        }
        let course = &self.course;
        match &self.traffic {
            Traffic::Tcp(connections) => {
                let floods = floods.map(|floods| floods.after(self.start));
                connections.run(course, topology, floods, progress, stop)
            }
            Traffic::Udp { rate, answered } => {
                datagrams::run(rate, *answered, Tuples::Distinct, course, topology, progress, stop)
            }
            Traffic::Dns { rate, sockets } => {
                datagrams::run(rate, true, Tuples::Pool(*sockets), course, topology, progress, stop)
            }
            Traffic::Syn { rate, answered } => packets::flood(rate, *answered, course, topology, progress, stop),
            Traffic::Scan { rate, protocol } => packets::scan(rate, *protocol, course, topology, progress, stop),
            Traffic::Wrk { clients } => wrk::run(*clients, course, topology, progress, stop),
        }
    }
}

/// False when the load is to stop.
fn wait(time: Duration, stop: &AtomicBool) -> bool {
    let start = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let left = time.saturating_sub(start.elapsed());
        if left.is_zero() {
            return true;
        }
        thread::sleep(left.min(STOP_CHECK));
    }
    false
}
