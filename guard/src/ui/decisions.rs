//! What the guard changed and why, and what it would like to do but may not.

use std::fmt;

use super::screen::ago;
use crate::actuate::Effect;
use crate::figures::{grouped, time};
use crate::policy::{Change, Held};
use crate::report::{ChangeMade, HeldNow, Status};

/// Decisions shown, the last one with its reason; `--json` has more.
const DECISIONS: usize = 3;

pub(super) fn decisions(status: &Status, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "Decisions ({} in all)", grouped(status.changes_made))?;
    if status.changes.is_empty() {
        writeln!(f, "  none yet")?;
    }
    for (number, made) in status.changes.iter().rev().take(DECISIONS).enumerate() {
        decision(made, status.at_ms, number == 0, f)?;
    }
    for HeldNow { held: Held { setting, rule, reason }, since_ms } in &status.held {
        let since = ago(status.at_ms, *since_ms);
        writeln!(f, "  held for {since}  {} stays  {}\n      why     {reason}", setting.sysctl(), rule.name())?;
    }
    Ok(())
}

fn decision(made: &ChangeMade, now_ms: u64, reason: bool, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let ChangeMade { at_ms, change, result, .. } = made;
    let Change { setting, old, new, rule, evidence, predicted, .. } = change;
    let result = match result {
        Effect::Applied { read_back, took } if read_back == new => format!("applied in {}", time(*took)),
        Effect::Applied { read_back, took } => format!("applied in {}, reads {}", time(*took), grouped(*read_back)),
        Effect::NoEffect { read_back, .. } => format!("no effect: it still reads {}", grouped(*read_back)),
        Effect::Refused { error, way_out } => format!("refused: {error}; {way_out}"),
        Effect::Advised => "advised only".into(),
    };
    let (ago, name, rule) = (ago(now_ms, *at_ms), setting.sysctl(), rule.name());
    writeln!(f, "  {ago} ago  {name} {} -> {}  {rule}: {result}", grouped(*old), grouped(*new))?;
    if reason {
        writeln!(f, "      why     {evidence}\n      expect  {predicted}")?;
    }
    Ok(())
}
