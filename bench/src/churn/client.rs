//! Starts the connections and counts what becomes of them.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
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

use super::{
    CONNECT_TIMEOUT, Connections, End, Failure, Outcome, Pace, Progress, REPLY_BYTES, REQUEST_BYTES, REQUEST_TIMEOUT,
};
use crate::load::{Course, Floods, Schedule, SplitMix64, UnderFlood, wait_until};
use crate::netns::Shape;

/// What a client of a closed loop waits after a failure: one that comes at once must not become a busy loop.
const PAUSE: Duration = Duration::from_millis(100);

/// What the connections of one load have in common; all of them run on one thread.
struct Shared {
    progress: Arc<Progress>,
    figures: RefCell<Outcome>,
    shape: Shape,
    target: SocketAddr,
    request: [u8; REQUEST_BYTES],
    end: End,
    hold: Duration,
    every: Option<Duration>,
    /// When others flood, after `start`.
    floods: Option<Floods>,
    /// When the load began.
    start: Instant,
    /// When the load is over: then nothing is held any more.
    over: Instant,
    stopped: Cell<bool>,
}

/// Runs the load on the calling thread, in its network namespace.
pub(super) fn run(
    connections: &Connections,
    course: &Course,
    floods: Option<Floods>,
    (shape, port): (Shape, u16),
    progress: &Arc<Progress>,
    stop: &AtomicBool,
) -> Result<Outcome> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let start = Instant::now();
        let under_flood = floods.as_ref().map(|_| UnderFlood::default());
        let shared = Rc::new(Shared {
            progress: Arc::clone(progress),
            figures: RefCell::new(Outcome { under_flood, ..Outcome::new()? }),
            shape,
            target: shape.target(port),
            request: connections.request(),
            end: connections.end,
            hold: connections.hold,
            every: connections.every,
            floods,
            start,
            over: start + course.duration,
            stopped: Cell::new(false),
        });
        match &connections.pace {
            Pace::Open(rate) => {
                let schedule = Schedule::begin_under(shared.floods.clone(), rate, course);
                open_loop(&shared, schedule, connections.most, stop).await;
            }
            Pace::Clients(clients) => closed_loop(&shared, *clients, course, stop).await,
        }
        // Every connection ends by itself, at its timeouts if need be.
        while progress.open() > 0 && !stop.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(10)).await;
        }
        let figures = shared.figures.borrow().clone();
        Ok(Outcome { started: progress.started(), made: progress.made(), elapsed: start.elapsed(), ..figures })
    })
}

async fn open_loop(shared: &Rc<Shared>, mut schedule: Schedule, most: u64, stop: &AtomicBool) {
    while let Some(arrival) = schedule.next(&shared.progress, &shared.figures, stop).await {
        // It counts as started already.
        if shared.progress.open() > most {
            shared.count(arrival.at, Err(Failure::TooMany));
            continue;
        }
        let shared = Rc::clone(shared);
        tokio::task::spawn_local(async move {
            connection(&shared, arrival.at, arrival.source).await;
        });
    }
}

async fn closed_loop(shared: &Rc<Shared>, clients: u32, course: &Course, stop: &AtomicBool) {
    for client in 0..clients {
        let (shared, sources) = (Rc::clone(shared), course.sources);
        let mut random = SplitMix64(SplitMix64(course.seed ^ u64::from(client)).bits());
        tokio::task::spawn_local(async move {
            while !shared.stopped.get() && Instant::now() < shared.over {
                let at = shared.start.elapsed();
                shared.progress.start(1);
                shared.count_under_flood(at, |counts| counts.started += 1);
                if !connection(&shared, at, random.below(sources)).await {
                    sleep(PAUSE).await;
                }
            }
        });
    }
    wait_until(shared.over, stop).await;
    shared.stopped.set(true);
}

impl Shared {
    /// What became of a connection that was to start `at` this time.
    fn count(&self, at: Duration, outcome: Result<(), Failure>) {
        match outcome {
            Ok(()) => {
                self.progress.make(1);
                self.count_under_flood(at, |counts| counts.made += 1);
            }
            Err(failure) => {
                self.figures.borrow_mut().fail(failure, 1);
                self.progress.fail(1);
            }
        }
    }

