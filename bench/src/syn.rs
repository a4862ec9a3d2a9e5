//! SYNs of connections that nobody completes: what a gateway sees of a SYN flood.

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::netns::{Kind, MAX_SOURCES, Shape, Topology};
use crate::packet::{self, RawSocket};
use crate::ports;

/// First source port, and how many there are.
const FIRST_PORT: u16 = 20_000;
const PORTS: u64 = 40_000;

/// Sends one SYN after another, each from another address and port.
#[derive(Debug)]
pub struct Syns {
    socket: RawSocket,
    /// Answers while it is open.
    _listener: Option<TcpListener>,
    shape: Shape,
    sources: u32,
    port: u16,
    next: u64,
}

impl Syns {
    /// To where nobody answers: entries in SYN_SENT.
    pub fn unanswered(topology: &Topology) -> Result<Self> {
        Self::open(topology, false, MAX_SOURCES, 0)
    }

    /// To a server that answers, from where nobody goes on: entries in SYN_RECV.
    pub fn answered(topology: &Topology) -> Result<Self> {
        Self::open(topology, true, MAX_SOURCES, 0)
    }

    /// From so many addresses; `load` is the number of the load that they are, for a port of its own.
    pub(crate) fn open(topology: &Topology, answered: bool, sources: u32, load: u16) -> Result<Self> {
        let shape = topology.shape();
        let port = if answered { ports::syn(load) } else { ports::silent(load) };
        let listener = if answered {
            topology.clients().rules(&dropping(&format!("tcp sport {port}")))?;
            // haproxy listens there by itself.
            let listen = || TcpListener::bind(shape.listen(port));
            let ours = shape.kind != Kind::Haproxy;
            ours.then(|| topology.servers().run(listen)?.context("the server")).transpose()?
        } else {
            topology.servers().rules(&dropping(&format!("tcp dport {port}")))?;
            None
        };
        Ok(Self { socket: RawSocket::open(topology)?, _listener: listener, shape, sources, port, next: 0 })
    }

    /// Sends so many more.
    pub fn send(&mut self, count: u64) -> Result<()> {
        let most = u64::from(self.sources) * PORTS;
        if self.next.saturating_add(count) > most {
            bail!("{count} more SYNs after {}: there are only {most}", self.next);
        }
        for _ in 0..count {
            while !self.send_one()? {
                thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// Sends one more; false where a queue on the way is full. After the last the first comes again, as if it was sent again.
    pub(crate) fn send_one(&mut self) -> Result<bool> {
        let (from, to) = (from(self.shape, self.sources, self.next), self.shape.target(self.port));
        let sent = self.socket.send(&packet::syn(from, to)?, to.ip())?;
        self.next += u64::from(sent);
        Ok(sent)
    }
}

/// Of the SYN with this number: all addresses of one port, then the next port.
fn from(shape: Shape, sources: u32, number: u64) -> SocketAddr {
    let sources = u64::from(sources.max(1));
    let address = u32::try_from(number % sources).unwrap_or(0);
    let port = u16::try_from(number / sources % PORTS).unwrap_or(0);
    (shape.source(address), FIRST_PORT.saturating_add(port)).into()
}

fn dropping(what: &str) -> String {
    format!(
        "table inet syns {{\n\
         chain input {{\n\
         type filter hook input priority filter; policy accept;\n\
         {what} drop\n\
         }}\n\
         }}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_syn_is_another_flow() {
        let of = |number| from(Shape::default(), 100, number).to_string();
        assert_eq!([of(0), of(99), of(100)], ["198.19.0.1:20000", "198.19.0.100:20000", "198.19.0.1:20001"]);
        assert_eq!(of(100 * PORTS - 1), "198.19.0.100:59999");
        assert_eq!(of(100 * PORTS), of(0));
    }
}
