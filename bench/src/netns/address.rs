//! Who has which address. All lie in 198.18.0.0/15, which RFC 2544 sets aside for benchmarks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// How many client addresses there are: a /16 without its first and last.
pub const MAX_SOURCES: u32 = 65_534;
/// The servers' address.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 6);

/// The gateway's address on the clients' link.
pub(super) const GATEWAY_TO_CLIENTS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// The clients' address on that link: next hop of all client addresses, so that the gateway resolves one neighbour only.
pub(super) const CLIENTS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// The gateway's address on the servers' link.
pub(super) const GATEWAY_TO_SERVERS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 5);
/// Prefix length of both links.
pub(super) const LINK_PREFIX: u8 = 30;
/// The client addresses, all of them local to the clients' namespace (`AnyIP`).
pub(super) const SOURCES: &str = "198.19.0.0/16";

/// The addresses of one topology, for its loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses(());

impl Addresses {
    pub(super) fn new() -> Self {
        Self(())
    }

    /// Where clients reach this port of the servers.
    pub fn target(self, port: u16) -> SocketAddr {
        (SERVER, port).into()
    }

    /// Where servers take what comes to this port.
    pub fn any(self, port: u16) -> SocketAddr {
        (Ipv4Addr::UNSPECIFIED, port).into()
    }

    /// The `n`th client address, counted from 0; past [`MAX_SOURCES`] it starts again.
    pub fn source(self, n: u32) -> IpAddr {
        source(n).into()
    }
}

/// The `n`th client address, counted from 0; past [`MAX_SOURCES`] it starts again.
pub fn source(n: u32) -> Ipv4Addr {
    let first = Ipv4Addr::new(198, 19, 0, 1);
    Ipv4Addr::from_bits(first.to_bits() + n % MAX_SOURCES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_stay_inside_their_prefix() {
        assert_eq!(source(0), Ipv4Addr::new(198, 19, 0, 1));
        assert_eq!(source(255), Ipv4Addr::new(198, 19, 1, 0));
        assert_eq!(source(MAX_SOURCES - 1), Ipv4Addr::new(198, 19, 255, 254));
        assert_eq!(source(MAX_SOURCES), source(0));
    }
}
