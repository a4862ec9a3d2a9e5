//! What the guard makes of the readings.

use std::fmt;

use super::screen::{ago, marked};
use super::table::{Align, Table, folded};
use crate::figures::{grouped, per_second, percent, time};
use crate::model::{Doubt, Load};
use crate::policy::{Expected, Setting};
use crate::report::{ChangedNow, RuleError, SettledNow, StateNow, Status};

/// States shown; `--json` has all.
const STATES: usize = 4;
/// Changed settings shown.
const CHANGED: usize = 6;

/// That more room would only feed it.
pub(super) fn flood(status: &Status, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Load::Flood { unreplied, entries, sources } = status.assessment.load else { return Ok(()) };
    let from = if sources > 0 { format!(", {} sources seen", grouped(sources)) } else { String::new() };
    let (unreplied, entries) = (percent(unreplied), grouped(entries));
    writeln!(f, "FLOOD: {unreplied} of what comes on top of calm is unanswered: {entries} entries{from}")
}

/// The largest.
pub(super) fn states(status: &Status) -> String {
    let all = &status.assessment.states;
    if all.is_empty() {
        return String::new();
    }
    let census = status.assessment.census.as_ref();
    let seen = census.map_or_else(String::new, |census| format!(", {} ago", ago(status.at_ms, census.at_ms)));
    let columns = [(Align::Left, 12), (Align::Right, 8), (Align::Right, 0), (Align::Right, 0)];
    let mut rows = Table::new(0, &columns);
    rows.row([&format!("States{seen}"), "entries", "ends", "no reply"]);
    for StateNow { timeout, entries, ends_per_s, unreplied } in all.iter().take(STATES) {
        let entries = marked(status, "states.*.entries", &grouped(*entries));
        let ends = marked(status, "states.*.ends_per_s", &per_second(*ends_per_s));
        let unreplied = marked(status, "states.*.unreplied", &percent(*unreplied));
        rows.row([&format!("  {}", timeout.name()), &entries, &ends, &unreplied]);
    }
    rows.to_string()
}

/// What is to be taken back, and who set it.
pub(super) fn changed(status: &Status) -> String {
    let changed = &status.assessment.changed;
    let columns = [(Align::Left, 0), (Align::Right, 0), (Align::Left, 0), (Align::Right, 0), (Align::Left, 0)];
    let mut rows = Table::new(0, &columns);
    for ChangedNow { setting, original, now, floor, rule, .. } in changed.iter().take(CHANGED) {
        let by = rule.map_or("not by this guard", |rule| rule.name());
        let floor = match setting {
            Setting::Timeout(_) => format!("{by}, not below {} s", grouped(*floor)),
            Setting::Max | Setting::Buckets => by.to_owned(),
        };
        rows.row([setting.sysctl(), &grouped(*original), "->", &grouped(*now), &floor]);
    }
    let more = changed.len().saturating_sub(CHANGED);
    if more > 0 {
        rows.row([format!("and {more} more")]);
    }
    rows.to_string()
}

/// How right each rule was, and the last prediction.
pub(super) fn foreseen(status: &Status) -> String {
    let predictions = &status.assessment.predictions;
    let of = |of: &RuleError| {
        format!("{} {} off ({} settled)", of.rule.name(), percent(of.median_error), grouped(of.settled))
    };
    let mut parts: Vec<String> = predictions.by_rule.iter().map(of).collect();
    if let Some(&SettledNow { of, rule, expected, real, .. }) = predictions.last.last() {
        let (expected, real) = match of {
            Expected::Count => (format!("{} entries", grouped(expected)), grouped(real)),
            Expected::Stall => (micros(expected), micros(real)),
        };
        parts.push(format!("last by {} {expected}, {real} came", rule.name()));
    }
    folded(&parts)
}

fn micros(value: u64) -> String {
    time(std::time::Duration::from_micros(value))
}

/// What was left out lately; `None`: nothing.
pub(super) fn doubts(status: &Status) -> Option<String> {
    let doubts = status.assessment.doubts.iter().map(|told| {
        let what = match told.doubt {
            Doubt::Time => "out of time",
            Doubt::Late => "late",
            Doubt::Backwards => "backwards",
            Doubt::Jump => "too far",
            Doubt::Missing => "missing",
        };
        format!("{} {what}", grouped(told.times))
    });
    let all: Vec<String> = doubts.collect();
    (!all.is_empty()).then(|| format!("readings of the last minute left out: {}", all.join(", ")))
}
