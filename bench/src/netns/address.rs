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
    /// How what the clients send reaches the servers.
    #[serde(flatten)]
    pub kind: Kind,
}

/// How what the clients send reaches the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Kind {
    /// The gateway forwards it.
    Gateway {
        /// Whether it translates addresses: what clients send to one address of the service goes to one of [`BACKENDS`]
        /// servers (DNAT), with the gateway's own address as its source (masquerade).
        nat: bool,
    },
    /// The servers are on the gateway itself: a host, whose packets are tracked where they come in and go out.
    Host,
    /// IPVS sends what comes to the service's address to one of [`BACKENDS`] servers in turn, with the server's address in
    /// place of the service's; servers see the clients' addresses.
    Ipvs {
        /// `net.ipv4.vs.conntrack`: whether conntrack keeps entries of these connections.
        conntrack: bool,
    },
    /// haproxy takes in the connections and makes others to one of [`BACKENDS`] servers in turn: two entries for each.
    Haproxy,
}

impl Default for Kind {
    fn default() -> Self {
        Self::Gateway { nat: false }
    }
}

impl Kind {
    /// Whether the servers' side is the gateway itself, and so takes in what is for the service.
    pub fn serves_itself(self) -> bool {
        matches!(self, Self::Host)
    }
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

/// One of the gateway's two links.
pub(super) struct Link {
    /// The gateway's address on it.
    pub gateway: IpAddr,
    /// The other end's address: next hop of all that is behind it, so that the gateway resolves one neighbour only.
    pub other: IpAddr,
    /// Prefix length of the link.
    pub prefix: u8,
    /// Addresses that are all local to the namespace at the other end (`AnyIP`).
    pub behind: &'static str,
}

impl Family {
    /// Its name in nftables' rules.
    pub(super) fn nft(self) -> &'static str {
        match self {
            Self::Ipv4 => "ip",
            Self::Ipv6 => "ip6",
        }
    }
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
        let address = match (self.kind, self.ip) {
            (Kind::Gateway { nat: false }, _) => self.to_servers().other,
            (Kind::Host, _) => self.to_clients().gateway,
            (Kind::Gateway { nat: true } | Kind::Ipvs { .. } | Kind::Haproxy, Family::Ipv4) => SERVICE.into(),
            (Kind::Gateway { nat: true } | Kind::Ipvs { .. } | Kind::Haproxy, Family::Ipv6) => SERVICE_V6.into(),
        };
        (address, port).into()
    }

    /// Where a server takes what comes to this port: on a host that others may use, nothing but what the clients send.
    pub fn listen(self, port: u16) -> SocketAddr {
        if self.kind.serves_itself() { self.target(port) } else { self.any(port) }
    }

    /// In words, for people.
    pub fn words(self) -> String {
        let ip = match self.ip {
            Family::Ipv4 => "IPv4",
            Family::Ipv6 => "IPv6",
        };
        let way = match self.kind {
            Kind::Gateway { nat: false } => "",
            Kind::Gateway { nat: true } => " with NAT",
            Kind::Host => " to the host itself",
            Kind::Haproxy => " through haproxy",
            Kind::Ipvs { conntrack: true } => " through IPVS with conntrack",
            Kind::Ipvs { conntrack: false } => " through IPVS without conntrack",
        };
        format!("{ip}{way}")
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

    /// The backends, in order.
    pub(super) fn backends(self) -> impl Iterator<Item = IpAddr> {
        (1..=BACKENDS).map(move |n| self.backend(n))
    }

    /// The `n`th backend, counted from 1.
    pub(super) fn backend(self, n: u32) -> IpAddr {
        match self.ip {
            Family::Ipv4 => Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 64, 0).to_bits() + n).into(),
            Family::Ipv6 => v6(5, u16::try_from(n).unwrap_or(u16::MAX)).into(),
        }
    }

    /// The link with the clients; all their addresses are behind it.
    pub(super) fn to_clients(self) -> Link {
        match self.ip {
            Family::Ipv4 => Link {
                gateway: Ipv4Addr::new(198, 18, 0, 1).into(),
                other: Ipv4Addr::new(198, 18, 0, 2).into(),
                prefix: 30,
                behind: "198.19.0.0/16",
            },
            Family::Ipv6 => {
                Link { gateway: v6(1, 1).into(), other: v6(1, 2).into(), prefix: 64, behind: "2001:2:0:3::/64" }
            }
        }
    }

    /// The link with the servers; the backends are behind it.
    pub(super) fn to_servers(self) -> Link {
        match self.ip {
            Family::Ipv4 => Link {
                gateway: Ipv4Addr::new(198, 18, 0, 5).into(),
                other: SERVER.into(),
                prefix: 30,
                behind: "198.18.64.0/24",
            },
            Family::Ipv6 => {
                Link { gateway: v6(2, 1).into(), other: v6(2, 2).into(), prefix: 64, behind: "2001:2:0:5::/64" }
            }
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
        let six = Shape { ip: Family::Ipv6, ..Shape::default() };
        let shown = |n| six.source(n).to_string();
        assert_eq!([shown(0), shown(65_533), shown(65_534)], ["2001:2:0:3::1", "2001:2:0:3::fffe", "2001:2:0:3::1"]);
    }

    #[test]
    fn clients_know_the_service_alone_where_there_is_one() {
        let target = |ip, kind| Shape { ip, kind }.target(80).to_string();
        let nat = |nat| Kind::Gateway { nat };
        assert_eq!(target(Family::Ipv4, nat(false)), "198.18.0.6:80");
        assert_eq!(target(Family::Ipv4, nat(true)), "198.18.0.9:80");
        assert_eq!(target(Family::Ipv4, Kind::Ipvs { conntrack: true }), "198.18.0.9:80");
        assert_eq!(target(Family::Ipv4, Kind::Host), "198.18.0.1:80");
        assert_eq!(target(Family::Ipv6, nat(false)), "[2001:2:0:2::2]:80");
        assert_eq!(target(Family::Ipv6, nat(true)), "[2001:2:0:4::1]:80");
        let backends: Vec<String> =
            Shape { ip: Family::Ipv6, kind: nat(true) }.backends().map(|one| one.to_string()).collect();
        assert_eq!((backends.len(), &*backends[0], &*backends[15]), (16, "2001:2:0:5::1", "2001:2:0:5::10"));
    }

    #[test]
    fn a_report_of_before_there_were_kinds_has_the_same_fields() {
        let json = serde_json::to_value(Shape { ip: Family::Ipv6, kind: Kind::Gateway { nat: true } }).unwrap();
        assert_eq!(json, serde_json::json!({ "ip": "ipv6", "kind": "gateway", "nat": true }));
    }
}
