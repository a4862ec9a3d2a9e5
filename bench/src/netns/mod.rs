//! Clients – gateway – servers: two network namespaces joined by veth pairs to the one the caller is in.
//!
//! The caller's namespace is the gateway: it routes between the two and its nftables rule makes the kernel track what
//! it forwards. The other two have no rules, so they track nothing. All is put back when the [`Topology`] is dropped; what a
//! killed run left behind is removed by the next one.

mod address;
mod error;
mod journal;
mod namespace;
mod tool;
mod topology;

pub use address::{Addresses, MAX_SOURCES, SERVER, source};
pub use error::Error;
pub use namespace::Namespace;
pub use topology::Topology;
