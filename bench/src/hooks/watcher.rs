//! Starts and ends who watches, and sees that it does.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use bench::netns::Namespace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

use super::variants::{Program, Variant};
use crate::guard::Guard;
use crate::put_back::PutBack;

/// The kernel's functions that have a program on them, one a line (Documentation/trace/ftrace.rst).
const HOOKED: &str = "/sys/kernel/tracing/enabled_functions";
/// What is in the names of the functions watched here.
const OURS: &str = "nf_conntrack";
/// The guard's signals that lie on the way of each flow.
const PRICED: [&str; 2] = ["inserts", "destroys"];
/// How often a program's state is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Looks until a program must watch, or must have ended. A quarter of an hour of this clock, which leaps ahead whenever the
/// CPU has to wait, for a file too: for a user it is seconds.
const LOOKS: u32 = 20_000;
/// The receive buffer of a new socket, bytes. The listener gets room for a whole batch of events: a lost one costs less.
const RECEIVE_BUFFER: &str = "/proc/sys/net/core/rmem_default";
const EVENT_BUFFER: &str = "16777216";
/// The programs, each in a package of its name.
const BPFTRACE: &str = "bpftrace";
const CONNTRACK: &str = "conntrack";
/// bpftrace prints it when all its probes are there.
const READY: &str = "watching";
/// `NETLINK_NETFILTER` (linux/netlink.h), as `/proc/net/netlink` prints it.
const NETFILTER: &str = "12";

/// Somebody who watches the table. Ended when dropped.
pub(super) enum Watcher {
    Guard(Guard),
    Tool(Tool),
}

/// A program that is not ours.
pub(super) struct Tool {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

/// The part of the guard's status that matters here.
#[derive(Deserialize)]
struct Status {
    back_end: BackEnd,
    signals: Vec<SignalNow>,
}

#[derive(Deserialize)]
struct BackEnd {
    reason: Option<String>,
}

#[derive(Deserialize)]
struct SignalNow {
    signal: String,
    back_end: Option<String>,
    why: Vec<String>,
}

impl Watcher {
    /// Starts it and returns once it watches: `flows` is the namespace of the measured flows, `folder` gets its output.
    pub fn start(variant: &Variant, flows: &Namespace, folder: &Path, stop: &AtomicBool) -> Result<Self> {
        let watcher = match variant.program {
            Program::Guard { backend, walk } => {
                let arguments = ["--dry-run", "--backend", backend, "--walk", walk].map(OsStr::new);
                let guard = Guard::start(&arguments, folder, LOOK * LOOKS, stop)?;
                Guard::read::<Status>(&guard.status_text()?)?.check()?;
                Self::Guard(guard)
            }
            Program::Bpftrace(script) => {
                let script = format!("BEGIN {{ printf(\"{READY}\\n\"); }} {script}");
                let mut command = Command::new(BPFTRACE);
                command.args(["-B", "line", "-e", &script]);
                Self::Tool(Tool::start(BPFTRACE, &mut command, folder, stop)?)
            }
            Program::Events => {
                // Its own --buffer-size does not reach the socket that it listens on (1.4.7).
                let _put_back = PutBack::file(RECEIVE_BUFFER, EVENT_BUFFER)?;
                let mut command = Command::new(CONNTRACK);
                command.arg("-E");
                return Ok(Self::Tool(flows.run(|| Tool::start(CONNTRACK, &mut command, folder, stop))??));
            }
        };
        ensure!(hooked()?, "it runs, but {HOOKED} names no function of {OURS}");
        kill(watcher.pid(), Signal::SIGSTOP).context("cannot halt it")?;
        Ok(watcher)
    }

    fn pid(&self) -> Pid {
        match self {
            Self::Guard(guard) => guard.pid(),
            Self::Tool(tool) => tool.pid(),
        }
    }

