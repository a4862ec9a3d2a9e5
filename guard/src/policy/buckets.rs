//! The rules that grow the hash table: while a resize costs next to nothing, and later only when it pays.

use std::time::Duration;

use super::limits::{BUCKET_BYTES, Limits, table_bytes};
use super::plan::{Change, Expectation, Expected, Rule, Setting};
use super::situation::Situation;
use super::sizing::round_down;
use super::verdict::Verdict;
use crate::figures::{bytes, grouped, time};
use crate::model::{Estimate, Skew};

/// One resize in this time at most.
const BETWEEN: Duration = Duration::from_mins(10);
/// What a further entry in a chain costs a new flow, seconds. Measured natively with 820,000 entries: 8.0 µs a new UDP
/// flow in 1,048,576 buckets, 11.3 in 131,072 and 16.2 in 65,536, where the chains are 1.6, 12.5 and 25 long: 0.30 to 0.35
/// µs (27 instructions counted, the rest are cache misses).
const NODE: f64 = 0.3e-6;
/// In the window a resize must pay within this time: the stall holds up every CPU, the chains one at a time, so the time
/// is short.
const PAYS_WITHIN: Duration = Duration::from_mins(1);

/// Grows the buckets to what the table needs at its highest max, once: while the resize stalls no longer than the policy
/// allows, or in its window, when the chains cost more than the stall does. `max` is the value after this plan, `resized`
/// when the buckets last changed. Never shrinks.
pub(super) fn grow_buckets(situation: &Situation<'_>, max: u64, resized: Option<Duration>) -> Verdict {
    let &Situation { estimate, limits, sizing, .. } = situation;
    let table = &estimate.table;
    let hold = |reason: String| Verdict::held(Setting::Buckets, Rule::PresizeBuckets, reason);
    if table.buckets == 0 {
        // No table has none: the reading failed.
        return Verdict::default();
    }
    if table.buckets > limits.buckets.ceiling {
        return hold(format!(
            "buckets as found are above hash.buckets.ceiling ({}) and are left so; raise the ceiling",
            grouped(limits.buckets.ceiling)
        ));
    }
    if sizing.buckets == 0 && table.buckets < limits.buckets.floor {
        return hold(format!(
            "no number of buckets from hash.buckets.floor ({}) up fits hash.buckets.ceiling ({}) and an eighth of \
             table.memory-limit ({}); lower the floor, or raise what is too low",
            grouped(limits.buckets.floor),
            grouped(limits.buckets.ceiling),
            bytes(limits.memory)
        ));
    }
    if !worth_a_resize(table.buckets, sizing.buckets, limits) {
        return Verdict::default();
    }
    if max == 0 {
        return hold("max is 0, which means no limit: how many buckets it needs cannot be told".to_owned());
    }
    let beside_entries = limits.memory.saturating_sub(table_bytes(max, estimate.entry_bytes, 0)) / BUCKET_BYTES;
    let new = sizing.buckets.min(round_down(beside_entries, limits.bucket_step.max(1)));
    if !worth_a_resize(table.buckets, new, limits) || new < limits.buckets.floor {
        return hold(format!(
            "table.memory-limit ({}) leaves no room for more buckets beside the entries that max allows; raise \
             table.memory-limit",
            bytes(limits.memory)
        ));
    }
    if resized.is_some_and(|resized| estimate.at.saturating_sub(resized) < BETWEEN) {
        return hold(format!(
            "the buckets have just changed, and each resize stalls all conntrack packets: the next one comes {} after it, \
             or later",
            time(BETWEEN)
        ));
    }
    let saved = chains_cost(estimate, new);
    let rule = if estimate.resize_stall <= limits.max_stall {
        Rule::PresizeBuckets
    } else if limits.resize_window.is_some_and(|window| window.contains(estimate.time_of_day))
        && saved.saturating_mul(PAYS_WITHIN.as_secs().try_into().unwrap_or(u32::MAX)) > estimate.resize_stall
    {
        Rule::GrowBuckets
    } else {
        let in_window = if limits.resize_window.is_some() {
            format!(", or, in hash.resize-window, for chains that cost more in {} than it does", time(PAYS_WITHIN))
        } else {
            String::new()
        };
        return hold(format!(
            "with so many entries a resize would stall all conntrack packets for longer than hash.max-stall ({}); it \
             waits for a smaller table{in_window}; to have it now, raise hash.max-stall",
            time(limits.max_stall)
        ));
    };
    let evidence = match rule {
        Rule::GrowBuckets => format!(
            "the longer chains cost new flows {} a second, and hash.resize-window is open; a resize stalls {} once",
            time(saved),
            time(estimate.resize_stall)
        ),
        _ => format!(
            "{} entries: a resize stalls {} (limit {}); with {} entries, as max may become, {} buckets have chains of {}",
            grouped(table.count),
            time(estimate.resize_stall),
            time(limits.max_stall),
            grouped(sizing.entries),
            grouped(table.buckets),
            mean_chain(sizing.entries, table.buckets)
        ),
    };
    let change = Change {
        setting: Setting::Buckets,
        old: table.buckets,
        new,
        rule,
        evidence,
        predicted: format!(
            "{} buckets have chains of {} then, and take {}",
            grouped(new),
            mean_chain(sizing.entries, new),
            bytes(new.saturating_mul(BUCKET_BYTES))
        ),
        expectation: Some(Expectation {
            of: Expected::Stall,
            value: u64::try_from(estimate.resize_stall.as_micros()).unwrap_or(u64::MAX),
            at: estimate.at,
        }),
    };
    Verdict { change: Some(change), ..Verdict::default() }
}

/// What the chains of the present buckets cost in a second more than those of `new` would: for each new flow and each
/// further entry in its two chains [`NODE`]. The look-ups of later packets, of which nothing is known, are left out.
fn chains_cost(estimate: &Estimate, new: u64) -> Duration {
    let even = 2.0 * estimate.table.count as f64 / estimate.table.buckets.max(1) as f64;
    let mean = estimate.chains.map_or(even, |chains| match chains.skew {
        // More buckets do not part entries that collide.
        Some(Skew::LongChains) => chains.expected_mean,
        Some(Skew::Unaccounted) | None => chains.mean,
    });
    let shorter = mean * (1.0 - estimate.table.buckets as f64 / new.max(1) as f64);
    let flows = estimate.insert_rate.unwrap_or(0.0);
    Duration::try_from_secs_f64(flows * shorter * NODE).unwrap_or(Duration::ZERO)
}

/// A resize stalls every packet, so a gain of less than a quarter (a slightly different entry size, say) is no reason.
fn worth_a_resize(old: u64, new: u64, limits: &Limits) -> bool {
    let below_floor = old < limits.buckets.floor;
    new > old && (below_floor || new - old >= old / 4)
}

/// Each entry sits in two chains.
fn mean_chain(entries: u64, buckets: u64) -> String {
    format!("{:.1}", 2.0 * entries as f64 / buckets.max(1) as f64)
}

#[cfg(test)]
mod tests;
