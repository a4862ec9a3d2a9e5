//! Ports of the servers' side. Loads that run at the same time have ports of their own: each load's number is added to the
//! first.

/// Loads of one scenario at most.
pub(crate) const LOADS: u16 = 32;
/// Where the servers of whole TCP connections listen.
pub(crate) const TCP: u16 = 8080;
/// Where the servers of HTTP listen.
pub(crate) const HTTP: u16 = 8000;

/// Where SYNs are answered. The clients drop what comes from there, as an address does that is not the sender's.
pub(crate) const fn syn(load: u16) -> u16 {
    load.saturating_mul(2).saturating_add(8)
}

/// Where they are not: the servers drop what comes there.
pub(crate) const fn silent(load: u16) -> u16 {
    load.saturating_mul(2).saturating_add(7)
}
