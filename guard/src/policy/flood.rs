//! A load that is more than growth, and how far max may rise for it.

use super::limits::Limits;
use super::raise::fitting;
use crate::config::{Flood, Policy};
use crate::model::{Estimate, Load};
use crate::observe::Timeout;

/// Room is kept for what comes in so many seconds. A full table evicts what is not ASSURED, and so answered flows too that
/// have just begun; with this room they have the time of a handshake whose SYN is lost twice (sent again after 1 s and 3 s).
const HANDSHAKE: f64 = 5.0;
/// max is not raised by less than one part in so many: what a flood leaves of the table moves all the time.
const LEAST_PART: u64 = 8;
/// From this share of entries without a reply on, a cut of their timeout spares the flows that are answered.
const MOSTLY_UNREPLIED: f64 = 0.5;
/// A state is one of those that a flood fills if it holds this share of the entries that nobody answered.
const ITS_OWN: f64 = 0.1;
/// While nobody knows what a surge is, max rises to no more than so many times what it was.
const SURGE: u64 = 2;

/// What was known of a flood when it was noticed. Kept as it was then, because a reason holds no figure that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FloodSeen {
    /// Of what came on top of calm, per cent that had no reply.
    pub(super) unreplied: u64,
    /// Their sources.
    pub(super) sources: u64,
    /// What most of it waits for; `None` where that is not known.
    pub(super) mostly: Option<Timeout>,
    /// Entries that nobody has answered now.
    entries: u64,
}

impl FloodSeen {
    /// What there is to remember after this estimate; `None` when there is no flood.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share from 0 to 1; `as` saturates")]
    pub(super) fn next(before: Option<Self>, estimate: &Estimate, policy: &Flood) -> Option<Self> {
        let Load::Flood { unreplied, entries, sources } = estimate.load else { return None };
        if let Some(before) = before.filter(|_| policy.detect) {
            return Some(Self { entries, ..before });
        }
        let is_one = policy.detect && unreplied >= policy.unreplied;
        let unreplied = (unreplied * 100.0).round() as u64;
        is_one.then(|| Self { unreplied, sources, mostly: mostly(estimate), entries })
    }

    /// Whether a cut of this timeout ends entries of it, and hardly any other.
    pub(super) fn fills(&self, estimate: &Estimate, timeout: Timeout) -> bool {
        unanswered(estimate, timeout) >= (ITS_OWN * self.entries as f64).max(1.0) && is_unreplied(estimate, timeout)
    }

    /// The highest max for it: for the flows that are answered, and for a handshake's time of all that come, but for the
    /// latter no more than max as the operator left it.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, NaN becomes 0")]
    pub(super) fn highest(&self, estimate: &Estimate, policy: &Policy, limits: &Limits) -> u64 {
        let max = estimate.table.max;
        let answered = estimate.table.count.saturating_sub(self.entries);
        let new = (estimate.insert_rate.unwrap_or(estimate.growth) * HANDSHAKE) as u64;
        let needed = fitting(answered.saturating_add(new.min(limits.found_max)), policy.table.high_water);
        if needed >= max.saturating_add(max / LEAST_PART) { needed } else { max }
    }
}

/// Entries of this timeout that nobody answered.
fn unanswered(estimate: &Estimate, timeout: Timeout) -> f64 {
    let share = |unreplied| if timeout == Timeout::TcpSynRecv { 1.0 } else { unreplied };
    estimate.states.get(&timeout).map_or(0.0, |state| state.entries * share(state.unreplied))
}

/// Whether the entries are never ASSURED, or most have no reply.
fn is_unreplied(estimate: &Estimate, timeout: Timeout) -> bool {
    matches!(timeout, Timeout::TcpSynSent | Timeout::TcpSynRecv)
        || estimate.states.get(&timeout).is_some_and(|state| state.unreplied >= MOSTLY_UNREPLIED)
}

fn mostly(estimate: &Estimate) -> Option<Timeout> {
    let all = estimate.states.keys().map(|timeout| (*timeout, unanswered(estimate, *timeout)));
    all.max_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, entries)| *entries >= 1.0).map(|(timeout, _)| timeout)
}

/// max when a surge began of which nobody knows yet whether it is a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SurgeSeen(u64);

impl SurgeSeen {
    /// What there is to remember after this estimate.
    pub(super) fn next(before: Option<Self>, estimate: &Estimate, policy: &Flood) -> Option<Self> {
        let surge = policy.detect && estimate.load == Load::Surge;
        surge.then(|| before.unwrap_or(Self(estimate.table.max)))
    }

    /// The highest max until it is known.
    pub(super) fn highest(self) -> u64 {
        self.0.saturating_mul(SURGE)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{estimate, host};
    use super::*;

    /// 90,000 entries of 100,000, so many of them nobody's, and so many new ones a second.
    fn flood(entries: u64, rate: f64) -> Estimate {
        let load = Load::Flood { unreplied: 0.9, entries, sources: 7 };
        Estimate { load, insert_rate: Some(rate), ..estimate(90_000, 100_000, 0.0) }
    }

    fn highest(estimate: &Estimate) -> u64 {
        let policy = Policy::default();
        let limits = Limits::new(&policy, &host(estimate)).unwrap();
        FloodSeen::next(None, estimate, &policy.flood).unwrap().highest(estimate, &policy, &limits)
    }

    #[test]
    fn max_rises_for_what_is_answered_and_a_handshakes_time_of_what_comes() {
        assert_eq!(highest(&flood(60_000, 9_000.0)), 100_000, "30,000 and 45,000 fit");
        assert_eq!(highest(&flood(60_000, 11_000.0)), 100_000, "less than an eighth more is not worth a write");
        assert_eq!(highest(&flood(60_000, 14_000.0)), 125_000);
        assert_eq!(highest(&flood(10_000, 2_000.0)), 112_500, "80,000 answered ones get their room");
        assert_eq!(highest(&flood(60_000, 1e9)), 162_500, "no flood gets more than max as it was found");
        assert_eq!(highest(&flood(60_000, f64::NAN)), 100_000);
    }

    #[test]
    fn the_policy_says_from_which_share_on_it_is_one() {
        let of = |unreplied| Flood { detect: true, unreplied };
        let seen = flood(60_000, 0.0);
        assert!(FloodSeen::next(None, &seen, &of(0.9)).is_some() && FloodSeen::next(None, &seen, &of(0.91)).is_none());
        let before = FloodSeen::next(None, &seen, &of(0.9));
        assert!(FloodSeen::next(before, &seen, &of(0.91)).is_some(), "it does not end by that");
        assert_eq!(FloodSeen::next(before, &seen, &Flood { detect: false, unreplied: 0.5 }), None);
    }

    #[test]
    fn a_surge_may_double_max_once() {
        let policy = Policy::default().flood;
        let mut surge = Estimate { load: Load::Surge, ..estimate(90_000, 100_000, 0.0) };
        let first = SurgeSeen::next(None, &surge, &policy);
        surge.table.max = 200_000;
        let second = SurgeSeen::next(first, &surge, &policy);
        assert_eq!((first, second.unwrap().highest()), (second, 200_000));
        surge.load = Load::Growth;
        assert_eq!(SurgeSeen::next(second, &surge, &policy), None);
        surge.load = Load::Surge;
        assert_eq!(SurgeSeen::next(None, &surge, &Flood { detect: false, ..policy }), None);
    }
}
