//! A look at some of the entries themselves: in which states they are, and how long they have left.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Timeout;

/// Entries of this network namespace that were looked at. They come from the first buckets of the table; the hash is
/// keyed, so they are a fair sample of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// Time since boot at which they were read.
    pub at: Duration,
    /// Entries looked at.
    pub entries: u64,
    /// Whether these were all there are.
    pub whole: bool,
    /// By the timeout that the entries' last packet gave them.
    pub by: BTreeMap<Timeout, InState>,
    /// Entries of protocols whose timeouts the guard leaves alone (SCTP, DCCP, flows with a timeout policy).
    pub other: u64,
    /// Different source addresses (IPv6: /64 prefixes) among the entries without a reply.
    pub unreplied_sources: u64,
}

/// The entries of one protocol and state among those looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InState {
    /// Entries.
    pub entries: u64,
    /// Of those: no packet came in the reply direction (not `IPS_SEEN_REPLY`).
    pub unreplied: u64,
    /// Of those: `early_drop` does not evict them (`IPS_ASSURED`).
    pub assured: u64,
    /// The sum of the seconds they have left.
    pub seconds_left: u64,
}
