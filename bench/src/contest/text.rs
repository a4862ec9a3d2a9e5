//! The report for people: a table on the terminal, report.md.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use bench::load::{Failure, Outcome};

use super::decision::Decision;
use super::figure::{FIGURES, Figure, Spread, Unit, micros};
use super::observer::Observed;
use super::plot::Plot;
use super::report::{Entry, Report};
use super::run::{Run, Stall};
use crate::figures::{self, Under};
use crate::run_command;
use crate::table::{Table, grouped, short};

/// Decisions of one run that are listed in full.
const DECISIONS: usize = 20;
/// Figures whose spread over the rounds is shown.
const SPREAD: [&str; 6] = ["made", "failed", "dropped", "connect_p99_us", "peak_entries", "memory_mean_bytes"];

/// A run in one line, as it ends.
pub(super) fn line(run: &Run) -> String {
    let of = |key: &str| grouped(run.figures.get(key).copied().unwrap_or(0));
    format!(
        "made {}, failed {}, new flows dropped {}, peak entries {}, max {} to {}, buckets {} to {}",
        of("made"),
        of("failed"),
        of("dropped"),
        of("peak_entries"),
        grouped(run.at_start.max),
        grouped(run.at_end.max),
        grouped(run.at_start.buckets),
        grouped(run.at_end.buckets)
    )
}

/// What was seen in an observed run, in one line.
pub(super) fn observed(observed: &Observed) -> String {
    let figures = observed.figures();
    let of = |key: &str| figures.get(key).map_or_else(|| "?".to_owned(), |value| grouped(*value));
    format!(
        "entries inserted {}, chains held {} at most, resizes {}",
        of("inserts"),
        of("chain_longest"),
        grouped(observed.resizes.len() as u64)
    )
}

/// Figures that some alternative has, in words, with their cells.
fn rows(report: &Report) -> Vec<(String, Vec<String>)> {
    let mut rows = Vec::new();
    for figure in &FIGURES {
        let spreads: Vec<_> = report.alternatives.iter().map(|entry| entry.figures.get(figure.key)).collect();
        let cell = |spread: Option<&Spread>| match spread {
            Some(spread) => figure.unit.words(spread.median),
            None => "–".to_owned(),
        };
        if spreads.iter().any(Option::is_some) {
            rows.push((figure.words.to_owned(), spreads.into_iter().map(cell).collect()));
        }
        if figure.key == "failed" {
            let outcomes = |entry: &Entry| entry.runs.iter().map(|run| run.outcome.all.clone()).collect();
            rows.extend(causes(&report.alternatives.iter().map(outcomes).collect::<Vec<_>>()));
        }
    }
    rows
}

/// Of each cause that came how often, each column the outcomes of its rounds.
fn causes(columns: &[Vec<Outcome>]) -> Vec<(String, Vec<String>)> {
    let all: BTreeSet<Failure> = columns.iter().flatten().flat_map(|outcome| outcome.failed.keys().copied()).collect();
    let row = |cause: Failure| {
        let of = |outcome: &Outcome| outcome.failed.get(&cause).copied().unwrap_or(0);
        let cell = |outcomes: &Vec<Outcome>| {
            Spread::of(outcomes.iter().map(of)).map_or_else(|| "–".to_owned(), |spread| grouped(spread.median))
        };
        (format!("  {}", cause.words()), columns.iter().map(cell).collect())
    };
    all.into_iter().map(row).collect()
}

