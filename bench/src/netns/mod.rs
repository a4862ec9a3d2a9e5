//! Clients – gateway – servers: two network namespaces joined by veth pairs to the one the caller is in.
//!
//! The caller's namespace is the gateway: it routes between the two and its nftables rule makes the kernel track what
//! it forwards; what else it does with what the clients send, the [`Shape`] says. The other two have no rules, so they track
//! nothing. All is put back when the [`Topology`] is dropped; what a killed run left behind is removed by the next one.

mod address;
mod error;
mod forwarding;
mod haproxy;
mod ipvs;
mod journal;
mod namespace;
mod settings;
mod tool;
mod topology;

pub use address::{BACKENDS, Family, Kind, MAX_SOURCES, SERVER, Shape, source};
pub use error::Error;
pub use journal::tidy;
pub use namespace::Namespace;
pub use tool::Tool;
pub use topology::{Topology, check_permission};
