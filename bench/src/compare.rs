//! `conntrack-guard-bench compare A.json B.json`: what became of the figures between two reports.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::contest::{Better, FIGURES, Figure, Spread, VERSION, short_of_rounds};
use crate::table::Table;

/// What the user asks for.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// report.json of before
    before: PathBuf,
    /// report.json of after
    after: PathBuf,
    /// How much worse a figure may be, percent of before
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    tolerance: u32,
}

/// The part of a report that is compared.
#[derive(Clone, Debug, Deserialize)]
struct Report {
    host: Host,
    scale: Scale,
    scenario: Value,
    /// How many were asked for.
    #[serde(default)]
    rounds: u32,
    alternatives: Vec<Alternative>,
    not_run: Vec<NotRun>,
}

impl Report {
    fn could_not_run(&self, name: &str) -> bool {
        self.not_run.iter().any(|one| one.name == name)
    }

    /// That it ran in some rounds and not in all, in words.
    fn short_of_rounds(&self, one: &Alternative) -> Option<String> {
        short_of_rounds(&one.name, one.runs.len(), self.rounds)
    }
}

#[derive(Clone, Debug, Deserialize)]
struct Host {
    kernel: String,
    /// Reports of before have neither.
    counted: Option<bool>,
    here: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
struct Scale {
    factor: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Alternative {
    name: String,
    own: bool,
    figures: BTreeMap<String, Spread>,
    /// One for each round that it ran in.
    #[serde(default)]
    runs: Vec<IgnoredAny>,
}

/// What could not run, in one of the rounds at least: its figures are those of the rounds before.
#[derive(Clone, Debug, Deserialize)]
struct NotRun {
    name: String,
    why: String,
}

/// What a difference means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Same,
    Better,
    Worse,
}

/// Prints the differences. Exit code 1 where a program of this project became worse.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (before, after) = (read(&arguments.before)?, read(&arguments.after)?);
    check_comparable(&before, &after)?;
    if before.host.kernel != after.host.kernel {
        println!("the kernels differ: {} and {}\n", before.host.kernel, after.host.kernel);
    }
    let (text, regressions) = differences(&before, &after, arguments.tolerance);
    print!("{text}");
    if regressions.is_empty() {
        println!("no regression of this project's programs beyond {} %", arguments.tolerance);
    }
    for regression in &regressions {
        println!("REGRESSION: {regression}");
    }
    Ok(ExitCode::from(u8::from(!regressions.is_empty())))
}

fn read(path: &Path) -> Result<Report> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    parse(&text).with_context(|| path.display().to_string())
}

fn parse(text: &str) -> Result<Report> {
    let report: Value = serde_json::from_str(text).context("no JSON")?;
    let version = report["version"].as_u64().context("no report of this bench: it has no version")?;
    ensure!(version == u64::from(VERSION), "a report of version {version}; this bench reads version {VERSION}");
    serde_json::from_value(report).context("the report has another shape than expected")
}

fn check_comparable(before: &Report, after: &Report) -> Result<()> {
    let (one, other) = (&before.scale.factor, &after.scale.factor);
    ensure!(one == other, "the scales differ, {one} and {other}: the figures cannot be compared");
    let differ =
        |of: fn(&Host) -> Option<bool>| of(&before.host).zip(of(&after.host)).is_some_and(|(one, other)| one != other);
    ensure!(
        !differ(|host| host.counted),
        "one was measured on a clock that counts instructions and the other was not: the figures cannot be compared"
    );
    ensure!(
        !differ(|host| host.here),
        "one was measured in a guest and the other on a host: the figures cannot be compared"
    );
    ensure!(
        before.scenario == after.scenario,
        "the scenarios differ, {} and {}: the figures cannot be compared",
        before.scenario["name"],
        after.scenario["name"]
    );
    Ok(())
}

