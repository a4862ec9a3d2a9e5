//! The rule that raises max ahead of the forecast.

use super::limits::{entry_cost, table_bytes};
use super::obstacle::Obstacle;
use super::plan::{Change, Expectation, Expected, Rule, Setting};
use super::pressure::{Pressure, passes_mark};
use super::situation::Situation;
use super::verdict::Verdict;
use crate::config::Policy;
use crate::figures::{bytes, grouped, per_second, percent, time};
use crate::model::Estimate;

/// Raises max when the load presses on it: at least to twice the old value, so that a growing table needs few raises, and
/// far enough that the forecast stays under the mark. `was_limited`: whether something stopped the raise at the tick
/// before.
pub(super) fn raise_max(situation: &Situation<'_>, pressure: &Pressure, was_limited: bool) -> Verdict {
    let &Situation { estimate, policy, limits, memory, surge, .. } = situation;
    let (highest, obstacle) = match surge {
        Some(for_surge) if for_surge < situation.highest => (for_surge.max(estimate.table.max), Obstacle::Surge),
        _ => (situation.highest, situation.obstacle),
    };
    let table = &estimate.table;
    let hold = |obstacle: Obstacle| {
        let reason = obstacle.reason(limits, memory);
        Verdict { limited: Some(obstacle), ..Verdict::held(Setting::Max, Rule::RaiseMax, reason) }
    };
    if table.max == 0 {
        let reason = "max is 0, which means no limit: there is nothing to raise, and table.memory-limit cannot be kept; \
                      set net.netfilter.nf_conntrack_max to a number";
        return Verdict::held(Setting::Max, Rule::RaiseMax, reason.to_owned());
    }
    if table.max > limits.max.ceiling {
        return hold(Obstacle::FoundAboveCeiling);
    }
    if table_bytes(table.max, estimate.entry_bytes, table.buckets) > limits.memory {
        return hold(Obstacle::FoundOverMemory);
    }

    if !pressure.is_on() {
        let at_limit = table.max >= highest || highest < limits.max.floor;
        if was_limited && at_limit && pressure.near {
            return hold(obstacle);
        }
        if matches!(obstacle, Obstacle::Flood(_)) {
            // Nothing is wanted yet, but who reads this wants to know.
            return Verdict::reported(Setting::Max, Rule::RaiseMax, obstacle.reason(limits, memory));
        }
        if table.max < limits.max.floor {
            let reason = format!(
                "max as found is below table.max.floor ({}) and is left so until the forecast asks for more; to have it \
                 now, set net.netfilter.nf_conntrack_max yourself",
                grouped(limits.max.floor)
            );
            return Verdict::reported(Setting::Max, Rule::RaiseMax, reason);
        }
        return Verdict::default();
    }

    let high_water = policy.table.high_water;
    let wanted = table.max.saturating_mul(2).max(fitting(pressure.reach, high_water)).max(limits.max.floor);
    let new = wanted.min(highest);
    let stopped = if wanted > highest { hold(obstacle) } else { Verdict::default() };
    let change = (new > table.max && new >= limits.max.floor).then(|| Change {
        setting: Setting::Max,
        old: table.max,
        new,
        rule: Rule::RaiseMax,
        evidence: evidence(estimate, policy),
        predicted: format!(
            "the forecast fills {} of {}; a full table takes {} for entries",
            percent(pressure.reach as f64 / new as f64),
            grouped(new),
            bytes(new.saturating_mul(entry_cost(estimate.entry_bytes)))
        ),
        expectation: Some(Expectation {
            of: Expected::Count,
            value: estimate.outlook.count(policy.table.horizon, &estimate.timeouts, new),
            at: estimate.at.saturating_add(policy.table.horizon),
        }),
    });
    // What was had may be enough for a while: it is looked at again as soon as ever.
    Verdict { blocked: stopped.blocked && change.is_none(), change, ..stopped }
}

/// A max under whose mark `reach` stays, the smallest but for rounding.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates at both ends")]
pub(crate) fn fitting(reach: u64, high_water: f64) -> u64 {
    // A high-water of 0, which no valid policy has, asks for everything and the limits decide.
    let max = (reach as f64 / high_water).ceil() as u64;
    // Rounded down by the last bit, the result would pass its own mark and be doubled at the next tick.
    if passes_mark(reach, max, high_water) { max.saturating_add((max >> 50) + 1) } else { max }
}

fn evidence(estimate: &Estimate, policy: &Policy) -> String {
    let table = &estimate.table;
    let mark = format!("{} of {}", percent(policy.table.high_water), grouped(table.max));
    let mut line = if passes_mark(table.count, table.max, policy.table.high_water) {
        format!("{} entries are past {mark}", grouped(table.count))
    } else if !passes_mark(estimate.forecast, table.max, policy.table.high_water) {
        format!("a table is full in another network namespace; this one has {} entries", grouped(table.count))
    } else {
        format!("forecast {} entries in {} passes {mark}", grouped(estimate.forecast), time(policy.table.horizon))
    };
    line.push_str("; growth ");
    line.push_str(&per_second(estimate.growth));
    if estimate.table_full > 0 {
        line.push_str("; new flows dropped for a full table: ");
        line.push_str(&grouped(estimate.table_full));
    }
    line
}
