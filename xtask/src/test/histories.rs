//! `cargo xtask test --histories`: the simulator's long run.

use anyhow::Result;

use crate::{process, setup};

/// In guard/tests/simulator.
const TEST: &str = "a_million_histories";

/// Judges so many histories from this number on, or from where the simulator begins. Exit code 0 if none went wrong, else 1.
pub fn run(count: u64, from: Option<u64>) -> Result<u8> {
    setup::ensure(&setup::for_build(), setup::Say::All)?;
    let mut cargo = process::cargo();
    cargo.args(["test", "--release", "-p", "conntrack-guard", "--test", "simulator"]);
    cargo.args(["--", "--ignored", "--nocapture", TEST]).env("HISTORIES", count.to_string());
    if let Some(from) = from {
        cargo.env("FROM", from.to_string());
    }
    process::show(&mut cargo)?;
    Ok(0)
}
