//! Room that will be short later than the horizon, where max cannot rise far enough. Cuts of timeouts pay late, so they
//! must come before the forecast passes the mark.

use std::time::Duration;

use super::situation::Situation;

/// How far ahead the load is held against the highest max. The floors of what is cut first are 30 s and less, so that a cut
/// made now has freed something for half of this time.
const LEAD: Duration = Duration::from_mins(1);

/// Since when the load has been expected to ask for more than the highest max holds, without a pause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Foreseen(Option<Duration>);

impl Foreseen {
    /// Takes in the next tick.
    pub(super) fn look(self, situation: &Situation<'_>) -> Self {
        let now = situation.estimate.at;
        let shortens = situation.policy.timeouts.shorten && situation.estimate.table.max > 0;
        let too_much = shortens && situation.passes_highest(situation.demand_in_force(LEAD));
        Self(too_much.then(|| self.0.filter(|since| *since <= now).unwrap_or(now)))
    }

    /// Whether that has lasted for the horizon: a gust is none. What is known to be a flood is no gust, and each second's
    /// entries keep the timeout that they came under.
    pub(super) fn is_short(self, situation: &Situation<'_>) -> bool {
        let lasted = |since| situation.estimate.at.saturating_sub(since) >= situation.policy.table.horizon;
        self.0.is_some_and(|since| situation.flood.is_some() || lasted(since))
    }
}
