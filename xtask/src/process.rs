//! Running other programs, so that a failure names the program and shows what it said.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{self, SigHandler, Signal};

use crate::tree;

/// Lines of a program's output shown when it failed.
const TAIL_LINES: usize = 15;

/// cargo, in the tree's root.
pub fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(tree::root());
    command
}

/// From here on Ctrl-C, which reaches all programs of a terminal, does not end this one: a child that has something to put back
/// is waited for. It must set a handler of its own, since it inherits this.
pub fn leave_interrupts_to_children() {
    // SAFETY: no handler is installed.
    let ignored = unsafe { signal::signal(Signal::SIGINT, SigHandler::SigIgn) };
    if let Err(error) = ignored {
        eprintln!("xtask: Ctrl-C will not wait for the bench: {error}");
    }
}

/// Runs to the end with its output shown.
pub fn show(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", line(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", line(command));
    }
    Ok(())
}

/// Runs to the end with all output in `log`, in place of what was there; on failure the error holds its last lines.
pub fn run_logged(command: &mut Command, log: &Path) -> Result<()> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let file = File::create(log).and_then(|file| Ok((file.try_clone()?, file)));
    let (file, same) = file.with_context(|| format!("cannot write {}", log.display()))?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(same)
        .status()
        .with_context(|| format!("cannot start {}", line(command)))?;
    if !status.success() {
        let said = fs::read(log).unwrap_or_default();
        bail!(
            "{} ended with {status}; the end of its output (all of it: {}):\n{}",
            line(command),
            log.display(),
            tail(&String::from_utf8_lossy(&said), TAIL_LINES)
        );
    }
    Ok(())
}

/// Runs to the end and gives what it wrote to stdout; on failure the error holds what it wrote to stderr.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", line(command)))?;
    if !output.status.success() {
        bail!(
            "{} ended with {}:\n{}",
            line(command),
            output.status,
            tail(&String::from_utf8_lossy(&output.stderr), TAIL_LINES)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where a program is: in `PATH`, or in the system folders that an ordinary user's `PATH` lacks.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The last `count` lines of a text, each indented.
pub fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(count);
    lines[from..].iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// A command as a user would type it, for messages.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_shows_its_last_words() {
        let home = tempfile::tempdir().unwrap();
        let log = home.path().join("logs/sh.log");
        let error = run_logged(Command::new("sh").args(["-c", "echo first; echo no space >&2; exit 7"]), &log);
        let text = error.unwrap_err().to_string();
        assert!(text.starts_with("sh -c"), "{text}");
        assert!(text.contains("exit status: 7") && text.contains("no space") && text.contains("sh.log"), "{text}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = output(&mut Command::new("no-such-program-here")).unwrap_err();
        assert!(error.to_string().contains("cannot start no-such-program-here"));
    }

    #[test]
    fn tail_keeps_the_last_lines() {
        assert_eq!(tail("a\nb\nc\n", 2), "    b\n    c");
        assert_eq!(tail("", 2), "");
    }
}
