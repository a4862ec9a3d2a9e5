//! The status as one screen: two columns of figures, and below them what needs the whole width. What says nothing is left
//! out.

use std::fmt;
use std::time::Duration;

use super::assessment;
use super::counted;
use super::decisions;
use super::table::{Align, Table, beside, folded};
use crate::figures::{bytes, grouped, per_second, percent, time};
use crate::observe::TableReading;
use crate::policy::Range;
use crate::report::{PausedNow, Status, names};

/// What `conntrack-guard status` prints. A figure with ~ is estimated, not measured.
#[derive(Debug)]
pub struct StatusScreen<'a>(pub &'a Status);

impl fmt::Display for StatusScreen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Status { guard, mode, pid, uptime_ms, at_ms, assessment, .. } = self.0;
        let (phase, since) = (assessment.standing.phase.name(), ago(*at_ms, assessment.standing.since_ms));
        // Nothing is decided in `off`, so it stands nowhere.
        let standing = if mode == "off" { String::new() } else { format!("  {phase} for {since}") };
        writeln!(f, "conntrack-guard {guard}  {mode}{standing}  up {}  process {pid}", ms(*uptime_ms))?;
        if let Some(trouble) = &self.0.trouble {
            writeln!(f, "TROUBLE: {trouble}\nthe figures below are those of the last good reading")?;
        }
        policy(self.0, f)?;
        for PausedNow { settings, left_ms, until } in &self.0.paused {
            writeln!(f, "PAUSED for {} more, {until}: {}", ms(*left_ms), names(settings))?;
        }
        assessment::flood(self.0, f)?;
        counted::skew(self.0, f)?;
        let left = format!("{}{}", size(self.0), assessment::states(self.0));
        let right = format!("{}{}", rates(self.0), counted::lost(self.0));
        write!(f, "\n{}\n{}", beside(&left, &right), facts(self.0))
    }
}

/// What is known of the table without a guard.
pub fn unguarded(table: &TableReading) -> String {
    let mut rows = figures();
    rows.row(["nf_conntrack_count", &grouped(table.count)]);
    rows.row(["nf_conntrack_max", &grouped(table.max), &limit(table.max)]);
    rows.row(["nf_conntrack_buckets", &grouped(table.buckets)]);
    if table.max > 0 {
        rows.row(["fill", &percent(table.count as f64 / table.max as f64)]);
    }
    rows.to_string()
}

/// Label, figure, note.
fn figures() -> Table {
    Table::new(2, &[(Align::Left, 10), (Align::Right, 10), (Align::Left, 0)])
}

/// The same for the right column, whose labels are longer; its sections line up, and both columns fit on 100 characters.
pub(super) fn right_figures() -> Table {
    Table::new(2, &[(Align::Left, 14), (Align::Right, 9), (Align::Left, 0)])
}

/// A figure, marked if the JSON's place is among the estimated ones.
pub(super) fn marked(status: &Status, place: &str, figure: &str) -> String {
    if status.estimated.iter().any(|estimated| estimated == place) { format!("~{figure}") } else { figure.to_owned() }
}

/// Why the policy file is not in force.
fn policy(status: &Status, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let refused = &status.policy.refused;
    if status.ready && refused.is_empty() {
        return Ok(());
    }
    let headline = if status.ready {
        "POLICY NOT TAKEN: the one of before stays in force until this is mended"
    } else {
        "NOT READY: the policy is invalid; the last good one is in force until this is mended"
    };
    writeln!(f, "{headline}")?;
    for line in refused {
        writeln!(f, "  {line}")?;
    }
    Ok(())
}

fn size(status: &Status) -> String {
    let table = &status.table;
    let mut rows = figures();
    let peak =
        if table.peak_count > table.count { format!(", peak {}", grouped(table.peak_count)) } else { String::new() };
    rows.row(["entries", &grouped(table.count), &format!("{} of max{peak}", percent(table.fill))]);
    if let Some(steady) = status.forecast.steady {
        rows.row(["steady at", &marked(status, "forecast.steady", &grouped(steady))]);
    } else {
        rows.row(["steady at", "?", if status.back_end.measured { "not known yet" } else { "" }]);
    }
    rows.row(["max", &grouped(table.max), &limit(table.max)]);
    let load = if table.buckets == 0 { 0.0 } else { 2.0 * table.count as f64 / table.buckets as f64 };
    rows.row(["buckets", &grouped(table.buckets), &format!("{load:.2} tuples")]);
    rows.to_string()
}

fn limit(max: u64) -> String {
    // Kernels before 6.19.
    if max == 0 { "no limit".into() } else { String::new() }
}

