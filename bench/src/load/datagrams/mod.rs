//! Loads of datagrams: flows of one each, one way or answered, and questions from a few sockets, as resolvers ask them.
//! Both ends are on one thread; the datagram itself says when it was sent.

mod pending;
mod socket;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use self::pending::{Pending, TIMEOUT};
use self::socket::Socket;
use super::{Course, Failure, Outcome, Progress, Rate, STOP_CHECK, Schedule, SplitMix64};
use crate::netns::{Shape, Topology};

/// Where the first load's datagrams go.
const SINK_PORT: u16 = 9_000;
/// First source port of the first load, and how many each load has.
const FIRST_PORT: u16 = 1_024;
const PORTS: u16 = 2_000;
/// Sockets that a load may have open.
pub(super) const MOST_SOCKETS: u64 = PORTS as u64;

/// Which address and port a datagram comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tuples {
    /// Each from another: all addresses of one port, then the next port.
    Distinct,
    /// From one of so many sockets, each of which sends for all addresses.
    Pool(u16),
}

/// What all datagrams of a load have in common.
struct Shared {
    progress: Arc<Progress>,
    figures: RefCell<Outcome>,
    pending: RefCell<Pending>,
    answered: bool,
    start: Instant,
    sink: Socket,
    /// Of the servers' side; after it nothing would be counted any more.
    broken: Cell<Option<std::io::Error>>,
}

/// A client's socket with the task that reads from it.
struct Client {
    socket: Rc<Socket>,
    reader: JoinHandle<()>,
    last_used: Instant,
}

/// Runs the load and waits for what is on its way.
pub(super) fn run(
    rate: &Rate,
    answered: bool,
    tuples: Tuples,
    course: &Course,
    topology: &Topology,
    progress: &Arc<Progress>,
    stop: &AtomicBool,
) -> Result<Outcome> {
    let shape = topology.shape();
    let port = SINK_PORT.saturating_add(course.number);
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let sink = topology.servers().run(|| socket::open(shape.listen(port)))?.context("the servers' socket")?;
    runtime.block_on(async {
        let mut schedule = Schedule::begin(rate, course);
        let shared = Rc::new(Shared {
            progress: Arc::clone(progress),
            figures: RefCell::new(Outcome::new()?),
            pending: RefCell::new(Pending::default()),
            answered,
            start: schedule.start(),
            sink: Socket::new(sink)?,
            broken: Cell::new(None),
        });
        let sink = Rc::clone(&shared);
        tokio::task::spawn_local(async move {
            let error = sink.serve().await;
            sink.broken.set(Some(error));
        });
        let watched = Rc::clone(&shared);
        tokio::task::spawn_local(async move {
            loop {
                sleep(STOP_CHECK).await;
                watched.expire();
            }
        });
        let target = shape.target(port);
        let mut clients = Clients::new(topology, course, tuples);
        while let Some(arrival) = schedule.next(&shared.progress, &shared.figures, stop).await {
            let (from, socket) = clients.next(arrival.source, &shared)?;
            let sent = shared.start.elapsed();
            shared.pending.borrow_mut().sent(sent);
            let micros = u64::try_from(sent.as_micros()).unwrap_or(u64::MAX);
            if let Err(error) = socket.send(&micros.to_be_bytes(), from, target).await {
                shared.pending.borrow_mut().done(sent);
                shared.fail(Failure::from(&error), 1);
            }
            if let Some(error) = shared.broken.take() {
                return Err(error).context("the servers' socket");
            }
        }
        while shared.progress.in_flight() > 0 && !stop.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(10)).await;
        }
        let figures = shared.figures.borrow().clone();
        Ok(Outcome { started: progress.started(), made: progress.made(), elapsed: shared.start.elapsed(), ..figures })
    })
}