/// Of a scenario with several loads, what became of each: a flood's packets must not hide the connections beside it.
fn rows_of_loads(report: &Report) -> Vec<(String, Vec<String>)> {
    let loads = &report.scenario.loads;
    let count = if loads.len() > 1 { loads.len() } else { 0 };
    let row = |index: usize, words: &str, unit: Unit, of: &dyn Fn(&Outcome) -> Option<u64>| {
        let cell = |entry: &Entry| {
            let values = entry.runs.iter().filter_map(|run| of(&run.outcome.loads.get(index)?.outcome));
            Spread::of(values).map_or_else(|| "–".to_owned(), |spread| unit.words(spread.median))
        };
        (format!("{}: {words}", loads[index].name), report.alternatives.iter().map(cell).collect())
    };
    let under_flood = |index: usize| {
        let runs = report.alternatives.iter().flat_map(|entry| &entry.runs);
        let counts = runs.filter_map(|run| run.outcome.loads.get(index)?.outcome.under_flood.as_ref());
        let row = |(words, of): (&str, Under)| {
            row(index, words.trim_start(), Unit::Count, &|outcome| outcome.under_flood.as_ref().map(of))
        };
        figures::under_flood(counts).map(row).collect::<Vec<_>>()
    };
    let rows = |index| {
        let all = [
            row(index, "made", Unit::Count, &|outcome| Some(outcome.made)),
            row(index, "failed", Unit::Count, &|outcome| Some(outcome.failures())),
            // Not every load has it: wrk does not tell, and SYNs that nobody completes never connect.
            row(index, "connect latency, p99", Unit::Micros, &|outcome| {
                (outcome.connect.count() > 0).then(|| micros(outcome.connect.at(0.99)))
            }),
        ];
        all.into_iter().chain(under_flood(index)).collect::<Vec<_>>()
    };
    (0..count).flat_map(rows).collect()
}

/// One column an alternative, medians over the rounds; below it what could not run.
pub(super) fn table(report: &Report) -> String {
    let mut table = Table::default();
    let head = if report.rounds == 1 { String::new() } else { format!("medians of {} rounds", report.rounds) };
    table.row(&head, report.alternatives.iter().map(|entry| entry.alternative.to_string()));
    for (words, cells) in rows(report).into_iter().chain(rows_of_loads(report)) {
        table.row(&words, cells.into_iter());
    }
    let mut text = table.render();
    text.push('\n');
    for one in &report.verdicts {
        let _ = writeln!(text, "{:<12}  {}: {}", one.answer.words(), one.statement, one.figures());
    }
    for line in report.short_of_rounds() {
        let _ = writeln!(text, "{line}");
    }
    for one in &report.not_run {
        let _ = writeln!(text, "could not run: {}: {}", one.alternative, one.why);
    }
    for entry in &report.alternatives {
        if let Some(why) = &entry.not_observed {
            let _ = writeln!(text, "not observed: {}: {why}", entry.alternative);
        }
    }
    text
}

