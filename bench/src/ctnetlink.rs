//! Makes and removes entries through ctnetlink, without the start of a process: where a guest's clock leaps over idle time, a program
//! that is read from a disk takes any time.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET` (linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h).
const GET: u16 = 1 << 8 | 1;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE`: without a tuple it means all entries.
const DELETE: u16 = 1 << 8 | 2;
/// `NLM_F_REQUEST`, `NLM_F_ACK` and `NLM_F_DUMP` (linux/netlink.h).
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
/// `NLMSG_ERROR`, also of an answer without an error, and `NLMSG_DONE`, the end of a dump.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `struct nlmsghdr`: length, type, flags, sequence number, port.
const HEADER: usize = 16;
/// The header and a `struct nfgenmsg` of zeroes: any family, version 0.
const LENGTH: usize = HEADER + 4;
const LENGTH_IN_HEADER: u32 = 20;
/// `NFPROTO_IPV4`
const IPV4: u8 = 2;

/// Deletes all entries of the calling thread's network namespace, as `conntrack -F` does.
pub(crate) fn flush() -> Result<()> {
    let socket = ask(DELETE, REQUEST | ACK)?;
    match answer(&socket)? {
        (ERROR, 0) => Ok(()),
        (ERROR, error) => bail!("ctnetlink refused the flush: {}", nix::Error::from_raw(-error)),
        (kind, _) => bail!("ctnetlink answered the flush with message type {kind}"),
    }
}

/// Removes the entries of all namespaces that have timed out: a dump does (`ctnetlink_dump_table`), and there is nothing
/// else for it to show, because all entries of the calling thread's namespace have.
pub(crate) fn reap() -> Result<()> {
    let socket = ask(GET, REQUEST | DUMP)?;
    let (kind, _) = answer(&socket)?;
    ensure!(kind == DONE, "an entry that should have timed out has not: ctnetlink's dump has a message of type {kind}");
    Ok(())
}

/// A message of many.
pub(crate) struct Message {
    /// `IPCTNL_MSG_CT_…`
    pub kind: u8,
    /// `NLM_F_…` beside `NLM_F_REQUEST`.
    pub flags: u16,
    /// All of it, padded.
    pub attributes: Vec<u8>,
}

/// Sends many messages with one system call. The kernel has carried them out when it returns.
pub(crate) struct Batches(OwnedFd);

impl Batches {
    /// Of the network namespace of the calling thread.
    pub fn open() -> Result<Self> {
        open().map(Self)
    }

    /// Sends all. The error is the first refusal; the others were carried out all the same.
    pub fn send(&self, messages: impl Iterator<Item = Message>) -> Result<()> {
        let mut bytes: Vec<u8> = Vec::new();
        let mut last = 0;
        for Message { kind, flags, attributes } in messages {
            last = bytes.len();
            let length = u32::try_from(LENGTH + attributes.len())?;
            bytes.extend(length.to_ne_bytes());
            bytes.extend((1 << 8 | u16::from(kind)).to_ne_bytes());
            bytes.extend((REQUEST | flags).to_ne_bytes());
            bytes.extend([0; 8]);
            // `struct nfgenmsg`: the family, version 0, no resource.
            bytes.extend([IPV4, 0, 0, 0]);
            bytes.extend(attributes);
        }
        if bytes.is_empty() {
            return Ok(());
        }
        // Each refusal is answered by itself; that all went well, for the last one alone.
        bytes[last + 6] |= u8::try_from(ACK)?;
        sendto(self.0.as_raw_fd(), &bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())
            .context("cannot send to ctnetlink")?;
        let mut first = None;
        let mut buffer = [0; 8192];
        while let Ok(length) = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            let (_, number) = parse(buffer.get(..length).unwrap_or_default()).context("less than a message")?;
            first = first.filter(|first| *first != 0).or(Some(number));
        }
        match first.context("ctnetlink answered nothing")? {
            0 => Ok(()),
            error => Err(nix::Error::from_raw(-error)).context("ctnetlink refused"),
        }
    }
}

/// Whether an entry was not there.
pub(crate) fn is_absent(error: &anyhow::Error) -> bool {
    error.downcast_ref::<nix::Error>() == Some(&nix::Error::ENOENT)
}

fn open() -> Result<OwnedFd> {
    socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)
        .context("cannot open a ctnetlink socket")
}

fn ask(kind: u16, flags: u16) -> Result<OwnedFd> {
    let socket = open()?;
    let mut message = [0; LENGTH];
    message[..4].copy_from_slice(&LENGTH_IN_HEADER.to_ne_bytes());
    message[4..6].copy_from_slice(&kind.to_ne_bytes());
    message[6..8].copy_from_slice(&flags.to_ne_bytes());
    sendto(socket.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())
        .context("cannot send to ctnetlink")?;
    Ok(socket)
}

/// Type and first number of the first message that comes.
fn answer(socket: &OwnedFd) -> Result<(u16, i32)> {
    let mut buffer = [0; 4096];
    let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).context("no answer from ctnetlink")?;
    parse(buffer.get(..length).unwrap_or_default()).context("ctnetlink answered with less than a message")
}

fn parse(message: &[u8]) -> Option<(u16, i32)> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    let number = i32::from_ne_bytes(message.get(HEADER..HEADER + 4)?.try_into().ok()?);
    Some((kind, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_read_from_behind_the_header() {
        let mut message = [0; 36];
        message[4..6].copy_from_slice(&ERROR.to_ne_bytes());
        message[16..20].copy_from_slice(&(-1i32).to_ne_bytes());
        assert_eq!(parse(&message), Some((ERROR, -1)));
        assert_eq!(parse(&message[..18]), None);
    }
}
