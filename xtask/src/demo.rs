//! `cargo xtask demo`: the guard at its main job, on a real kernel. Builds both programs and runs the bench's demo in a
//! guest; what it shows, and when it fails, is the bench's to say.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::{build, setup, staging, tree, vm};

/// The kernel it runs on.
const KERNEL: setup::Series = setup::Series::V6_12;
/// A gateway of 16 GiB at the demo's scale of 1/32; the bench refuses any other size.
const MEMORY_MIB: u32 = 512;
/// Three times what it takes on two cores: past that, the machine is too busy for the figures to mean anything.
const TIMEOUT: Duration = Duration::from_mins(6);
/// Where the results lie inside the guest's writable folder.
const RESULTS: &str = "demo";

/// Sets up, builds, boots and passes the demo's output and exit code through.
pub fn run() -> Result<u8> {
    setup::ensure(&setup::for_guest_programs(), setup::Say::Fetched)?;
    setup::ensure(&setup::for_guest(KERNEL), setup::Say::Fetched)?;
    let programs = build::release()?;
    let out = tree::kept().join("vm/out");
    let results = out.join(RESULTS);
    // An earlier run's table must not pass for this one's.
    staging::remove(&results)?;
    eprintln!("booting a guest: Linux {}, 2 CPUs, {MEMORY_MIB} MiB", KERNEL.name());
    let start = Instant::now();
    let code = vm::run(&vm::Guest {
        kernel: KERNEL,
        cpus: 2,
        mem_mib: MEMORY_MIB,
        count_instructions: false,
        timeout: TIMEOUT,
        out,
        command: vec![programs.bench.into(), "demo".into(), "--out".into(), format!("{}/{RESULTS}", vm::OUT).into()],
    })?;
    eprintln!(
        "the demo ended with {code} after {} s; its table, and the guard's log, status and policy: {}",
        start.elapsed().as_secs(),
        results.display()
    );
    Ok(code)
}
