//! Packets written byte by byte, for traffic that no socket makes: SYNs that nobody completes, scans.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, setsockopt, socket, sockopt,
};

use crate::netns::{Family, Topology};

/// Bytes of an IPv4 header without options, of an IPv6 header, of a TCP header without options, of a UDP header.
const IPV4: usize = 20;
const IPV6: usize = 40;
const TCP: usize = 20;
const UDP: usize = 8;
/// IANA's numbers.
const TCP_PROTOCOL: u8 = 6;
const UDP_PROTOCOL: u8 = 17;
/// Bytes that the socket may hold.
const BUFFER: usize = 4 << 20;

/// Sends whole packets from the clients, whatever the source in them.
#[derive(Debug)]
pub(crate) struct RawSocket(OwnedFd);

impl RawSocket {
    /// One in the clients' namespace.
    pub fn open(topology: &Topology) -> Result<Self> {
        let family = match topology.shape().ip {
            Family::Ipv4 => AddressFamily::Inet,
            Family::Ipv6 => AddressFamily::Inet6,
        };
        // IPPROTO_RAW: the headers are in what is sent (raw(7), RFC 3542).
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let open = || socket(family, SockType::Raw, flags, SockProtocol::Raw);
        let socket = topology.clients().run(open)?.context("a raw socket")?;
        // Beyond net.core.wmem_max, which only root may.
        setsockopt(&socket, sockopt::SndBufForce, &BUFFER).context("a raw socket")?;
        Ok(Self(socket))
    }

    /// Sends it; false where a queue on the way is full.
    pub fn send(&self, packet: &[u8], to: IpAddr) -> Result<bool> {
        // A port would be taken for a protocol.
        let to = SockaddrStorage::from(SocketAddr::new(to, 0));
        match sendto(self.0.as_raw_fd(), packet, &to, MsgFlags::empty()) {
            Ok(_) => Ok(true),
            Err(nix::Error::EAGAIN | nix::Error::ENOBUFS) => Ok(false),
            Err(errno) => Err(io::Error::from(errno)).context("a packet"),
        }
    }
}

/// A SYN: headers of RFC 791 or 8200, and 9293.
pub(crate) fn syn(from: SocketAddr, to: SocketAddr) -> Result<Vec<u8>> {
    let mut tcp = [0; TCP];
    tcp[..2].copy_from_slice(&from.port().to_be_bytes());
    tcp[2..4].copy_from_slice(&to.port().to_be_bytes());
    // Any sequence number; five words; SYN; any window.
    tcp[4..8].copy_from_slice(&[0, 0, 0, 1]);
    tcp[12] = 5 << 4;
    tcp[13] = 0x02;
    tcp[14..16].copy_from_slice(&[0xff, 0xff]);
    packet(from, to, TCP_PROTOCOL, &mut tcp, 16)
}

/// An empty datagram: headers of RFC 791 or 8200, and 768.
pub(crate) fn datagram(from: SocketAddr, to: SocketAddr) -> Result<Vec<u8>> {
    let mut udp = [0; UDP];
    udp[..2].copy_from_slice(&from.port().to_be_bytes());
    udp[2..4].copy_from_slice(&to.port().to_be_bytes());
    udp[4..6].copy_from_slice(&8_u16.to_be_bytes());
    packet(from, to, UDP_PROTOCOL, &mut udp, 6)
}

/// `segment` with its checksum at `place` and an IP header before it. The kernel fills in IPv4's own checksum and the
/// identification; conntrack takes no segment whose checksum is wrong (`nf_conntrack_checksum`).
fn packet(from: SocketAddr, to: SocketAddr, protocol: u8, segment: &mut [u8], place: usize) -> Result<Vec<u8>> {
    let length = u16::try_from(segment.len())?;
    let mut packet = match (from, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => ipv4(from, to, protocol, length),
        (SocketAddr::V6(from), SocketAddr::V6(to)) => ipv6(from, to, protocol, length),
        _ => bail!("{from} and {to} are of two families"),
    };
    // The addresses are the header's last bytes.
    let addresses = if from.is_ipv4() { &packet[IPV4 - 8..] } else { &packet[IPV6 - 32..] };
    let sum = checksum(addresses, protocol, segment);
    segment[place..place + 2].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(segment);
    Ok(packet)
}

fn ipv4(from: SocketAddrV4, to: SocketAddrV4, protocol: u8, length: u16) -> Vec<u8> {
    let mut header = vec![0; IPV4];
    // Version 4, five words; as long as this; 64 hops.
    header[0] = 0x45;
    header[2..4].copy_from_slice(&length.saturating_add(20).to_be_bytes());
    header[8] = 64;
    header[9] = protocol;
    header[12..16].copy_from_slice(&from.ip().octets());
    header[16..20].copy_from_slice(&to.ip().octets());
    header
}

fn ipv6(from: SocketAddrV6, to: SocketAddrV6, protocol: u8, length: u16) -> Vec<u8> {
    let mut header = vec![0; IPV6];
    // Version 6; as long as what follows; 64 hops.
    header[0] = 0x60;
    header[4..6].copy_from_slice(&length.to_be_bytes());
    header[6] = protocol;
    header[7] = 64;
    header[8..24].copy_from_slice(&from.ip().octets());
    header[24..40].copy_from_slice(&to.ip().octets());
    header
}

/// Of a segment whose checksum is 0, with the pseudo-header of RFC 9293 or RFC 8200. A sum of 0 is written as its other form,
/// since in UDP it would say that there is none.
fn checksum(addresses: &[u8], protocol: u8, segment: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum()
    };
    let length = u32::try_from(segment.len()).unwrap_or(u32::MAX);
    let mut sum = words(addresses) + u32::from(protocol) + length + words(segment);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    match !u16::try_from(sum).unwrap_or(u16::MAX) {
        0 => 0xffff,
        sum => sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum over addresses, protocol, length and segment, with the checksum in it: all ones.
    fn verify(packet: &[u8], header: usize, addresses: usize, protocol: u8) {
        let sum = checksum(&packet[header - addresses..header], protocol, &packet[header..]);
        assert!(matches!(sum, 0 | 0xffff), "{sum:x}");
    }

    #[test]
    fn packets_are_whole_and_their_checksums_right() {
        let packet = syn("198.19.0.4:20000".parse().unwrap(), "198.18.0.6:80".parse().unwrap()).unwrap();
        assert_eq!((packet.len(), packet[0], &packet[2..4], packet[9]), (40, 0x45, &[0, 40][..], 6));
        assert_eq!(&packet[12..20], [198, 19, 0, 4, 198, 18, 0, 6]);
        assert_eq!((&packet[20..24], packet[33]), (&[0x4e, 0x20, 0, 80][..], 2));
        verify(&packet, IPV4, 8, TCP_PROTOCOL);

        let packet = syn("[2001:2:0:3::1]:1".parse().unwrap(), "[2001:2:0:2::2]:80".parse().unwrap()).unwrap();
        assert_eq!((packet.len(), packet[0], &packet[4..6], packet[6]), (60, 0x60, &[0, 20][..], 6));
        verify(&packet, IPV6, 32, TCP_PROTOCOL);

        let packet = datagram("[2001:2:0:3::1]:1".parse().unwrap(), "[2001:2:0:2::2]:80".parse().unwrap()).unwrap();
        assert_eq!((packet.len(), packet[6], &packet[44..46]), (48, 17, &[0, 8][..]));
        verify(&packet, IPV6, 32, UDP_PROTOCOL);
        assert!(syn("198.19.0.4:1".parse().unwrap(), "[2001:2:0:2::2]:80".parse().unwrap()).is_err());
    }
}