impl Shared {
    /// Takes what arrives at the servers, until their socket breaks.
    async fn serve(&self) -> std::io::Error {
        loop {
            match self.sink.receive().await {
                Ok(datagram) if self.answered => {
                    // An answer that cannot be sent is one that does not come.
                    let _ = self.sink.send(&datagram.content, datagram.to, datagram.from).await;
                }
                Ok(datagram) => self.arrived(datagram.content),
                Err(error) => return error,
            }
        }
    }

    /// What was asked for has come.
    fn arrived(&self, content: [u8; 8]) {
        let sent = Duration::from_micros(u64::from_be_bytes(content));
        if self.pending.borrow_mut().done(sent) {
            self.progress.make(1);
            if self.answered {
                let took = self.start.elapsed().saturating_sub(sent);
                self.figures.borrow_mut().request.record(took);
            }
        }
    }

    fn expire(&self) {
        let lost = self.pending.borrow_mut().expire(self.start.elapsed());
        self.fail(Failure::Unanswered, lost);
    }

    fn fail(&self, failure: Failure, count: u64) {
        self.figures.borrow_mut().fail(failure, count);
        self.progress.fail(count);
    }
}

/// The clients' sockets: few, since one sends for all addresses of a port.
struct Clients<'t> {
    topology: &'t Topology,
    shape: Shape,
    first_port: u16,
    sources: u32,
    tuples: Tuples,
    random: SplitMix64,
    next: u64,
    open: BTreeMap<u16, Client>,
}

impl<'t> Clients<'t> {
    fn new(topology: &'t Topology, course: &Course, tuples: Tuples) -> Self {
        Self {
            topology,
            shape: topology.shape(),
            first_port: FIRST_PORT.saturating_add(course.number.saturating_mul(PORTS)),
            sources: course.sources.max(1),
            tuples,
            // Another sequence than that of the arrivals.
            random: SplitMix64(!course.seed),
            next: 0,
            open: BTreeMap::new(),
        }
    }

    /// Address and socket of the next datagram, for one that arrives from this source.
    fn next(&mut self, source: u32, shared: &Rc<Shared>) -> Result<(IpAddr, Rc<Socket>)> {
        let (address, port) = match self.tuples {
            Tuples::Distinct => distinct(self.next, self.sources),
            Tuples::Pool(sockets) => (source, u16::try_from(self.random.below(sockets.into())).unwrap_or(0)),
        };
        self.next += 1;
        let now = Instant::now();
        if !self.open.contains_key(&port) {
            // Those that nothing can come to any more.
            self.open.retain(|_, client| {
                let needed = self.tuples != Tuples::Distinct || now - client.last_used < 2 * TIMEOUT;
                if !needed {
                    client.reader.abort();
                }
                needed
            });
            let bound = self.shape.any(self.first_port.saturating_add(port));
            let socket = self.topology.clients().run(|| socket::open(bound))?.context("the clients' socket")?;
            let socket = Rc::new(Socket::new(socket)?);
            let (from, shared) = (Rc::clone(&socket), Rc::clone(shared));
            let reader = tokio::task::spawn_local(async move {
                while let Ok(datagram) = from.receive().await {
                    shared.arrived(datagram.content);
                }
            });
            self.open.insert(port, Client { socket, reader, last_used: now });
        }
        let client = self.open.get_mut(&port).context("the clients' socket is gone")?;
        client.last_used = now;
        Ok((self.shape.source(address), Rc::clone(&client.socket)))
    }
}

/// Address and port of the datagram with this number; past the last the first comes again.
fn distinct(number: u64, sources: u32) -> (u32, u16) {
    let sources = u64::from(sources);
    let address = u32::try_from(number % sources).unwrap_or(0);
    (address, u16::try_from(number / sources % u64::from(PORTS)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flow_has_its_own_tuple_until_all_were_used() {
        assert_eq!([distinct(0, 10), distinct(9, 10), distinct(10, 10)], [(0, 0), (9, 0), (0, 1)]);
        assert_eq!(distinct(10 * 2_000 - 1, 10), (9, 1_999));
        assert_eq!(distinct(10 * 2_000, 10), (0, 0));
    }
}
