//! The whole decision of one tick.

use super::attempts::{Attempt, admit};
use super::limits::Limits;
use super::pause::Pauses;
use super::plan::Plan;
use super::presize::presize_buckets;
use super::raise::raise_max;
use super::refusals::Refusals;
use super::sizing::Sizing;
use crate::config::{Mode, Policy};
use crate::model::Estimate;

/// What the policy remembers from tick to tick.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    max: Option<Attempt>,
    buckets: Option<Attempt>,
    /// Whether a limit stopped a raise of max.
    limited: bool,
    refusals: Refusals,
    pauses: Pauses,
}

impl State {
    /// The same, with these settings paused from now on.
    #[must_use]
    pub fn paused(self, pauses: Pauses) -> Self {
        Self { pauses, ..self }
    }
}

/// What is to change now, and why. Max comes first: an emergency never waits for a resize.
///
/// A change that did not take (the old value is read again) is asked for again after 1 s, 2 s, 4 s … 60 s, and held in
/// between; so is one that another program undoes again and again, after a few prompt repeats. In `advise` mode, where
/// nothing is carried out, the same advice is not given twice. In `off` mode nothing is decided.
pub fn decide(state: &State, estimate: &Estimate, policy: &Policy, limits: &Limits) -> (State, Plan) {
    if policy.mode == Mode::Off {
        return (state.clone(), Plan { at: estimate.at, ..Plan::default() });
    }
    let table = &estimate.table;
    let sizing = Sizing::new(limits, table, estimate.entry_bytes);

    let refusals = state.refusals.next(estimate);
    let raise = raise_max(estimate, policy, limits, &sizing, refusals, state.limited);
    let limited = raise.limited;
    let raise = state.pauses.hold(raise, estimate.at);
    let (max, raise) = admit(state.max, table.max, estimate.at, policy.mode, raise);
    let max_after = raise.change.as_ref().map_or(table.max, |change| change.new);

    let presize = presize_buckets(estimate, limits, &sizing, max_after);
    let presize = state.pauses.hold(presize, estimate.at);
    let (buckets, presize) = admit(state.buckets, table.buckets, estimate.at, policy.mode, presize);

    let mut plan = Plan { at: estimate.at, max_blocked: raise.blocked, ..Plan::default() };
    for verdict in [raise, presize] {
        plan.changes.extend(verdict.change);
        plan.held.extend(verdict.held);
    }
    (State { max, buckets, limited, refusals, pauses: state.pauses.clone() }, plan)
}
