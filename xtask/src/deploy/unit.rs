//! The systemd unit.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Outcome, accepts, outcome, refused, run};

/// Where the unit expects the daemon.
const INSTALLED: &str = "/usr/local/bin/conntrack-guard";

/// What stands around the command after a stop: a stop that went well has put back or kept what it should.
const AFTER_FAILURE: (&str, &str) = (r#"/bin/sh -c 'test "$$SERVICE_RESULT" = success || exec "#, "'");

pub(super) fn check(unit: &Path, binary: &Path) -> Result<Vec<Outcome>> {
    let text = fs::read_to_string(unit).with_context(|| format!("cannot read {}", unit.display()))?;
    let broken = text.replacen("Restart=", "Restrat=", 1);
    Ok(vec![
        outcome("the daemon takes every command line of the unit", command_lines(&text, binary)),
        outcome("the unit owns the folders that the daemon writes to", folders(&text)),
        outcome("systemd accepts the unit", verify(&text, binary)),
        outcome("systemd refuses the unit with a misspelt key", refused(verify(&broken, binary), "Restrat")),
    ])
}

/// The values of `key`, in order. A unit may give a key more than once.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::trim).collect()
}

fn command_lines(unit: &str, binary: &Path) -> Result<()> {
    for (key, verb) in [("ExecStart", "run"), ("ExecStopPost", "restore")] {
        let [line] = values(unit, key)[..] else { anyhow::bail!("the unit should have one {key}=") };
        let line =
            line.strip_prefix(AFTER_FAILURE.0).and_then(|line| line.strip_suffix(AFTER_FAILURE.1)).unwrap_or(line);
        let mut words = line.split_whitespace().map(str::to_owned);
        ensure!(words.next().as_deref() == Some(INSTALLED), "{key}= should start {INSTALLED}, but is {line}");
        let arguments: Vec<String> = words.collect();
        ensure!(arguments.first().is_some_and(|word| word == verb), "{key}= should {verb}, but is {line}");
        accepts(binary, &arguments).with_context(|| format!("{key}={line}"))?;
    }
    let reload = values(unit, "ExecReload");
    ensure!(reload == ["/bin/kill -HUP $MAINPID"], "ExecReload= should send the daemon SIGHUP, but is {reload:?}");
    Ok(())
}

fn folders(unit: &str) -> Result<()> {
    for key in ["StateDirectory", "RuntimeDirectory"] {
        ensure!(values(unit, key) == ["conntrack-guard"], "{key}= should be conntrack-guard");
    }
    Ok(())
}

/// `systemd-analyze verify` of the unit as installed, with the binary that was built in place of the one on the host.
/// Its warnings count: it exits with 0 after some that leave a line of the unit without effect.
fn verify(unit: &str, binary: &Path) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let rendered = scratch.path().join("conntrack-guard.service");
    let binary = binary.to_str().context("the binary's path is not UTF-8")?;
    fs::write(&rendered, unit.replace(INSTALLED, binary))?;
    // Other units of this host may be broken; only this one is judged.
    let said =
        run(Command::new("systemd-analyze").args(["verify", "--recursive-errors=no", "--man=no"]).arg(&rendered))?;
    let about: Vec<&str> = said.lines().filter(|line| line.contains("conntrack-guard.service")).collect();
    ensure!(about.is_empty(), "systemd-analyze verify says:\n{}", about.join("\n"));
    Ok(())
}
