//! `conntrack-guard-bench contest`: the same load against everything an operator would run, one after the other.

mod alternative;
mod beside;
mod bpftune;
mod busy;
mod cron;
mod decision;
mod facts;
mod figure;
mod here;
mod journal;
mod limit;
mod observer;
mod passes;
mod plot;
mod report;
mod run;
mod series;
mod sizes;
mod text;
mod verdict;

use std::cell::Cell;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result};
use bench::scenario::{Prefill, Scenario};

use self::alternative::Alternative;
use self::beside::Places;
pub(crate) use self::figure::{Better, FIGURES, Figure, Spread};
use self::here::{Place, Plan};
use self::passes::Done;
use self::report::Report;
pub(crate) use self::report::{VERSION, short_of_rounds};
use self::run::Terms;
use self::sizes::Sizes;
use crate::scale::Scale;
use crate::sysctls::Sysctls;
use crate::table::grouped;
use crate::{hooks, run_command};

/// What a run takes beside its scenario, at most: the end of what is open, an empty table at rest, start and stop. On a host all
/// of it is stopped when the time of all runs is over.
const AROUND: Duration = Duration::from_mins(1);

/// What the user asks for.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A scenario that comes with the program, or a file; docs/bench.md has every key
    #[arg(long, value_name = "NAME|FILE", default_value = "burst")]
    scenario: String,
    /// Alternatives, with commas between: ample (the yardstick), stock, static, static-ceiling, kube-proxy (kube-proxy-1.N
    /// for an older version), cron, bpftune, guard, guard-advise [default: all]
    #[arg(long, value_name = "LIST", value_parser = against)]
    against: Option<Against>,
    /// How often each alternative runs; the order is rotated. After these each runs once more, beside a guard that only
    /// counts what no file of the kernel's tells
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Entries of the stock table; every other size, and the memory, follow at the same scale
    #[arg(long, value_name = "ENTRIES", default_value = "8192", value_parser = table)]
    table: Scale,
    /// Instead of one table: so many entries before the load, with commas between; each at the smallest scale at which the
    /// stock table has room. A folder each, and the costs side by side in sizes.json, sizes.md and a plot. Without
    /// --against: stock, static-ceiling, guard
    #[arg(long, value_name = "LIST", conflicts_with = "table", value_delimiter = ',')]
    sizes: Vec<u64>,
    /// Folder for report.json, report.md, the plots, and the guard's files of each run
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The guard's binary [default: the one that lies beside this program]
    #[arg(long, value_name = "FILE")]
    guard: Option<PathBuf>,
    /// A root folder that has bpftune; `cargo xtask bench churn` makes it
    #[arg(long, value_name = "DIR")]
    bpftune: Option<PathBuf>,
    /// Change nothing: check what was asked for, and print for how many seconds it lasts at most, and below it the programs
    /// that the scenario needs
    #[arg(long)]
    check: bool,
    /// Print the report as JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Which alternatives, in which order.
#[derive(Clone, Debug)]
struct Against(Vec<Alternative>);

fn against(text: &str) -> std::result::Result<Against, String> {
    Alternative::list(text).map(Against)
}

fn table(text: &str) -> std::result::Result<Scale, String> {
    let sizes = || Scale::TABLES.map(|size| size.to_string()).join(", ");
    text.parse().ok().and_then(Scale::of_table).ok_or_else(|| format!("it must be one of {}", sizes()))
}

/// What `--sizes` compares where nothing is said: what a table's size costs, and what the guard adds.
const AGAINST_SIZES: [Alternative; 3] = [Alternative::Stock, Alternative::StaticCeiling, Alternative::Guard];

/// One table under the load, and where its report goes.
struct Case {
    scenario: Scenario,
    scale: Scale,
    out: PathBuf,
}

