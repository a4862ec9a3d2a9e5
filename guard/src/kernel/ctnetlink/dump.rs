//! What the answer to `NLM_F_DUMP` is made of: packets of messages, messages of attributes (include/uapi/linux/netlink.h).

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{MsgFlags, recv, send};

use super::{error_in, message};

/// Room for the part of a dump that the kernel puts into one packet (`netlink_dump` takes what the reader offers, up to
/// 32 KiB).
const PACKET: usize = 32 << 10;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct nlmsghdr` and `struct nfgenmsg`.
const BEFORE_ATTRIBUTES: usize = HEADER + 4;
/// `NLA_TYPE_MASK`: without the flags for nested ones and for the byte order.
const TYPE_MASK: u16 = 0x3fff;

/// Asks for all that `kind` (`IPCTNL_MSG_CT_…`) has, of every address family, and gives the attributes of each message to
/// `each` until that breaks. Answers with whether it was all.
pub(super) fn dump(
    socket: &OwnedFd,
    kind: u16,
    mut each: impl FnMut(Attributes<'_>) -> io::Result<ControlFlow<()>>,
) -> io::Result<bool> {
    let request = message(kind, libc::NLM_F_REQUEST | libc::NLM_F_DUMP, libc::AF_UNSPEC, &[])?;
    send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut packet = vec![0; PACKET];
    loop {
        // The kernel has each part ready before it returns from `send` or from the `recv` of the part before.
        let length = recv(socket.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC)?;
        let part = packet.get(..length).ok_or_else(|| io::Error::other("ctnetlink sent more than was asked for"))?;
        if let ControlFlow::Break(whole) = messages_in(part, &mut each)? {
            return Ok(whole);
        }
    }
}

/// One packet. Breaks with whether the dump has ended by itself.
fn messages_in(
    packet: &[u8],
    each: &mut impl FnMut(Attributes<'_>) -> io::Result<ControlFlow<()>>,
) -> io::Result<ControlFlow<bool>> {
    let mut rest = packet;
    while !rest.is_empty() {
        let length = rest.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes)) as usize;
        let message = rest.get(..length).filter(|message| message.len() >= HEADER).ok_or_else(broken)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        match i32::from(u16::from_ne_bytes([message[4], message[5]])) {
            libc::NLMSG_DONE => return Ok(ControlFlow::Break(true)),
            libc::NLMSG_ERROR => return error_in(message).map(|()| ControlFlow::Break(true)),
            _ => {}
        }
        if each(Attributes(message.get(BEFORE_ATTRIBUTES..).ok_or_else(broken)?))?.is_break() {
            return Ok(ControlFlow::Break(false));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// What a kernel never sends.
pub(super) fn broken() -> io::Error {
    io::Error::other("ctnetlink sent a message that is cut short")
}

/// The attributes of a message, or of an attribute that holds others: type and value.
#[derive(Debug)]
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The value of the first attribute of this type.
    pub(super) fn find(self, wanted: u16) -> io::Result<Option<&'a [u8]>> {
        for attribute in self {
            let (kind, value) = attribute?;
            if kind == wanted {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = io::Result<(u16, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        let [l0, l1, k0, k1, ..] = *self.0 else { return None };
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let Some(value) = self.0.get(4..length) else {
            // Nothing after it can be told apart.
            self.0 = &[];
            return Some(Err(broken()));
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok((u16::from_ne_bytes([k0, k1]) & TYPE_MASK, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::attribute;
    use super::*;

    /// A message of a dump, of this type and with these attributes.
    fn part(kind: u16, attributes: &[u8]) -> Vec<u8> {
        let mut part = message(0, libc::NLM_F_MULTI, libc::AF_UNSPEC, attributes).unwrap();
        part[4..6].copy_from_slice(&kind.to_ne_bytes());
        part
    }

    /// A message's attributes.
    type Row = Vec<(u16, u32)>;

    /// The attributes of all messages, and how the packet ended.
    fn read(packet: &[u8], enough: usize) -> io::Result<(Vec<Row>, ControlFlow<bool>)> {
        let mut rows = Vec::new();
        let end = messages_in(packet, &mut |attributes: Attributes<'_>| {
            let words = attributes.map(|attribute| {
                let (kind, value) = attribute?;
                Ok((kind, u32::from_be_bytes(value.try_into().unwrap())))
            });
            rows.push(words.collect::<io::Result<_>>()?);
            Ok(if rows.len() == enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok((rows, end))
    }

    #[test]
    fn a_dump_is_read_message_by_message_to_its_end_or_until_it_is_enough() {
        let word = |kind, value: u32| attribute(kind, &value.to_be_bytes());
        let first = part(256, &[word(4, 9), word(0x800a, 0xffff_fffe)].concat());
        let second = part(256, &word(15, 3));
        let both = [first.clone(), second.clone()].concat();
        let rows = vec![vec![(4, 9), (10, 0xffff_fffe)], vec![(15, 3)]];
        assert_eq!(read(&both, 9).unwrap(), (rows.clone(), ControlFlow::Continue(())));
        assert_eq!(read(&both, 1).unwrap(), (rows[..1].to_vec(), ControlFlow::Break(false)));
        let done = part(u16::try_from(libc::NLMSG_DONE).unwrap(), &[]);
        assert_eq!(read(&[both, done].concat(), 9).unwrap(), (rows, ControlFlow::Break(true)));
    }

    #[test]
    fn what_is_cut_short_is_an_error() {
        let whole = part(256, &attribute(4, &[0, 0, 0, 9]));
        for length in 1..whole.len() {
            assert!(read(&whole[..length], 9).is_err(), "{length}");
        }
        let mut wild = whole;
        wild[20..22].copy_from_slice(&2_u16.to_ne_bytes());
        assert!(read(&wild, 9).is_err(), "an attribute shorter than its header");
    }
}
