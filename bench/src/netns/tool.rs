//! Runs `ip` and `nft`. Both take a script on their standard input: one process for many lines, since starting a program
//! in an emulated guest takes longer than what it then does.

use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use super::Error;

/// Runs `ip ARGUMENTS -batch -` over the lines of `script`.
pub(super) fn ip_batch(arguments: &[&str], script: &str) -> Result<(), Error> {
    let mut all = arguments.to_vec();
    all.extend(["-batch", "-"]);
    run("ip", "iproute2", &all, script)
}

/// Runs `ip ARGUMENTS`.
pub(super) fn ip(arguments: &[&str]) -> Result<(), Error> {
    run("ip", "iproute2", arguments, "")
}

/// Runs `nft -f -` over `script`.
pub(super) fn nft(script: &str) -> Result<(), Error> {
    run("nft", "nftables", &["-f", "-"], script)
}

fn run(program: &'static str, package: &'static str, arguments: &[&str], input: &str) -> Result<(), Error> {
    let command = format!("{program} {}", arguments.join(" "));
    let failed = |output: String| Error::Tool { command: command.clone(), output };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::NoTool { program, package },
            _ => failed(error.to_string()),
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that stopped reading has said why on its standard error; the exit status tells.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.contains("Operation not permitted") || said.contains("Permission denied") {
        return Err(Error::NotPermitted { what: format!("{command}: {said}") });
    }
    Err(failed(if said.is_empty() { output.status.to_string() } else { said }))
}
