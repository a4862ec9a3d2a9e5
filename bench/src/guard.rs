//! Starts, asks and stops the guard, as its user would.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bench::processes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::memory;
use crate::put_back::run_name;

/// How often its state is looked at where nobody wants it otherwise.
const LOOK: Duration = Duration::from_millis(100);

/// The part of its status that tells whether it has programs.
#[derive(Deserialize)]
struct Status {
    back_end: BackEnd,
}

#[derive(Deserialize)]
struct BackEnd {
    measured: bool,
    reason: Option<String>,
}

/// A running guard. Stopped when dropped.
#[derive(Debug)]
pub(crate) struct Guard {
    program: PathBuf,
    process: Child,
    log: PathBuf,
    patience: Duration,
    look: Duration,
}

impl Guard {
    /// Starts the program that lies beside this one, `conntrack-guard run ARGUMENTS`, and returns once it answers; `folder`
    /// gets its log. Its start and its stop may each take as long as `patience`: loading its programs takes seconds in an
    /// emulated guest.
    pub fn start(arguments: &[&OsStr], folder: &Path, patience: Duration, stop: &AtomicBool) -> Result<Self> {
        let program = env::current_exe().context("this program's own place")?.with_file_name("conntrack-guard");
        Self::start_program(&program, arguments, folder, patience, LOOK, stop)
    }

    /// The same with a program of the caller's choice, whose state is looked at every `look`.
    pub fn start_program(
        program: &Path,
        arguments: &[&OsStr],
        folder: &Path,
        patience: Duration,
        look: Duration,
        stop: &AtomicBool,
    ) -> Result<Self> {
        if !program.exists() {
            bail!("{} is not there: build it, `cargo build --release -p conntrack-guard`", program.display());
        }
        let log = folder.join("guard.log");
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        let mut command = Command::new(program);
        command.args(["run", "--log-format", "json"]).args(arguments).stdout(file.try_clone()?).stderr(file);
        processes::mark(&mut command, &run_name(process::id()));
        let process = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let mut guard = Self { program: program.into(), process, log, patience, look };
        guard.wait_until_it_answers(stop)?;
        Ok(guard)
    }

    fn wait_until_it_answers(&mut self, stop: &AtomicBool) -> Result<()> {
        let start = Instant::now();
        loop {
            // First: what is stopped may have been ended for that.
            ensure!(!stop.load(Ordering::Relaxed), "stopped before the guard answered");
            if let Some(status) = self.process.try_wait()? {
                bail!("the guard ended at once, {status}; its log:\n{}", self.log_text());
            }
            match self.status_text() {
                Ok(_) => return Ok(()),
                Err(error) if start.elapsed() > self.patience => {
                    bail!("the guard does not answer: {error:#}; its log:\n{}", self.log_text())
                }
                Err(_) => thread::sleep(self.look),
            }
        }
    }

    /// What `conntrack-guard status --json` prints.
    pub fn status_text(&self) -> Result<String> {
        let mut command = Command::new(&self.program);
        // Where it hangs, so does whoever waits for the end of its output.
        processes::mark(command.args(["status", "--json"]), &run_name(process::id()));
        let output = command.output()?;
        if !output.status.success() {
            bail!("`conntrack-guard status` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Fails where it has no eBPF programs, and so is not what is to be measured.
    pub fn check_that_it_measures(&self) -> Result<()> {
        let back_end = Self::read::<Status>(&self.status_text()?)?.back_end;
        let why =
            || format!("no programs are attached: {}", back_end.reason.as_deref().unwrap_or("no reason is given"));
        ensure!(back_end.measured, "{}", why());
        Ok(())
    }

    /// The part of that which the caller needs.
    pub fn read<Status: DeserializeOwned>(status: &str) -> Result<Status> {
        serde_json::from_str(status).context("`conntrack-guard status --json` has another shape than expected")
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id().cast_signed())
    }

    /// How it ended, if it did by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        memory::ended(&mut self.process)
    }

    /// Asks it to end and waits for that.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.terminate()
    }

    fn terminate(&mut self) -> Result<ExitStatus> {
        // SIGCONT for one that was halted: it would hear nothing else.
        for signal in [Signal::SIGCONT, Signal::SIGTERM] {
            kill(self.pid(), signal).context("cannot stop the guard")?;
        }
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > self.patience {
                self.process.kill()?;
                self.process.wait()?;
                bail!(
                    "the guard did not end within {} s of SIGTERM; its log:\n{}",
                    self.patience.as_secs(),
                    self.log_text()
                );
            }
            thread::sleep(self.look);
        }
    }

    /// Its log so far, JSON lines.
    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !matches!(self.process.try_wait(), Ok(Some(_)))
            && let Err(error) = self.terminate()
        {
            eprintln!("{error:#}");
        }
    }
}
