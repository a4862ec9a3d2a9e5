//! `cargo xtask bench`: measurements on a real kernel, in a guest. What they show is the bench's to say.

use std::ffi::OsString;
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
}

/// Sets up, builds, boots and passes the bench's output and exit code through.
pub fn run(what: &What) -> Result<u8> {
    let mut pieces = setup::for_build();
    pieces.extend(setup::for_guest(KERNEL));
    pieces.extend(setup::for_guest_programs());
    if matches!(what, What::Hooks { .. }) {
        pieces.extend(setup::for_bench());
    }
    setup::ensure(&pieces, setup::Say::Fetched)?;
    let (mut command, rounds, json) = match what {
        What::Hooks { rounds, json } => (vec![build::release()?.bench.into(), "hooks".into()], rounds, json),
        What::Start { rounds, json } => (start()?, rounds, json),
    };
    command.extend(["--rounds".into(), rounds.to_string().into()]);
    if *json {
        command.push("--json".into());
    }
    eprintln!("booting a guest: Linux {}, one CPU whose clock counts instructions", KERNEL.name());
    let start = Instant::now();
    let code = vm::run(&vm::Guest { command, ..guest(*rounds) })?;
    eprintln!("the measurement ended with {code} after {} s", start.elapsed().as_secs());
    Ok(code)
}

/// The command that measures starts. What it starts is the binary that ships; itself it may be a debug build.
pub fn start() -> Result<Vec<OsString>> {
    let guard = image::static_binary()?;
    process::show(process::cargo().args(["build", "--quiet", "--package", "conntrack-guard-bench", "--bins"]))?;
    let bench = tree::built().join("debug/conntrack-guard-bench");
    Ok(vec![bench.into(), "start".into(), guard.into()])
}

/// A guest that counts instructions for this many rounds of something.
pub fn guest(rounds: u32) -> vm::Guest {
    vm::Guest {
        kernel: KERNEL,
        cpus: 1,
        mem_mib: MEMORY_MIB,
        count_instructions: true,
        timeout: ROUND_LIMIT * (rounds + 1),
        out: tree::kept().join("vm/out"),
        command: Vec::new(),
    }
}
