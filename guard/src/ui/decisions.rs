//! What the guard changed and why, and what it would like to do but may not.

use super::screen::ago;
use crate::actuate::Effect;
use crate::figures::{grouped, time};
use crate::policy::{Change, Held};
use crate::report::{ChangeMade, HeldNow, Status};

/// Decisions shown, the last one with its reason; `--json` has more.
const DECISIONS: usize = 3;

pub(super) fn decided(status: &Status) -> String {
    let mut lines = Vec::new();
    for (number, made) in status.changes.iter().rev().take(DECISIONS).enumerate() {
        lines.push(decision(made, status.at_ms));
        if number == 0 {
            lines.push(format!("    why     {}", made.change.evidence));
            lines.push(match &made.result {
                Effect::Refused { error, way_out } => format!("    error   {error}; {way_out}"),
                _ => format!("    expect  {}", made.change.predicted),
            });
        }
    }
    match (status.changes_made, lines.first_mut()) {
        (_, None) => "nothing yet".into(),
        (made, Some(first)) => {
            if status.changes.len() > DECISIONS {
                *first = format!("{first} ({} in all)", grouped(made));
            }
            lines.join("\n")
        }
    }
}

/// What rules want and may not have.
pub(super) fn held(status: &Status) -> String {
    let lines = status.held.iter().map(|HeldNow { held: Held { setting, rule, reason }, since_ms }| {
        let since = ago(status.at_ms, *since_ms);
        format!("{} for {since}  {}\n    why     {reason}", setting.sysctl(), rule.name())
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn decision(made: &ChangeMade, now_ms: u64) -> String {
    let ChangeMade { at_ms, change, result, .. } = made;
    let Change { setting, old, new, rule, .. } = change;
    let result = match result {
        Effect::Applied { read_back, took } if read_back == new => format!("applied in {}", time(*took)),
        Effect::Applied { read_back, took } => format!("applied in {}, reads {}", time(*took), grouped(*read_back)),
        Effect::NoEffect { read_back, .. } => format!("no effect: it still reads {}", grouped(*read_back)),
        Effect::Refused { .. } => "refused".into(),
        Effect::Advised => "advised only".into(),
    };
    let (ago, name, rule) = (ago(now_ms, *at_ms), setting.sysctl(), rule.name());
    format!("{ago} ago  {name} {} -> {}  {rule}: {result}", grouped(*old), grouped(*new))
}
