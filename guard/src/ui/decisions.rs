//! What the guard changed and why, and what it would like to do but may not.

use std::fmt;

use super::screen::ms;
use crate::actuate::Effect;
use crate::figures::{grouped, time};
use crate::policy::{Change, Held};
use crate::report::{ChangeMade, HeldNow, Status};

/// Decisions shown; `--json` has more.
const DECISIONS: usize = 5;

pub(super) fn decisions(status: &Status, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "Decisions ({} in all)", grouped(status.changes_made))?;
    if status.changes.is_empty() {
        writeln!(f, "  none yet")?;
    }
    for made in status.changes.iter().rev().take(DECISIONS) {
        decision(made, status.at_ms, f)?;
    }
    for HeldNow { held: Held { setting, rule, reason }, since_ms } in &status.held {
        let since = ms(status.at_ms.saturating_sub(*since_ms));
        writeln!(f, "  held for {since}  {} stays  {}\n      why     {reason}", setting.sysctl(), rule.name())?;
    }
    Ok(())
}

fn decision(
    ChangeMade { at_ms, change, result, .. }: &ChangeMade,
    now_ms: u64,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let Change { setting, old, new, rule, evidence, predicted, .. } = change;
    let ago = ms(now_ms.saturating_sub(*at_ms));
    let (name, rule) = (setting.sysctl(), rule.name());
    writeln!(f, "  {ago} ago  {name} {} -> {}  {rule}", grouped(*old), grouped(*new))?;
    writeln!(f, "      why     {evidence}\n      expect  {predicted}")?;
    let result = match result {
        Effect::Applied { read_back, took } if read_back == new => format!("applied in {}", time(*took)),
        Effect::Applied { read_back, took } => format!("applied in {}, reads {}", time(*took), grouped(*read_back)),
        Effect::NoEffect { read_back, .. } => format!("no effect: it still reads {}", grouped(*read_back)),
        Effect::Refused { error, way_out } => format!("refused: {error}; {way_out}"),
        Effect::Advised => "advised only".into(),
    };
    writeln!(f, "      result  {result}")
}
