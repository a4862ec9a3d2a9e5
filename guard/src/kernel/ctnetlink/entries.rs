//! One entry of a dump (`ctnetlink_fill_info`).

use std::io;

use super::dump::{Attributes, broken};
use super::{IP_V4_SRC, PROTO_NUM, TIMEOUT, TUPLE_IP, TUPLE_ORIG, TUPLE_PROTO};

// enum ctattr_type
const STATUS: u16 = 3;
const PROTOINFO: u16 = 4;
// enum ctattr_ip
const IP_V6_SRC: u16 = 3;
// enum ctattr_protoinfo
const PROTOINFO_TCP: u16 = 1;
// enum ctattr_protoinfo_tcp
const TCP_STATE: u16 = 1;
/// `IPS_SEEN_REPLY`
const SEEN_REPLY: u32 = 1 << 1;
/// `IPS_ASSURED`
const ASSURED: u32 = 1 << 2;

/// What is known of one entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// IP protocol (IANA's number).
    pub protocol: u8,
    /// `enum tcp_conntrack`; `None` for other protocols.
    pub tcp_state: Option<u8>,
    /// Whether a packet came in the reply direction.
    pub replied: bool,
    /// Whether `early_drop` leaves it alone.
    pub assured: bool,
    /// Seconds until it expires; 0 for flows that a flowtable has taken over, which show none.
    pub seconds_left: u32,
    /// The source of the first packet: an IPv4 address, or the first 64 bits of an IPv6 one, which is what one host has.
    pub source: u64,
}

/// Reads what is wanted of an entry's attributes.
pub(super) fn entry(attributes: Attributes<'_>) -> io::Result<Entry> {
    let mut entry = Entry::default();
    for attribute in attributes {
        let (kind, value) = attribute?;
        match kind {
            TUPLE_ORIG => tuple(Attributes(value), &mut entry)?,
            STATUS => {
                let status = word(value)?;
                (entry.replied, entry.assured) = (status & SEEN_REPLY != 0, status & ASSURED != 0);
            }
            TIMEOUT => entry.seconds_left = word(value)?,
            PROTOINFO => {
                let tcp = Attributes(value).find(PROTOINFO_TCP)?;
                let state = tcp.map(|tcp| Attributes(tcp).find(TCP_STATE)).transpose()?.flatten();
                entry.tcp_state = state.map(byte).transpose()?;
            }
            _ => {}
        }
    }
    Ok(entry)
}

fn tuple(tuple: Attributes<'_>, entry: &mut Entry) -> io::Result<()> {
    for attribute in tuple {
        let (kind, value) = attribute?;
        match kind {
            TUPLE_IP => {
                for address in Attributes(value) {
                    match address? {
                        (IP_V4_SRC, address) => entry.source = word(address)?.into(),
                        (IP_V6_SRC, address) => {
                            entry.source = u64::from_be_bytes(*address.first_chunk().ok_or_else(broken)?);
                        }
                        _ => {}
                    }
                }
            }
            TUPLE_PROTO => {
                if let Some(number) = Attributes(value).find(PROTO_NUM)? {
                    entry.protocol = byte(number)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn word(value: &[u8]) -> io::Result<u32> {
    value.try_into().map(u32::from_be_bytes).map_err(|_| broken())
}

fn byte(value: &[u8]) -> io::Result<u8> {
    value.first().copied().ok_or_else(broken)
}

#[cfg(test)]
mod tests {
    use super::super::{NESTED, attribute};
    use super::*;

    fn nest(kind: u16, inside: &[Vec<u8>]) -> Vec<u8> {
        attribute(kind | NESTED, &inside.concat())
    }

    #[test]
    fn an_entry_is_read_from_its_nests() {
        let address = nest(TUPLE_IP, &[attribute(IP_V4_SRC, &[192, 0, 2, 1]), attribute(2, &[192, 0, 2, 2])]);
        let protocol = nest(TUPLE_PROTO, &[attribute(PROTO_NUM, &[6]), attribute(2, &[0, 80])]);
        let tcp = nest(PROTOINFO, &[nest(PROTOINFO_TCP, &[attribute(TCP_STATE, &[7])])]);
        let status = attribute(STATUS, &(1_u32 << 3 | ASSURED | SEEN_REPLY).to_be_bytes());
        let left = attribute(TIMEOUT, &118_u32.to_be_bytes());
        let all = [nest(TUPLE_ORIG, &[address, protocol.clone()]), status, left, tcp].concat();
        let source = 0xc000_0201;
        let expected =
            Entry { protocol: 6, tcp_state: Some(7), replied: true, assured: true, seconds_left: 118, source };
        assert_eq!(entry(Attributes(&all)).unwrap(), expected);

        let address: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9];
        let v6 = nest(TUPLE_ORIG, &[nest(TUPLE_IP, &[attribute(IP_V6_SRC, &address)]), protocol]);
        let read = entry(Attributes(&v6)).unwrap();
        assert_eq!((read.source, read.protocol, read.replied), (0x2001_0db8_0000_0001, 6, false));
    }

    #[test]
    fn a_value_of_the_wrong_size_is_an_error() {
        assert!(entry(Attributes(&attribute(TIMEOUT, &[0, 1]))).is_err());
        assert!(entry(Attributes(&nest(PROTOINFO, &[nest(PROTOINFO_TCP, &[attribute(TCP_STATE, &[])])]))).is_err());
    }
}