/// A table for each alternative that both have, and what became worse of this project's own.
fn differences(before: &Report, after: &Report, tolerance: u32) -> (String, Vec<String>) {
    let mut text = String::new();
    for (report, which) in [(before, "first"), (after, "second")] {
        for short in report.alternatives.iter().filter_map(|one| report.short_of_rounds(one)) {
            let _ = writeln!(text, "{short} in the {which} report\n");
        }
    }
    let mut regressions = not_run_any_more(before, after);
    let counted = before.host.counted == Some(true) && after.host.counted == Some(true);
    for old in &before.alternatives {
        let Some(new) = after.alternatives.iter().find(|one| one.name == old.name) else {
            let _ = writeln!(text, "{}: only in the first report\n", old.name);
            // With why it has been told already.
            if old.own && (before.could_not_run(&old.name) || !after.could_not_run(&old.name)) {
                regressions.push(format!("{} did not run", old.name));
            }
            continue;
        };
        // With why it has been told already.
        let cut_short = after.short_of_rounds(new).filter(|_| old.own && !after.could_not_run(&old.name));
        regressions.extend(cut_short.filter(|_| before.short_of_rounds(old).is_none()));
        let mut table = Table::default();
        table.row(&old.name, ["before", "after", "difference", ""].map(str::to_owned).into_iter());
        for figure in &FIGURES {
            let (Some(was), now) = (old.figures.get(figure.key), new.figures.get(figure.key)) else { continue };
            let Some(now) = now else {
                if old.own {
                    regressions.push(format!("{}: {} is not measured any more", old.name, figure.name()));
                }
                continue;
            };
            let verdict = verdict(figure, was, now, tolerance, counted);
            let words = [was, now].map(|of| figure.unit.words(of.median));
            let mark = match verdict {
                Verdict::Same => "",
                Verdict::Better => "better",
                Verdict::Worse => "worse",
            };
            if verdict == Verdict::Worse && old.own {
                regressions.push(format!("{}: {}: {} → {}", old.name, figure.name(), words[0], words[1]));
            }
            let cells = words.into_iter().chain([difference(was.median, now.median), mark.to_owned()]);
            table.row(figure.words, cells);
        }
        text += &table.render();
        text.push('\n');
    }
    for new in after.alternatives.iter().filter(|new| !before.alternatives.iter().any(|old| old.name == new.name)) {
        let _ = writeln!(text, "{}: only in the second report\n", new.name);
    }
    (text, regressions)
}

/// This project's own programs that ran in all rounds before.
fn not_run_any_more(before: &Report, after: &Report) -> Vec<String> {
    let own = |name: &str| before.alternatives.iter().chain(&after.alternatives).any(|one| one.own && one.name == name);
    let new = after.not_run.iter().filter(|one| own(&one.name) && !before.could_not_run(&one.name));
    new.map(|one| format!("{} could not run: {}", one.name, one.why)).collect()
}

/// Worse is what passes the tolerance, is more than noise, and was so in no round of before; better the same way round.
fn verdict(figure: &Figure, was: &Spread, now: &Spread, tolerance: u32, counted: bool) -> Verdict {
    let noise = if counted { figure.noise_where_counted() } else { figure.noise };
    let allowed = (was.median.saturating_mul(tolerance.into()) / 100).max(noise);
    let more = now.median > was.median.saturating_add(allowed) && now.median > was.highest;
    let less = now.median.saturating_add(allowed) < was.median && now.median < was.lowest;
    match (figure.better, more, less) {
        (Better::More, true, _) | (Better::Less, _, true) => Verdict::Better,
        (Better::More, _, true) | (Better::Less, true, _) => Verdict::Worse,
        _ => Verdict::Same,
    }
}

