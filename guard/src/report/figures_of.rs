//! From what the guard starts with, and from what a tick read and estimated, to the status's figures.

use std::collections::BTreeMap;
use std::time::Duration;

use super::assessment::{Assessment, StandingNow};
use super::reporter::Start;
use super::signals;
use super::status::{Drops, FORMAT, Forecast, LimitsInForce, SignalNow, StatisticsNow, Status, Table};
use crate::kernel::Signal;
use crate::model::Estimate;
use crate::observe::{HookTotals, Sample, StatTotals};
use crate::policy::{Limits, table_bytes};

/// The source of a figure that no hook supplies.
const STATISTICS: &str = "statistics";

/// The status before the first tick.
pub(super) fn start(start: &Start<'_>) -> Status {
    let limits = start.limits;
    Status {
        version: FORMAT,
        guard: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        mode: start.mode.name().into(),
        ready: start.policy.not_ready().is_none(),
        not_ready: start.policy.not_ready(),
        policy: start.policy.clone(),
        uptime_ms: 0,
        at_ms: millis(start.found.at),
        table: Table::default(),
        forecast: Forecast { horizon_ms: millis(start.horizon), ..Forecast::default() },
        assessment: Assessment {
            standing: StandingNow { since_ms: millis(start.found.at), ..StandingNow::default() },
            memory: start.found.memory,
            ..Assessment::default()
        },
        chains: None,
        drops: Drops::default(),
        statistics: statistics(start.found),
        back_end: signals::back_end(&start.hooks),
        counted: None,
        resizes: Vec::new(),
        estimated: Vec::new(),
        signals: start.hooks.as_ref().map_or(Vec::new(), |rows| rows.iter().map(signals::now).collect()),
        bounds: bounds(
            limits,
            memory(start.found.table.count, start.found),
            memory(start.found.table.max, start.found),
        ),
        changes_made: 0,
        changes: Vec::new(),
        held: Vec::new(),
        paused: Vec::new(),
        trouble: None,
    }
}

/// The bounds, beside what is in use and would be at max, bytes.
pub(super) fn bounds(limits: &Limits, memory_in_use: u64, memory_at_max: u64) -> LimitsInForce {
    LimitsInForce {
        max: limits.max,
        buckets: limits.buckets,
        memory_limit: limits.memory,
        memory_in_use,
        memory_at_max,
        max_stall_ms: millis(limits.max_stall),
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
        steady: estimate.steady,
    }
}

/// Losses since the first reading. `signals` says by which hooks.
pub(super) fn drops(origin: &Sample, now: &Sample, signals: &[SignalNow]) -> Drops {
    let mut sources = BTreeMap::new();
    let mut from = |name: &str, source: &str, figure: Option<u64>| {
        if figure.is_some() {
            sources.insert(name.to_owned(), source.to_owned());
        }
        figure
    };
    let readings = origin.stats.totals().zip(now.stats.totals());
    let mut statistic = |name: &str, figure: fn(&StatTotals, &StatTotals) -> u64| {
        from(name, STATISTICS, readings.map(|(before, after)| figure(before, after)))
    };
    let mut drops = Drops {
        table_full: statistic("table_full", |before, after| after.refused_since(before)),
        clash_lost: statistic("clash_lost", |before, after| after.clashes_lost_since(before)),
        chain_too_long: statistic("chain_too_long", |b, a| a.chain_too_long.saturating_sub(b.chain_too_long)),
        // Not the hook's: that counts the flows for which room was made, not the entries that had to go.
        early_drop: statistic("early_drop", |before, after| after.early_drop.saturating_sub(before.early_drop)),
        invalid: statistic("invalid", |before, after| after.invalid.saturating_sub(before.invalid)),
        icmp_error: statistic("icmp_error", |before, after| after.icmp_error.saturating_sub(before.icmp_error)),
        clash_resolved: statistic("clash_resolved", |b, a| a.clash_resolved.saturating_sub(b.clash_resolved)),
        drop: statistic("drop", |before, after| after.drop.saturating_sub(before.drop)),
        insert_failed: statistic("insert_failed", |b, a| a.insert_failed.saturating_sub(b.insert_failed)),
        sources: BTreeMap::new(),
    };
    // The hooks know without a doubt, and in all namespaces.
    let hooked = |signal: Signal, figure: fn(&HookTotals) -> Option<u64>| {
        let back_end = signals.iter().find(|row| row.signal == signal.name())?.back_end.as_deref()?;
        let (before, after) = (figure(origin.hooks.as_ref()?)?, figure(now.hooks.as_ref()?)?);
        Some((back_end, after.saturating_sub(before)))
    };
    if let Some((back_end, refused)) = hooked(Signal::TableFull, |totals| Some(totals.table_full?.refused)) {
        drops.table_full = from("table_full", back_end, Some(refused));
    }
    if let Some((back_end, lost)) = hooked(Signal::Clashes, |totals| Some(totals.clashes?.lost)) {
        drops.clash_lost = from("clash_lost", back_end, Some(lost));
    }
    drops.sources = sources;
    drops
}

/// Through what the statistics are read.
pub(super) fn statistics(sample: &Sample) -> StatisticsNow {
    StatisticsNow { source: sample.stats.source().map(Into::into), why: sample.stats.why().map(Into::into) }
}

/// Which of the figures are not measured but estimated, by their places in the JSON.
pub(super) fn estimated(status: &Status) -> Vec<String> {
    let mut places = vec!["forecast.count", "forecast.time_to_full_ms", "bounds.memory_in_use", "bounds.memory_at_max"];
    if !status.back_end.measured {
        places.push("forecast.growth_per_s");
    }
    let by_statistics = |cause: &str| status.drops.sources.get(cause).is_some_and(|source| source == STATISTICS);
    let causes = [("table_full", "drops.table_full"), ("clash_lost", "drops.clash_lost")];
    places.extend(causes.into_iter().filter(|(cause, _)| by_statistics(cause)).map(|(_, place)| place));
    if status.chains.is_some_and(|chains| chains.one_in > 1) {
        places.extend(["chains.mean", "chains.p50", "chains.p99", "chains.max"]);
    }
    if status.forecast.steady.is_some() {
        places.push("forecast.steady");
    }
    if !status.assessment.states.is_empty() {
        places.extend(["states.*.entries", "states.*.ends_per_s", "states.*.unreplied"]);
    }
    if status.counted.as_ref().is_some_and(|counted| !counted.refused.is_empty()) {
        places.push("counted.refused");
    }
    if !status.resizes.is_empty() {
        places.push("resizes.*.entries");
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
