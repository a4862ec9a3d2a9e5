//! What a connection costs against what the table holds already: one report for each size, put side by side.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use bench::conntrack::Settings;
use serde::Serialize;

use super::alternative::Alternative;
use super::figure::{FIGURES, Spread};
use super::plot;
use super::report::{Entry, NotRun, Report, VERSION};
use super::run::Stall;
use super::text;
use crate::table::{Table, grouped};

/// Figures that are shown of each size, in words that need no row above; all of them are in sizes.json.
const SHOWN: [(&str, &str); 8] = [
    (COST, "instructions for a connection started"),
    ("connect_p99_us", "connect latency, p99"),
    ("request_max_us", "request latency, longest"),
    ("dropped", "new flows dropped"),
    ("highest_buckets", "buckets"),
    ("chain_p99", "entries that the chains of new ones held, p99"),
    ("memory_mean_bytes", "memory of the table, mean over time"),
    ("program_cpu_ms", "CPU time of its program during the load"),
];
/// The one that is drawn.
const COST: &str = "instructions_per_started";

/// A figure in words, and of each size its name and a cell an alternative.
type Shown = (&'static str, Vec<(String, Vec<String>)>);

/// All sizes.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sizes {
    /// As that of a report.
    pub version: u32,
    /// The kernel's release.
    pub kernel: String,
    /// In words.
    pub scenario: String,
    pub rows: Vec<Row>,
    /// What was asked for and could not run.
    pub not_run: Vec<Missing>,
}

/// One alternative that could not run at one size.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Missing {
    /// Entries before the load.
    pub entries: u64,
    pub alternative: Alternative,
    pub why: String,
}

/// One alternative at one size.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    /// Entries before the load.
    pub entries: u64,
    /// max and buckets as the kernel would set them at this scale.
    pub stock: Settings,
    pub alternative: Alternative,
    /// Over all rounds, by key.
    pub figures: BTreeMap<String, Spread>,
    /// Resizes in its observed run, from the alternative's start on; `null` where there was none.
    pub stalls: Option<Vec<Stall>>,
    /// What it wanted and may not have at the end of the first round.
    pub held: Vec<String>,
}

impl Sizes {
    /// Of the reports of all sizes, in their order.
    pub fn new(reports: &[Report]) -> Self {
        let row = |report: &Report, entry: &Entry| Row {
            entries: report.scenario.prefill.entries,
            stock: report.scale.stock,
            alternative: entry.alternative,
            figures: entry.figures.clone(),
            stalls: entry.observed.as_ref().map(|observed| observed.resizes.clone()),
            held: entry.runs.first().map(|run| run.held.clone()).unwrap_or_default(),
        };
        let missing = |report: &Report, one: &NotRun| Missing {
            entries: report.scenario.prefill.entries,
            alternative: one.alternative,
            why: one.why.clone(),
        };
        let not_run = reports.iter().flat_map(|report| report.not_run.iter().map(move |one| missing(report, one)));
        let rows = reports.iter().flat_map(|report| report.alternatives.iter().map(move |entry| row(report, entry)));
        Self {
            version: VERSION,
            kernel: reports.first().map(|report| report.host.kernel.clone()).unwrap_or_default(),
            scenario: reports.first().map(|report| report.scenario.name.clone()).unwrap_or_default(),
            rows: rows.collect(),
            not_run: not_run.collect(),
        }
    }

    /// Each once, in the order of the first size.
    fn alternatives(&self) -> Vec<Alternative> {
        let mut all = Vec::new();
        for row in &self.rows {
            if !all.contains(&row.alternative) {
                all.push(row.alternative);
            }
        }
        all
    }

    fn entries(&self) -> Vec<u64> {
        let mut all: Vec<u64> = self.rows.iter().map(|row| row.entries).collect();
        all.dedup();
        all
    }

    fn cell(&self, entries: u64, alternative: Alternative, key: &str) -> Option<Spread> {
        let row = self.rows.iter().find(|row| row.entries == entries && row.alternative == alternative)?;
        row.figures.get(key).copied()
    }

    /// For each figure a row a size, and a column an alternative.
    fn tables(&self) -> Vec<Shown> {
        let table = |(key, words): &(&str, &'static str)| {
            let unit = FIGURES.iter().find(|figure| figure.key == *key)?.unit;
            let row = |entries: u64| {
                let cell = |alternative: &Alternative| match self.cell(entries, *alternative, key) {
                    Some(spread) => unit.words(spread.median),
                    None => "–".to_owned(),
                };
                (format!("{} entries", grouped(entries)), self.alternatives().iter().map(cell).collect())
            };
            Some((*words, self.entries().into_iter().map(row).collect()))
        };
        SHOWN.iter().filter_map(table).collect()
    }