/// Runs all of them. Exit code 1 where one of them could not run.
pub(crate) fn run(arguments: &Arguments, stop: &AtomicBool) -> Result<ExitCode> {
    let cases = match cases(arguments)? {
        Ok(cases) => cases,
        Err(wrong) => {
            eprintln!("error: {wrong}");
            return Ok(ExitCode::from(2));
        }
    };
    let against = match (&arguments.against, &*arguments.sizes) {
        (Some(Against(asked)), _) => asked.as_slice(),
        (None, []) => &Alternative::ALL[..],
        (None, _) => &AGAINST_SIZES,
    };
    // And the observed pass.
    let runs = u32::try_from(against.len())?.saturating_mul(arguments.rounds + 1);
    let each = cases.iter().map(|case| (case.scenario.duration + AROUND).saturating_mul(runs).as_secs());
    let plan = Plan {
        // They differ in what is in the table before.
        scenario: cases.first().context("--sizes names none")?.scenario.clone(),
        against,
        scales: cases.iter().map(|case| case.scale).collect(),
        seconds: each.sum(),
    };
    if arguments.check {
        println!("{}", plan.seconds);
        for tool in plan.scenario.tools() {
            println!("{}", tool.program);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let run = || cases.into_iter().map(|case| one(arguments, case, against, stop)).collect::<Result<Vec<_>>>();
    let Some(reports) = arguments.place.enter(&plan, stop, run)? else { return Ok(ExitCode::FAILURE) };
    let whole = reports.iter().all(Report::is_whole);
    if !arguments.sizes.is_empty() {
        compare_sizes(arguments, &Sizes::new(&reports))?;
    }
    eprintln!("the reports and the plots: {}", arguments.out.display());
    Ok(ExitCode::from(u8::from(!whole)))
}

/// The inner error is the user's: a size that no table has room for.
fn cases(arguments: &Arguments) -> Result<std::result::Result<Vec<Case>, String>> {
    let scenario = Scenario::find(&arguments.scenario)?;
    let out = arguments.out.clone();
    if arguments.sizes.is_empty() {
        if let Err(why) = check_room(scenario.prefill, arguments.table) {
            return Err(Scenario::refuse(&arguments.scenario, "table.entries", why).into());
        }
        return Ok(Ok(vec![Case { scenario, scale: arguments.table, out }]));
    }
    if let Some(twice) =
        (1..).zip(&arguments.sizes).find_map(|(next, size)| arguments.sizes[next..].iter().find(|other| *other == size))
    {
        return Ok(Err(format!("--sizes has {} twice", grouped(*twice))));
    }
    let of_size = |&entries: &u64| {
        let room = entries.saturating_add(report::starts(&scenario));
        let scale = Scale::with_room_for(room).ok_or_else(|| {
            format!("no stock table has room for {} entries before the load and those of the load", grouped(entries))
        })?;
        let scenario = Scenario { prefill: Prefill { entries }, ..scenario.clone() };
        Ok(Case { scenario, scale, out: out.join(entries.to_string()) })
    };
    Ok(arguments.sizes.iter().map(of_size).collect())
}

/// Refuses more entries before the load than the stock table has room for: they are made before an alternative is at work. Says
/// the way out.
fn check_room(prefill: Prefill, table: Scale) -> std::result::Result<(), String> {
    let max = table.stock().max;
    if prefill.entries < max {
        return Ok(());
    }
    let way_out = match Scale::TABLES.into_iter().find(|larger| *larger > prefill.entries) {
        Some(larger) => format!("give --table {larger}, or fewer here"),
        None => "give fewer: no --table has so many".to_owned(),
    };
    Err(format!(
        "{} entries have no room below the max of {max} that --table {max} begins with; {way_out}",
        prefill.entries
    ))
}

fn one(arguments: &Arguments, case: Case, against: &[Alternative], stop: &AtomicBool) -> Result<Report> {
    let Case { scenario, scale, out } = case;
    fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    let guard = match &arguments.guard {
        Some(guard) => guard.clone(),
        None => env::current_exe().context("this program's own place")?.with_file_name("conntrack-guard"),
    };
    let terms = Terms {
        scenario,
        scale,
        rounds: arguments.rounds,
        places: Places { guard, bpftune: arguments.bpftune.clone(), out: out.clone() },
        found: Sysctls::read()?,
        counted: hooks::counts_instructions(),
        here: arguments.place.here,
        stop,
    };
    eprintln!("{}{}", scale.words(report::rate(&terms.scenario)), run_command::head(&terms.scenario));
    let kept = Cell::new(false);
    let keep = |done: &Done| {
        if done.runs.is_empty() {
            return Ok(());
        }
        write(&Report::new(&terms, against, done)?, &out)?;
        kept.set(true);
        Ok(())
    };
    let done = passes::run(&terms, against, keep).map_err(|error| {
        if kept.get() { error.context(format!("what had run until then is in {}", out.display())) } else { error }
    })?;
    let report = Report::new(&terms, against, &done)?;
    match (arguments.json, &*arguments.sizes) {
        (true, []) => println!("{}", serde_json::to_string(&report)?),
        (true, _) => {}
        (false, _) => print!("\n{}", text::table(&report)),
    }
    Ok(report)
}

fn compare_sizes(arguments: &Arguments, sizes: &Sizes) -> Result<()> {
    let out = &arguments.out;
    file(out, "sizes.json", &serde_json::to_string(sizes)?)?;
    file(out, "sizes.svg", &sizes.plot()?)?;
    file(out, "sizes.md", &sizes.markdown())?;
    if arguments.json {
        println!("{}", serde_json::to_string(sizes)?);
    } else {
        print!("\n{}", sizes.words());
    }
    Ok(())
}

fn write(report: &Report, out: &Path) -> Result<()> {
    file(out, "report.json", &serde_json::to_string(report)?)?;
    let plots = plot::all(report)?;
    for plot in &plots {
        file(out, plot.name, &plot.svg)?;
    }
    file(out, "report.md", &text::markdown(report, &plots))
}

fn file(out: &Path, name: &str, content: &str) -> Result<()> {
    // Whole at any time: the guest may be ended while it is written.
    let (path, partial) = (out.join(name), out.join(format!(".{name}.partial")));
    fs::write(&partial, content).with_context(|| partial.display().to_string())?;
    fs::rename(&partial, &path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sizes_are_checked() {
        assert!(against("").is_err());
        assert_eq!(against("guard").unwrap().0, [Alternative::Guard]);
        assert_eq!(table("8192"), Ok(Scale::DEMO));
        assert!(table("8000").unwrap_err().contains("16384"));
    }

    #[test]
    fn entries_before_the_load_need_a_higher_max() {
        let check = |entries| check_room(Prefill { entries }, Scale::DEMO);
        assert_eq!(check(8_191), Ok(()));
        assert!(
            check(8_192)
                .unwrap_err()
                .ends_with("of 8192 that --table 8192 begins with; give --table 16384, or fewer here")
        );
        assert!(check(1_048_576).unwrap_err().ends_with("; give --table 2097152, or fewer here"));
        assert!(check(4_000_000).unwrap_err().ends_with("; give fewer: no --table has so many"));
    }
}
