//! What each timeout keeps in the table, and what goes wrong when it is short.

use super::policy::Timeouts;
use crate::observe::Timeout;

/// RFC 5382 (REQ-5): an open connection that is silent must be kept for 2 hours and 4 minutes.
const RFC_5382: u64 = 7_440;

/// Which entries have this timeout.
pub(super) fn entries(timeout: Timeout) -> &'static str {
    match timeout {
        Timeout::TcpSynSent => "TCP, a SYN seen",
        Timeout::TcpSynRecv => "TCP, a SYN and its answer seen",
        Timeout::TcpEstablished => "TCP, open",
        Timeout::TcpFinWait => "TCP, one FIN seen",
        Timeout::TcpCloseWait => "TCP, one FIN and its ACK seen",
        Timeout::TcpLastAck => "TCP, both FINs seen",
        Timeout::TcpTimeWait => "TCP, closed by both ends",
        Timeout::TcpClose => "TCP, reset",
        Timeout::TcpMaxRetrans => "TCP, retransmitted more often than `nf_conntrack_tcp_max_retrans`",
        Timeout::TcpUnacknowledged => "TCP, data that nobody acknowledged",
        Timeout::Udp => "UDP in one direction, or in both for less than 2 s",
        Timeout::UdpStream => "UDP in both directions for longer",
        Timeout::Icmp => "ICMP",
        Timeout::Icmpv6 => "ICMPv6",
        Timeout::Generic => "protocols without a tracker",
        Timeout::Gre => "GRE in one direction",
        Timeout::GreStream => "GRE in both directions",
    }
}

/// What goes wrong below [`harmless`], as the rest of a sentence.
pub(super) fn harm(timeout: Timeout) -> &'static str {
    match timeout {
        Timeout::TcpSynSent => "the answer to a SYN that was sent again (after 1, 3, 7 and 15 s) finds no entry",
        Timeout::TcpSynRecv => "clients on slow paths with lost packets find no entry for their ACK",
        Timeout::TcpEstablished => {
            "silent connections break: RFC 5382 asks for 7440 s, and Linux's keepalive needs up to 7875 s"
        }
        Timeout::TcpFinWait => "an end that is slow to close finds no entry for its data",
        Timeout::TcpCloseWait => "the FIN of flows behind SNAT goes out untranslated, and they never end",
        Timeout::TcpLastAck => "a FIN that is sent again finds no entry",
        Timeout::TcpTimeWait => "a NATed port is used again while the far end still is in TIME_WAIT (60 s on Linux)",
        Timeout::TcpClose => "packets still under way pass for new flows",
        Timeout::TcpMaxRetrans | Timeout::TcpUnacknowledged => {
            "live connections break: retransmissions come up to 120 s apart"
        }
        Timeout::Udp => "slow answers find no entry: DNS clients try again after 5 s and give up after 15",
        Timeout::UdpStream => "silent streams lose their NAT mapping: RFC 4787 asks for 120 s",
        Timeout::Icmp | Timeout::Icmpv6 => "the answers of slow paths find no entry",
        Timeout::Generic | Timeout::Gre | Timeout::GreStream => "silent tunnels break",
    }
}

/// From so many seconds on a floor does no harm.
pub(super) fn harmless(timeout: Timeout) -> u64 {
    match timeout {
        Timeout::TcpEstablished => RFC_5382,
        other => Timeouts::default_floor(other),
    }
}
