//! The four ctnetlink messages that the guard sends (include/uapi/linux/netfilter/nfnetlink_conntrack.h), written by
//! hand: a crate for them would be larger than they are. Two are the self-test's, one asks for the statistics, one for
//! entries.

mod dump;
mod entries;

use std::io;
use std::net::Ipv4Addr;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use dump::{broken, dump};
pub use entries::Entry;
use entries::entry;

use super::symbols::Symbols;

/// `IPCTNL_MSG_CT_NEW`
const NEW: u16 = 0;
/// `IPCTNL_MSG_CT_GET`
const GET: u16 = 1;
/// `IPCTNL_MSG_CT_DELETE`
const DELETE: u16 = 2;
/// `IPCTNL_MSG_CT_GET_STATS_CPU`
const GET_STATS_CPU: u16 = 4;
/// `NLA_F_NESTED`
const NESTED: u16 = 1 << 15;

// enum ctattr_type
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOINFO: u16 = 4;
const TIMEOUT: u16 = 7;
// enum ctattr_tuple
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
// enum ctattr_ip
const IP_V4_SRC: u16 = 1;
const IP_V4_DST: u16 = 2;
// enum ctattr_l4proto
const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;
const PROTO_DST_PORT: u16 = 3;
// enum ctattr_protoinfo, enum ctattr_protoinfo_tcp
const PROTOINFO_TCP: u16 = 1;
const TCP_STATE: u16 = 1;
/// `IPS_SEEN_REPLY`, `IPS_ASSURED` and `IPS_CONFIRMED`: the last is set already, and none may be taken away.
const ASSURED: u32 = 1 << 1 | 1 << 2 | 1 << 3;

/// A flow to insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Never answered.
    Udp,
    /// ASSURED, in this state of `enum tcp_conntrack`.
    Tcp(u8),
}

/// `enum ctattr_stats_cpu`: what [`Socket::statistics`] can be asked for.
pub mod stat {
    /// Packets that no tracker would accept.
    pub const INVALID: u16 = 4;
    /// Inserts that failed.
    pub const INSERT_FAILED: u16 = 9;
    /// Packets dropped.
    pub const DROP: u16 = 10;
    /// Entries evicted.
    pub const EARLY_DROP: u16 = 11;
    /// ICMP messages that cannot be used: `icmp_error` in proc.
    pub const ERROR: u16 = 12;
    /// Clashes resolved.
    pub const CLASH_RESOLVE: u16 = 14;
    /// Inserts refused for the length of the chain; since 5.15.
    pub const CHAIN_TOO_LONG: u16 = 15;
}

/// Both ends of the flows: addresses for documentation (RFC 5737), which nobody has.
const ENDS: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
/// The second end's port: discard.
const PORT: u16 = 9;
/// Seconds that a flow would live if nobody deleted it.
const LIFE: u32 = 30;

/// Whether the module is loaded.
pub fn is_loaded(root: &Path) -> bool {
    root.join("sys/module/nf_conntrack_netlink").exists()
}

/// Whether ctnetlink may be asked. Asking a kernel that has it as a module would load it: that is the operator's to decide.
#[derive(Clone, Copy, Debug, Default)]
pub struct Presence {
    built_in: Option<bool>,
}

impl Presence {
    /// `built_in`: whether the kernel has it without a module, where that is known already. To find out takes a pass over
    /// all of `/proc/kallsyms`.
    pub fn new(built_in: Option<bool>) -> Self {
        Self { built_in }
    }

    /// Whether the module is loaded now, or the kernel has it without one; the latter is looked for once.
    pub fn is_there(&mut self, root: &Path) -> bool {
        let built_in = || Symbols::read(root).ctnetlink_built_in() == Some(true);
        is_loaded(root) || *self.built_in.get_or_insert_with(built_in)
    }
}

/// An error of ctnetlink's with what would mend it.
pub fn told(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            io::Error::new(error.kind(), format!("{error} (needs CAP_NET_ADMIN in this network namespace)"))
        }
        _ => error,
    }
}