/// report.md, which shows the plots.
pub(super) fn markdown(report: &Report, plots: &[Plot]) -> String {
    let mut text = format!(
        "# The same load against each alternative\n\n\
         Linux {}, CPUs: {}, {} MiB of memory; conntrack-guard {}. The load: {}. {} each, in rotated order; each from the \
         kernel's settings as found, scaled, and an empty table.\n\n```\n{}```\n\n",
        report.host.kernel,
        report.host.cpus,
        report.host.memory_bytes >> 20,
        report.bench,
        run_command::head(&report.scenario),
        if report.rounds == 1 { "One run".to_owned() } else { format!("{} runs", report.rounds) },
        report.scale.words
    );
    for entry in &report.alternatives {
        let _ = writeln!(text, "- **{}**: {}", entry.alternative, entry.what);
    }
    for line in report.short_of_rounds() {
        let _ = writeln!(text, "- {line}");
    }
    for one in &report.not_run {
        let _ = writeln!(text, "- **{}** could not run: {}", one.alternative, one.why.replace('\n', " "));
    }
    text.push_str("\n## Verdicts\n\n| what is promised | kept | figures |\n|---|---|---:|\n");
    for one in &report.verdicts {
        let _ = writeln!(text, "| {} | {} | {} |", one.statement, one.answer.words(), one.figures());
    }
    let _ = write!(text, "\n## Figures\n\n{}\n", pipes(report, rows(report).into_iter().chain(rows_of_loads(report))));
    if report.rounds > 1 {
        let spreads = SPREAD.iter().filter_map(|key| FIGURES.iter().find(|figure| figure.key == *key));
        let cells = |figure: &Figure| {
            let cell = |entry: &Entry| match entry.figures.get(figure.key) {
                Some(of) => format!("{} to {}", figure.unit.words(of.lowest), figure.unit.words(of.highest)),
                None => "–".to_owned(),
            };
            (figure.name(), report.alternatives.iter().map(cell).collect())
        };
        let _ = write!(text, "## Lowest and highest of the rounds\n\n{}\n", pipes(report, spreads.map(cells)));
    }
    for plot in plots {
        let _ = write!(text, "![{}]({})\n\n", plot.title, plot.name);
    }
    text.push_str(
        "## Resizes of the hash table, and whose doing\n\nIn the first round, as the guard tells (the last 16):\n\n",
    );
    for entry in &report.alternatives {
        let told = entry.runs.first().and_then(|run| run.stalls.as_ref());
        for stall in told.into_iter().flatten().map(stall) {
            let _ = writeln!(text, "- {}: {stall}", entry.alternative);
        }
        if told.is_some_and(Vec::is_empty) {
            let _ = writeln!(text, "- {}: none", entry.alternative);
        }
    }
    text.push_str("\nIn the observed run of each:\n\n");
    for entry in &report.alternatives {
        for stall in entry.observed.iter().flat_map(|observed| &observed.resizes).map(stall) {
            let _ = writeln!(text, "- {}: {stall}", entry.alternative);
        }
        if let Some(why) = &entry.not_observed {
            let _ = writeln!(text, "- {}: not observed: {}", entry.alternative, why.replace('\n', " "));
        }
    }
    text.push_str("\n## What changed by itself, in the first round\n\n");
    for entry in &report.alternatives {
        let Some(run) = entry.runs.first() else { continue };
        for decision in run.decisions.iter().take(DECISIONS) {
            let _ = writeln!(text, "- {}: {}", entry.alternative, words(decision));
        }
        if let Some(more) = run.decisions.len().checked_sub(DECISIONS).filter(|more| *more > 0) {
            let _ = writeln!(text, "- {}: {more} more in report.json", entry.alternative);
        }
        for held in &run.held {
            let _ = writeln!(text, "- {}: held: {held}", entry.alternative);
        }
    }
    text
}

fn words(decision: &Decision) -> String {
    let Decision { at_ms, setting, old, new, rule, evidence, effect } = decision;
    format!("{}: {setting} from {} to {} ({effect}; {rule}: {evidence})", when(*at_ms), grouped(*old), grouped(*new))
}

fn when(at_ms: i64) -> String {
    let after = short(Duration::from_millis(at_ms.unsigned_abs()));
    if at_ms < 0 { format!("{after} before the load") } else { format!("after {after}") }
}

/// A resize, with whose doing it was.
pub(super) fn stall(stall: &Stall) -> String {
    let who = if stall.own { "the guard itself" } else { &stall.comm };
    let buckets = |buckets: Option<u64>| buckets.map_or_else(|| "?".to_owned(), grouped);
    let (from, to) = (buckets(stall.from), buckets(stall.to));
    let failed = stall.error.as_ref().map_or_else(String::new, |error| format!(", FAILED: {error}"));
    format!(
        "{}: from {from} to {to} took {}, by {who}{failed}",
        when(stall.at_ms),
        short(Duration::from_micros(stall.took_us))
    )
}

