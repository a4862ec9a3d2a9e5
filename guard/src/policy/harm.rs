//! Which timeouts may be shortened now, how far, and in which order of harm.

use std::time::Duration;

use super::limits::Limits;
use super::plan::Setting;
use super::situation::{SHORT, Situation};
use crate::observe::Timeout;

/// Timeouts in the order of the harm that a cut does, the least first. Those of one group harm alike.
const GROUPS: [&[Timeout]; 10] = [
    // early_drop evicts these anyway.
    &[Timeout::TcpSynRecv, Timeout::TcpSynSent],
    // A NATed port may be used again while the far end still is in TIME_WAIT.
    &[Timeout::TcpClose, Timeout::TcpTimeWait, Timeout::TcpLastAck],
    // The other end's FIN may come later than this.
    &[Timeout::TcpFinWait],
    // A late answer is not passed on.
    &[Timeout::Icmp, Timeout::Icmpv6],
    &[Timeout::Udp],
    // Open connections whose peer has gone silent: they may come back.
    &[Timeout::TcpUnacknowledged, Timeout::TcpMaxRetrans],
    // Tunnels, which have no end to see.
    &[Timeout::Generic, Timeout::Gre, Timeout::GreStream],
    // Live flows behind NAT lose their port (RFC 4787 asks for 2 min).
    &[Timeout::UdpStream],
    // Breaks the FIN of SNATed flows.
    &[Timeout::TcpCloseWait],
    // Open connections that are idle are cut.
    &[Timeout::TcpEstablished],
];

/// A cut that the bounds allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) timeout: Timeout,
    pub(super) from: u64,
    pub(super) to: u64,
    /// Place in the order of harm, from 0.
    pub(super) harm: usize,
    /// When the gain is looked at. Nothing is gained before `to` has passed, all of it once `from` has: that is awaited up
    /// to [`SHORT`].
    pub(super) after: Duration,
}

impl Cut {
    fn new(timeout: Timeout, from: u64, to: u64, harm: usize) -> Self {
        let full = Duration::from_secs(from);
        let after = if full <= SHORT { full } else { full.min(Duration::from_secs(to.saturating_mul(2))) };
        Self { timeout, from, to, harm, after }
    }

    /// The same, half as deep.
    pub(super) fn halved(self) -> Self {
        Self { to: self.to + (self.from - self.to) / 2, ..self }
    }
}

/// Every cut that may be made now, to its floor, the least harmful first.
pub(super) fn possible(situation: &Situation<'_>, waits: &dyn Fn(Setting) -> bool) -> Vec<Cut> {
    let all = GROUPS.iter().enumerate().flat_map(|(harm, group)| group.iter().map(move |timeout| (harm, *timeout)));
    let allowed = all.filter(|(_, timeout)| {
        let spared = situation.flood.is_some_and(|flood| !flood.fills(situation.estimate, *timeout));
        !(is_offloaded(situation, *timeout) || spared)
    });
    let cuts = allowed.filter_map(|(harm, timeout)| {
        let (from, to) = room(situation.limits, situation, timeout)?;
        // Nobody knows what a cut of a state would bring of which nothing is known.
        situation.estimate.states.get(&timeout)?;
        (!waits(Setting::Timeout(timeout))).then(|| Cut::new(timeout, from, to, harm))
    });
    cuts.collect()
}

/// Whether open connections pile up so fast that they fill the highest max before a cut of their timeout begins to pay.
pub(super) fn fills_before_a_cut_pays(situation: &Situation<'_>) -> bool {
    let established = Timeout::TcpEstablished;
    let Some((_, to)) = room(situation.limits, situation, established) else { return false };
    let may = !is_offloaded(situation, established) && situation.flood.is_none() && to > SHORT.as_secs();
    may && situation.passes_highest(situation.demand_in_force(Duration::from_secs(to)))
}

/// Whether a flowtable gives the flows of this timeout theirs, so that it must not be shortened.
pub(super) fn is_offloaded(situation: &Situation<'_>, timeout: Timeout) -> bool {
    situation.estimate.flowtables && timeout == Timeout::TcpEstablished
}

/// From where to where it may go. A value that others set outside of the range is left.
pub(super) fn room(limits: &Limits, situation: &Situation<'_>, timeout: Timeout) -> Option<(u64, u64)> {
    let range = limits.timeouts.get(&timeout)?;
    let from = *situation.estimate.timeouts.get(&timeout)?;
    (range.contains(from) && range.floor < from).then_some((from, range.floor))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_timeout_has_its_place_in_the_order_of_harm() {
        let ordered: Vec<_> = GROUPS.iter().copied().flatten().copied().collect();
        assert_eq!(ordered.iter().collect::<BTreeSet<_>>(), Timeout::ALL.iter().collect());
        assert_eq!(ordered.len(), Timeout::ALL.len(), "each once");
        assert_eq!(ordered.last(), Some(&Timeout::TcpEstablished));
    }

    #[test]
    fn the_gain_of_a_long_timeout_is_not_awaited_for_days() {
        let after = |from, to| Cut::new(Timeout::TcpEstablished, from, to, 9).after.as_secs();
        assert_eq!([after(120, 30), after(600, 30), after(432_000, 7_875)], [120, 600, 15_750]);
    }
}
