//! UDP flows, one datagram each: the cheapest way to a given number of new entries.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg, setsockopt, sockopt};
use serde::Serialize;

use crate::netns::{MAX_SOURCES, SERVER, Topology, source};

/// Where the datagrams go.
const SINK: SocketAddrV4 = SocketAddrV4::new(SERVER, 9);
/// First source port.
const FIRST_PORT: u16 = 20_000;
/// Most flows: 128 ports of all client addresses.
const MAX_FLOWS: u64 = 128 * MAX_SOURCES as u64;
/// Datagrams sent before the next look at what arrived: few enough for every queue on the way, so that what is missing was
/// dropped by the gateway's table and not by a buffer.
const BATCH: u64 = 256;
/// When nothing has arrived for so long, what is missing was dropped.
const PATIENCE: Duration = Duration::from_millis(50);
/// Bytes that each socket may hold.
const BUFFER: usize = 4 << 20;

/// New flows from the clients to the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flows {
    /// Number of the first flow. A flow's number gives its address and port, so two calls whose numbers do not overlap
    /// make different flows.
    pub first: u64,
    /// How many flows.
    pub count: u64,
    /// Whether the servers answer each datagram with another, which makes an entry replied.
    pub answered: bool,
}

/// What became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Delivered {
    /// Datagrams sent, one a flow.
    pub sent: u64,
    /// Datagrams that arrived at the servers; what is missing was dropped on the way.
    pub arrived: u64,
    /// Answers that arrived at the clients.
    pub answers: u64,
}

impl Flows {
    /// Flows `first` to `first + count - 1`, one way.
    pub fn one_way(first: u64, count: u64) -> Self {
        Self { first, count, answered: false }
    }

    /// Flows `first` to `first + count - 1`, each answered once.
    pub fn answered(first: u64, count: u64) -> Self {
        Self { first, count, answered: true }
    }

    /// Sends the datagrams as fast as they arrive and returns once all have arrived or are lost.
    pub fn send(self, topology: &Topology) -> Result<Delivered> {
        let end = self.first.saturating_add(self.count);
        if end > MAX_FLOWS {
            bail!("flows {} to {end}: there are only {MAX_FLOWS}", self.first);
        }
        let sink = topology.servers().run(|| open(SINK))?.context("the servers' socket")?;
        let mut delivered = Delivered::default();
        let mut numbers = self.first..end;
        while !numbers.is_empty() {
            let port = tuple(numbers.start).1;
            // One socket sends for all addresses of a port: a socket for each flow would cost more than the flow.
            let wildcard = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
            let client = topology.clients().run(|| open(wildcard))?.context("the clients' socket")?;
            while !numbers.is_empty() && tuple(numbers.start).1 == port {
                let before = delivered;
                for number in numbers.by_ref().take(usize::try_from(BATCH)?) {
                    let address = tuple(number).0;
                    send_from(&client, address).with_context(|| format!("from {address}:{port}"))?;
                    delivered.sent += 1;
                    if tuple(number + 1).1 != port {
                        break;
                    }
                }
                self.collect(&sink, &client, before, &mut delivered)?;
            }
        }
        Ok(delivered)
    }

    /// Takes in what arrives of the batch sent since `before`, until all is there or nothing has come for a while.
    fn collect(self, sink: &UdpSocket, client: &UdpSocket, before: Delivered, delivered: &mut Delivered) -> Result<()> {
        let sent = delivered.sent - before.sent;
        let mut last_arrival = Instant::now();
        let mut datagram = [0; 64];
        loop {
            let mut some = false;
            while let Some((_, from)) = nothing_yet(sink.recv_from(&mut datagram))? {
                some = true;
                delivered.arrived += 1;
                if self.answered {
                    sink.send_to(b"answer", from).with_context(|| format!("the answer to {from}"))?;
                }
            }
            while nothing_yet(client.recv(&mut datagram))?.is_some() {
                some = true;
                delivered.answers += 1;
            }
            let answers = if self.answered { delivered.arrived - before.arrived } else { 0 };
            if delivered.arrived - before.arrived >= sent && delivered.answers - before.answers >= answers {
                return Ok(());
            }
            if some {
                last_arrival = Instant::now();
            } else if last_arrival.elapsed() > PATIENCE {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Address and port of a flow: all addresses of one port, then the next port.
fn tuple(number: u64) -> (Ipv4Addr, u16) {
    let address = u32::try_from(number % u64::from(MAX_SOURCES)).unwrap_or(0);
    let port = u16::try_from(number / u64::from(MAX_SOURCES)).unwrap_or(0);
    (source(address), FIRST_PORT.saturating_add(port))
}

/// A socket in the calling thread's namespace.
fn open(address: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket =
        UdpSocket::bind(address).map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
    socket.set_nonblocking(true)?;
    // Beyond net.core.rmem_max, which only root may.
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
    Ok(socket)
}

/// Sends one datagram with the given source address.
fn send_from(socket: &UdpSocket, from: Ipv4Addr) -> io::Result<()> {
    let information = libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr { s_addr: from.to_bits().to_be() },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    let control = [ControlMessage::Ipv4PacketInfo(&information)];
    let to = SockaddrIn::from(SINK);
    loop {
        let sent = sendmsg(socket.as_raw_fd(), &[IoSlice::new(b"flow")], &control, MsgFlags::empty(), Some(&to));
        match sent {
            Ok(_) => return Ok(()),
            // The socket's own send buffer is full.
            Err(nix::Error::EAGAIN) => thread::sleep(Duration::from_millis(1)),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// `None` where a read would have to wait.
fn nothing_yet<T>(outcome: io::Result<T>) -> Result<Option<T>> {
    match outcome {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flow_has_its_own_tuple() {
        let all = u64::from(MAX_SOURCES);
        assert_eq!(tuple(0), (source(0), 20_000));
        assert_eq!(tuple(all - 1), (source(MAX_SOURCES - 1), 20_000));
        assert_eq!(tuple(all), (source(0), 20_001));
        assert_eq!(tuple(MAX_FLOWS - 1), (source(MAX_SOURCES - 1), 20_127));
    }
}
