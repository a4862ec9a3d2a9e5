//! The Kubernetes API schemas, as the Python package kubernetes-validate carries them, in a virtual environment.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Piece, logs};
use crate::staging::Staging;
use crate::{process, tree};

/// The package, at an exact version: the schemas of all Kubernetes versions known to it come with it.
const PACKAGE: &str = "kubernetes-validate==1.36.0";

/// The set-up piece.
pub struct Validator;

/// The Python that has the package.
pub fn validator() -> PathBuf {
    place().join("bin/python3")
}

fn place() -> PathBuf {
    tree::kept().join("tools/kubernetes-validate")
}

impl Piece for Validator {
    fn name(&self) -> String {
        PACKAGE.replace("==", " ")
    }

    fn found(&self) -> Option<String> {
        let program = place().join("bin/kubernetes-validate");
        program.is_file().then(|| program.display().to_string())
    }

    /// Debian splits what `venv` needs from Python itself.
    fn packages(&self) -> Vec<&'static str> {
        let here = || process::output(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_ok();
        if self.found().is_some() || here() { Vec::new() } else { vec!["python3-venv"] }
    }

    fn work(&self) -> &'static str {
        "fetching"
    }

    fn get(&self) -> Result<String> {
        let staging = Staging::beside(&place())?;
        process::run_logged(Command::new("python3").args(["-m", "venv"]).arg(staging.dir()), &logs("venv"))?;
        let python = staging.dir().join("bin/python3");
        process::run_logged(
            Command::new(python).args(["-m", "pip", "install", "--quiet", "--no-input", PACKAGE]),
            &logs("pip"),
        )
        .with_context(|| format!("cannot install {PACKAGE}"))?;
        staging.commit(Path::new(""))?;
        Ok(place().display().to_string())
    }
}
