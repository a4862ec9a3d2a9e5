//! From what the guard starts with, and from what a tick read and estimated, to the status's figures.

use std::time::Duration;

use super::reporter::Start;
use super::signals;
use super::status::{Drops, FORMAT, Forecast, LimitsInForce, Status, Table};
use crate::model::Estimate;
use crate::observe::{Sample, StatTotals};
use crate::policy::table_bytes;

/// The status before the first tick.
pub(super) fn start(start: &Start<'_>) -> Status {
    let limits = start.limits;
    Status {
        version: FORMAT,
        guard: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        mode: start.mode.name().into(),
        uptime_ms: 0,
        at_ms: millis(start.found.at),
        table: Table::default(),
        forecast: Forecast { horizon_ms: millis(start.horizon), ..Forecast::default() },
        chains: None,
        drops: Drops::default(),
        back_end: signals::back_end(&start.hooks),
        counted: None,
        resizes: Vec::new(),
        estimated: Vec::new(),
        signals: start.hooks.as_ref().map_or(Vec::new(), |rows| rows.iter().map(signals::now).collect()),
        bounds: LimitsInForce {
            max: limits.max,
            buckets: limits.buckets,
            memory_limit: limits.memory,
            memory_in_use: memory(start.found.table.count, start.found),
            memory_at_max: memory(start.found.table.max, start.found),
            max_stall_ms: millis(limits.max_stall),
        },
        changes_made: 0,
        changes: Vec::new(),
        held: Vec::new(),
        paused: Vec::new(),
        trouble: None,
    }
}

/// The table; `peak` is the highest count before.
pub(super) fn table(sample: &Sample, peak: u64) -> Table {
    let table = sample.table;
    Table {
        max: table.max,
        buckets: table.buckets,
        count: table.count,
        fill: if table.max == 0 { 0.0 } else { table.count as f64 / table.max as f64 },
        peak_count: peak.max(table.count),
    }
}

/// Where the table is going.
pub(super) fn forecast(estimate: &Estimate, horizon_ms: u64) -> Forecast {
    Forecast {
        growth_per_s: estimate.growth,
        inserts_per_s: estimate.insert_rate,
        destroys_per_s: estimate.destroy_rate,
        horizon_ms,
        count: estimate.forecast,
        time_to_full_ms: estimate.time_to_full.map(millis),
    }
}

/// Losses since the first reading.
pub(super) fn drops(origin: &Sample, now: &Sample) -> Drops {
    let since = |of: fn(&StatTotals) -> u64| of(&now.stats).saturating_sub(of(&origin.stats));
    let (drop, insert_failed) = (since(|stats| stats.drop), since(|stats| stats.insert_failed));
    let chain_too_long = since(|stats| stats.chain_too_long);
    let refused = |sample: &Sample| Some(sample.hooks.as_ref()?.table_full?.refused);
    let table_full = match (refused(origin), refused(now)) {
        (Some(before), Some(after)) => after.saturating_sub(before),
        // A lost clash counts as `insert_failed` too; a chain that is too long as that, but not as `drop`.
        _ => drop.saturating_sub(insert_failed.saturating_sub(chain_too_long)),
    };
    Drops {
        table_full,
        // Not the hook's: that counts the flows for which room was made, not the entries that had to go.
        early_drop: since(|stats| stats.early_drop),
        drop,
        insert_failed,
        chain_too_long,
        invalid: since(|stats| stats.invalid),
    }
}

/// Which of the figures are not measured but estimated, by their places in the JSON.
pub(super) fn estimated(status: &Status) -> Vec<String> {
    let mut places = vec!["forecast.count", "forecast.time_to_full_ms", "bounds.memory_in_use", "bounds.memory_at_max"];
    if !status.back_end.measured {
        places.push("forecast.growth_per_s");
    }
    if status.counted.as_ref().is_none_or(|counted| counted.made_room.is_none()) {
        places.push("drops.table_full");
    }
    if status.chains.is_some_and(|chains| chains.one_in > 1) {
        places.extend(["chains.mean", "chains.p50", "chains.p99", "chains.max"]);
    }
    if status.counted.as_ref().is_some_and(|counted| !counted.refused.is_empty()) {
        places.push("counted.refused");
    }
    places.into_iter().map(str::to_owned).collect()
}

/// What so many entries and the present buckets take.
pub(super) fn memory(entries: u64, sample: &Sample) -> u64 {
    table_bytes(entries, sample.entry_bytes, sample.table.buckets)
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