    /// For a terminal.
    pub fn words(&self) -> String {
        let mut table = Table::default();
        table.row("", self.alternatives().iter().map(ToString::to_string));
        for (words, rows) in self.tables() {
            table.row(words, std::iter::empty());
            for (entries, cells) in rows {
                table.row(&format!("  {entries}"), cells.into_iter());
            }
        }
        table.render() + "\n" + &self.resizes()
    }

    /// sizes.md, which shows the plot.
    pub fn markdown(&self) -> String {
        let heads: Vec<String> = self.alternatives().iter().map(ToString::to_string).collect();
        let mut text = format!(
            "# What a connection costs against the size of the table\n\nLinux {}, scenario {}. The reports of each size lie in \
             the folders beside.\n\n![Instructions for a connection against entries in the table](sizes.svg)\n\n",
            self.kernel, self.scenario
        );
        for (words, rows) in self.tables() {
            let _ = writeln!(text, "| {words} | {} |\n|---|{}", heads.join(" | "), "---:|".repeat(heads.len()));
            for (entries, cells) in rows {
                let _ = writeln!(text, "| {entries} | {} |", cells.join(" | "));
            }
            text.push('\n');
        }
        text + "## Resizes of the hash table\n\n" + &self.resizes()
    }

    /// Who resized at which size, for how long, and what was not resized and why.
    fn resizes(&self) -> String {
        let mut lines = String::new();
        for row in &self.rows {
            let stalls = row.stalls.iter().flatten().map(text::stall);
            let held = row.held.iter().map(|held| format!("held: {held}"));
            for line in stalls.chain(held) {
                let _ = writeln!(lines, "- {} entries, {}: {line}", grouped(row.entries), row.alternative);
            }
        }
        for one in &self.not_run {
            let why = one.why.replace('\n', " ");
            let _ = writeln!(lines, "- {} entries, {} could not run: {why}", grouped(one.entries), one.alternative);
        }
        if lines.is_empty() { "- nobody told of any\n".to_owned() } else { lines }
    }

    /// sizes.svg.
    pub fn plot(&self) -> Result<String> {
        let point = |alternative, entries| Some((entries as f64, self.cell(entries, alternative, COST)?.median as f64));
        let line = |alternative: Alternative| {
            let points = self.entries().into_iter().filter_map(|entries| point(alternative, entries));
            (alternative.to_string(), points.collect::<Vec<_>>())
        };
        plot::sizes(&self.alternatives().into_iter().map(line).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(entries: u64, alternative: Alternative, cost: u64) -> Row {
        let spread = Spread { median: cost, lowest: cost, highest: cost };
        Row {
            entries,
            stock: Settings { max: 1, buckets: 1 },
            alternative,
            figures: BTreeMap::from([(COST.to_owned(), spread)]),
            stalls: (alternative == Alternative::Guard).then(|| {
                vec![Stall {
                    at_ms: -20,
                    took_us: 900,
                    from: Some(512),
                    to: Some(1_024),
                    error: None,
                    own: true,
                    comm: String::new(),
                }]
            }),
            held: Vec::new(),
        }
    }

    #[test]
    fn a_size_that_did_not_run_has_no_figure_and_resizes_say_whose_they_are() {
        let sizes = Sizes {
            version: VERSION,
            kernel: "6.12".to_owned(),
            scenario: "steady".to_owned(),
            rows: vec![
                row(10, Alternative::Stock, 5),
                row(10, Alternative::Guard, 6),
                row(1_000, Alternative::Stock, 1_234),
            ],
            not_run: vec![Missing { entries: 1_000, alternative: Alternative::Guard, why: "no\nroom".to_owned() }],
        };
        let text = sizes.words();
        let cells: Vec<&str> =
            text.lines().find(|line| line.contains("1,000 entries")).unwrap().split("  ").map(str::trim).collect();
        assert!(cells.contains(&"1,234") && cells.contains(&"–"), "{text}");
        assert!(
            text.contains(
                "- 10 entries, guard: 20.0 ms before the load: from 512 to 1,024 took 900 µs, by the guard itself"
            ),
            "{text}"
        );
        assert!(text.contains("- 1,000 entries, guard could not run: no room"), "{text}");
        assert!(sizes.markdown().contains("| instructions for a connection started | stock | guard |"));
        assert!(sizes.plot().unwrap().contains("</svg>"));
    }
}
