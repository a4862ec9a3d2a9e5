//! `conntrack-guard-bench start`: how long the guard takes from its start until it measures, and what memory it then holds.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::guard::Guard;
use crate::put_back::RunFolder;
use crate::table::{Table, grouped, short};

/// What is promised: the start, and KiB that stay resident.
const START: Duration = Duration::from_secs(1);
const RESIDENT: u64 = 8 << 10;
/// How often the guard is asked until it answers; a thousandth of what is promised.
const LOOK: Duration = Duration::from_millis(1);
/// How long a start may take before it is a failure.
const PATIENCE: Duration = Duration::from_mins(1);
/// A few ticks: what a tick needs is resident after it.
const SETTLED: Duration = Duration::from_secs(10);

/// What a guest's kernel does after it has booted is done by then.
const BOOTED: Duration = Duration::from_mins(1);

/// What the user asks for.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The guard to start
    guard: PathBuf,
    /// How often it is started
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// One start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Start {
    /// From its start until `conntrack-guard status` has said that programs measure, microseconds.
    took_us: u64,
    /// Resident afterwards (`VmRSS`), KiB: the program's own pages as far as they were used, the heap, stacks.
    resident_kib: u64,
    /// Most that was ever resident (`VmHWM`), KiB.
    peak_kib: u64,
}

/// Starts and stops the guard `rounds` times, and once before; it changes nothing meanwhile. Exit code 1 where a promise is not kept.
pub(crate) fn run(arguments: &Arguments, stop: &AtomicBool) -> Result<ExitCode> {
    let folder = RunFolder::new()?;
    let guard = folder.copy(&arguments.guard)?;
    start(&guard, &folder, stop)?;
    // A guest that has just booted is still busy with itself, which took up to 0.4 s of a start's time.
    thread::sleep(BOOTED);
    let mut starts = Vec::new();
    for _ in 0..arguments.rounds {
        starts.push(start(&guard, &folder, stop)?);
    }
    if arguments.json {
        println!("{}", serde_json::json!({ "starts": starts, "kept": broken(&starts).is_empty() }));
    } else {
        print!("{}", table(&starts));
    }
    let broken = broken(&starts);
    for promise in &broken {
        eprintln!("not kept: {promise}");
    }
    Ok(ExitCode::from(u8::from(!broken.is_empty())))
}

fn start(guard: &Path, folder: &RunFolder, stop: &AtomicBool) -> Result<Start> {
    let dry_run = [OsStr::new("--dry-run")];
    let began = Instant::now();
    let guard = Guard::start_program(guard, &dry_run, folder.path(), PATIENCE, LOOK, stop)?;
    let took = began.elapsed();
    guard.check_that_it_measures()?;
    thread::sleep(SETTLED);
    let path = format!("/proc/{}/status", guard.pid());
    let status = fs::read_to_string(&path).context(path)?;
    let resident = (kib(&status, "VmRSS")?, kib(&status, "VmHWM")?);
    let ended = guard.stop()?;
    ensure!(ended.success(), "the guard ended with {ended}");
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    Ok(Start { took_us, resident_kib: resident.0, peak_kib: resident.1 })
}

/// The value of a line of `/proc/PID/status`, as in `VmRSS: 3932 kB`.
pub(crate) fn kib(status: &str, key: &str) -> Result<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let value = value.and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok());
    value.with_context(|| format!("/proc/PID/status has no {key}"))
}

/// The promises that one start at least did not keep.
fn broken(starts: &[Start]) -> Vec<String> {
    let took = starts.iter().map(|start| start.took_us).max().map(Duration::from_micros).filter(|took| *took > START);
    let resident = starts.iter().map(|start| start.resident_kib).max().filter(|resident| *resident > RESIDENT);
    let took = took.map(|took| format!("a start within {}: {}", short(START), short(took)));
    let resident = resident.map(|kib| format!("{} KiB resident: {}", grouped(RESIDENT), grouped(kib)));
    took.into_iter().chain(resident).collect()
}

fn table(starts: &[Start]) -> String {
    let mut table = Table::default();
    table.row("", ["median", "lowest", "highest"].map(str::to_owned).into_iter());
    let mut row = |name: &str, of: fn(&Start) -> u64, shown: fn(u64) -> String| {
        let mut values: Vec<u64> = starts.iter().map(of).collect();
        values.sort_unstable();
        let chosen = [values.get(values.len() / 2), values.first(), values.last()];
        table.row(name, chosen.into_iter().flatten().map(|value| shown(*value)));
    };
    row("from its start until it says that it measures", |start| start.took_us, |us| short(Duration::from_micros(us)));
    row("resident after it, KiB", |start| start.resident_kib, grouped);
    row("resident at its peak, KiB", |start| start.peak_kib, grouped);
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Start = Start { took_us: 650_000, resident_kib: 3_900, peak_kib: 6_500 };

    #[test]
    fn one_start_out_of_many_breaks_a_promise() {
        assert_eq!(broken(&[GOOD, GOOD]), Vec::<String>::new());
        let slow = Start { took_us: 1_000_001, ..GOOD };
        assert!(broken(&[GOOD, slow])[0].starts_with("a start within 1.00 s"));
        let fat = Start { resident_kib: 8_193, ..GOOD };
        assert_eq!(broken(&[fat, GOOD]), ["8,192 KiB resident: 8,193"]);
    }

    #[test]
    fn memory_is_read_as_the_kernel_writes_it() {
        let status = "Name:\tguard\nVmHWM:\t    6508 kB\nVmRSS:\t    3932 kB\n";
        assert_eq!((kib(status, "VmRSS").unwrap(), kib(status, "VmHWM").unwrap()), (3_932, 6_508));
        assert!(kib(status, "Vm").is_err());
        assert!(kib("VmRSS:\t0 MB\n", "VmRSS").is_err());
    }

    #[test]
    fn the_table_has_the_median_and_the_spread() {
        let starts = [700_000, 600_000, 650_000].map(|took_us| Start { took_us, ..GOOD });
        let text = table(&starts);
        assert!(text.lines().nth(1).unwrap().ends_with("650 ms  600 ms   700 ms"), "{text}");
    }
}
