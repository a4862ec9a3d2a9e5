//! Who has which address. All lie in 198.18.0.0/15, which RFC 2544 sets aside for benchmarks, and 2001:2::/48, which RFC 5180 does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::Serialize;

/// How many client addresses there are: a /16 without its first and last.
pub const MAX_SOURCES: u32 = 65_534;
/// The servers' address over IPv4 without NAT.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 6);
/// Addresses among which a gateway with NAT spreads the flows: each has 65,535 ports of the gateway's address for itself.
pub const BACKENDS: u32 = 16;

/// What the topology is to be like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// Which IP it speaks.
    pub ip: Family,
    /// Whether the gateway translates addresses: what clients send to one address of the service goes to one of
    /// [`BACKENDS`] servers (DNAT), with the gateway's own address as its source (masquerade).
    pub nat: bool,
}

/// A version of IP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    #[default]
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// Addresses of the topology's own links and networks.
pub(super) struct Links {
    /// The gateway's address on the clients' link.
    pub gateway_to_clients: IpAddr,
    /// The clients' address on that link: next hop of all client addresses, so that the gateway resolves one neighbour only.
    pub clients: IpAddr,
    /// The gateway's address on the servers' link.
    pub gateway_to_servers: IpAddr,
    /// The servers' address on that link: next hop of all backends.
    pub servers: IpAddr,
    /// Prefix length of both links.
    pub prefix: u8,
    /// The client addresses, all of them local to the clients' namespace (`AnyIP`).
    pub sources: &'static str,
    /// The backends, all of them local to the servers' namespace.
    pub backends: &'static str,
}

const fn v6(network: u16, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 2, 0, network, 0, 0, 0, host)
}

/// Where clients reach the service behind NAT; nobody has these addresses.
const SERVICE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 9);
const SERVICE_V6: Ipv6Addr = v6(4, 1);

impl Shape {
    /// Where clients reach this port of the servers.
    pub fn target(self, port: u16) -> SocketAddr {
        let address: IpAddr = match (self.ip, self.nat) {
            (Family::Ipv4, false) => SERVER.into(),
            (Family::Ipv4, true) => SERVICE.into(),
            (Family::Ipv6, false) => v6(2, 2).into(),
            (Family::Ipv6, true) => SERVICE_V6.into(),
        };
        (address, port).into()
    }

    /// Where a socket takes what comes to this port, whichever the address.
    pub fn any(self, port: u16) -> SocketAddr {
        match self.ip {
            Family::Ipv4 => (Ipv4Addr::UNSPECIFIED, port).into(),
            Family::Ipv6 => (Ipv6Addr::UNSPECIFIED, port).into(),
        }
    }

    /// The `n`th client address, counted from 0; past [`MAX_SOURCES`] it starts again.
    pub fn source(self, n: u32) -> IpAddr {
        match self.ip {
            Family::Ipv4 => source(n).into(),
            Family::Ipv6 => v6(3, u16::try_from(n % MAX_SOURCES + 1).unwrap_or(u16::MAX)).into(),
        }
    }

    /// First and last of the backends.
    pub(super) fn backends(self) -> (IpAddr, IpAddr) {
        let backend = |n: u32| -> IpAddr {
            match self.ip {
                Family::Ipv4 => Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 64, 0).to_bits() + n).into(),
                Family::Ipv6 => v6(5, u16::try_from(n).unwrap_or(u16::MAX)).into(),
            }
        };
        (backend(1), backend(BACKENDS))
    }

    pub(super) fn links(self) -> Links {
        match self.ip {
            Family::Ipv4 => Links {
                gateway_to_clients: Ipv4Addr::new(198, 18, 0, 1).into(),
                clients: Ipv4Addr::new(198, 18, 0, 2).into(),
                gateway_to_servers: Ipv4Addr::new(198, 18, 0, 5).into(),
                servers: SERVER.into(),
                prefix: 30,
                sources: "198.19.0.0/16",
                backends: "198.18.64.0/24",
            },
            Family::Ipv6 => Links {
                gateway_to_clients: v6(1, 1).into(),
                clients: v6(1, 2).into(),
                gateway_to_servers: v6(2, 1).into(),
                servers: v6(2, 2).into(),
                prefix: 64,
                sources: "2001:2:0:3::/64",
                backends: "2001:2:0:5::/64",
            },
        }
    }
}

/// The `n`th client address over IPv4, counted from 0; past [`MAX_SOURCES`] it starts again.
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
        let six = Shape { ip: Family::Ipv6, nat: false };
        let shown = |n| six.source(n).to_string();
        assert_eq!([shown(0), shown(65_533), shown(65_534)], ["2001:2:0:3::1", "2001:2:0:3::fffe", "2001:2:0:3::1"]);
    }

    #[test]
    fn behind_nat_clients_know_the_service_alone() {
        let target = |ip, nat| Shape { ip, nat }.target(80).to_string();
        assert_eq!(target(Family::Ipv4, false), "198.18.0.6:80");
        assert_eq!(target(Family::Ipv4, true), "198.18.0.9:80");
        assert_eq!(target(Family::Ipv6, false), "[2001:2:0:2::2]:80");
        assert_eq!(target(Family::Ipv6, true), "[2001:2:0:4::1]:80");
        let (first, last) = Shape { ip: Family::Ipv6, nat: true }.backends();
        assert_eq!((first.to_string(), last.to_string()), ("2001:2:0:5::1".into(), "2001:2:0:5::10".into()));
    }
}
