//! Oracle's bpftune in a root folder of its own, with its own libraries.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bench::processes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::memory::{self, Usage};
use crate::put_back::run_name;

/// Makes the root a system for one process: what it mounts is gone with it. The first word is the root.
const ENTER: &str = "mount --rbind /proc \"$1/proc\" && mount --rbind /sys \"$1/sys\" && mount --rbind /dev \"$1/dev\" && \
                     exec chroot \"$1\" /usr/sbin/bpftune -s";
/// What it says when its tuners are at work.
const READY: &str = "bpftune works";
/// It loads the programs of all its tuners; see the guard's.
const PATIENCE: Duration = Duration::from_mins(10);
const LOOK: Duration = Duration::from_millis(100);
/// It says so before all of them are loaded: each of its probes makes it read /proc/kallsyms, 30 s of an emulated CPU in all.
/// It is at work once its CPU time stood still at so many looks in a row: 1 s.
const REST: u32 = 10;
const LIMIT: u32 = 6_000;
/// Lines of its log that an error shows.
const TAIL: usize = 6;

/// Running, until it is stopped or dropped.
pub(super) struct Bpftune {
    process: Child,
    log: PathBuf,
}

impl Bpftune {
    /// Starts it and waits until its tuners are at work; `folder` gets its log.
    pub fn start(root: Option<&Path>, folder: &Path, stop: &AtomicBool) -> Result<Self> {
        let root = root.filter(|root| root.join("usr/sbin/bpftune").is_file());
        let root = root.context("there is no bpftune: `cargo xtask bench churn` fetches it, or says why it cannot")?;
        // The last is where it keeps its cgroup.
        for name in ["proc", "sys", "dev", "var/run"] {
            let folder = root.join(name);
            fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        let path = folder.join("bpftune.log");
        let log = File::create(&path).with_context(|| path.display().to_string())?;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", ENTER, "sh"])
            .arg(root)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        processes::mark(&mut command, &run_name(process::id()));
        let process = command.spawn().context("cannot start unshare, of the package util-linux")?;
        let mut bpftune = Self { process, log: path };
        bpftune.wait(stop)?;
        Ok(bpftune)
    }

    fn wait(&mut self, stop: &AtomicBool) -> Result<()> {
        let start = Instant::now();
        while !self.log().contains(READY) {
            ensure!(!stop.load(Ordering::Relaxed), "stopped before bpftune was at work");
            if let Some(status) = self.process.try_wait()? {
                bail!("bpftune ended with {status}: {}", self.tail());
            }
            ensure!(start.elapsed() < PATIENCE, "bpftune is not at work after {PATIENCE:?}: {}", self.tail());
            thread::sleep(LOOK);
        }
        self.settle(stop)
    }

    /// Counted in looks, not by the clock: one that counts instructions leaps while everybody waits.
    fn settle(&mut self, stop: &AtomicBool) -> Result<()> {
        let (mut taken, mut quiet) = (0, 0);
        for _ in 0..LIMIT {
            thread::sleep(LOOK);
            ensure!(!stop.load(Ordering::Relaxed), "stopped before bpftune was at work");
            if let Some(status) = self.process.try_wait()? {
                bail!("bpftune ended with {status}: {}", self.tail());
            }
            let now = Usage::read(self.pid())?.cpu_ms;
            quiet = if now == taken { quiet + 1 } else { 0 };
            taken = now;
            if quiet == REST {
                return Ok(());
            }
        }
        bail!("bpftune is still loading its tuners after {LIMIT} looks: {}", self.tail())
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id().cast_signed())
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<String> {
        let status = memory::ended(&mut self.process)?;
        Some(format!("bpftune had ended with {status}: {}", self.tail()))
    }

    /// Ends it.
    pub fn stop(mut self) -> Result<()> {
        if let Some(how) = self.ended() {
            bail!(how);
        }
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        kill(self.pid(), Signal::SIGTERM).context("cannot stop bpftune")?;
        let start = Instant::now();
        while self.process.try_wait()?.is_none() {
            if start.elapsed() > PATIENCE {
                self.process.kill()?;
                self.process.wait()?;
                bail!("bpftune did not end within {PATIENCE:?} of SIGTERM");
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("; ")
    }
}

impl Drop for Bpftune {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None))
            && let Err(error) = self.end()
        {
            eprintln!("{error:#}");
        }
    }
}
