//! Programs that cargo builds from their published sources into `target/tools/bin`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Piece, logs};
use crate::{process, tree};

/// A published program at an exact version.
pub struct CargoTool {
    name: &'static str,
    version: &'static str,
    options: &'static [&'static str],
    work: &'static str,
}

/// 0.10.0 is the last that links with the LLVM inside rustc; later ones want LLVM's own libraries.
pub const BPF_LINKER: CargoTool =
    CargoTool { name: "bpf-linker", version: "0.10.0", options: &[], work: "building (about a minute)" };

/// Checks licences, bans and advisories. It runs for a second a day: what optimising it costs never comes back.
pub const CARGO_DENY: CargoTool = CargoTool {
    name: "cargo-deny",
    version: "0.20.2",
    options: &["--config", "profile.release.opt-level=0", "--config", "profile.release.lto=false"],
    work: "building (about three minutes)",
};

/// Where cargo-deny is.
pub fn cargo_deny() -> Result<PathBuf> {
    CARGO_DENY.find().context("cargo-deny is missing: run `cargo xtask setup`")
}

impl CargoTool {
    fn kept(&self) -> PathBuf {
        tree::kept().join("tools/bin").join(self.name)
    }

    /// An installed one is taken only at the very version: its command line and its LLVM differ between versions.
    fn find(&self) -> Option<PathBuf> {
        let installed = process::find_program(self.name);
        [Some(self.kept()), installed].into_iter().flatten().find(|path| {
            let said = path.is_file().then(|| process::output(Command::new(path).arg("--version")).ok()).flatten();
            said.is_some_and(|text| text.split_whitespace().any(|word| word == self.version))
        })
    }
}

impl Piece for CargoTool {
    fn name(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    fn found(&self) -> Option<String> {
        self.find().map(|path| path.display().to_string())
    }

    fn work(&self) -> &'static str {
        self.work
    }

    fn get(&self) -> Result<String> {
        let build = tree::kept().join("tools/build");
        let mut command = Command::new("cargo");
        command.args(["install", "--locked", "--force", self.name, "--version", self.version]).args(self.options);
        command.arg("--root").arg(tree::kept().join("tools")).env("CARGO_TARGET_DIR", &build);
        let ended = process::run_logged(&mut command, &logs(self.name));
        // The intermediate files are larger than everything else that is kept, and never used again; where the disk
        // filled up, they are what filled it.
        let removed = std::fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()));
        ended.and(removed)?;
        Ok(self.kept().display().to_string())
    }
}
