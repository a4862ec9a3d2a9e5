//! `conntrack-guard-bench reaction`: how long from the flow that spends the guard's credit until a higher max is read back.
//!
//! Both ends are the guard's own, on one clock (`CLOCK_BOOTTIME`): the kernel half's timestamp, and the moment at which the
//! guard has read the new value. That the raises came in time is judged here, by the kernel's statistics.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bench::conntrack::{self, Settings, Statistics};
use bench::netns::Topology;
use bench::udp::Flows;
use serde::Serialize;

use crate::guard::Guard;
use crate::hooks;
use crate::put_back::{PutBack, RunFolder};
use crate::table::{Table, grouped, short};

/// What is promised of 99 in 100 crossings.
const WITHIN: Duration = Duration::from_millis(10);
/// Where each burst begins. Buckets stay as they are: a resize is another matter.
const FOUND: Settings = Settings { max: 256, buckets: 4_096 };
/// Flows of a burst, as fast as the only CPU makes them while the guard wants it too: each of the marks of 256, 512 and 1,024
/// is one crossing, unless the forecast passes one by.
const BURST: u64 = 1_000;
/// Numbers of flows from which on the first ones are used again; their entries are long gone.
const NUMBERS: u64 = 1_000_000;
/// What went by is no evidence of growth any more.
const CALM: Duration = Duration::from_secs(3);
/// Between two bursts: more than a tick, after which the guard knows the small max.
const KNOWN: Duration = Duration::from_secs(3);
/// The guard takes who makes max small again for a program that undoes its raises: it answers that at once three times, then
/// after 1 s, 2 s, 4 s …, and forgets it after two minutes.
const BURSTS: u32 = 6;
const FORGOTTEN: Duration = Duration::from_secs(130);
/// How often the guard is looked at while it starts or ends, and how long that may take.
const LOOK: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_mins(10);

const POLICY: &str = "[table]\nmax = { floor = 256, ceiling = 65536 }\nhorizon = \"1s\"\n\
    [hash]\nbuckets = { floor = 4096, ceiling = 4096 }\n[timeouts]\nshorten = false\n[flood]\ndetect = false\n";

/// What the user asks for.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The guard to start
    guard: PathBuf,
    /// How many crossings at least
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    crossings: u32,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// What was measured.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Report {
    /// Microseconds, in rising order.
    reactions_us: Vec<u64>,
    /// Raises for which the guard was not woken: its tick was before the credit ran out.
    by_tick: u64,
    /// Flows made.
    flows: u64,
    /// New flows that found the table full.
    refused: u64,
}

/// Bursts until there have been so many crossings. Exit code 1 where the promise is not kept.
pub(crate) fn run(arguments: &Arguments, stop: &AtomicBool) -> Result<ExitCode> {
    hooks::check_alone()?;
    let folder = RunFolder::new()?;
    let policy = folder.path().join("policy.toml");
    fs::write(&policy, POLICY).with_context(|| policy.display().to_string())?;
    let _put_back = PutBack::Settings(Settings::read()?);
    let topology = Topology::create()?;
    FOUND.write()?;
    let words = [OsStr::new("--config"), policy.as_os_str(), OsStr::new("--state-dir"), folder.path().as_os_str()];
    let guard = Guard::start_program(&arguments.guard, &words, folder.path(), PATIENCE, LOOK, stop)?;
    guard.check_that_it_measures()?;
    let before = Statistics::read()?;
    let (mut report, mut read) = (Report::default(), 0);
    loop {
        for burst in 0..BURSTS {
            ensure!(!stop.load(Ordering::Relaxed), "stopped; everything is put back");
            conntrack::flush()?;
            thread::sleep(CALM);
            FOUND.write()?;
            thread::sleep(KNOWN + Duration::from_secs(1 << burst));
            Flows::one_way(report.flows % NUMBERS, BURST).send(&topology)?;
            report.flows += BURST;
        }
        report.refused = Statistics::read()?.drops_since(&before).table_full;
        let log = guard.log_text();
        let whole = log.rfind('\n').map_or(0, |last| last + 1);
        report.add(log.get(read..whole).unwrap_or_default());
        read = whole;
        let crossings = report.reactions_us.len();
        eprintln!("{} crossings after {} flows", grouped(crossings.try_into()?), grouped(report.flows));
        ensure!(crossings > 0, "the guard was never woken; its log:\n{log}");
        if crossings >= usize::try_from(arguments.crossings)? {
            break;
        }
        thread::sleep(FORGOTTEN);
    }
    conntrack::flush()?;
    let ended = guard.stop()?;
    ensure!(ended.success(), "the guard ended with {ended}");
    if arguments.json {
        println!("{}", serde_json::json!({ "report": report, "kept": report.kept() }));
    } else {
        print!("{}", report.words());
    }
    if !report.kept() {
        eprintln!("not kept: 99 of 100 crossings answered within {}", short(WITHIN));
    }
    Ok(ExitCode::from(u8::from(!report.kept())))
}

impl Report {
    /// Takes the raises from more lines of the guard's log.
    fn add(&mut self, log: &str) {
        let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        for raise in lines.filter(|line| line["rule"] == "raise-max" && line["read_back"].is_u64()) {
            match raise["reaction_us"].as_u64() {
                Some(took) => self.reactions_us.push(took),
                None => self.by_tick += 1,
            }
        }
        self.reactions_us.sort_unstable();
    }

    /// The reaction that so many of 100 were not slower than.
    fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.reactions_us.len() * percent).div_ceil(100);
        Duration::from_micros(self.reactions_us.get(rank.saturating_sub(1)).copied().unwrap_or(u64::MAX))
    }

    fn kept(&self) -> bool {
        self.percentile(99) <= WITHIN
    }

    fn words(&self) -> String {
        let mut table = Table::default();
        table.row("", ["median", "p99", "slowest"].map(str::to_owned).into_iter());
        let of = [50, 99, 100].map(|percent| short(self.percentile(percent)));
        table.row("from the crossing until a higher max is read back", of.into_iter());
        format!(
            "{}{} crossings; {} raises more at a tick, before the credit was spent; {} new flows, {} refused for a full table\n",
            table.render(),
            grouped(self.reactions_us.len() as u64),
            grouped(self.by_tick),
            grouped(self.flows),
            grouped(self.refused)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(reactions_us: Vec<u64>) -> Report {
        Report { reactions_us, ..Report::default() }
    }

    #[test]
    fn raises_are_read_from_the_log() {
        let line = |fields: &str| format!("{{\"level\":\"INFO\",{fields}}}\n");
        let log = [
            line("\"rule\":\"raise-max\",\"read_back\":512,\"reaction_us\":900"),
            line("\"rule\":\"raise-max\",\"read_back\":1024,\"reaction_us\":700"),
            line("\"rule\":\"raise-max\",\"read_back\":2048"),
            line("\"rule\":\"raise-max\",\"reason\":\"held\""),
            line("\"rule\":\"relax-max\",\"read_back\":256"),
            "not JSON\n".to_owned(),
        ];
        let mut report = report(vec![800]);
        report.add(&log.concat());
        assert_eq!(report, Report { reactions_us: vec![700, 800, 900], by_tick: 1, ..Report::default() });
    }

    #[test]
    fn one_slow_reaction_in_a_hundred_is_allowed_and_two_are_not() {
        let mut reactions = vec![1_000; 98];
        reactions.extend([10_000, 10_001]);
        assert!(report(reactions.clone()).kept());
        reactions[98] = 10_001;
        assert!(!report(reactions).kept());
        assert!(!report(Vec::new()).kept(), "nothing measured is nothing kept");
    }
}
