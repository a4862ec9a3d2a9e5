//! `conntrack-guard-bench hooks`: what watching costs a new flow, in instructions counted by a guest's clock.
//!
//! Each round measures every variant once, in another order than the last, each with a sweep of its own over nothing
//! watching just before it: the kernel's own costs wander between levels, and only what is measured side by side compares.

mod clock;
mod connections;
mod figures;
mod filler;
mod flows;
mod report;
mod share;
mod sweep;
mod variants;
mod watcher;

use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result};
use bench::conntrack::{self, Settings};

use self::report::{Pair, Report};
use self::share::Share;
use self::sweep::{Bench, LOADS};
use self::variants::VARIANTS;
use self::watcher::Watcher;
use crate::NotHere;
use crate::put_back::{PutBack, RunFolder};
use crate::table::grouped;

/// What the user asks for.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How often each variant is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Measures everything. An error says what could not be measured; no figure makes one.
pub(crate) fn run(arguments: &Arguments, stop: &AtomicBool) -> Result<ExitCode> {
    check_alone()?;
    let kernel = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
    let folder = RunFolder::new()?;
    let _put_back = PutBack::Settings(Settings::read()?);
    let mut bench = Bench::new().context("the table that everything is measured on")?;
    let mut pairs = Vec::new();
    for round in 0..arguments.rounds as usize {
        for step in 0..VARIANTS.len() {
            let variant = (round + step) % VARIANTS.len();
            let start = Instant::now();
            let pair = pair(&mut bench, variant, round % LOADS.len(), &folder, stop)
                .with_context(|| format!("cannot measure: {}", VARIANTS[variant].name))?;
            eprintln!("{}", line(round, arguments.rounds, &pair, start));
            pairs.push(pair);
        }
    }
    bench.settle()?;
    let ticks = share::ticks(folder.path(), stop).context("cannot measure the guard's ticks")?;
    let report = Report::new(kernel, arguments.rounds, VARIANTS, &pairs, Share::new(&pairs, ticks));
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", report.words());
    }
    Ok(ExitCode::SUCCESS)
}

/// Nothing watching, then the variant; the loads in the same order.
fn pair(bench: &mut Bench, variant: usize, first: usize, folder: &RunFolder, stop: &AtomicBool) -> Result<Pair> {
    let alone = bench.sweep(first, stop)?;
    let watcher = Watcher::start(&VARIANTS[variant], bench.namespace(), folder.path(), stop)?;
    let with = bench.sweep(first, stop)?;
    watcher.stop()?;
    Ok(Pair { variant, alone, watched: with })
}

/// Progress: what the round says of the flow's life.
fn line(round: usize, rounds: u32, pair: &Pair, start: Instant) -> String {
    let lives = LOADS.iter().zip(pair.alone).zip(pair.watched);
    let lives = lives.map(|((load, alone), watched)| {
        format!("{:>6.0}{:>+7.0} at {}", alone.life, watched.life - alone.life, load.factor)
    });
    format!(
        "round {} of {rounds}  {:<38} {}  {} s of guest time",
        round + 1,
        VARIANTS[pair.variant].name,
        lives.collect::<Vec<_>>().join("  "),
        start.elapsed().as_secs(),
    )
}

/// Refuses a machine whose clock does not count, and one that somebody uses.
pub(crate) fn check_alone() -> Result<()> {
    clock::check()?;
    check_nobody_else()
}

/// Whether a nanosecond of this machine's clock is an instruction.
pub(crate) fn counts_instructions() -> bool {
    clock::check().is_ok()
}

/// It fills and flushes the table, and counts what everybody costs together: not on a host that somebody uses.
fn check_nobody_else() -> Result<()> {
    let entries = conntrack::count()?;
    if entries > 0 {
        return Err(NotHere(format!(
            "this kernel tracks {} connections: measure in a guest, `cargo xtask bench`",
            grouped(entries)
        ))
        .into());
    }
    if watcher::hooked()? {
        let text = "somebody watches this kernel's nf_conntrack already: measure in a guest, `cargo xtask bench`";
        return Err(NotHere(text.to_owned()).into());
    }
    Ok(())
}
