//! Oracle's bpftune, an auto-tuner of other sysctls, to compare the guard with: from Debian's trixie, in a root of its own, so
//! that it brings its own libraries and is not installed here.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Piece;
use super::apt::Suite;
use crate::staging::Staging;
use crate::tree;

const SUITE: &str = "trixie";
const PACKAGE: &str = "bpftune";
/// The program, below its root.
const PROGRAM: &str = "usr/sbin/bpftune";

/// The set-up piece.
pub struct Bpftune;

/// Its root.
pub fn root() -> PathBuf {
    tree::kept().join("bpftune")
}

impl Piece for Bpftune {
    fn name(&self) -> String {
        PACKAGE.to_owned()
    }

    fn found(&self) -> Option<String> {
        root().join(PROGRAM).is_file().then(|| root().display().to_string())
    }

    fn work(&self) -> &'static str {
        "fetching it and its libraries"
    }

    fn get(&self) -> Result<String> {
        let suite = Suite::open(SUITE)?;
        let staging = Staging::beside(&root())?;
        let (mut wanted, mut seen) = (vec![PACKAGE.to_owned()], BTreeSet::new());
        let mut version = String::new();
        while let Some(name) = wanted.pop() {
            // An architecture, as in `libc6:any`.
            let name = name.split(':').next().unwrap_or_default().to_owned();
            if !seen.insert(name.clone()) {
                continue;
            }
            let package = suite.show(&name).with_context(|| format!("Debian's {SUITE} has no {name}"))?;
            suite.unpack(&package.name, &package.version, staging.dir(), staging.dir())?;
            if name == PACKAGE {
                version.clone_from(&package.version);
            }
            wanted.extend(package.depends);
        }
        // Its loader and libraries are looked for where a merged /usr has links; the package base-files has them.
        for name in ["lib", "lib64", "sbin", "bin"] {
            let link = staging.dir().join(name);
            if !link.exists() {
                symlink(format!("usr/{name}"), &link).with_context(|| link.display().to_string())?;
            }
        }
        anyhow::ensure!(staging.dir().join(PROGRAM).is_file(), "the package {PACKAGE} holds no {PROGRAM}");
        staging.commit(Path::new(""))?;
        Ok(format!("{version}, {} packages", seen.len()))
    }
}
