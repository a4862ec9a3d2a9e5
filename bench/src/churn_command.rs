//! `conntrack-guard-bench churn`: one load against this kernel as it is.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use bench::churn::Churn;
use bench::netns::Topology;

use crate::{figures, watch};

/// What the user asks for.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// New connections a second, on average
    #[arg(long, default_value_t = Churn::default().rate)]
    rate: u32,
    /// For how many seconds connections are started
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 10.0)]
    seconds: f64,
    /// Client addresses
    #[arg(long, default_value_t = Churn::default().sources)]
    sources: u32,
    /// The same seed gives the same times and addresses
    #[arg(long, default_value_t = Churn::default().seed)]
    seed: u64,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Runs the load; the exit code is 1 where a connection failed or the load was stopped.
pub(crate) fn run(arguments: &Arguments, stop: &AtomicBool) -> Result<ExitCode> {
    let churn = Churn {
        rate: arguments.rate,
        duration: Duration::try_from_secs_f64(arguments.seconds).context("--for")?,
        sources: arguments.sources,
        seed: arguments.seed,
    };
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
