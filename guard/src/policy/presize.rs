//! The rule that grows the hash table while a resize costs next to nothing.

use super::limits::{BUCKET_BYTES, Limits, table_bytes};
use super::plan::{Change, Rule, Setting};
use super::sizing::{Sizing, round_down};
use super::verdict::Verdict;
use crate::figures::{bytes, grouped, time};
use crate::model::Estimate;

/// Grows the buckets to what the table needs at its highest max, once, while the resize stalls no longer than the policy
/// allows. `max` is the value after this plan. Never shrinks.
pub(super) fn presize_buckets(estimate: &Estimate, limits: &Limits, sizing: &Sizing, max: u64) -> Verdict {
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
    if estimate.resize_stall > limits.max_stall {
        return hold(format!(
            "with so many entries a resize would stall all conntrack packets for longer than hash.max-stall ({}); it \
             waits for a smaller table; to have it now, raise hash.max-stall",
            time(limits.max_stall)
        ));
    }
    let change = Change {
        setting: Setting::Buckets,
        old: table.buckets,
        new,
        rule: Rule::PresizeBuckets,
        evidence: format!(
            "{} entries: a resize stalls {} (limit {}); with {} entries, as max may become, {} buckets have chains of {}",
            grouped(table.count),
            time(estimate.resize_stall),
            time(limits.max_stall),
            grouped(sizing.entries),
            grouped(table.buckets),
            mean_chain(sizing.entries, table.buckets)
        ),
        predicted: format!(
            "{} buckets have chains of {} then, and take {}",
            grouped(new),
            mean_chain(sizing.entries, new),
            bytes(new.saturating_mul(BUCKET_BYTES))
        ),
        expectation: None,
    };
    Verdict { change: Some(change), ..Verdict::default() }
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
