//! The rule that raises max ahead of the forecast.

use super::limits::{Limits, entry_cost, table_bytes};
use super::plan::{Change, Rule, Setting};
use super::refusals::Refusals;
use super::sizing::Sizing;
use super::verdict::Verdict;
use crate::config::Policy;
use crate::figures::{bytes, grouped, per_second, percent, time};
use crate::model::Estimate;

/// A reason given at the mark stands until the forecast has fallen to this share of the mark: a load that swings around
/// the mark is not told the same reason again and again.
const STANDS_UNTIL: f64 = 0.75;

/// Raises max when the forecast, or the count already, passes the high-water mark, or when the table of any network
/// namespace refused a flow: at least to twice the old value, so that a growing table needs few raises, and far enough
/// that the forecast stays under the mark. `was_limited`: whether a limit stopped the raise at the tick before.
pub(super) fn raise_max(
    estimate: &Estimate,
    policy: &Policy,
    limits: &Limits,
    sizing: &Sizing,
    refusals: Refusals,
    was_limited: bool,
) -> Verdict {
    let table = &estimate.table;
    let hold = |reason: String| Verdict::held(Setting::Max, Rule::RaiseMax, reason);
    if table.max == 0 {
        return hold(
            "max is 0, which means no limit: there is nothing to raise, and table.memory-limit cannot be kept; set \
             net.netfilter.nf_conntrack_max to a number"
                .to_owned(),
        );
    }
    if table.max > limits.max.ceiling {
        return hold(format!(
            "max as found is above table.max.ceiling ({}) and is left so; raise the ceiling, or lower max yourself",
            grouped(limits.max.ceiling)
        ));
    }
    if table_bytes(table.max, estimate.entry_bytes, table.buckets) > limits.memory {
        return hold(format!(
            "entries at max as found and the buckets take more than table.memory-limit ({}) and are left so; raise \
             table.memory-limit, or lower max yourself",
            bytes(limits.memory)
        ));
    }

    // What was refused needs more than all of max.
    let refused = if refusals.now > 0 { table.max } else { 0 };
    let reach = estimate.forecast.max(table.count).max(refused);
    let high_water = policy.table.high_water;
    if !passes_mark(reach, table.max, high_water) {
        let at_limit = table.max >= sizing.entries || sizing.entries < limits.max.floor;
        let stands = refusals.lately || passes_mark(reach, table.max, high_water * STANDS_UNTIL);
        if was_limited && at_limit && stands {
            return Verdict { limited: true, ..hold(limited(limits, sizing)) };
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

    let wanted = table.max.saturating_mul(2).max(fitting(reach, high_water)).max(limits.max.floor);
    let new = wanted.min(sizing.entries);
    let over = wanted > sizing.entries;
    let stopped = if over { hold(limited(limits, sizing)) } else { Verdict::default() };
    let change = (new > table.max && new >= limits.max.floor).then(|| Change {
        setting: Setting::Max,
        old: table.max,
        new,
        rule: Rule::RaiseMax,
        evidence: evidence(estimate, policy),
        predicted: format!(
            "the forecast fills {} of {}; a full table takes {} for entries",
            percent(reach as f64 / new as f64),
            grouped(new),
            bytes(new.saturating_mul(entry_cost(estimate.entry_bytes)))
        ),
        expectation: None,
    });
    Verdict { change, limited: over, ..stopped }
}

fn passes_mark(reach: u64, max: u64, high_water: f64) -> bool {
    reach as f64 > max as f64 * high_water
}

/// A max under whose mark `reach` stays, the smallest but for rounding.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates at both ends")]
fn fitting(reach: u64, high_water: f64) -> u64 {
    // A high-water of 0, which no valid policy has, asks for everything and the limits decide.
    let max = (reach as f64 / high_water).ceil() as u64;
    // Rounded down by the last bit, the result would pass its own mark and be doubled at the next tick.
    if passes_mark(reach, max, high_water) { max.saturating_add((max >> 50) + 1) } else { max }
}

fn limited(limits: &Limits, sizing: &Sizing) -> String {
    if sizing.memory_binds {
        format!(
            "table.memory-limit ({}) lets max rise no further; raise table.memory-limit, or find out what fills the table",
            bytes(limits.memory)
        )
    } else {
        format!(
            "table.max.ceiling ({}) lets max rise no further; raise the ceiling, or find out what fills the table",
            grouped(limits.max.ceiling)
        )
    }
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
