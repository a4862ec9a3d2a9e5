//! The whole decision of one tick.

use std::collections::BTreeMap;

use super::attempts::{Attempt, admit};
use super::limits::Limits;
use super::pause::Pauses;
use super::plan::{Plan, Setting};
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
    /// Why the last write of a setting failed.
    failures: BTreeMap<Setting, String>,
}

impl State {
    /// The same, with these settings paused from now on.
    #[must_use]
    pub fn paused(self, pauses: Pauses) -> Self {
        Self { pauses, ..self }
    }

    /// Takes in what became of a change: why it failed, with the file and the way out and no figure that moves from try to
    /// try; `None` where the kernel has it.
    pub fn told(&mut self, setting: Setting, failure: Option<String>) {
        match failure {
            Some(failure) => self.failures.insert(setting, failure),
            None => self.failures.remove(&setting),
        };
    }

    fn failure(&self, setting: Setting) -> Option<&str> {
        self.failures.get(&setting).map(String::as_str)
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
    let (max, raise) = admit(state.max, table.max, estimate.at, policy.mode, state.failure(Setting::Max), raise);
    let max_after = raise.change.as_ref().map_or(table.max, |change| change.new);

    let presize = presize_buckets(estimate, limits, &sizing, max_after);
    let presize = state.pauses.hold(presize, estimate.at);
    let failure = state.failure(Setting::Buckets);
    let (buckets, presize) = admit(state.buckets, table.buckets, estimate.at, policy.mode, failure, presize);

    let mut plan = Plan { at: estimate.at, max_blocked: raise.blocked, ..Plan::default() };
    for verdict in [raise, presize] {
        plan.changes.extend(verdict.change);
        plan.held.extend(verdict.held);
    }
    let (pauses, failures) = (state.pauses.clone(), state.failures.clone());
    (State { max, buckets, limited, refusals, pauses, failures }, plan)
}
