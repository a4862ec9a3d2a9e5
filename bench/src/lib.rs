//! Real connections through real network namespaces, to see what a conntrack table does under them.
//!
//! [`netns::Topology`] joins a clients' and a servers' namespace to the one the caller is in: the gateway, which forwards
//! and tracks. A [`scenario::Scenario`] is what users write: any number of [`load::Load`]s over time. [`churn`] makes TCP
//! connections, [`udp`] single datagrams, one flow each, [`syn`] SYNs that nobody completes. [`conntrack`] reads the table's own
//! figures in the gateway. All of it is bounded in count and in time, and needs root in the network namespace of the caller;
//! changing `nf_conntrack_max` and the buckets needs the initial one.

pub mod churn;
pub mod conntrack;
pub mod load;
pub mod netns;
mod packet;
mod ports;
pub mod processes;
pub mod scenario;
pub mod syn;
pub mod udp;