fn rates(status: &Status) -> String {
    let forecast = &status.forecast;
    let rate = |rate: Option<f64>| rate.map_or_else(|| "?".into(), per_second);
    let mut rows = right_figures();
    rows.row(["inserts", &rate(forecast.inserts_per_s)]);
    rows.row(["destroys", &rate(forecast.destroys_per_s)]);
    let full = forecast.time_to_full_ms.map(|full| marked(status, "forecast.time_to_full_ms", &ms(full)));
    let full = full.map_or_else(String::new, |full| format!("full in {full}"));
    rows.row(["growth", &marked(status, "forecast.growth_per_s", &per_second(forecast.growth_per_s)), &full]);
    let expected = marked(status, "forecast.count", &grouped(forecast.count));
    rows.row([format!("in {}", ms(forecast.horizon_ms)), expected, "entries".into()]);
    rows.to_string()
}

/// What is told in lines, each kind under its name.
fn facts(status: &Status) -> Table {
    let mut rows = Table::new(0, &[(Align::Left, 8), (Align::Left, 0)]);
    for (name, text) in [
        ("Bounds", bounds(status)),
        ("Memory", memory(status)),
        ("Chains", counted::chains(status)),
        ("Opened", counted::opened(status)),
        ("Refused", counted::refused(status)),
        ("Resized", counted::resized(status)),
        ("Changed", assessment::changed(status)),
        ("Foreseen", assessment::foreseen(status)),
        ("Measured", measured(status)),
        ("Decided", decisions::decided(status)),
        ("Held", decisions::held(status)),
    ] {
        for (number, line) in text.lines().enumerate() {
            rows.row([if number == 0 { name } else { "" }, line]);
        }
    }
    rows
}

fn bounds(status: &Status) -> String {
    let bounds = &status.bounds;
    let range = |name, range: Range| format!("{name} {} to {}", grouped(range.floor), grouped(range.ceiling));
    let (max, buckets) = (range("max", bounds.max), range("buckets", bounds.buckets));
    format!("{max}; {buckets}; resize stall to {}", ms(bounds.max_stall_ms))
}

fn memory(status: &Status) -> String {
    let (bounds, host) = (&status.bounds, &status.assessment.memory);
    let in_use = marked(status, "bounds.memory_in_use", &bytes(bounds.memory_in_use));
    let if_full = marked(status, "bounds.memory_at_max", &bytes(bounds.memory_at_max));
    let available = if host.total > 0 { format!("; {} available", bytes(host.available)) } else { String::new() };
    let pressure = host.pressure.filter(|pressure| *pressure > 0.0);
    let pressure = pressure.map_or_else(String::new, |share| format!(", pressure {}", percent(share / 100.0)));
    format!("{in_use} in use, {if_full} if full, {} allowed{available}{pressure}", bytes(bounds.memory_limit))
}

/// Through what, and what is amiss with it: one line where that is the same for all and nothing is.
fn measured(status: &Status) -> String {
    let mut back_ends: Vec<&str> = status.signals.iter().filter_map(|signal| signal.back_end.as_deref()).collect();
    let all = back_ends.len() == status.signals.len() && back_ends.windows(2).all(|two| two[0] == two[1]);
    back_ends.sort_unstable();
    back_ends.dedup();
    let by = |name: &&str| {
        let on = status.signals.iter().filter(|signal| signal.back_end.as_deref() == Some(name));
        let on = on.map(|signal| signal.signal.as_str()).collect::<Vec<_>>().join(", ");
        format!("{} by {name}", if all { "all signals" } else { on.as_str() })
    };
    let mut parts: Vec<String> = back_ends.iter().map(by).collect();
    if status.signals.is_empty() {
        let reason = status.back_end.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        parts.push(format!("{} readings only{reason}", status.back_end.name));
    }
    match status.counted.as_ref().map(|counted| counted.missed) {
        None | Some(Some(0)) => {}
        Some(Some(missed)) => {
            parts.push(format!("{} program runs missed: the counts may be too low by so much", grouped(missed)));
        }
        Some(None) => {
            parts.push("missed program runs are not counted by this kernel: the counts may be too low".into());
        }
    }
    parts.extend(assessment::doubts(status));
    parts.push("~ is estimated".into());
    let mut lines = vec![folded(&parts)];
    for signal in status.signals.iter().filter(|signal| signal.back_end.is_none()) {
        // The verifier's log would fill the screen; `support` has it.
        let why: Vec<&str> = signal.why.iter().filter_map(|why| why.lines().next()).collect();
        lines.push(format!("off: {}: {}", signal.signal, why.join("; ")));
    }
    if let Some(why) = &status.statistics.why {
        let source = status.statistics.source.as_deref().map_or("no".into(), |source| format!("by {source}"));
        lines.push(format!("the kernel's statistics {source}: {why}"));
    }
    lines.join("\n")
}

pub(super) fn ms(value: u64) -> String {
    time(Duration::from_millis(value))
}

/// How long before `now_ms` that was.
pub(super) fn ago(now_ms: u64, then_ms: u64) -> String {
    ms(now_ms.saturating_sub(then_ms))
}

#[cfg(test)]
mod tests;
