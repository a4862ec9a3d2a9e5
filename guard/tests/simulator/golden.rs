//! What a scenario came to, as text beside the tests. `GOLDEN=write` writes the files anew: read the difference.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use crate::outcome::Outcome;
use crate::scenario::Scenario;

/// Holds the outcome against the file of its name.
pub fn check(scenario: &Scenario, outcome: &Outcome) {
    let found = text(scenario, outcome);
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/scenarios");
    let path = folder.join(format!("{}.txt", scenario.name));
    if std::env::var_os("GOLDEN").is_some_and(|value| value == "write") {
        fs::create_dir_all(&folder).unwrap();
        fs::write(&path, &found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{} differs; it is now:\n{found}", path.display());
}

/// The outcome as the file has it.
pub fn text(scenario: &Scenario, outcome: &Outcome) -> String {
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| writeln!(text, "{words}").unwrap();
    let (found, table) = (outcome.found, outcome.table);
    line(format_args!(
        "{}: {} s, begins with {} of {} entries in {} buckets",
        scenario.name,
        scenario.lasts,
        grouped(found.count),
        grouped(found.max),
        grouped(found.buckets)
    ));
    for made in &outcome.changes {
        let change = &made.change;
        line(format_args!(
            "{:>9.2} s  {:<16} {:<18} {:>11} → {:<11} at {} entries",
            made.at,
            change.rule.name(),
            change.setting.name(),
            grouped(change.old),
            grouped(change.new),
            grouped(made.count)
        ));
    }
    for told in &outcome.told {
        line(format_args!("{:>9.2} s  held {} {}: {}", told.at, told.rule.name(), told.setting.name(), told.reason));
    }
    for refused in &outcome.refused_plans {
        line(format_args!("refused by the bounds: {refused}"));
    }
    line(format_args!(
        "flows {}; dropped: table full {}, chain too long {}, no memory {}; evicted {}; ended early {}",
        whole(outcome.flows),
        whole(outcome.refused),
        whole(outcome.too_long),
        whole(outcome.no_memory),
        whole(outcome.evicted),
        whole(outcome.broken)
    ));
    line(format_args!(
        "most entries {} at {:.1} s; highest max {}",
        whole(outcome.peak.0),
        outcome.peak.1,
        grouped(outcome.highest_max)
    ));
    line(format_args!(
        "ends with {} of {} entries in {} buckets after {} looks",
        grouped(table.count),
        grouped(table.max),
        grouped(table.buckets),
        outcome.ticks
    ));
    for (timeout, seconds) in &outcome.timeouts {
        let found = outcome.found_timeouts.get(timeout).copied().unwrap_or(0);
        if found != *seconds {
            line(format_args!("ends with {} at {seconds} s, found at {found} s", timeout.name()));
        }
    }
    text
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts are positive")]
fn whole(count: f64) -> String {
    grouped(count.round() as u64)
}

/// 4,194,304
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut groups: Vec<&str> = if first > 0 { vec![&digits[..first]] } else { Vec::new() };
    groups.extend(digits.as_bytes()[first..].chunks(3).filter_map(|group| std::str::from_utf8(group).ok()));
    groups.join(",")
}
