//! What holds in any history. A fixed share runs each time; the long run has its line in CONTRIBUTING.md.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use conntrack_guard::policy::{Rule, Setting};

use crate::closed_loop::run_if_possible;
use crate::golden;
use crate::outcome::Outcome;
use crate::random::{Kind, history};
use crate::scenario::Scenario;

/// Histories that run each time.
const SHARE: u64 = 300;
/// Between two lines on how far the long run is.
const PROGRESS: Duration = Duration::from_secs(30);

#[test]
fn a_share_of_all_histories() {
    // A number of the environment's choice shows again what failed; the others are the same each time.
    match number("SEED") {
        Some(seed) => {
            judge(seed).unwrap();
        }
        None => all(0, SHARE),
    }
}

#[test]
#[ignore = "a million histories take hours: see CONTRIBUTING.md"]
fn a_million_histories() {
    all(number("SEED").unwrap_or(1_000_000), number("HISTORIES").unwrap_or(1_000_000));
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

/// The histories from this number on, on all cores.
fn all(first: u64, count: u64) {
    let (next, dropped) = (AtomicU64::new(first), AtomicU64::new(0));
    let made = Mutex::new(BTreeMap::new());
    let begin = Instant::now();
    let work = || {
        let mut wrong = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count || wrong.len() >= 10 {
                return wrong;
            }
            match judge(seed) {
                Ok(outcome) => {
                    dropped.fetch_add(u64::from(outcome.dropped() >= 1.0), Ordering::Relaxed);
                    let mut made = made.lock().unwrap();
                    for change in outcome.changes {
                        *made.entry(change.change.rule.name()).or_insert(0_u64) += 1;
                    }
                }
                Err(what) => wrong.push(what),
            }
        }
    };
    let wrong: Vec<String> = thread::scope(|scope| {
        let cores = thread::available_parallelism().unwrap().get();
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let mut told = begin;
        while workers.iter().any(|worker| !worker.is_finished()) {
            thread::sleep(Duration::from_millis(50));
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                let done = next.load(Ordering::Relaxed) - first;
                println!("{done} of {count} histories from {first} on after {:.0} s", begin.elapsed().as_secs_f64());
            }
        }
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let dropped = dropped.load(Ordering::Relaxed);
    let (made, seconds) = (made.into_inner().unwrap(), begin.elapsed().as_secs_f64());
    println!("{count} histories from {first} on: flows were dropped in {dropped}; changes: {made:?}; {seconds:.0} s");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(dropped > count / 100, "histories without a drop say nothing about drops");
    let all = [Rule::RaiseMax, Rule::PresizeBuckets, Rule::ShortenTimeout, Rule::RelaxTimeout, Rule::RelaxMax];
    for rule in all.map(Rule::name) {
        assert!(made.get(rule).is_some_and(|times| *times > count / 100), "{rule} has hardly been seen: {made:?}");
    }
}

/// Runs one history. Answers what came of it, or what must not be.
fn judge(seed: u64) -> Result<Outcome, String> {
    let (kind, scenario) = history(seed);
    let Some(outcome) = run_if_possible(&scenario) else { return Ok(Outcome::default()) };
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
                wrong.push("timeouts are not back after 25 minutes of calm".to_owned());
            }
            if outcome.table.max > outcome.found.max {
                wrong.push(format!(
                    "max is {} after 25 minutes of calm, found at {}",
                    outcome.table.max, outcome.found.max
                ));
            }
        }
        Kind::Ramp if outcome.dropped() >= 1.0 => {
            wrong.push(format!(
                "{:.0} of {:.0} flows dropped, with room within the bounds",
                outcome.dropped(),
                outcome.flows
            ));
        }
        Kind::Anything | Kind::Ramp => {}
    }
    if wrong.is_empty() {
        return Ok(outcome);
    }
    Err(format!("history {seed} (SEED={seed} shows it alone), {kind:?}: {}", wrong.join("; ")))
}

/// Settings that go back and forth, or never stand still, under a load that does.
fn restless(scenario: &Scenario, outcome: &Outcome) -> Vec<String> {
    let mut wrong = Vec::new();
    let last = scenario.lasts - 300.0;
    if outcome.after(last) > 0 {
        wrong.push(format!("{} changes in the last five minutes of a constant load", outcome.after(last)));
    }
    for setting in Setting::all() {
        let ways: Vec<bool> = outcome
            .changes
            .iter()
            .filter(|made| made.change.setting == setting)
            .map(|made| made.change.new > made.change.old)
            .collect();
        let turns = ways.windows(2).filter(|pair| pair[0] != pair[1]).count();
        // There and back; and once more, as the first way back may come too early.
        if turns > 3 {
            wrong.push(format!("{} goes back and forth {turns} times", setting.name()));
        }
    }
    wrong
}
