//! Entries that stand in the table before a load begins: a gateway is never empty. Made through ctnetlink, so that no packet is
//! sent for them, and established, so that nothing evicts them. Their addresses are of the networks set aside for benchmarks
//! (RFC 2544), where no load has any.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use bench::conntrack::{self, Settings};

use crate::ctnetlink::{self, Message};

/// Most of 198.18.128.0/17, a client each; a client has so many ports.
const FIRST_CLIENT: [u8; 4] = [198, 18, 128, 0];
const CLIENTS: u64 = 32_768;
const FIRST_PORT: u16 = 1_024;
const SERVER: [u8; 4] = [198, 18, 0, 200];
const SERVER_PORT: u16 = 443;
/// How long an entry stays if nobody removes it, seconds: a day of a clock that may leap.
const TIMEOUT: u32 = 86_400;
/// Messages sent at once; they must fit into a socket's buffer.
const BATCH: u64 = 200;

/// `NLM_F_EXCL` and `NLM_F_CREATE` (linux/netlink.h).
const NEW_ONLY: u16 = 0x200 | 0x400;
/// `IPCTNL_MSG_CT_NEW` and `IPCTNL_MSG_CT_DELETE` (linux/netfilter/nfnetlink_conntrack.h).
const NEW: u8 = 0;
const DELETE: u8 = 2;
/// Attributes: `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_STATUS`, `CTA_PROTOINFO`, `CTA_TIMEOUT`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOCOL_STATE: u16 = 4;
const LIFETIME: u16 = 7;
/// Within a tuple: `CTA_TUPLE_IP` (`CTA_IP_V4_SRC`, `CTA_IP_V4_DST`) and `CTA_TUPLE_PROTO` (`CTA_PROTO_NUM`,
/// `CTA_PROTO_SRC_PORT`, `CTA_PROTO_DST_PORT`).
const ADDRESSES: u16 = 1;
const PROTOCOL: u16 = 2;
const FIRST: u16 = 1;
const SECOND: u16 = 2;
const THIRD: u16 = 3;
/// `IPPROTO_TCP`, `TCP_CONNTRACK_ESTABLISHED`, and `IPS_SEEN_REPLY | IPS_ASSURED | IPS_CONFIRMED`.
const TCP: u8 = 6;
const ESTABLISHED: u8 = 3;
const CONFIRMED: u32 = 2 | 4 | 8;

/// The entries; they go with it.
#[derive(Debug)]
pub(crate) struct Prefill {
    entries: u64,
}

impl Prefill {
    /// Makes so many in the network namespace of the calling thread. Fails where max is too low for them.
    pub fn new(entries: u64, stop: &AtomicBool) -> Result<Self> {
        let (before, max) = (conntrack::count()?, Settings::read()?.max);
        // 0 is no limit. The load needs room too.
        ensure!(
            entries == 0 || max == 0 || before.saturating_add(entries) < max,
            "{entries} entries before the load have no room: {before} are in the table, and nf_conntrack_max is {max}. Raise it \
             in the initial network namespace, `sysctl -w net.netfilter.nf_conntrack_max=…`, or give fewer (`table.entries`)"
        );
        let prefill = Self { entries };
        prefill
            .each(stop, |index| (NEW, NEW_ONLY, entry(index)))
            .with_context(|| format!("cannot make {entries} entries before the load"))?;
        let made = conntrack::count()?.saturating_sub(before);
        // Others come and go where packets flow; here nothing does yet.
        ensure!(made >= entries, "{made} of {entries} entries were made before the load");
        Ok(prefill)
    }

    /// Removes those that are still there.
    pub fn remove(mut self) -> Result<()> {
        self.take_away()
    }

    fn take_away(&mut self) -> Result<()> {
        let all = Self { entries: std::mem::take(&mut self.entries) };
        // One that is gone already, as after a flush, must not hide those that are not.
        let outcome = all.each(&AtomicBool::new(false), |index| (DELETE, 0, tuple(ORIGINAL, client(index), true)));
        std::mem::forget(all);
        outcome.or_else(|error| if ctnetlink::is_absent(&error) { Ok(()) } else { Err(error) })
    }

