//! `conntrack-guard-bench run`: a scenario against this kernel as it is.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use bench::load::{Distribution, Outcome};
use bench::scenario::{self, Progress, Scenario};

use crate::figures;
use crate::prefill::Prefill;
use crate::table::{Table, grouped, short};
use crate::watch::{self, Observed, Sums};

/// What the user asks for.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A scenario that comes with the program, or a file; docs/bench.md has every key
    #[arg(long, value_name = "NAME|FILE", long_help = long_help())]
    scenario: String,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

fn long_help() -> String {
    let names = scenario::names().collect::<Vec<_>>().join(", ");
    format!("A scenario file, or one that comes with the program: {names}. docs/bench.md has every key of a file")
}

/// Runs the scenario; the exit code is 1 where something of it failed or it was stopped.
pub(crate) fn run(arguments: &Arguments, stop: &AtomicBool) -> Result<ExitCode> {
    let scenario = Scenario::find(&arguments.scenario)?;
    eprintln!("{}", head(&scenario));
    let topology = scenario.topology()?;
    for line in topology.leftovers() {
        eprintln!("{line}");
    }
    let prefill = Prefill::new(scenario.prefill.entries, stop).with_context(|| arguments.scenario.clone())?;
    let progress = Progress::new(&scenario);
    let sums = || Sums::of(&progress);
    let observed = watch::observe(|| scenario.run(&topology, &progress, stop), sums, |line| eprintln!("{line}"))?;
    prefill.remove()?;
    topology.remove()?;
    if arguments.json {
        println!("{}", serde_json::json!({ "scenario": scenario, "observed": observed }));
    } else {
        print!("{}", words(&observed));
    }
    let whole = observed.outcome.all.failures() == 0 && !stop.load(Ordering::Relaxed);
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(crate) fn head(scenario: &Scenario) -> String {
    let Scenario { name, about, seed, duration, shape, prefill, loads } = scenario;
    let about = if about.is_empty() { String::new() } else { format!(" ({about})") };
    let loads = if loads.len() == 1 { "1 load".to_owned() } else { format!("{} loads", loads.len()) };
    let before = match prefill.entries {
        0 => String::new(),
        entries => format!(", {} entries before it", grouped(entries)),
    };
    format!("{name}{about}: {loads}, {} s, {}{before}, seed {seed}", duration.as_secs_f64(), shape.words())
}

/// A column a load and, where there are several, one for all; then what the kernel says.
fn words(observed: &Observed<scenario::Outcome>) -> String {
    let scenario::Outcome { loads, all } = &observed.outcome;
    let mut columns: Vec<(&str, &Outcome)> = loads.iter().map(|load| (&*load.name, &load.outcome)).collect();
    if columns.len() > 1 {
        columns.push(("all", all));
    }
    let mut table = Table::default();
    table.row("", columns.iter().map(|(name, _)| (*name).to_owned()));
    let mut row = |name: &str, cell: &dyn Fn(&Outcome) -> String| {
        table.row(name, columns.iter().map(|(_, outcome)| cell(outcome)));
    };
    row("started", &|outcome| grouped(outcome.started));
    row("made", &|outcome| grouped(outcome.made));
    row("failed", &|outcome| grouped(outcome.failures()));
    figures::failures(&mut table, &columns.iter().map(|(_, outcome)| *outcome).collect::<Vec<_>>());
    if columns.iter().any(|(_, outcome)| outcome.asked > 0) {
        let mut row = |name: &str, cell: &dyn Fn(&Outcome) -> u64| {
            table.row(name, columns.iter().map(|(_, outcome)| grouped(cell(outcome))));
        };
        row("further requests", &|outcome| outcome.asked);
        row("  answered", &|outcome| outcome.answered);
    }
    let counts = || columns.iter().map(|(_, outcome)| outcome.under_flood.as_ref());
    for (name, of) in figures::under_flood(counts().flatten()) {
        table.row(name, counts().map(|counts| counts.map_or_else(|| "-".to_owned(), |one| grouped(of(one)))));
    }
    let mut latency = |name: &str, of: &dyn Fn(&Outcome) -> &Distribution| {
        for (which, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("longest", 1.0)] {
            let cell = |outcome: &Outcome| {
                let all = of(outcome);
                if all.count() == 0 { "-".to_owned() } else { short(all.at(share)) }
            };
            table.row(&format!("{name}, {which}"), columns.iter().map(|(_, outcome)| cell(outcome)));
        }
    };
    latency("connect latency", &|outcome| &outcome.connect);
    latency("request to reply", &|outcome| &outcome.request);
    latency("started later than scheduled", &|outcome| &outcome.lateness);
    let mut kernel = Table::default();
    figures::kernel(&mut kernel, &[observed]);
    format!("{}\n{}", table.render(), kernel.render())
}

#[cfg(test)]
mod tests {
    use bench::conntrack::{Drops, Settings};
    use bench::load::{Failure, UnderFlood};
    use bench::scenario::LoadOutcome;

    use super::*;

    #[test]
    fn each_load_has_a_column_and_what_was_not_measured_no_figure() {
        let outcome = |made, failed| {
            let failed = [(Failure::ConnectTimeout, failed)].into_iter().filter(|(_, count)| *count > 0).collect();
            let under_flood = (made < 10).then_some(UnderFlood { started: 4, made: 1, ..UnderFlood::default() });
            Outcome {
                started: 10,
                made,
                failed,
                asked: 2 * made,
                answered: made,
                under_flood,
                ..Outcome::new().unwrap()
            }
        };
        let loads = vec![
            LoadOutcome { name: "good".to_owned(), outcome: outcome(10, 0) },
            LoadOutcome { name: "bad".to_owned(), outcome: outcome(7, 3) },
        ];
        let mut all = outcome(17, 3);
        all.started = 20;
        all.under_flood = loads[1].outcome.under_flood;
        let settings = Settings { max: 8_192, buckets: 4_096 };
        let observed = Observed {
            outcome: scenario::Outcome { loads, all },
            drops: Drops { table_full: 3, ..Drops::default() },
            peak_entries: 8_192,
            lowest: settings,
            highest: settings,
            at_end: settings,
        };
        let text = words(&observed);
        let cells = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line[name.len()..].split_whitespace().collect::<Vec<_>>()
        };
        assert_eq!(cells("started"), ["10", "10", "20"]);
        assert_eq!(cells("  connect timed out"), ["0", "3", "3"]);
        assert_eq!((cells("further requests"), cells("  answered")), (vec!["20", "14", "34"], vec!["10", "7", "17"]));
        let under_flood = [cells("started under the flood"), cells("  made of these")];
        assert_eq!(under_flood, [["-", "4", "4"], ["-", "1", "1"]]);
        assert!(!text.contains("further requests under"), "none was due: {text}");
        assert_eq!(cells("connect latency, p99.9"), ["-", "-", "-"]);
        assert_eq!(cells("  table full"), ["3"]);
    }

    #[test]
    fn the_seed_is_told() {
        let scenario = Scenario::find("burst").unwrap();
        assert_eq!(
            head(&scenario),
            "burst (ten times the usual connections for 20 seconds): 1 load, 60 s, IPv4 with NAT, seed 1"
        );
    }
}
