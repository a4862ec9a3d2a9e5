//! SYNs of connections that nobody completes: what a gateway sees of a SYN flood.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket};

use crate::netns::{MAX_SOURCES, SERVER, Topology, source};

/// Where nobody answers: the servers drop what comes there.
const SILENT: u16 = 7;
/// Where the servers answer; the clients drop what comes from there, as an address does that is not the sender's.
const ANSWERED: u16 = 8;
/// First source port.
const FIRST_PORT: u16 = 20_000;
/// Most SYNs: 128 ports of all client addresses.
const MAX_SYNS: u64 = 128 * MAX_SOURCES as u64;
/// Bytes of an IPv4 header and of a TCP header, both without options.
const IP: usize = 20;
const TCP: usize = 20;
/// The whole packet, the segment in it, and IANA's number of TCP, as they stand in the headers.
const LENGTH: u8 = 40;
const SEGMENT: u32 = 20;
const PROTOCOL: u8 = 6;

/// Sends one SYN after another, each from another address and port.
#[derive(Debug)]
pub struct Syns {
    socket: OwnedFd,
    /// Answers while it is open.
    _listener: Option<TcpListener>,
    port: u16,
    next: u64,
}

impl Syns {
    /// To where nobody answers: entries in SYN_SENT.
    pub fn unanswered(topology: &Topology) -> Result<Self> {
        topology.servers().rules(&dropping(&format!("tcp dport {SILENT}")))?;
        Self::to(topology, SILENT, None)
    }

    /// To a server that answers, from where nobody goes on: entries in SYN_RECV.
    pub fn answered(topology: &Topology) -> Result<Self> {
        topology.clients().rules(&dropping(&format!("tcp sport {ANSWERED}")))?;
        let listen = || TcpListener::bind(SocketAddrV4::new(SERVER, ANSWERED));
        let listener = topology.servers().run(listen)?.context("the server")?;
        Self::to(topology, ANSWERED, Some(listener))
    }

    fn to(topology: &Topology, port: u16, listener: Option<TcpListener>) -> Result<Self> {
        // IPPROTO_RAW: the headers are in what is sent (raw(7)).
        let open = || socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw);
        let socket = topology.clients().run(open)?.context("a raw socket")?;
        Ok(Self { socket, _listener: listener, port, next: 0 })
    }

    /// Sends so many more.
    pub fn send(&mut self, count: u64) -> Result<()> {
        if self.next.saturating_add(count) > MAX_SYNS {
            bail!("{count} more SYNs after {}: there are only {MAX_SYNS}", self.next);
        }
        let to = SockaddrIn::from(SocketAddrV4::new(SERVER, 0));
        for number in self.next..self.next + count {
            let packet = syn(number, self.port);
            loop {
                match sendto(self.socket.as_raw_fd(), &packet, &to, MsgFlags::empty()) {
                    Ok(_) => break,
                    // A queue on the way is full.
                    Err(nix::Error::EAGAIN | nix::Error::ENOBUFS) => thread::sleep(Duration::from_millis(1)),
                    Err(errno) => return Err(io::Error::from(errno)).context("a SYN"),
                }
            }
        }
        self.next += count;
        Ok(())
    }
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

/// Headers of RFC 791 and RFC 9293. The kernel fills in the IP checksum and the identification; conntrack takes no TCP
/// packet whose own checksum is wrong (`nf_conntrack_checksum`).
fn syn(number: u64, port: u16) -> [u8; IP + TCP] {
    let from = source(u32::try_from(number % u64::from(MAX_SOURCES)).unwrap_or(0));
    let from_port = FIRST_PORT.saturating_add(u16::try_from(number / u64::from(MAX_SOURCES)).unwrap_or(0));
    let mut packet = [0; IP + TCP];
    let (ip, tcp) = packet.split_at_mut(IP);
    // Version 4, five words; as long as this; 64 hops; TCP.
    ip[0] = 0x45;
    ip[3] = LENGTH;
    ip[8] = 64;
    ip[9] = PROTOCOL;
    ip[12..16].copy_from_slice(&from.octets());
    ip[16..20].copy_from_slice(&SERVER.octets());
    tcp[..2].copy_from_slice(&from_port.to_be_bytes());
    tcp[2..4].copy_from_slice(&port.to_be_bytes());
    // Any sequence number; five words; SYN; any window.
    tcp[4..8].copy_from_slice(&[0, 0, 0, 1]);
    tcp[12] = 5 << 4;
    tcp[13] = 0x02;
    tcp[14..16].copy_from_slice(&[0xff, 0xff]);
    let sum = checksum(from, tcp);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Of a segment whose checksum is 0, with the pseudo-header of RFC 9293.
fn checksum(from: Ipv4Addr, tcp: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum()
    };
    let mut sum = words(&from.octets()) + words(&SERVER.octets()) + u32::from(PROTOCOL) + SEGMENT + words(tcp);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syn_is_whole_and_its_checksum_right() {
        let packet = syn(3, 80);
        assert_eq!(&packet[12..20], [198, 19, 0, 4, 198, 18, 0, 6]);
        assert_eq!((&packet[20..24], packet[33]), (&[0x4e, 0x20, 0, 80][..], 2));
        // With its own checksum in it the sum of all is 0.
        assert_eq!(checksum(source(3), &packet[20..]), 0);
    }

    #[test]
    fn every_syn_is_another_flow() {
        let tuple = |number| syn(number, 80)[12..22].to_vec();
        let all = u64::from(MAX_SOURCES);
        assert_ne!(tuple(0), tuple(1));
        assert_ne!(tuple(0), tuple(all));
        assert_eq!(tuple(all)[8..], 20_001_u16.to_be_bytes());
    }
}
