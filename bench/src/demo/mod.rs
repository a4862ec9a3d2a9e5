//! `conntrack-guard-bench demo`: the same load against the stock kernel, then against the same kernel with the guard.

mod verdict;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bench::churn::Churn;
use bench::conntrack::Settings;
use bench::netns::Topology;

use self::verdict::Guarded;
use crate::afresh::{self, empty};
use crate::guard::Guard;
use crate::put_back::{PutBack, RunFolder};
use crate::scale::{self, Scale};
use crate::status::Status;
use crate::table::grouped;
use crate::watch::{self, Observed};
use crate::{NotHere, figures, memory};

/// Long enough for the stock table to fill halfway through: its entries stay for 120 s.
const DURATION: Duration = Duration::from_secs(35);
/// New connections a second in the guest: 12,800 at the gateway.
const RATE: u32 = 400;
/// The guard's start, which loads its programs, and its stop, which restores the settings.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the results go.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder for the table, the guard's log, its status and its policy
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs both loads and judges them; the exit code is 1 if the demo did not show what it should.
pub(crate) fn run(arguments: &Arguments, stop: &AtomicBool) -> Result<ExitCode> {
    let memory = meminfo_total()?;
    check_guest(memory)?;
    fs::create_dir_all(&arguments.out).with_context(|| arguments.out.display().to_string())?;
    let _put_back = PutBack::Settings(Settings::read()?);
    let topology = Topology::create()?;
    let churn = Churn { rate: RATE, duration: DURATION, ..Churn::default() };
    println!("{}", Scale::DEMO.words(RATE.into()));
    println!(
        "The load: {} s of connections (connect, request, reply, close), {} a second from {} addresses, seed {}.",
        churn.duration.as_secs(),
        churn.rate,
        grouped(u64::from(churn.sources)),
        churn.seed
    );

    println!("\nThe stock kernel");
    afresh::start(Scale::DEMO.stock(), stop)?;
    let stock = load(&churn, &topology, stop)?;

    println!("\nThe same kernel with conntrack-guard");
    afresh::start(Scale::DEMO.stock(), stop)?;
    let (observed, status, exit) = with_guard(&churn, &topology, &arguments.out, stop)?;
    let after = Settings::read()?;
    topology.remove()?;

    let guarded = Guarded {
        load: &observed,
        back_end: &status.back_end,
        exit,
        after,
        entry_bytes: memory::Entries::read()?.object_bytes,
        memory_limit: memory * scale::MEMORY_PERCENT / 100,
    };
    let problems = verdict::problems(&stock, &guarded);
    let report = format!(
        "{}\n{}\n{}",
        figures::table(&[("stock", &stock), ("with the guard", &observed)]),
        status.words(),
        conclusion(&problems, after)
    );
    let file = arguments.out.join("demo.txt");
    fs::write(&file, format!("{}\n{report}", Scale::DEMO.words(RATE.into())))
        .with_context(|| file.display().to_string())?;
    println!("\n{report}");
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn conclusion(problems: &[String], after: Settings) -> String {
    if problems.is_empty() {
        format!(
            "The table was emptied, the guard stopped by SIGTERM: max is {} and buckets are {}, as they were found.\n\
             Stock dropped new flows; with the guard none was dropped and every value stayed within its bounds.\n",
            grouped(after.max),
            grouped(after.buckets)
        )
    } else {
        format!("FAILED: {}\n", problems.join("\nFAILED: "))
    }
}

/// The load with the guard beside it; asks for its status while the table is still full.
fn with_guard(
    churn: &Churn,
    topology: &Topology,
    out: &Path,
    stop: &AtomicBool,
) -> Result<(Observed, Status, process::ExitStatus)> {
    let policy = out.join("policy.toml");
    fs::write(&policy, Scale::DEMO.policy("enforce", &format!("{}%", scale::MEMORY_PERCENT)))
        .with_context(|| policy.display().to_string())?;
    let state = RunFolder::new()?;
    let arguments = ["--config".as_ref(), policy.as_os_str(), "--state-dir".as_ref(), state.path().as_os_str()];
    let guard = Guard::start(&arguments, out, PATIENCE, stop)?;
    let observed = load(churn, topology, stop)?;
    let text = guard.status_text()?;
    let file = out.join("status.json");
    fs::write(&file, &text).with_context(|| file.display().to_string())?;
    let status: Status = Guard::read(&text)?;
    // The guard puts nothing back that would cut off what is in use.
    empty(stop)?;
    Ok((observed, status, guard.stop()?))
}

fn load(churn: &Churn, topology: &Topology, stop: &AtomicBool) -> Result<Observed> {
    let observed = watch::load(churn, topology, stop, |line| println!("{line}"))?;
    if stop.load(Ordering::Relaxed) {
        bail!("stopped; everything is put back");
    }
    Ok(observed)
}

/// The demo empties the kernel's table and shrinks it: not on a host that somebody uses.
fn check_guest(memory: u64) -> Result<()> {
    afresh::check_unused("the demo", "cargo xtask demo")?;
    let needed = Scale::DEMO.memory();
    // The kernel keeps a part to itself.
    if !(needed / 4 * 3..=needed).contains(&memory) {
        return Err(NotHere(format!(
            "this machine has {} MiB of memory, the demo's scale needs a guest of {} MiB: `cargo xtask demo`",
            memory >> 20,
            needed >> 20
        ))
        .into());
    }
    Ok(())
}

fn meminfo_total() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.map(|kib: u64| kib * 1024).context("/proc/meminfo: no MemTotal")
}
