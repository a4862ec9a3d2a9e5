//! `conntrack-guard-bench churn`: one load against this kernel as it is.

use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use bench::churn::Churn;
use bench::netns::Topology;
use clap::value_parser;

use crate::{figures, watch};

/// What clap takes for [`Churn::RATES`] and [`Churn::SOURCES`]: it counts in `i64`.
const RATES: RangeInclusive<i64> = *Churn::RATES.start() as i64..=*Churn::RATES.end() as i64;
const SOURCES: RangeInclusive<i64> = *Churn::SOURCES.start() as i64..=*Churn::SOURCES.end() as i64;

/// What the user asks for.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// New connections a second, on average
    #[arg(long, default_value_t = Churn::default().rate, value_parser = value_parser!(u32).range(RATES))]
    rate: u32,
    /// For how many seconds connections are started
    #[arg(long = "for", value_name = "SECONDS", default_value = "10", value_parser = duration)]
    duration: Duration,
    /// Client addresses
    #[arg(long, default_value_t = Churn::default().sources, value_parser = value_parser!(u32).range(SOURCES))]
    sources: u32,
    /// The same seed gives the same times and addresses
    #[arg(long, default_value_t = Churn::default().seed)]
    seed: u64,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

fn duration(text: &str) -> std::result::Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    if Churn::DURATIONS.contains(&duration) { Ok(duration) } else { Err("it must be 0.1 to 3600".to_owned()) }
}

/// Runs the load; the exit code is 1 where a connection failed or the load was stopped.
pub(crate) fn run(arguments: &Arguments, stop: &AtomicBool) -> Result<ExitCode> {
    let churn =
        Churn { rate: arguments.rate, duration: arguments.duration, sources: arguments.sources, seed: arguments.seed };
    let topology = Topology::create()?;
    for line in topology.leftovers() {
        eprintln!("{line}");
    }
    let observed = watch::load(&churn, &topology, stop, |line| eprintln!("{line}"))?;
    topology.remove()?;
    if arguments.json {
        println!("{}", serde_json::to_string(&observed)?);
    } else {
        print!("{}", figures::table(&[("", &observed)]));
    }
    let whole = observed.outcome.failures() == 0 && !stop.load(Ordering::Relaxed);
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
