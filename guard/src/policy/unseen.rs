//! What a change of a timeout does that the outlook cannot know yet: it learns from entries that end, and those that fill a
//! table for the first time have not ended.

use super::situation::Situation;
use crate::observe::Timeout;

/// An outlook that sees less than one part in so many of what Little's law gives does not know these entries.
const SEEN_PART: u64 = 4;

/// By Little's law (entries there = rate at which they come × time they stay), the entries that `to` seconds in place of
/// the present timeout make more or fewer, less those that the outlook sees (`seen`). 0 where the outlook knows the entries,
/// where no census has counted them, and for states in which live flows wait between packets: of those nobody knows how
/// many would end.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, NaN becomes 0")]
pub(super) fn unseen(situation: &Situation<'_>, timeout: Timeout, to: u64, seen: u64) -> u64 {
    let estimate = situation.estimate;
    let Some((state, from)) = estimate.states.get(&timeout).zip(estimate.timeouts.get(&timeout)) else { return 0 };
    if !only_waits(timeout) {
        return 0;
    }
    let share = to.abs_diff(*from) as f64 / (*from).max(1) as f64;
    let by_law = (state.entries * share) as u64;
    if seen < by_law / SEEN_PART { by_law - seen } else { 0 }
}

/// Whether an entry in this state only waits for its end.
fn only_waits(timeout: Timeout) -> bool {
    match timeout {
        Timeout::TcpSynSent
        | Timeout::TcpSynRecv
        | Timeout::TcpFinWait
        | Timeout::TcpLastAck
        | Timeout::TcpTimeWait
        | Timeout::TcpClose
        | Timeout::Udp
        | Timeout::Icmp
        | Timeout::Icmpv6 => true,
        Timeout::TcpEstablished
        | Timeout::TcpCloseWait
        | Timeout::TcpMaxRetrans
        | Timeout::TcpUnacknowledged
        | Timeout::UdpStream
        | Timeout::Generic
        | Timeout::Gre
        | Timeout::GreStream => false,
    }
}
