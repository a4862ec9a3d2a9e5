//! What holds in any history. A fixed share runs each time, any number on request: `cargo xtask test --histories`.

use conntrack_guard::policy::{Rule, Setting};

use crate::closed_loop::run_if_possible;
use crate::golden;
use crate::many::{Many, number};
use crate::outcome::{Made, Outcome};
use crate::random::{Kind, history};
use crate::scenario::Scenario;

/// Histories that run each time.
const SHARE: u64 = 2_000;
/// Shows one.
const AGAIN: &str = "cargo test -p conntrack-guard --test simulator -- --nocapture a_share_of_all_histories";
/// The others begin here.
const FIRST: u64 = 1_000_000;

#[test]
fn a_share_of_all_histories() {
    // A number of the environment's choice shows again what failed; the others are the same each time.
    match number("SEED") {
        Some(seed) => {
            judge(seed).unwrap();
        }
        None => Many { first: 0, count: SHARE }.run(judge),
    }
}

#[test]
#[ignore = "a million histories take more than an hour: `cargo xtask test --histories 1000000`"]
fn a_million_histories() {
    let (first, count) = (number("FROM").unwrap_or(FIRST), number("HISTORIES").unwrap_or(1_000_000));
    Many { first, count }.run(judge);
}

/// Runs one history. Answers what came of it, or what must not be.
fn judge(seed: u64) -> Result<(Kind, Outcome), String> {
    let (kind, scenario) = history(seed);
    let Some(outcome) = run_if_possible(&scenario) else { return Ok((kind, Outcome::default())) };
    if number("SEED") == Some(seed) {
        println!("{kind:?}: {scenario:#?}\n{}", golden::text(&scenario, &outcome));
        for made in &outcome.changes {
            println!("{:.2} s: {}; {}", made.at, made.change.evidence, made.change.predicted);
        }
    }
    let mut wrong = outcome.offences.clone();
    // The table does not move between a plan and its bounds here, so each plan has to pass.
    wrong.extend(outcome.refused_plans.iter().map(|refused| format!("refused by the bounds: {refused}")));
    match kind {
        Kind::Constant => wrong.extend(restless(&scenario, &outcome)),
        Kind::Calm => {
            wrong.extend(restless(&scenario, &outcome));
            if outcome.timeouts != outcome.found_timeouts {
                wrong.push("timeouts are not back after 17 minutes of calm".to_owned());
            }
            if outcome.table.max > outcome.found.max {
                wrong.push(format!(
                    "max is {} after 17 minutes of calm, found at {}",
                    outcome.table.max, outcome.found.max
                ));
            }
        }
        Kind::Ramp if dropped_for_room(&outcome) >= 1.0 => {
            wrong.push(format!(
                "{:.0} of {:.0} flows dropped, with room within the bounds",
                dropped_for_room(&outcome),
                outcome.flows
            ));
        }
        Kind::Anything | Kind::Ramp => {}
    }
    if wrong.is_empty() {
        return Ok((kind, outcome));
    }
    Err(format!("history {seed}, {kind:?}: {} (again: SEED={seed} {AGAIN})", wrong.join("; ")))
}

/// Flows dropped, but for chains that are longer than the kernel lets them be where the policy's limit of a stall keeps the
/// buckets from being more: that is a bound too.
fn dropped_for_room(outcome: &Outcome) -> f64 {
    let bound = outcome.said(Rule::PresizeBuckets, "hash.max-stall");
    outcome.dropped() - if bound { outcome.too_long } else { 0.0 }
}

/// Settings that go back and forth, or never stand still, under a load that does.
fn restless(scenario: &Scenario, outcome: &Outcome) -> Vec<String> {
    let (mut wrong, mut late) = (Vec::new(), 0);
    let last = scenario.lasts - 300.0;
    for setting in Setting::all() {
        let made: Vec<&Made> = outcome.changes.iter().filter(|made| made.change.setting == setting).collect();
        let up = |made: &Made| made.change.new > made.change.old;
        let turns: Vec<&Made> = made.windows(2).filter(|pair| up(pair[0]) != up(pair[1])).map(|pair| pair[1]).collect();
        // Chance may bring a load near a mark across it late, and a step back may have to wait for its room: that is a
        // first way there or back. What goes there again late does not come to rest.
        late += turns.iter().skip(1).filter(|made| made.at >= last).count();
        // There and back; and once more, as the first way back may come too early.
        if turns.len() > 3 {
            wrong.push(format!("{} goes back and forth {} times", setting.name(), turns.len()));
        }
        let pressed = made.iter().filter(|made| made.at >= last && !is_step_back(made)).count();
        if pressed > 3 {
            wrong.push(format!("{} is changed {pressed} times more in the last five minutes", setting.name()));
        }
    }
    if late > 0 && !tries_less_often(outcome, last) {
        wrong.push(format!("{late} more turns in the last five minutes of a constant load"));
    }
    wrong
}

fn is_step_back(made: &Made) -> bool {
    matches!(made.change.rule, Rule::RelaxTimeout | Rule::RelaxMax)
}

/// Whether steps back have been too early before this second, and each wait for the next was longer than the one before:
/// what still happens comes later and later. The first wait of all follows no step back, and was as long as the load asked.
fn tries_less_often(outcome: &Outcome, second: f64) -> bool {
    let begun = outcome.changes.iter().any(|made| made.at < second && is_step_back(made));
    let (mut waits, mut stepped, mut undone): (Vec<f64>, _, _) = (Vec::new(), false, None);
    for made in &outcome.changes {
        if is_step_back(made) {
            waits.extend(undone.take().map(|undone: f64| made.at - undone));
            stepped = true;
        } else if stepped {
            undone = Some(made.at);
        }
    }
    begun && waits.windows(2).all(|pair| pair[1] >= pair[0] + 30.0)
}
