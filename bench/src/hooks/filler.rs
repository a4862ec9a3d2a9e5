//! The entries that give the table its load: one-way UDP flows in a network namespace of their own, where a flush of the
//! measured flows does not reach them. The hash table is one for all namespaces.

use std::fs;
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};
use bench::conntrack;
use bench::netns::Namespace;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};

/// Where the datagrams go: a socket that reads none. What it has no room for is dropped after the entry was made.
const TO: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
/// First of the addresses that they come from, one a flow: all of 127/8 is the loopback's.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 64, 0, 1);
/// The port that all come from.
const PORT: u16 = 20_000;
/// How long an entry stays, in seconds of a clock that leaps over idle time: 30 days.
const TIMEOUT: &str = "2592000";
const TIMEOUT_FILE: &str = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout";

/// What fills the table; the entries go with it.
pub(super) struct Filler(Namespace);

impl Filler {
    /// Makes `entries` entries in a namespace of their own.
    pub fn new(entries: u64) -> Result<Self> {
        let namespace = Namespace::tracked_loopback("filler")?;
        namespace.run(|| fill(entries))??;
        let filler = Self(namespace);
        filler.check(entries)?;
        Ok(filler)
    }

    /// Refuses to go on when an entry is missing.
    pub fn check(&self, entries: u64) -> Result<()> {
        let found = self.0.run(conntrack::count)??;
        ensure!(found == entries, "{found} of {entries} entries fill the table");
        Ok(())
    }
}

fn fill(entries: u64) -> Result<()> {
    fs::write(TIMEOUT_FILE, TIMEOUT).context(TIMEOUT_FILE)?;
    let sink = UdpSocket::bind(TO).with_context(|| format!("cannot open {TO}"))?;
    let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT);
    let socket = UdpSocket::bind(from).with_context(|| format!("cannot open {from}"))?;
    for address in (FIRST_ADDRESS.to_bits()..).map(Ipv4Addr::from_bits).take(usize::try_from(entries)?) {
        let information = libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr { s_addr: address.to_bits().to_be() },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let control = [ControlMessage::Ipv4PacketInfo(&information)];
        let to = SockaddrIn::from(TO);
        sendmsg(socket.as_raw_fd(), &[IoSlice::new(b"fill")], &control, MsgFlags::empty(), Some(&to))
            .with_context(|| format!("from {address}"))?;
    }
    drop(sink);
    Ok(())
}
