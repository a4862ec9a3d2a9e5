//! What a change of a timeout does that the outlook cannot know yet: it learns from entries that end, and those that fill a
//! table for the first time have not ended.

use std::time::Duration;

use super::situation::Situation;
use crate::observe::Timeout;

/// An outlook that sees less than one part in so many of what Little's law gives does not know these entries.
const SEEN_PART: u64 = 4;

/// The entries that `to` seconds in place of the present timeout make more or fewer `after` from now, less those that the
/// outlook sees (`seen`); 0 where it knows them, and where no census has counted any.
///
/// By Little's law (entries there = rate at which they come × time they stay) for states in which entries only wait for
/// their end. Of open connections, those that pile up: with the shorter time, the ones that came early enough have ended.
/// Of the others, in which live flows wait between packets, nobody knows how many would end.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, NaN becomes 0")]
pub(super) fn unseen(situation: &Situation<'_>, timeout: Timeout, to: u64, after: Duration, seen: u64) -> u64 {
    let estimate = situation.estimate;
    let Some((state, &from)) = estimate.states.get(&timeout).zip(estimate.timeouts.get(&timeout)) else { return 0 };
    let expected = if timeout == Timeout::TcpEstablished {
        let early = after.saturating_sub(Duration::from_secs(to.min(from)));
        (situation.piling * early.as_secs_f64()) as u64
    } else if only_waits(timeout) {
        (state.entries * to.abs_diff(from) as f64 / from.max(1) as f64) as u64
    } else {
        0
    };
    if seen < expected / SEEN_PART { expected - seen } else { 0 }
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