/// A Markdown table with a column for each alternative.
fn pipes(report: &Report, rows: impl Iterator<Item = (String, Vec<String>)>) -> String {
    let heads: Vec<String> = report.alternatives.iter().map(|entry| entry.alternative.to_string()).collect();
    let mut text = format!("| | {} |\n|---|{}\n", heads.join(" | "), "---:|".repeat(heads.len()));
    for (words, cells) in rows {
        // Markdown drops blanks at the start of a cell; what is indented belongs to the row above.
        let words = words.strip_prefix("  ").map_or_else(|| words.clone(), |words| format!("· {words}"));
        let _ = writeln!(text, "| {words} | {} |", cells.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use bench::conntrack::Settings;
    use bench::scenario::Scenario;

    use super::*;
    use crate::contest::facts::tests::entry;
    use crate::contest::report::{Host, ScaleNow};

    #[test]
    fn each_cause_that_came_anywhere_has_a_row_with_all_columns() {
        let outcome =
            |failed: &[(Failure, u64)]| Outcome { failed: failed.iter().copied().collect(), ..Outcome::new().unwrap() };
        let (refused, late) = (Failure::Refused, Failure::TooLate);
        let columns = [
            vec![outcome(&[]), outcome(&[(late, 1)]), outcome(&[])],
            vec![outcome(&[(refused, 3)]), outcome(&[(refused, 1_005)]), outcome(&[(refused, 1_004)])],
            vec![],
        ];
        let row = |words: &str, cells: [&str; 3]| (words.to_owned(), cells.map(str::to_owned).to_vec());
        let expected = [row("  refused", ["0", "1,004", "–"]), row("  started too late", ["0", "0", "–"])];
        assert_eq!(causes(&columns), expected);
        assert!(causes(&[vec![outcome(&[])]]).is_empty());
    }

    fn report(change: impl FnOnce(&mut Entry)) -> Report {
        let text = "duration = \"9s\"\n[[load]]\nkind = \"tcp\"\nrate = 1\n";
        let scenario = Scenario::parse("test", text).unwrap();
        let mut entry = entry(&scenario, &[Outcome::new().unwrap()]);
        change(&mut entry);
        let settings = Settings { max: 2, buckets: 1 };
        Report {
            version: 1,
            bench: "",
            host: Host { kernel: "6.12".to_owned(), cpus: 1, memory_bytes: 0, counted: true, here: false },
            scale: ScaleNow {
                factor: "1/32".to_owned(),
                stock: settings,
                ceilings: settings,
                memory_limit_bytes: 0,
                words: String::new(),
            },
            scenario,
            rounds: 3,
            alternatives: vec![entry],
            verdicts: Vec::new(),
            not_run: Vec::new(),
        }
    }

    #[test]
    fn an_alternative_that_was_cut_short_is_named() {
        let cut = report(|_| ());
        assert!(table(&cut).contains("\nguard ran in 1 of 3 rounds\n"), "{}", table(&cut));
        assert!(markdown(&cut, &[]).contains("\n- guard ran in 1 of 3 rounds\n"));
        let whole = report(|entry| entry.runs = vec![entry.runs[0].clone(); 3]);
        assert!(!table(&whole).contains("ran in") && !markdown(&whole, &[]).contains("ran in"));
    }

    #[test]
    fn resizes_of_the_first_round_stand_beside_those_observed() {
        let stall = Stall { at_ms: -20, took_us: 900, from: Some(512), own: true, ..Stall::default() };
        let with = |stalls| markdown(&report(|entry| entry.runs[0].stalls = stalls), &[]);
        let told = "tells (the last 16):\n\n";
        let line =
            "- guard: 20.0 ms before the load: from 512 to ? took 900 µs, by the guard itself\n\nIn the observed run";
        assert!(with(Some(vec![stall])).contains(&format!("{told}{line}")));
        assert!(with(Some(Vec::new())).contains(&format!("{told}- guard: none\n")));
    }

    #[test]
    fn lowest_and_highest_say_by_themselves_what_they_are_of() {
        let latency = Spread { median: 2_000, lowest: 1_000, highest: 3_000 };
        let text = markdown(&report(|entry| entry.figures = [("connect_p99_us".to_owned(), latency)].into()), &[]);
        assert!(text.contains("| connect latency (if connected), p99 | 1.00 ms to 3.00 ms |"), "{text}");
    }
}