    fn count_under_flood(&self, at: Duration, count: impl FnOnce(&mut UnderFlood)) {
        self.figures.borrow_mut().count_under(self.floods.as_ref(), at, count);
    }
}

/// One connection from connect to close, due `at` this time after the load's start; whether its replies came.
async fn connection(shared: &Shared, at: Duration, from: u32) -> bool {
    match replies(shared, from).await {
        Ok((stream, over)) => {
            let held = (!shared.hold.is_zero()).then(|| shared.progress.hold());
            shared.count(at, Ok(()));
            end(shared, stream, over).await;
            drop(held);
            true
        }
        Err(failure) => {
            shared.count(at, Err(failure));
            false
        }
    }
}

/// Connect, request, reply, and all further requests; with the time up to which the connection is kept.
async fn replies(shared: &Shared, from: u32) -> Result<(TcpStream, Instant), Failure> {
    let mut stream = reply(shared, from).await?;
    let start = Instant::now();
    let over = shared.over.min(start + shared.hold);
    if let Some(every) = shared.every {
        // Due at fixed times, so that a reply that comes late puts off none that follow.
        let mut due = start + every;
        while due < over {
            sleep_until(due).await;
            let at = due - shared.start;
            shared.figures.borrow_mut().asked += 1;
            shared.count_under_flood(at, |counts| counts.asked += 1);
            ask(shared, &mut stream).await?;
            shared.figures.borrow_mut().answered += 1;
            shared.count_under_flood(at, |counts| counts.answered += 1);
            due += every;
        }
    }
    Ok((stream, over))
}

/// Connect, request, reply.
async fn reply(shared: &Shared, from: u32) -> Result<TcpStream, Failure> {
    let socket = socket(shared.shape.source(from)).map_err(|error| Failure::from(&error))?;
    let start = Instant::now();
    let mut stream = timeout_at(start + CONNECT_TIMEOUT, socket.connect(shared.target))
        .await
        .map_err(|_| Failure::ConnectTimeout)?
        .map_err(|error| Failure::from(&error))?;
    shared.figures.borrow_mut().connect.record(start.elapsed());
    ask(shared, &mut stream).await?;
    Ok(stream)
}

/// A request and its whole reply.
async fn ask(shared: &Shared, stream: &mut TcpStream) -> Result<(), Failure> {
    let start = Instant::now();
    match timeout(REQUEST_TIMEOUT, request(shared, stream)).await {
        Err(_) => return Err(Failure::RequestTimeout),
        // A connection that stood and then timed out in the kernel is a request that failed.
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => return Err(Failure::RequestTimeout),
        Ok(outcome) => outcome.map_err(|error| Failure::from(&error))?,
    }
    shared.figures.borrow_mut().request.record(start.elapsed());
    Ok(())
}

/// A socket bound to a client address; the port is chosen at connect, so that one port serves for many addresses.
fn socket(from: IpAddr) -> io::Result<TcpSocket> {
    let socket = if from.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    socket.bind(SocketAddr::from((from, 0)))?;
    Ok(socket)
}

async fn request(shared: &Shared, stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(&shared.request).await?;
    let mut reply = [0; REPLY_BYTES];
    stream.read_exact(&mut reply).await?;
    if shared.end == End::Close && shared.hold.is_zero() {
        // The server closes first; a byte more would be no reply of its.
        match stream.read(&mut reply).await? {
            0 => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    } else {
        Ok(())
    }
}

/// Keeps the connection as long as it is to be held, and ends it. What goes wrong with it now, after the last reply, is not
/// counted: the request was served.
async fn end(shared: &Shared, mut stream: TcpStream, over: Instant) {
    match shared.end {
        End::Close => sleep_until(over).await,
        End::Reset => {
            // First: it is closed with a reset then also where the load ends before the task does.
            let _ = setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
            sleep_until(over).await;
        }
        End::HalfClosed => {
            let _ = stream.shutdown().await;
            // The server's FIN comes when the hold is over.
            let _ = timeout_at(over + REQUEST_TIMEOUT, stream.read(&mut [0])).await;
        }
    }
}
