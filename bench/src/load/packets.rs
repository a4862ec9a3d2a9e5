//! Loads of packets that no socket makes: SYN floods and scans. What was sent counts as made, since nobody goes on.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use tokio::runtime::Builder;
use tokio::time::sleep;

use super::{Arrival, Course, Outcome, Progress, Rate, Schedule};
use crate::netns::{Shape, Topology};
use crate::packet::{self, RawSocket};
use crate::syn::Syns;

/// Ports that are scanned; nobody listens there.
const FIRST_PORT: u16 = 10_000;
const PORTS: u64 = 10_000;
/// Where a scan's packets come from.
const FROM_PORT: u16 = 40_000;
/// How long a full queue is given.
const PAUSE: Duration = Duration::from_millis(1);

/// What a scan sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// SYNs, which are answered by resets.
    Tcp,
    /// Datagrams, some of which are answered by ICMP errors (the kernel limits their rate).
    Udp,
}

/// Sends SYNs that nobody completes.
pub(super) fn flood(
    rate: &Rate,
    answered: bool,
    course: &Course,
    topology: &Topology,
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<Outcome> {
    let mut syns = Syns::open(topology, answered, course.sources, course.number)?;
    run(rate, course, progress, stop, |_| syns.send_one())
}

/// Sends packets to one closed port after the other.
pub(super) fn scan(
    rate: &Rate,
    protocol: Protocol,
    course: &Course,
    topology: &Topology,
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<Outcome> {
    let (socket, shape) = (RawSocket::open(topology)?, topology.shape());
    let mut next = 0;
    run(rate, course, progress, stop, |arrival| {
        let (from, to) = ends(shape, course.number, arrival.source, next);
        let packet = match protocol {
            Protocol::Tcp => packet::syn(from, to),
            Protocol::Udp => packet::datagram(from, to),
        };
        let sent = socket.send(&packet?, to.ip())?;
        next += u64::from(sent);
        Ok(sent)
    })
}

/// From where and to where the packet with this number goes.
fn ends(shape: Shape, load: u16, source: u32, number: u64) -> (SocketAddr, SocketAddr) {
    let port = FIRST_PORT.saturating_add(u16::try_from(number % PORTS).unwrap_or(0));
    ((shape.source(source), FROM_PORT.saturating_add(load)).into(), shape.target(port))
}

fn run(
    rate: &Rate,
    course: &Course,
    progress: &Progress,
    stop: &AtomicBool,
    mut send: impl FnMut(&Arrival) -> Result<bool>,
) -> Result<Outcome> {
    let figures = RefCell::new(Outcome::new()?);
    let mut schedule = Schedule::begin(rate, course);
    let start = schedule.start();
    Builder::new_current_thread().enable_time().build()?.block_on(async {
        while let Some(arrival) = schedule.next(progress, &figures, stop).await {
            while !send(&arrival)? {
                // A queue may stay full for as long as it likes.
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                sleep(PAUSE).await;
            }
            progress.make(1);
        }
        Ok::<_, anyhow::Error>(())
    })?;
    let figures = figures.into_inner();
    Ok(Outcome { started: progress.started(), made: progress.made(), elapsed: start.elapsed(), ..figures })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_whose_queue_stays_full_ends_when_it_is_told_to() {
        let course = Course { duration: Duration::from_hours(1), sources: 1, seed: 1, number: 0 };
        let (progress, stop) = (Progress::default(), AtomicBool::new(false));
        let outcome = run(&Rate::constant(1_000.0), &course, &progress, &stop, |_| {
            stop.store(true, Ordering::Relaxed);
            Ok(false)
        });
        let outcome = outcome.unwrap();
        assert_eq!((outcome.started, outcome.made), (1, 0));
    }

    #[test]
    fn a_scan_goes_through_closed_ports_and_two_scans_differ() {
        let shown = |load, number| {
            let (from, to) = ends(Shape::default(), load, 1, number);
            format!("{from} {to}")
        };
        assert_eq!(shown(0, 0), "198.19.0.2:40000 198.18.0.6:10000");
        assert_eq!(shown(3, 9_999), "198.19.0.2:40003 198.18.0.6:19999");
        assert_eq!(shown(0, 10_000), shown(0, 0));
    }
}