    fn each(&self, stop: &AtomicBool, message: impl Fn(u64) -> (u8, u16, Vec<u8>)) -> Result<()> {
        let socket = ctnetlink::Batches::open()?;
        let mut absent = Ok(());
        for first in (0..self.entries).step_by(usize::try_from(BATCH)?) {
            ensure!(!stop.load(Ordering::Relaxed), "stopped; everything is put back");
            let messages = (first..self.entries.min(first + BATCH)).map(|index| {
                let (kind, flags, attributes) = message(index);
                Message { kind, flags, attributes }
            });
            match socket.send(messages) {
                Err(error) if ctnetlink::is_absent(&error) => absent = Err(error),
                sent => sent?,
            }
        }
        absent
    }
}

impl Drop for Prefill {
    fn drop(&mut self) {
        if self.entries > 0
            && let Err(error) = self.take_away()
        {
            eprintln!("entries made before the load stay for a day: {error:#}");
        }
    }
}

type End = ([u8; 4], u16);

fn client(index: u64) -> End {
    let (address, port) = (index % CLIENTS, index / CLIENTS);
    let address = u32::from_be_bytes(FIRST_CLIENT) + u32::try_from(address).unwrap_or(0);
    (address.to_be_bytes(), FIRST_PORT + u16::try_from(port).unwrap_or(0))
}

fn entry(index: u64) -> Vec<u8> {
    let client = client(index);
    let state = nested(PROTOCOL_STATE, &nested(FIRST, &attribute(FIRST, &[ESTABLISHED])));
    [
        tuple(ORIGINAL, client, true),
        tuple(REPLY, client, false),
        attribute(STATUS, &CONFIRMED.to_be_bytes()),
        state,
        attribute(LIFETIME, &TIMEOUT.to_be_bytes()),
    ]
    .concat()
}

fn tuple(which: u16, client: End, from_client: bool) -> Vec<u8> {
    let server = (SERVER, SERVER_PORT);
    let (from, to) = if from_client { (client, server) } else { (server, client) };
    let addresses = [attribute(FIRST, &from.0), attribute(SECOND, &to.0)].concat();
    let ports =
        [attribute(FIRST, &[TCP]), attribute(SECOND, &from.1.to_be_bytes()), attribute(THIRD, &to.1.to_be_bytes())];
    nested(which, &[nested(ADDRESSES, &addresses), nested(PROTOCOL, &ports.concat())].concat())
}

/// `struct nlattr` and its value, padded to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend(u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// With `NLA_F_NESTED`.
fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
    attribute(kind | 0x8000, value)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// As many as a scenario may ask for.
    const MOST: u64 = 4_000_000;

    #[test]
    fn attributes_are_padded_and_say_their_own_length() {
        assert_eq!(attribute(1, &[6]), [5, 0, 1, 0, 6, 0, 0, 0]);
        assert_eq!(nested(2, &attribute(1, &[1, 2, 3, 4])), [12, 0, 2, 128, 8, 0, 1, 0, 1, 2, 3, 4]);
        assert!(entry(7).len().is_multiple_of(4));
    }

    #[test]
    fn every_entry_has_a_client_of_its_own() {
        let some = (0..MOST).step_by(997).chain([MOST - 1, CLIENTS - 1, CLIENTS]);
        let some: BTreeSet<u64> = some.collect();
        assert_eq!(some.iter().map(|index| client(*index)).collect::<BTreeSet<_>>().len(), some.len());
        assert_eq!(client(0), ([198, 18, 128, 0], 1_024));
        assert_eq!(client(CLIENTS + 300), ([198, 18, 129, 44], 1_025));
        assert!(client(MOST - 1).0 <= [198, 18, 255, 255]);
    }
}
