//! Programs that a run starts, found again by a mark in their environment: after a kill nobody knows their numbers, and a number
//! alone may be another program's by then.

use std::fs;
use std::io;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The variable; its value is the run's name.
const VARIABLE: &str = "CONNTRACK_GUARD_BENCH_RUN";
const PROC: &str = "/proc";
const LOOK: Duration = Duration::from_millis(50);
/// Looks until a killed one is gone: the kernel may have to end what it is in.
const KILLED: u128 = 600;

/// Marks what `command` will start, and all that this starts in turn.
pub fn mark(command: &mut Command, run: &str) {
    command.env(VARIABLE, run);
}

/// Ends every program of this run: asks it to, and kills what is still there after `patience`. Looks are counted, not the
/// clock.
pub fn end(run: &str, patience: Duration) -> io::Result<()> {
    end_each(|| living(run), patience)
}

/// The same of this process's own run, with all programs that it started itself, marked or not. What is started meanwhile is
/// left alone: it may be there to clean up.
pub fn end_own(run: &str, patience: Duration) -> io::Result<()> {
    let all = || {
        let mut all = living(run)?;
        all.extend(children()?);
        Ok::<_, io::Error>(all)
    };
    let first = all()?;
    end_each(|| Ok(all()?.into_iter().filter(|pid| first.contains(pid)).collect()), patience)
}

fn end_each(living: impl Fn() -> io::Result<Vec<Pid>>, patience: Duration) -> io::Result<()> {
    let looks = patience.as_millis() / LOOK.as_millis();
    let mut asked: Vec<Pid> = Vec::new();
    for look in 0.. {
        let living = living()?;
        for pid in &living {
            if look >= looks {
                signal(*pid, Signal::SIGKILL)?;
            } else if !asked.contains(pid) {
                asked.push(*pid);
                // SIGCONT for one that was halted: it would hear nothing else.
                signal(*pid, Signal::SIGCONT)?;
                signal(*pid, Signal::SIGTERM)?;
            }
        }
        if living.is_empty() {
            break;
        }
        if look > looks + KILLED {
            return Err(io::Error::other(format!("killed, and still there: {living:?}")));
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

fn signal(pid: Pid, signal: Signal) -> io::Result<()> {
    match kill(pid, signal) {
        // It has ended by itself.
        Ok(()) | Err(nix::Error::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// What this process started and has not waited for. What has ended in the meantime is none of it.
fn children() -> io::Result<Vec<Pid>> {
    let is_child = |pid: &Pid| {
        let stat = fs::read_to_string(format!("{PROC}/{pid}/stat")).unwrap_or_default();
        // Of its own name, which may have any character, only the end is sure.
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let (state, parent) = (fields.next(), fields.next());
        parent == Some(&Pid::this().to_string()) && !matches!(state, Some("Z" | "X"))
    };
    Ok(pids()?.into_iter().filter(is_child).collect())
}

fn pids() -> io::Result<Vec<Pid>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir(PROC)? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse().ok()).map(Pid::from_raw));
    }
    Ok(pids)
}

/// All of them but this one. One that ended and was not waited for has no environment any more.
fn living(run: &str) -> io::Result<Vec<Pid>> {
    let mark = format!("{VARIABLE}={run}");
    let is_marked = |pid: &Pid| {
        // It may end while it is looked at.
        let environment = fs::read(format!("{PROC}/{pid}/environ")).unwrap_or_default();
        *pid != Pid::this() && environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    Ok(pids()?.into_iter().filter(is_marked).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_a_run_end_and_no_others() {
        let start = |run: &str, script: &str| {
            let mut command = Command::new("sh");
            mark(command.args(["-c", script]), run);
            command.spawn().unwrap()
        };
        let names = ["a", "ab"].map(|name| format!("test-{}-{name}", std::process::id()));
        let mut other = start(&names[1], "sleep 60");
        let mut asked = start(&names[0], "sleep 60");
        let mut deaf = start(&names[0], "trap '' TERM; sleep 60; sleep 60");
        // Until the shell has its trap.
        thread::sleep(Duration::from_millis(300));
        end(&names[0], Duration::from_millis(500)).unwrap();
        assert!(!asked.wait().unwrap().success() && !deaf.wait().unwrap().success());
        assert_eq!(other.try_wait().unwrap(), None);
        end(&names[1], Duration::from_secs(5)).unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn what_was_started_is_there_until_it_has_ended() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        assert!(children().unwrap().contains(&pid));
        assert!(!children().unwrap().contains(&Pid::this()));
        child.kill().unwrap();
        // Nobody has waited for it yet.
        for _ in 0..KILLED {
            if !children().unwrap().contains(&pid) {
                break;
            }
            thread::sleep(LOOK);
        }
        assert!(!children().unwrap().contains(&pid));
        assert!(!child.wait().unwrap().success());
    }
}
