//! `conntrack-guard-bench idle`: what the guard takes while nothing happens.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::guard::Guard;
use crate::hooks;
use crate::put_back::RunFolder;
use crate::start::kib;
use crate::table::{Table, grouped};

/// What is promised: wake-ups a second, the share of a core, KiB in memory.
const WAKE_UPS: f64 = 1.0;
const SHARE: f64 = 0.001;
const MEMORY: u64 = 8 << 10;
/// How long the start's echoes last: averages, the self-test's flows, the bench's own questions.
const SETTLED: Duration = Duration::from_secs(30);
/// How often the guard is looked at while it starts or ends, and how long that may take.
const LOOK: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_mins(1);

/// What the user asks for.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The guard to start
    guard: PathBuf,
    /// How long it is looked at, seconds
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=86_400))]
    seconds: u32,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// What it took, of all its threads.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Idle {
    /// Sleeps that ended, a second: voluntary context switches.
    wake_ups: f64,
    /// Its own and those of its system calls, a second: nanoseconds of a clock on which one takes one.
    pub instructions: f64,
    /// Of a core that executes one a nanosecond.
    share: f64,
    /// `VmRSS`, KiB.
    resident_kib: u64,
    /// `VmHWM`, KiB: since its start.
    peak_kib: u64,
    /// Threads.
    threads: usize,
}

/// Counters of a process so far, by its threads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Taken {
    threads: BTreeMap<OsString, Thread>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Thread {
    nanoseconds: u64,
    sleeps: u64,
}

/// Watches a guard that carries out its plans, without a policy file. Exit code 1 where a promise is not kept.
pub(crate) fn run(arguments: &Arguments, stop: &AtomicBool) -> Result<ExitCode> {
    hooks::check_alone()?;
    let folder = RunFolder::new()?;
    let words = [OsStr::new("--state-dir"), folder.path().as_os_str()];
    let guard = Guard::start_program(&arguments.guard, &words, folder.path(), PATIENCE, LOOK, stop)?;
    guard.check_that_it_measures()?;
    let idle = measure(&guard, arguments.seconds)?;
    let ended = guard.stop()?;
    ensure!(ended.success(), "the guard ended with {ended}");
    let broken = idle.broken();
    if arguments.json {
        println!("{}", serde_json::json!({ "idle": idle, "kept": broken.is_empty() }));
    } else {
        print!("{}", idle.words());
    }
    for promise in &broken {
        eprintln!("not kept: {promise}");
    }
    Ok(ExitCode::from(u8::from(!broken.is_empty())))
}

/// What this guard takes in so many seconds, once the echoes of its start are over.
pub(crate) fn measure(guard: &Guard, seconds: u32) -> Result<Idle> {
    thread::sleep(SETTLED);
    let process = PathBuf::from(format!("/proc/{}", guard.pid()));
    let (began, before) = (Instant::now(), taken(&process)?);
    thread::sleep(Duration::from_secs(seconds.into()));
    let (after, elapsed) = (taken(&process)?, began.elapsed().as_secs_f64());
    let path = process.join("status");
    let status = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Idle::new(&after.since(&before)?, elapsed, &status)
}

/// What its threads have taken: the scheduler's own sums (Documentation/scheduler/sched-stats.rst), and the times they slept.
fn taken(process: &Path) -> Result<Taken> {
    let tasks = process.join("task");
    let mut threads = BTreeMap::new();
    for task in fs::read_dir(&tasks).with_context(|| tasks.display().to_string())? {
        let task = task?;
        let read = |name: &str| {
            let file = task.path().join(name);
            fs::read_to_string(&file).with_context(|| file.display().to_string())
        };
        threads.insert(task.file_name(), Thread::parse(&read("schedstat")?, &read("status")?)?);
    }
    Ok(Taken { threads })
}

impl Taken {
    /// Of each thread. One that came or went is an error: what it took would be missing.
    fn since(&self, earlier: &Self) -> Result<Vec<Thread>> {
        ensure!(self.threads.keys().eq(earlier.threads.keys()), "a thread of the guard's came or went meanwhile");
        let pairs = self.threads.values().zip(earlier.threads.values());
        Ok(pairs
            .map(|(now, then)| Thread {
                nanoseconds: now.nanoseconds.saturating_sub(then.nanoseconds),
                sleeps: now.sleeps.saturating_sub(then.sleeps),
            })
            .collect())
    }
}

