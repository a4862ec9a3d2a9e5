//! The timeouts of nf_conntrack: how long an entry stays in the table after its last packet, by its protocol and state.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Error;
use super::table::{DIRECTORY, number};

/// The timeouts in force, seconds, in the order of [`Timeout::ALL`]. One that this kernel does not have is not there.
pub type Timeouts = BTreeMap<Timeout, u64>;

/// A timeout sysctl of nf_conntrack, and with it the entries whose time it sets.
///
/// An entry takes the value when a packet refreshes it or changes its state: a shorter timeout leaves the entries that are
/// there already as they are (`nf_ct_refresh_acct`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Timeout {
    /// TCP, a SYN seen.
    TcpSynSent,
    /// TCP, a SYN and its SYN/ACK seen.
    TcpSynRecv,
    /// TCP, open.
    TcpEstablished,
    /// TCP, one FIN seen.
    TcpFinWait,
    /// TCP, one FIN and its ACK seen.
    TcpCloseWait,
    /// TCP, both FINs seen.
    TcpLastAck,
    /// TCP, closed by both ends.
    TcpTimeWait,
    /// TCP, reset.
    TcpClose,
    /// TCP, retransmitted more often than `nf_conntrack_tcp_max_retrans`.
    TcpMaxRetrans,
    /// TCP, data that nobody acknowledged.
    TcpUnacknowledged,
    /// UDP in one direction, or in both for less than 2 s.
    Udp,
    /// UDP in both directions for longer.
    UdpStream,
    /// ICMP.
    Icmp,
    /// ICMPv6.
    Icmpv6,
    /// Protocols that conntrack has no tracker for.
    Generic,
    /// GRE in one direction.
    Gre,
    /// GRE in both.
    GreStream,
}

impl Timeout {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::TcpSynSent,
        Self::TcpSynRecv,
        Self::TcpEstablished,
        Self::TcpFinWait,
        Self::TcpCloseWait,
        Self::TcpLastAck,
        Self::TcpTimeWait,
        Self::TcpClose,
        Self::TcpMaxRetrans,
        Self::TcpUnacknowledged,
        Self::Udp,
        Self::UdpStream,
        Self::Icmp,
        Self::Icmpv6,
        Self::Generic,
        Self::Gre,
        Self::GreStream,
    ];

    /// The timeout of a TCP entry in this state (`enum tcp_conntrack`); `None` for SYN_SENT2 (both ends opened at once),
    /// whose timeout is no sysctl.
    pub fn of_tcp_state(state: u8) -> Option<Self> {
        match state {
            1 => Some(Self::TcpSynSent),
            2 => Some(Self::TcpSynRecv),
            3 => Some(Self::TcpEstablished),
            4 => Some(Self::TcpFinWait),
            5 => Some(Self::TcpCloseWait),
            6 => Some(Self::TcpLastAck),
            7 => Some(Self::TcpTimeWait),
            8 => Some(Self::TcpClose),
            _ => None,
        }
    }

    /// The sysctl below net.netfilter.
    pub fn sysctl(self) -> &'static str {
        match self {
            Self::TcpSynSent => "nf_conntrack_tcp_timeout_syn_sent",
            Self::TcpSynRecv => "nf_conntrack_tcp_timeout_syn_recv",
            Self::TcpEstablished => "nf_conntrack_tcp_timeout_established",
            Self::TcpFinWait => "nf_conntrack_tcp_timeout_fin_wait",
            Self::TcpCloseWait => "nf_conntrack_tcp_timeout_close_wait",
            Self::TcpLastAck => "nf_conntrack_tcp_timeout_last_ack",
            Self::TcpTimeWait => "nf_conntrack_tcp_timeout_time_wait",
            Self::TcpClose => "nf_conntrack_tcp_timeout_close",
            Self::TcpMaxRetrans => "nf_conntrack_tcp_timeout_max_retrans",
            Self::TcpUnacknowledged => "nf_conntrack_tcp_timeout_unacknowledged",
            Self::Udp => "nf_conntrack_udp_timeout",
            Self::UdpStream => "nf_conntrack_udp_timeout_stream",
            Self::Icmp => "nf_conntrack_icmp_timeout",
            Self::Icmpv6 => "nf_conntrack_icmpv6_timeout",
            Self::Generic => "nf_conntrack_generic_timeout",
            Self::Gre => "nf_conntrack_gre_timeout",
            Self::GreStream => "nf_conntrack_gre_timeout_stream",
        }
    }

    /// Its name in a policy, a plan and the status.
    pub fn name(self) -> &'static str {
        match self {
            Self::TcpSynSent => "tcp-syn-sent",
            Self::TcpSynRecv => "tcp-syn-recv",
            Self::TcpEstablished => "tcp-established",
            Self::TcpFinWait => "tcp-fin-wait",
            Self::TcpCloseWait => "tcp-close-wait",
            Self::TcpLastAck => "tcp-last-ack",
            Self::TcpTimeWait => "tcp-time-wait",
            Self::TcpClose => "tcp-close",
            Self::TcpMaxRetrans => "tcp-max-retrans",
            Self::TcpUnacknowledged => "tcp-unacknowledged",
            Self::Udp => "udp",
            Self::UdpStream => "udp-stream",
            Self::Icmp => "icmp",
            Self::Icmpv6 => "icmpv6",
            Self::Generic => "generic",
            Self::Gre => "gre",
            Self::GreStream => "gre-stream",
        }
    }

    /// What the kernel starts with, seconds (nf_conntrack_proto_*.c).
    pub fn kernel_default(self) -> u64 {
        match self {
            Self::TcpEstablished => 432_000,
            Self::TcpMaxRetrans | Self::TcpUnacknowledged => 300,
            Self::TcpSynSent | Self::TcpFinWait | Self::TcpTimeWait | Self::UdpStream => 120,
            Self::TcpSynRecv | Self::TcpCloseWait => 60,
            Self::TcpLastAck | Self::Udp | Self::Icmp | Self::Icmpv6 | Self::Gre => 30,
            Self::TcpClose => 10,
            Self::Generic => 600,
            Self::GreStream => 180,
        }
    }
}

/// Reads the timeouts below `root`. A file that is not there is a timeout that this kernel does not have (GRE without its
/// module, say) and no error.
pub fn read(root: &Path) -> Result<Timeouts, Error> {
    let directory = root.join(DIRECTORY);
    let mut timeouts = Timeouts::new();
    for timeout in Timeout::ALL {
        let path = directory.join(timeout.sysctl());
        if fs::exists(&path).unwrap_or(false) {
            timeouts.insert(timeout, number(path)?);
        }
    }
    Ok(timeouts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_lacks_is_left_out_and_what_is_no_number_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join(DIRECTORY)).unwrap();
        assert_eq!(read(root.path()).unwrap(), Timeouts::new());
        let udp = root.path().join(DIRECTORY).join(Timeout::Udp.sysctl());
        fs::write(&udp, "30\n").unwrap();
        assert_eq!(read(root.path()).unwrap(), Timeouts::from([(Timeout::Udp, 30)]));
        fs::write(&udp, "soon\n").unwrap();
        assert!(read(root.path()).unwrap_err().to_string().contains("udp_timeout"));
    }

    #[test]
    fn the_names_are_those_of_serde() {
        for timeout in Timeout::ALL {
            assert_eq!(serde_json::to_string(&timeout).unwrap(), format!("\"{}\"", timeout.name()));
        }
    }
}
