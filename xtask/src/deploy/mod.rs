//! Holds what deploy/ ships against what it will meet: the API server's schemas, systemd, the daemon's own command line
//! and an empty root file system. Each check that leans on another program has a control beside it: the same check on a
//! broken copy, which must fail.

mod container;
mod kubernetes;
mod unit;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

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

/// What the checks need from outside this tree.
#[derive(Debug)]
pub struct Tools {
    /// The daemon's static binary.
    pub binary: PathBuf,
    /// The image's OCI archive, or why there is none.
    pub archive: Result<PathBuf, String>,
    /// `kubernetes-validate`, or why it is not there.
    pub kubernetes_validate: Result<PathBuf, String>,
}

/// Makes all checks of deploy/ under `root`. Fails only where a check could not even be begun.
pub fn check(root: &Path, tools: &Tools) -> Result<Vec<Outcome>> {
    let mut outcomes = kubernetes::check(&root.join("deploy/kubernetes"), tools)?;
    outcomes.extend(unit::check(&root.join("deploy/systemd/conntrack-guard.service"), tools)?);
    outcomes.extend(container::check(tools));
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

/// A check that could not be made.
fn skipped(name: impl Into<String>, reason: impl Into<String>) -> Outcome {
    Outcome { name: name.into(), verdict: Verdict::Skipped(reason.into()) }
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
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| format!("cannot run {shown}"))?;
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    ensure!(output.status.success(), "{shown} failed ({}):\n{text}", output.status);
    Ok(text)
}

/// Whether the daemon's own parser takes these arguments: `--help` behind them makes it parse all and do nothing.
fn accepts(binary: &Path, arguments: &[String]) -> Result<()> {
    run(Command::new(binary).args(arguments).arg("--help")).map(drop)
}
