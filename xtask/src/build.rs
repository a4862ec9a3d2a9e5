//! `cargo xtask build`: the two programs that run in guests and on hosts, in release form.

use std::path::PathBuf;

use anyhow::Result;

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
    release_with(&[])
}

/// The same, the load generator with its part that turns plots into PNG: what that needs takes as long to build as all else.
pub fn release_with_png() -> Result<Programs> {
    release_with(&["--features", "conntrack-guard-bench/png"])
}

fn release_with(features: &[&str]) -> Result<Programs> {
    setup::ensure(&setup::for_build(), setup::Say::Fetched)?;
    let packages = ["--package", "conntrack-guard", "--package", "conntrack-guard-bench"];
    process::show(process::cargo().args(["build", "--release", "--bins"]).args(packages).args(features))?;
    let release = tree::built().join("release");
    Ok(Programs { guard: release.join("conntrack-guard"), bench: release.join("conntrack-guard-bench") })
}