/// A socket to ctnetlink in the calling thread's network namespace.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// Opens it. Needs no right; the messages need CAP_NET_ADMIN.
    pub fn open() -> io::Result<Self> {
        let (family, protocol) = (AddressFamily::Netlink, SockProtocol::NetlinkNetFilter);
        Ok(Self(socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?))
    }

    /// The number of the socket's network namespace that no other has until the next boot (`SO_NETNS_COOKIE`); kernels
    /// before 5.14 do not tell it.
    pub fn namespace_cookie(&self) -> nix::Result<u64> {
        let (mut cookie, mut length) = (0_u64, 8);
        let (value, option) = ((&raw mut cookie).cast(), libc::SO_NETNS_COOKIE);
        // SAFETY: the kernel writes at most so many bytes as the value has.
        let answer = unsafe { libc::getsockopt(self.0.as_raw_fd(), libc::SOL_SOCKET, option, value, &raw mut length) };
        Errno::result(answer).map(|_| cookie)
    }

    /// Inserts so many flows. All are in the table when this returns, or an error says why one is not.
    pub fn insert(&self, flows: u16, flow: Flow) -> io::Result<()> {
        let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        self.request(flows, NEW, create, |port| {
            [
                tuple(TUPLE_ORIG, flow, ENDS, [port, PORT]),
                tuple(TUPLE_REPLY, flow, [ENDS[1], ENDS[0]], [PORT, port]),
                attribute(TIMEOUT, &LIFE.to_be_bytes()),
                flow.state(),
            ]
            .concat()
        })
    }

    /// Deletes them again.
    pub fn delete(&self, flows: u16, flow: Flow) -> io::Result<()> {
        self.request(flows, DELETE, 0, |port| tuple(TUPLE_ORIG, flow, ENDS, [port, PORT]))
    }

    /// The kernel's statistics of this network namespace, a row for each possible CPU, in the order of `wanted` (see
    /// [`stat`]); 0 for what this kernel does not have.
    pub fn statistics<const N: usize>(&self, wanted: [u16; N]) -> io::Result<Vec<[u32; N]>> {
        let mut rows = Vec::new();
        dump(&self.0, GET_STATS_CPU, |attributes| {
            let mut row = [0; N];
            for attribute in attributes {
                let (kind, value) = attribute?;
                if let Some(place) = wanted.iter().position(|wanted| *wanted == kind) {
                    row[place] = u32::from_be_bytes(value.try_into().map_err(|_| broken())?);
                }
            }
            rows.push(row);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(rows)
    }

    /// Entries of this network namespace from the first buckets on, until `each` has enough. The socket is of no use
    /// afterwards: what was not read is left in it. Answers with whether these were all.
    pub fn entries(self, mut each: impl FnMut(Entry) -> ControlFlow<()>) -> io::Result<bool> {
        dump(&self.0, GET, |attributes| Ok(each(entry(attributes)?)))
    }

    /// One message for each flow, in one packet: the kernel has dealt with all of them before `send` returns.
    fn request(&self, flows: u16, kind: u16, flags: i32, attributes: impl Fn(u16) -> Vec<u8>) -> io::Result<()> {
        let mut packet = Vec::new();
        for flow in 1..=flows {
            // Errors are answered in any case, so one acknowledgement at the end does for all.
            let acknowledge = if flow == flows { libc::NLM_F_ACK } else { 0 };
            packet.extend(message(kind, libc::NLM_F_REQUEST | acknowledge | flags, libc::AF_INET, &attributes(flow))?);
        }
        send(self.0.as_raw_fd(), &packet, MsgFlags::empty())?;
        let mut acknowledged = false;
        loop {
            let mut answer = [0; 512];
            match recv(self.0.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => error_in(&answer[..length])?,
                Err(Errno::EAGAIN) if acknowledged => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
            acknowledged = true;
        }
    }
}

/// The error that an `NLMSG_ERROR` carries; 0 is an acknowledgement.
fn error_in(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let error = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind.map(i32::from), error) {
        (Some(libc::NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(libc::NLMSG_ERROR), Some(error)) => Err(io::Error::from_raw_os_error(-error)),
        _ => Err(io::Error::other("ctnetlink answered something else than an acknowledgement")),
    }
}

/// `struct nlmsghdr`, `struct nfgenmsg` and the attributes.
fn message(kind: u16, flags: i32, family: i32, attributes: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(20 + attributes.len()).map_err(io::Error::other)?;
    let flags = u16::try_from(flags).map_err(io::Error::other)?;
    let subsystem = u16::try_from(libc::NFNL_SUBSYS_CTNETLINK).map_err(io::Error::other)?;
    let mut message = Vec::with_capacity(20 + attributes.len());
    message.extend(length.to_ne_bytes());
    message.extend((subsystem << 8 | kind).to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Sequence number and port, which nobody compares here; then the family, the version and a resource of 0.
    message.extend([0; 8]);
    message.extend([u8::try_from(family).map_err(io::Error::other)?, 0, 0, 0]);
    message.extend(attributes);
    Ok(message)
}

impl Flow {
    /// Its number (`IPPROTO_UDP`, `IPPROTO_TCP`).
    fn protocol(self) -> u8 {
        match self {
            Self::Udp => 17,
            Self::Tcp(_) => 6,
        }
    }

    /// The attributes of how far it has come.
    fn state(self) -> Vec<u8> {
        let Self::Tcp(state) = self else { return Vec::new() };
        let tcp = attribute(PROTOINFO_TCP | NESTED, &attribute(TCP_STATE, &[state]));
        [attribute(STATUS, &ASSURED.to_be_bytes()), attribute(PROTOINFO | NESTED, &tcp)].concat()
    }
}

fn tuple(kind: u16, flow: Flow, [source, destination]: [Ipv4Addr; 2], ports: [u16; 2]) -> Vec<u8> {
    let addresses = [attribute(IP_V4_SRC, &source.octets()), attribute(IP_V4_DST, &destination.octets())].concat();
    let protocol = [
        attribute(PROTO_NUM, &[flow.protocol()]),
        attribute(PROTO_SRC_PORT, &ports[0].to_be_bytes()),
        attribute(PROTO_DST_PORT, &ports[1].to_be_bytes()),
    ]
    .concat();
    let both = [attribute(TUPLE_IP | NESTED, &addresses), attribute(TUPLE_PROTO | NESTED, &protocol)].concat();
    attribute(kind | NESTED, &both)
}

/// `struct nlattr`, its value, and zeros up to the next multiple of 4.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    // None here is longer than a tuple.
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut attribute = Vec::with_capacity(value.len() + 8);
    attribute.extend(length.to_ne_bytes());
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_padded_and_its_length_is_not() {
        assert_eq!(attribute(PROTO_NUM, &[17]), [[5, 0], [1, 0], [17, 0], [0, 0]].concat());
        assert_eq!(attribute(TIMEOUT, &30_u32.to_be_bytes()), [[8, 0], [7, 0], [0, 0], [0, 30]].concat());
    }

    #[test]
    fn a_message_says_how_long_it_is() {
        let attributes = tuple(TUPLE_ORIG, Flow::Udp, ENDS, [1, PORT]);
        // Twice an address of 4 bytes, a number and two ports, each with a header and padded; two nests and one around.
        assert_eq!(attributes.len(), 4 + (4 + 2 * 8) + (4 + 3 * 8));
        let message = message(NEW, libc::NLM_F_REQUEST, libc::AF_INET, &attributes).unwrap();
        assert_eq!(u32::from_ne_bytes(message[..4].try_into().unwrap()) as usize, message.len());
        assert_eq!(message[4..6], [0, 1]);
    }

    #[test]
    fn errors_and_acknowledgements_are_told_apart() {
        let answer = |kind: i32, error: i32| {
            let mut bytes = vec![0; 4];
            bytes.extend(u16::try_from(kind).unwrap().to_ne_bytes());
            bytes.resize(16, 0);
            bytes.extend(error.to_ne_bytes());
            bytes
        };
        assert!(error_in(&answer(libc::NLMSG_ERROR, 0)).is_ok());
        let refused = error_in(&answer(libc::NLMSG_ERROR, -libc::EPERM)).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
        assert!(error_in(&answer(libc::NLMSG_DONE, 0)).is_err());
        assert!(error_in(&[0; 6]).is_err());
    }
}
