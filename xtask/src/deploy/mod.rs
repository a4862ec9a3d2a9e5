//! Holds what deploy/ ships against what it will meet: the API server's schemas, systemd, the daemon's own command line
//! and an empty root file system. Each check that leans on another program has a control beside it: the same check on a
//! broken copy, which must fail.

mod container;
mod kubernetes;
mod unit;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{image, process, tree};

/// What came of one check.
#[derive(Debug)]
pub enum Verdict {
    /// It holds.
    Passed,
    /// It does not; what was found, for people.
    Failed(String),
    /// It could not be made here, and why.
    Skipped(String),
}

/// One check.
#[derive(Debug)]
pub struct Outcome {
    /// What is held to be true, in words.
    pub name: String,
    /// Whether it is.
    pub verdict: Verdict,
}

/// Builds the static binary and the image, and makes all checks of deploy/. The caller has seen to the set-up: for the
/// build, the image and deploy. Fails only where the checks could not even be begun.
pub fn check() -> Result<Vec<Outcome>> {
    let deploy = tree::root().join("deploy");
    let binary = image::static_binary()?;
    let mut outcomes = kubernetes::check(&deploy.join("kubernetes"), &binary)?;
    outcomes.extend(unit::check(&deploy.join("systemd/conntrack-guard.service"), &binary)?);
    outcomes.extend(container::check(&binary));
    Ok(outcomes)
}

/// A check that ran: its error is the finding.
fn outcome(name: impl Into<String>, result: Result<()>) -> Outcome {
    let verdict = match result {
        Ok(()) => Verdict::Passed,
        Err(error) => Verdict::Failed(format!("{error:#}")),
    };
    Outcome { name: name.into(), verdict }
}

/// The control of a check: `result` comes from a broken copy and has to be an error that names `culprit`.
fn refused(result: Result<()>, culprit: &str) -> Result<()> {
    match result {
        Ok(()) => bail!("a broken copy passed: the check sees nothing"),
        Err(error) => {
            let found = format!("{error:#}");
            ensure!(found.contains(culprit), "a broken copy failed, but for another reason than {culprit}:\n{found}");
            Ok(())
        }
    }
}

/// Runs a command and fails with its output unless it exits with 0. Returns stdout and stderr together.
fn run(command: &mut Command) -> Result<String> {
    let shown = process::line(command);
    let output = command.output().with_context(|| format!("cannot run {shown}"))?;
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    ensure!(output.status.success(), "{shown} failed ({}):\n{text}", output.status);
    Ok(text)
}

/// Whether the daemon's own parser takes these arguments: `--help` behind them makes it parse all and do nothing.
fn accepts(binary: &Path, arguments: &[String]) -> Result<()> {
    run(Command::new(binary).args(arguments).arg("--help")).map(drop)
}
