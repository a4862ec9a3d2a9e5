//! A UDP socket that sends from, and tells, any address of its namespace.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Bytes that each socket may hold.
const BUFFER: usize = 4 << 20;

/// What arrived.
pub(super) struct Datagram {
    /// When the first of the two was sent, as its sender wrote it.
    pub content: [u8; 8],
    pub from: SocketAddr,
    /// The address that it was sent to.
    pub to: IpAddr,
}

/// Bound to a port of all addresses.
pub(super) struct Socket(UdpSocket);

/// A socket in the calling thread's namespace.
pub(super) fn open(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)
        .map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    }
    // Beyond net.core.rmem_max, which only root may.
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
    Ok(socket)
}

impl Socket {
    /// Within the runtime that is to wait for it.
    pub fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        UdpSocket::from_std(socket).map(Self)
    }

    /// Sends `content`, with this source address.
    pub async fn send(&self, content: &[u8], from: IpAddr, to: SocketAddr) -> io::Result<()> {
        let (content, to) = ([IoSlice::new(content)], SockaddrStorage::from(to));
        let send = |control: ControlMessage<'_>| {
            sendmsg(self.0.as_raw_fd(), &content, &[control], MsgFlags::MSG_DONTWAIT, Some(&to))
                .map(drop)
                .map_err(io::Error::from)
        };
        self.0
            .async_io(Interest::WRITABLE, || match from {
                IpAddr::V4(from) => send(ControlMessage::Ipv4PacketInfo(&libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: from.to_bits().to_be() },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                })),
                IpAddr::V6(from) => send(ControlMessage::Ipv6PacketInfo(&libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: from.octets() },
                    ipi6_ifindex: 0,
                })),
            })
            .await
    }

    /// Waits for the next datagram of this load's making.
    pub async fn receive(&self) -> io::Result<Datagram> {
        loop {
            if let Some(datagram) = self.0.async_io(Interest::READABLE, || self.read()).await? {
                return Ok(datagram);
            }
        }
    }

    /// `None` for one that is not of this load's making.
    fn read(&self) -> io::Result<Option<Datagram>> {
        let mut content = [0; 8];
        let mut buffers = [IoSliceMut::new(&mut content)];
        // Room for either family's.
        let mut space = nix::cmsg_space!(libc::in6_pktinfo);
        let read =
            recvmsg::<SockaddrStorage>(self.0.as_raw_fd(), &mut buffers, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
        let from = read.address.and_then(|address| {
            let four = address.as_sockaddr_in().map(|address| SocketAddr::from((address.ip(), address.port())));
            four.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::from((address.ip(), address.port()))))
        });
        let to = read.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(IpAddr::from(u32::from_be(info.ipi_addr.s_addr).to_be_bytes()))
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::from(info.ipi6_addr.s6_addr)),
            _ => None,
        });
        let whole = read.bytes == 8;
        Ok(from.zip(to).filter(|_| whole).map(|(from, to)| Datagram { content, from, to }))
    }
}
