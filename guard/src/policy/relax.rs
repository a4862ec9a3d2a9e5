//! The rules that take back what was changed, one step at a time, while the load leaves room for it.

use std::time::Duration;

use super::gain::Gain;
use super::limits::{entry_cost, has_headroom, table_bytes};
use super::ours::Own;
use super::plan::{Change, Expectation, Expected, Rule, Setting};
use super::pressure::{NEAR, passes_mark};
use super::situation::{SHORT, Situation, in_force};
use super::unseen::unseen;
use crate::figures::{bytes, grouped, percent, time};
use crate::observe::Timeout;

/// One step back.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) change: Change,
    /// Whether the load leaves room for it.
    pub(super) fits: bool,
    /// After what time its effect shows.
    pub(super) shows: Duration,
    /// The count expected then without it.
    pub(super) without: u64,
}

/// The next step of one setting towards its original: a timeout at most doubles, max at most halves, so that no step
/// brings the table from calm to the mark. `None` where it is there, or as near as the bounds let it be. `elsewhere`: the
/// highest max with which another network namespace's table was full.
pub(super) fn step_back(situation: &Situation<'_>, own: &Own, gain: Gain, elsewhere: Option<u64>) -> Option<Step> {
    let current = in_force(situation.estimate, own.setting)?;
    let target = own.target(situation.limits)?;
    match own.setting {
        Setting::Timeout(timeout) => Some(relax_timeout(situation, timeout, current, target, gain)),
        // Twice that is what the raise made of it.
        Setting::Max => relax_max(situation, current, target.max(elsewhere.map_or(0, |max| max.saturating_mul(2)))),
        Setting::Buckets => None,
    }
}

fn relax_timeout(situation: &Situation<'_>, timeout: Timeout, current: u64, target: u64, gain: Gain) -> Step {
    let estimate = situation.estimate;
    let floor = situation.limits.timeouts.get(&timeout).map_or(0, |range| range.floor);
    let new = current.saturating_mul(2).max(floor).min(target);
    let shows = Duration::from_secs(new);
    let after = situation.foresight(shows);
    let with = situation.demand(after, &situation.timeouts_with(timeout, new));
    let without = situation.demand_in_force(shows);
    let seen_without = if shows <= SHORT { without } else { situation.demand(after, &estimate.timeouts) };
    let seen = with.saturating_sub(seen_without);
    let more = gain.of(seen.saturating_add(unseen(situation, timeout, new, shows, seen)));
    let count = without.saturating_add(more);
    let change = Change {
        setting: Setting::Timeout(timeout),
        old: current,
        new,
        rule: Rule::RelaxTimeout,
        evidence: calm(situation),
        predicted: format!(
            "{} entries more in {}, which fills {} of {}",
            grouped(more),
            time(shows),
            percent(count as f64 / estimate.table.max as f64),
            grouped(estimate.table.max)
        ),
        expectation: Some(Expectation { of: Expected::Count, value: count, at: estimate.at.saturating_add(shows) }),
    };
    // A prediction is of one moment, and there must be room until the next sweep as well.
    let most = count.max(estimate.table.count.saturating_add(more));
    Step { change, fits: has_room(situation, most, estimate.table.max), shows, without }
}

fn relax_max(situation: &Situation<'_>, current: u64, target: u64) -> Option<Step> {
    let Situation { estimate, policy, limits, sizing, .. } = situation;
    // What an earlier policy allowed may be above this one's ceiling.
    let new = target.max(current / 2).min(limits.max.ceiling).min(sizing.entries).max(limits.max.floor);
    // What was found over the memory limit may have no step that comes within it.
    if new >= current || table_bytes(new, estimate.entry_bytes, estimate.table.buckets) > limits.memory {
        return None;
    }
    let horizon = policy.table.horizon;
    // No further ahead than a raise looks: max rises again at once.
    let reach = estimate.table.count.max(estimate.forecast);
    let fits = has_room(situation, reach, new) && has_headroom(estimate.table.count, new);
    let count = estimate.outlook.count(horizon, &estimate.timeouts, new);
    let change = Change {
        setting: Setting::Max,
        old: current,
        new,
        rule: Rule::RelaxMax,
        evidence: calm(situation),
        predicted: format!(
            "the forecast fills {} of {}; a full table takes {} less for entries",
            percent(reach as f64 / new as f64),
            grouped(new),
            bytes((current - new).saturating_mul(entry_cost(estimate.entry_bytes)))
        ),
        expectation: Some(Expectation { of: Expected::Count, value: count, at: estimate.at.saturating_add(horizon) }),
    };
    Some(Step { change, fits, shows: horizon, without: count })
}

/// Whether so many entries stay well clear of the mark of `max`.
fn has_room(situation: &Situation<'_>, entries: u64, max: u64) -> bool {
    !passes_mark(entries, max, situation.policy.table.high_water * NEAR)
}

fn calm(situation: &Situation<'_>) -> String {
    let Situation { estimate, policy, .. } = situation;
    format!(
        "calm for {} and longer: {} entries, {} expected in {}",
        time(policy.relax.after),
        grouped(estimate.table.count),
        grouped(estimate.forecast),
        time(policy.table.horizon)
    )
}

/// Why max stays above its original for good.
pub(super) fn needed_elsewhere(max: u64) -> String {
    format!(
        "with a max of {} the table of another network namespace was full; what that one needs now cannot be seen from \
         here, so max stays above it. To have it back, set it yourself or stop the guard",
        grouped(max)
    )
}

/// Why a step waits although nothing presses.
pub(super) fn waits_for_room(situation: &Situation<'_>) -> String {
    format!(
        "nothing presses any more, but with the load there is, this step back could fill it past {} of \
         table.high-water; it is taken when there has been room for it for relax.after ({}) or longer. To have it at once, \
         set the value yourself",
        percent(NEAR),
        time(situation.policy.relax.after)
    )
}

#[cfg(test)]
mod tests;
