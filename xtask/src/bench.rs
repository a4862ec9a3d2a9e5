//! `cargo xtask bench`: measurements on a real kernel, in a guest. What they show is the bench's to say.

mod churn;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::{build, image, process, setup, tree, vm};

/// The kernel they run on.
const KERNEL: setup::Series = setup::Series::V6_12;
const MEMORY_MIB: u32 = 1024;
/// Of one round, a few times what it takes on two busy cores.
const ROUND_LIMIT: Duration = Duration::from_mins(5);

/// What is measured.
#[derive(clap::Subcommand)]
pub enum What {
    /// The guard against everything an operator would run instead, under the same load
    ///
    /// Each alternative starts on an empty table and the kernel's own settings, scaled; both sides are read, the clients'
    /// and the kernel's. Writes report.json, report.md and plots. On a guest with one CPU whose clock counts instructions:
    /// the load keeps its times on any machine. Exits with 1 where an alternative could not run; the report says why.
    Churn(churn::Arguments),
    /// What became of the figures between two reports of `churn`
    ///
    /// Exits with 1 where a figure of this project's programs became worse by more than the tolerance.
    Compare {
        /// report.json of before
        before: PathBuf,
        /// report.json of after
        after: PathBuf,
        /// How much worse a figure may be, percent of before
        #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=1_000))]
        tolerance: u32,
    },
    #[command(flatten)]
    Counted(Counted),
}

/// What is measured in counted instructions.
#[derive(clap::Subcommand)]
pub enum Counted {
    /// What watching costs a new flow, in counted instructions: the guard's hooks, bpftrace, `conntrack -E`
    ///
    /// At four loads of the hash table, each against nothing watching, in interleaved rounds on one guest with one CPU.
    /// Equal on any machine; about a minute a round. Exits with 0 whatever the figures are, and with 1 where one could
    /// not be measured. Installs the package bpftrace.
    Hooks {
        /// How often each is measured
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
        rounds: u32,
        /// Print one JSON object instead of a table
        #[arg(long)]
        json: bool,
    },
    /// How long the static binary takes from its start until it measures, and what memory it then holds
    ///
    /// On a guest with one CPU whose clock counts instructions: equal on any machine. Exits with 1 where a start takes
    /// more than 1 s of the guest's time, or leaves more than 8 MiB resident.
    Start {
        /// How often it is started
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
        rounds: u32,
        /// Print one JSON object instead of a table
        #[arg(long)]
        json: bool,
    },
    /// How long from the flow that spends the guard's credit until a higher max is read back
    ///
    /// Bursts of new flows, as fast as the guest's one CPU makes them; its clock counts instructions. Exits with 1 where
    /// more than one crossing in 100 is answered later than after 10 ms of the guest's time.
    Reaction {
        /// How many crossings at least
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        crossings: u32,
        /// Print one JSON object instead of a table
        #[arg(long)]
        json: bool,
    },
    /// What the static binary takes while nothing happens
    ///
    /// On a guest with one CPU whose clock counts instructions: equal on any machine. Exits with 1 where it wakes up more
    /// than once a second, takes 0.1 % of a core or more, or has or had more than 8 MiB resident.
    Idle {
        /// How long it is looked at, seconds of the guest's time
        #[arg(
            long = "for",
            value_name = "SECONDS",
            default_value_t = 300,
            value_parser = clap::value_parser!(u32).range(10..=86_400)
        )]
        seconds: u32,
        /// Print one JSON object instead of a table
        #[arg(long)]
        json: bool,
    },
}

impl Counted {
    /// The measurement's name, which is that of the bench's command.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hooks { .. } => "hooks",
            Self::Start { .. } => "start",
            Self::Reaction { .. } => "reaction",
            Self::Idle { .. } => "idle",
        }
    }
}

/// Runs what was asked for; the bench's output and exit code are passed through.
pub fn run(what: &What) -> Result<u8> {
    match what {
        What::Churn(arguments) => churn::run(arguments),
        What::Compare { before, after, tolerance } => churn::compare(before, after, *tolerance),
        What::Counted(what) => set_up_and_measure(what),
    }
}

fn set_up_and_measure(what: &Counted) -> Result<u8> {
    let mut pieces = setup::for_build();
    pieces.extend(setup::for_guest(KERNEL));
    pieces.extend(setup::for_guest_programs());
    if matches!(what, Counted::Hooks { .. }) {
        pieces.extend(setup::for_bench());
    }
    setup::ensure(&pieces, setup::Say::Fetched)?;
    measure(what)
}

/// The same where everything is set up.
pub fn measure(what: &Counted) -> Result<u8> {
    let mut command = match what {
        Counted::Hooks { .. } => vec![build::release()?.bench.into(), what.name().into()],
        // They measure the binary that ships; the bench itself may be a debug build.
        Counted::Start { .. } | Counted::Reaction { .. } | Counted::Idle { .. } => {
            let guard = image::static_binary()?;
            process::show(process::cargo().args(["build", "--quiet", "--package", "conntrack-guard-bench", "--bins"]))?;
            vec![tree::built().join("debug/conntrack-guard-bench").into(), what.name().into(), guard.into()]
        }
    };
    // How much is asked for, and how many rounds that is at most, for the guest's time limit.
    let (option, much, rounds, json) = match what {
        Counted::Hooks { rounds, json } | Counted::Start { rounds, json } => ("--rounds", rounds, *rounds, json),
        Counted::Reaction { crossings, json } => ("--crossings", crossings, crossings / 50, json),
        Counted::Idle { seconds, json } => ("--for", seconds, seconds / 600, json),
    };
    command.extend([option.into(), much.to_string().into()]);
    if *json {
        command.push("--json".into());
    }
    eprintln!("booting a guest: Linux {}, one CPU whose clock counts instructions", KERNEL.name());
    let start = Instant::now();
    let code = vm::run(&vm::Guest {
        kernel: KERNEL,
        cpus: 1,
        mem_mib: MEMORY_MIB,
        count_instructions: true,
        timeout: ROUND_LIMIT * (rounds + 1),
        out: tree::kept().join("vm/out"),
        command,
    })?;
    eprintln!("the measurement ended with {code} after {} s", start.elapsed().as_secs());
    Ok(code)
}