impl Thread {
    fn parse(schedstat: &str, status: &str) -> Result<Self> {
        let nanoseconds = schedstat.split_whitespace().next().and_then(|first| first.parse().ok());
        let key = "voluntary_ctxt_switches:";
        let sleeps = status.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
        Ok(Self {
            nanoseconds: nanoseconds.context("/proc/PID/task/TID/schedstat begins with no number")?,
            sleeps: sleeps.with_context(|| format!("/proc/PID/task/TID/status has no {key}"))?,
        })
    }
}

impl Idle {
    fn new(threads: &[Thread], seconds: f64, status: &str) -> Result<Self> {
        let instructions = threads.iter().map(|thread| thread.nanoseconds).sum::<u64>() as f64 / seconds;
        Ok(Self {
            wake_ups: threads.iter().map(|thread| thread.sleeps).sum::<u64>() as f64 / seconds,
            instructions,
            share: instructions / 1e9,
            resident_kib: kib(status, "VmRSS")?,
            peak_kib: kib(status, "VmHWM")?,
            threads: threads.len(),
        })
    }

    fn broken(&self) -> Vec<String> {
        let wakes = (self.wake_ups > WAKE_UPS).then(|| format!("one wake-up a second: {:.2}", self.wake_ups));
        let share = (self.share >= SHARE).then(|| format!("less than 0.1 % of a core: {:.3} %", self.share * 100.0));
        let memory = [("resident", self.resident_kib), ("at its peak", self.peak_kib)]
            .map(|(what, kib)| (kib > MEMORY).then(|| format!("{} KiB {what}: {}", grouped(MEMORY), grouped(kib))));
        [wakes, share].into_iter().chain(memory).flatten().collect()
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates: instructions a second")]
    fn words(&self) -> String {
        let mut table = Table::default();
        let mut row = |name: &str, value: String| table.row(name, [value].into_iter());
        row("wake-ups a second", format!("{:.2}", self.wake_ups));
        row("instructions a second", grouped(self.instructions.round() as u64));
        row("of a core, one instruction a nanosecond", format!("{:.4} %", self.share * 100.0));
        row("resident, KiB", grouped(self.resident_kib));
        row("resident at its peak, KiB", grouped(self.peak_kib));
        row("threads", self.threads.to_string());
        table.render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Idle =
        Idle { wake_ups: 1.0, instructions: 9e5, share: 0.0009, resident_kib: 5_000, peak_kib: 8_192, threads: 3 };

    #[test]
    fn each_promise_is_held_by_itself() {
        assert_eq!(GOOD.broken(), Vec::<String>::new());
        assert!(Idle { wake_ups: 1.01, ..GOOD }.broken()[0].starts_with("one wake-up a second: 1.01"));
        assert!(Idle { share: 0.001, ..GOOD }.broken()[0].starts_with("less than 0.1 % of a core: 0.100 %"));
        assert_eq!(Idle { resident_kib: 8_193, ..GOOD }.broken(), ["8,192 KiB resident: 8,193"]);
        assert_eq!(Idle { peak_kib: 8_193, ..GOOD }.broken(), ["8,192 KiB at its peak: 8,193"]);
    }

    #[test]
    fn what_a_thread_took_is_read_as_the_kernel_writes_it() {
        let status = "Name:\tguard\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t545\n";
        assert_eq!(Thread::parse("5318 22 7\n", status).unwrap(), Thread { nanoseconds: 5_318, sleeps: 150 });
        assert!(Thread::parse("", status).is_err() && Thread::parse("1 2 3", "").is_err());
    }

    #[test]
    fn all_threads_count_and_none_may_come_or_go() {
        let of = |threads: &[(&str, u64, u64)]| Taken {
            threads: threads
                .iter()
                .map(|&(id, nanoseconds, sleeps)| (id.into(), Thread { nanoseconds, sleeps }))
                .collect(),
        };
        let (before, after) = (of(&[("7", 100, 1), ("8", 5, 1)]), of(&[("7", 4_000_100, 7), ("8", 1_000_005, 5)]));
        let status = "VmHWM:\t    6508 kB\nVmRSS:\t    3932 kB\n";
        let idle = Idle::new(&after.since(&before).unwrap(), 10.0, status).unwrap();
        let expected = (1.0, 500_000.0, 0.0005, 3_932, 6_508, 2);
        let Idle { wake_ups, instructions, share, resident_kib, peak_kib, threads } = idle;
        assert_eq!((wake_ups, instructions, share, resident_kib, peak_kib, threads), expected);
        assert!(after.since(&of(&[("7", 100, 1), ("9", 5, 1)])).is_err());
        assert!(after.since(&of(&[("7", 100, 1)])).is_err());
    }
}
