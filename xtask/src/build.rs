//! `cargo xtask build`: the two programs that run in guests and on hosts, in release form.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{image, process, setup, tree};

/// What was built.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The daemon.
    pub guard: PathBuf,
    /// The load generator.
    pub bench: PathBuf,
}

/// `cargo xtask build`: a path a line on stdout, cargo's own progress on stderr.
pub fn run(fixed: bool) -> Result<()> {
    if fixed {
        setup::ensure(&setup::for_build(), setup::Say::Fetched)?;
        println!("{}", image::static_binary()?.display());
    } else {
        let programs = release()?;
        println!("{}\n{}", programs.guard.display(), programs.bench.display());
    }
    Ok(())
}

/// Sets up and builds both programs.
pub fn release() -> Result<Programs> {
    setup::ensure(&setup::for_build(), setup::Say::Fetched)?;
    let mut cargo = Command::new("cargo");
    cargo.current_dir(tree::root()).args([
        "build",
        "--release",
        "--package",
        "conntrack-guard",
        "--package",
        "conntrack-guard-bench",
        "--bins",
    ]);
    let status = cargo.status().with_context(|| format!("cannot start {}", process::line(&cargo)))?;
    if !status.success() {
        bail!("{} ended with {status}", process::line(&cargo));
    }
    let release = tree::built().join("release");
    Ok(Programs { guard: release.join("conntrack-guard"), bench: release.join("conntrack-guard-bench") })
}
