//! Starts the connections and counts what becomes of them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::REQUEST_TIMEOUT;
use super::arrivals::Arrivals;
use super::outcome::Recorder;
use super::server::ADDRESS;
use super::{CONNECT_TIMEOUT, Churn, Failure, MAX_IN_FLIGHT, Outcome, Progress, REPLY_BYTES, REQUEST_BYTES};
use crate::netns::source;

/// How often a waiting load looks whether it is to stop.
const STOP_CHECK: Duration = Duration::from_millis(100);
/// Late connections that are started in one go before others get their turn.
const BATCH: u32 = 32;

/// What the connections of one load have in common; all of them run on one thread.
struct Shared {
    progress: Arc<Progress>,
    figures: RefCell<Figures>,
}

struct Figures {
    failed: BTreeMap<Failure, u64>,
    connect: Recorder,
    lateness: Recorder,
}

/// Runs the load on the calling thread, in its network namespace.
pub(super) fn run(churn: &Churn, progress: &Arc<Progress>, stop: &AtomicBool) -> Result<Outcome> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(load(churn, progress, stop))
}

async fn load(churn: &Churn, progress: &Arc<Progress>, stop: &AtomicBool) -> Result<Outcome> {
    let figures = Figures { failed: BTreeMap::new(), connect: Recorder::new()?, lateness: Recorder::new()? };
    let shared = Rc::new(Shared { progress: Arc::clone(progress), figures: RefCell::new(figures) });
    let start = Instant::now();
    let mut in_a_row = 0;
    for arrival in Arrivals::new(churn) {
        let due = start + arrival.at;
        if !wait_until(due, stop).await {
            break;
        }
        if due.elapsed() > Duration::from_millis(1) && in_a_row < BATCH {
            in_a_row += 1;
        } else {
            in_a_row = 0;
            tokio::task::yield_now().await;
        }
        shared.figures.borrow_mut().lateness.record(due.elapsed());
        let in_flight = progress.in_flight();
        progress.started.fetch_add(1, Ordering::Relaxed);
        if in_flight >= MAX_IN_FLIGHT {
            shared.count(Err(Failure::TooMany));
            continue;
        }
        let shared = Rc::clone(&shared);
        tokio::task::spawn_local(async move {
            let outcome = connection(&shared, arrival.source).await;
            shared.count(outcome);
        });
    }
    // Every connection ends by itself, at its timeouts if need be.
    while progress.in_flight() > 0 && !stop.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(10)).await;
    }
    let figures = shared.figures.borrow();
    Ok(Outcome {
        started: progress.started(),
        made: progress.made(),
        failed: figures.failed.clone(),
        connect: figures.connect.summary(),
        lateness: figures.lateness.summary(),
        elapsed: start.elapsed(),
    })
}

/// False when the load is to stop.
async fn wait_until(due: Instant, stop: &AtomicBool) -> bool {
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        if due <= now {
            return true;
        }
        sleep_until(due.min(now + STOP_CHECK)).await;
    }
    false
}

impl Shared {
    fn count(&self, outcome: Result<(), Failure>) {
        match outcome {
            Ok(()) => {
                self.progress.made.fetch_add(1, Ordering::Relaxed);
            }
            Err(failure) => {
                *self.figures.borrow_mut().failed.entry(failure).or_default() += 1;
                self.progress.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// One connection: connect, request, reply, close.
async fn connection(shared: &Shared, from: u32) -> Result<(), Failure> {
    let socket = socket(from).map_err(|error| Failure::from(&error))?;
    let start = Instant::now();
    let mut stream = timeout_at(start + CONNECT_TIMEOUT, socket.connect(ADDRESS.into()))
        .await
        .map_err(|_| Failure::ConnectTimeout)?
        .map_err(|error| Failure::from(&error))?;
    shared.figures.borrow_mut().connect.record(start.elapsed());
    match timeout(REQUEST_TIMEOUT, request(&mut stream)).await {
        Err(_) => Err(Failure::RequestTimeout),
        // A connection that stood and then timed out in the kernel is a request that failed.
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Err(Failure::RequestTimeout),
        Ok(outcome) => outcome.map_err(|error| Failure::from(&error)),
    }
}

/// A socket bound to a client address; the port is chosen at connect, so that one port serves for many addresses.
fn socket(from: u32) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    socket.bind(SocketAddr::from((source(from), 0)))?;
    Ok(socket)
}

async fn request(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(&[b'q'; REQUEST_BYTES]).await?;
    // One byte more than a reply has: the read that finds none is the server's close.
    let mut reply = [0; REPLY_BYTES + 1];
    let mut read = 0;
    while read < reply.len() {
        match stream.read(&mut reply[read..]).await? {
            0 => break,
            more => read += more,
        }
    }
    if read == REPLY_BYTES { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
