//! Whole TCP connections on a loopback, both ends in one thread: on one CPU each step's packets have arrived when its
//! system call returns.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bench::churn::{REPLY_BYTES, REQUEST_BYTES};
use bench::conntrack;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};

use super::clock;
use crate::ctnetlink;

/// Where the connections go.
const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80);
/// First of the ports that they come from, one a connection.
const FIRST_PORT: u16 = 10_000;
/// After that TIME_WAIT is over (`TCP_TIMEWAIT_LEN` is 60 s), and each batch finds the same sockets: none. The clock leaps
/// over it.
const TIME_WAIT: Duration = Duration::from_secs(61);

/// Makes connections, batch by batch. Lives in one network namespace, which tracks.
pub(super) struct Connections {
    listener: TcpListener,
}

impl Connections {
    /// Opens the listener in the calling thread's namespace.
    pub fn open() -> Result<Self> {
        let listener = TcpListener::bind(SERVER).with_context(|| format!("cannot open {SERVER}"))?;
        Ok(Self { listener })
    }

    /// Makes `count` connections from start to end and gives the instructions of all together. Their entries are flushed
    /// afterwards, which is not counted.
    pub fn batch(&self, count: u16) -> Result<u64> {
        let ports = FIRST_PORT..FIRST_PORT + count;
        let (instructions, sockets) =
            clock::count(|| ports.map(|port| self.one(port)).collect::<Result<Vec<[TcpStream; 2]>>>())?;
        let entries = conntrack::count()?;
        ensure!(entries == u64::from(count), "{count} connections made {entries} entries");
        // Not before: RCU frees them at some later time, within the count or not.
        drop(sockets);
        ctnetlink::flush()?;
        thread::sleep(TIME_WAIT);
        Ok(instructions)
    }

    /// Connect, request, reply; the client closes first. The answer is what is left of it, of which no packet will come.
    fn one(&self, port: u16) -> Result<[TcpStream; 2]> {
        let mut client = connected(port).with_context(|| format!("from port {port}"))?;
        let (mut server, _) = self.listener.accept().context("accept")?;
        client.write_all(&[b'q'; REQUEST_BYTES])?;
        server.read_exact(&mut [0; REQUEST_BYTES])?;
        server.write_all(&[b'r'; REPLY_BYTES])?;
        client.read_exact(&mut [0; REPLY_BYTES])?;
        client.shutdown(Shutdown::Write)?;
        ensure!(server.read(&mut [0; 1])? == 0, "more than the request came");
        server.shutdown(Shutdown::Write)?;
        Ok([client, server])
    }
}

/// std binds no socket before it connects, and the port that the kernel would choose takes a search of varying length.
fn connected(port: u16) -> Result<TcpStream> {
    let socket: OwnedFd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))).context("bind")?;
    connect(socket.as_raw_fd(), &SockaddrIn::from(SERVER)).context("connect")?;
    Ok(socket.into())
}