fn difference(was: u64, now: u64) -> String {
    if was == now {
        return "=".to_owned();
    }
    if was == 0 {
        return "from 0".to_owned();
    }
    let percent = (now as f64 / was as f64 - 1.0) * 100.0;
    format!("{percent:+.1} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A report with one alternative that dropped and made so many.
    fn report(name: &str, dropped: u64, made: u64) -> String {
        let spread = |value: u64| serde_json::json!({ "median": value, "lowest": value, "highest": value });
        serde_json::json!({
            "version": 1, "host": { "kernel": "6.12" }, "scale": { "factor": "1/32" }, "scenario": { "name": "churn" },
            "not_run": [],
            "alternatives": [{ "name": name, "own": name.starts_with("guard"),
                               "figures": { "dropped": spread(dropped), "made": spread(made) } }],
        })
        .to_string()
    }

    fn regressions(before: &str, after: &str) -> Vec<String> {
        differences(&parse(before).unwrap(), &parse(after).unwrap(), 10).1
    }

    #[test]
    fn a_drop_where_there_was_none_is_a_regression_and_a_little_less_made_is_not() {
        let before = report("guard", 0, 10_000);
        assert_eq!(regressions(&before, &report("guard", 0, 9_001)), [""; 0]);
        assert_eq!(
            regressions(&before, &report("guard", 1, 8_999)),
            ["guard: connections made: 10,000 → 8,999", "guard: new flows dropped (a retry counts again): 0 → 1"]
        );
    }

    #[test]
    fn a_regression_names_its_figure_without_the_row_above() {
        let p99 = |value| report("guard", 0, value).replace("\"made\"", "\"chain_p99\"");
        let told = regressions(&p99(3), &p99(9));
        assert_eq!(told, ["guard: entries that their chains held before, p99: 3 → 9"]);
    }

    #[test]
    fn one_that_was_cut_short_is_not_taken_as_whole() {
        let ran = |name: &str, runs: &[u8]| {
            let runs = format!("\"rounds\":3,\"alternatives\":[{{\"runs\":{runs:?},");
            parse(&report(name, 0, 100).replace("\"alternatives\":[{", &runs)).unwrap()
        };
        let (whole, cut) = (ran("guard", &[1, 2, 3]), ran("guard", &[1]));
        let (text, told) = differences(&whole, &cut, 10);
        assert_eq!(told, ["guard ran in 1 of 3 rounds"]);
        assert!(text.contains("guard ran in 1 of 3 rounds in the second report"), "{text}");
        for after in [&whole, &cut] {
            let (text, told) = differences(&cut, after, 10);
            assert_eq!(told, [""; 0]);
            assert!(text.contains("guard ran in 1 of 3 rounds in the first report"), "{text}");
        }
        let (text, told) = differences(&ran("stock", &[1, 2, 3]), &ran("stock", &[]), 10);
        assert_eq!(told, [""; 0]);
        assert!(text.contains("stock ran in 0 of 3 rounds in the second report"), "{text}");
        // It failed, which says why.
        let mut failed = cut;
        failed.not_run = vec![NotRun { name: "guard".to_owned(), why: "it ended".to_owned() }];
        assert_eq!(differences(&whole, &failed, 10).1, ["guard could not run: it ended"]);
    }

    #[test]
    fn only_this_projects_programs_can_regress_and_one_that_is_gone_has() {
        assert_eq!(regressions(&report("stock", 0, 100), &report("stock", 900, 10)), [""; 0]);
        assert_eq!(regressions(&report("guard", 0, 100), &report("stock", 0, 100)), ["guard did not run"]);
        let gone = report("guard", 0, 100).replace("\"dropped\"", "\"else\"");
        let told = regressions(&report("guard", 0, 100), &gone);
        assert_eq!(told, ["guard: new flows dropped (a retry counts again) is not measured any more"]);
    }

    #[test]
    fn one_that_fails_in_a_later_round_has_regressed_whatever_its_first_says() {
        let whole = report("guard", 0, 100);
        let died = whole.replace("\"not_run\":[]", r#""not_run":[{"name":"guard","why":"it ended"}]"#);
        assert_ne!(died, whole);
        assert_eq!(regressions(&whole, &died), ["guard could not run: it ended"]);
        assert_eq!(regressions(&died, &died), [""; 0]);
        assert_eq!(regressions(&died, &whole), [""; 0]);
        // Not in any round.
        let none = died.replace("\"name\":\"guard\",\"own\"", "\"name\":\"ample\",\"own\"");
        assert_eq!(regressions(&whole, &none), ["guard could not run: it ended"]);
        let other =
            report("stock", 0, 100).replace("\"not_run\":[]", r#""not_run":[{"name":"stock","why":"it ended"}]"#);
        assert_eq!(regressions(&report("stock", 0, 100), &other), [""; 0]);
    }

    #[test]
    fn what_a_round_of_before_had_already_is_not_worse() {
        let spread = |lowest, median, highest| Spread { median, lowest, highest };
        let latency = FIGURES.iter().find(|figure| figure.key == "connect_p99_us").unwrap();
        let of = |was: Spread, now| verdict(latency, &was, &spread(now, now, now), 10, false);
        assert_eq!(of(spread(100_000, 100_000, 100_000), 140_000), Verdict::Worse);
        assert_eq!(of(spread(90_000, 100_000, 150_000), 140_000), Verdict::Same);
        assert_eq!(of(spread(100_000, 100_000, 100_000), 115_000), Verdict::Same, "noise");
        assert_eq!(of(spread(100_000, 100_000, 100_000), 50_000), Verdict::Better);
        // No other program of the host makes noise on a clock that counts instructions.
        let of = |now| verdict(latency, &spread(128, 128, 128), &spread(now, now, now), 10, true);
        assert_eq!((of(20_000), of(500)), (Verdict::Worse, Verdict::Same));
    }

    #[test]
    fn what_cannot_be_compared_is_refused_by_name() {
        let (one, other) = (report("guard", 0, 1), report("guard", 0, 1).replace("1/32", "1/8"));
        let error = check_comparable(&parse(&one).unwrap(), &parse(&other).unwrap()).unwrap_err().to_string();
        assert!(error.contains("1/32 and 1/8"), "{error}");
        let other = one.replace("churn", "burst");
        assert!(check_comparable(&parse(&one).unwrap(), &parse(&other).unwrap()).is_err());
        for (key, told) in [("counted", "a clock that counts"), ("here", "on a host")] {
            let with = |value: bool| parse(&one.replace("\"6.12\"", &format!("\"6.12\",\"{key}\":{value}"))).unwrap();
            let error = check_comparable(&with(true), &with(false)).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
            check_comparable(&with(true), &with(true)).unwrap();
            // One of before says nothing.
            check_comparable(&parse(&one).unwrap(), &with(true)).unwrap();
        }
        let newer = one.replace("\"version\":1", "\"version\":2");
        assert!(parse(&newer).unwrap_err().to_string().contains("version 2"));
        assert!(parse("{}").unwrap_err().to_string().contains("no report"));
    }
}
