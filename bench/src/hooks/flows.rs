//! New UDP flows on a loopback, and their end.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use super::clock;
use crate::ctnetlink;
use bench::conntrack;

/// Where the datagrams go.
const SINK: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
/// Where they come from: one port a flow, below the ports that the kernel chooses by itself.
const FIRST_PORT: u16 = 10_000;
const PORTS: u16 = 20_000;
/// Bytes that the sink may hold: a whole batch.
const BUFFER: usize = 8 << 20;
/// When an entry times out, in seconds.
const TIMEOUT: &str = "1";
const TIMEOUT_FILE: &str = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout";
/// After that it has; the clock leaps over it.
const TIMED_OUT: Duration = Duration::from_millis(1200);
/// How often a batch is made again when the kernel's own collector, which comes once a minute, was there first.
const TRIES: u32 = 5;

/// Makes flows, batch by batch. Lives in one network namespace, which tracks.
pub(super) struct Flows {
    sink: UdpSocket,
    made: u16,
}

/// Instructions of one batch, all its flows together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    /// For each flow `sendto` of four bytes from a socket that is bound to a port without an entry.
    pub insert: u64,
    /// One dump of the namespace's table, whose entries have all timed out: it removes them and shows nothing.
    pub destroy: u64,
}

impl Flows {
    /// Opens the sink in the calling thread's namespace.
    pub fn open() -> Result<Self> {
        fs::write(TIMEOUT_FILE, TIMEOUT).context(TIMEOUT_FILE)?;
        let sink = UdpSocket::bind(SINK).with_context(|| format!("cannot open {SINK}"))?;
        sink.set_nonblocking(true)?;
        setsockopt(&sink, sockopt::RcvBufForce, &BUFFER).context("cannot enlarge the sink's buffer")?;
        Ok(Self { sink, made: 0 })
    }

    /// Makes `count` flows and removes them after their time.
    pub fn batch(&mut self, count: u16) -> Result<Life> {
        for _ in 0..TRIES {
            let insert = self.insert(count)?;
            thread::sleep(TIMED_OUT);
            // Whoever removed them in the meantime was not counted.
            let untouched = conntrack::count()? == u64::from(count);
            let (destroy, ()) = clock::count(ctnetlink::reap)?;
            let left = conntrack::count()?;
            ensure!(left == 0, "{left} of {count} entries are still there after their timeout");
            if untouched {
                return Ok(Life { insert, destroy });
            }
        }
        bail!("{TRIES} times in a row somebody else removed entries that had timed out")
    }

    fn insert(&mut self, count: u16) -> Result<u64> {
        let first = self.made;
        self.made = (self.made + count) % PORTS;
        // Opened before: a socket costs as much as the flow, and it is freed later, whenever RCU comes to it.
        let ports = (0..count).map(|n| FIRST_PORT + (first + n) % PORTS);
        let sockets: Vec<UdpSocket> = ports.map(open).collect::<Result<_>>()?;
        let send = |socket: &UdpSocket| socket.send_to(b"flow", SINK).map(drop);
        let (instructions, ()) = clock::count(|| Ok(sockets.iter().try_for_each(send)?))?;
        let entries = conntrack::count()?;
        ensure!(entries == u64::from(count), "{count} flows made {entries} entries");
        self.drain(count)?;
        Ok(instructions)
    }

    fn drain(&self, expected: u16) -> Result<()> {
        let mut received = 0;
        loop {
            match self.sink.recv(&mut [0; 8]) {
                Ok(_) => received += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("the sink"),
            }
        }
        ensure!(received == expected, "{received} of {expected} datagrams arrived");
        Ok(())
    }
}

fn open(port: u16) -> Result<UdpSocket> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).with_context(|| format!("cannot open port {port}"))
}