    /// Ends it, and returns once nobody watches.
    pub fn stop(self) -> Result<()> {
        match self {
            Self::Guard(guard) => {
                let status = guard.stop()?;
                ensure!(status.success(), "the guard ended with {status}");
            }
            Self::Tool(mut tool) => {
                tool.check_losses()?;
                tool.end()?;
            }
        }
        for _ in 0..LOOKS {
            if !hooked()? {
                return Ok(());
            }
            thread::sleep(LOOK);
        }
        bail!("it has ended, but {HOOKED} still names functions of {OURS}")
    }
}

impl Status {
    /// Refuses a guard that watches less than new flows and their ends: it would be cheap.
    fn check(&self) -> Result<()> {
        for wanted in PRICED {
            let signal = self.signals.iter().find(|row| row.signal.starts_with(wanted));
            let why = || format!("it watches nothing here: {}", self.back_end.reason.as_deref().unwrap_or("no reason"));
            let signal = signal.with_context(why)?;
            ensure!(signal.back_end.is_some(), "it does not measure {wanted} here: {}", signal.why.join("; "));
        }
        Ok(())
    }
}

impl Tool {
    fn start(name: &'static str, command: &mut Command, folder: &Path, stop: &AtomicBool) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        // What conntrack prints on its standard output are the events.
        let out = if name == CONNTRACK { Stdio::null() } else { file.try_clone()?.into() };
        let child =
            command.stdin(Stdio::null()).stdout(out).stderr(file).spawn().map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => anyhow!("`{name}` is not here: install the package {name}"),
                _ => error.into(),
            })?;
        let mut tool = Self { name, child, log };
        tool.wait_until_ready(stop)?;
        Ok(tool)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn wait_until_ready(&mut self, stop: &AtomicBool) -> Result<()> {
        for _ in 0..LOOKS {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended at once, {status}; it said:\n{}", self.name, self.said());
            }
            ensure!(!stop.load(Ordering::Relaxed), "stopped; everything is put back");
            let ready = match self.name {
                CONNTRACK => Listener::of(self.child.id())?.is_some(),
                _ => self.said().lines().any(|line| line == READY),
            };
            if ready {
                return Ok(());
            }
            thread::sleep(LOOK);
        }
        bail!("{} does not begin to watch; it said:\n{}", self.name, self.said())
    }

    /// A listener that lost events did less than its work.
    fn check_losses(&self) -> Result<()> {
        if self.name == CONNTRACK {
            let listener = Listener::of(self.child.id())?.context("it has stopped listening")?;
            ensure!(listener.lost == 0, "it lost {} events", listener.lost);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        // A halted process hears nothing but SIGCONT.
        for signal in [Signal::SIGCONT, Signal::SIGTERM] {
            kill(self.pid(), signal).with_context(|| format!("cannot end {}", self.name))?;
        }
        for _ in 0..LOOKS {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            thread::sleep(LOOK);
        }
        self.child.kill()?;
        self.child.wait()?;
        bail!("{} did not end on SIGTERM; it said:\n{}", self.name, self.said())
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
    }
}

/// Whether programs are attached to functions of nf_conntrack, whoever's they are.
pub(super) fn hooked() -> Result<bool> {
    let text = fs::read_to_string(HOOKED).with_context(|| {
        format!("{HOOKED}: cannot read; is tracefs mounted? `mount -t tracefs tracefs /sys/kernel/tracing`")
    })?;
    Ok(text.lines().any(|line| line.split_whitespace().next().is_some_and(|name| name.contains(OURS))))
}

/// A process's socket for conntrack's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listener {
    /// Events that did not fit its buffer.
    lost: u64,
}

impl Listener {
    /// The only one in a process's network namespace, if it listens yet.
    fn of(pid: u32) -> Result<Option<Self>> {
        let path = format!("/proc/{pid}/net/netlink");
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        Ok(Self::find(&text))
    }

    /// Columns: sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode. The kernel's own socket is in no group.
    fn find(text: &str) -> Option<Self> {
        let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut ours = rows.filter(|row| {
            row.get(1) == Some(&NETFILTER) && row.get(3).is_some_and(|groups| groups.chars().any(|digit| digit != '0'))
        });
        let lost = ours.next()?.get(8)?.parse().ok()?;
        Some(Self { lost })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_a_netfilter_socket_with_groups() {
        let others = "\
sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
0000000000000000 0   77         00000111 0        0        0     2        0        1
0000000000000000 12  0          00000000 0        0        0     2        0        2
";
        assert_eq!(Listener::find(others), None);
        let listener = "0000000000000000 12  4021       00000007 0        0        0     2        5        3\n";
        assert_eq!(Listener::find(&format!("{others}{listener}")), Some(Listener { lost: 5 }));
    }
}
