//! What runs beside the load: nothing, a job, or a program. Started on a table at rest, stopped on an empty one.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bench::conntrack::Settings;
use nix::unistd::Pid;

use super::alternative::{Alternative, Write};
use super::bpftune::Bpftune;
use super::cron::Cron;
use super::decision::Decision;
use super::observer::{self, Observed};
use super::run::Pass;
use crate::guard::Guard;
use crate::scale::Scale;
use crate::status::Status;

/// Files of a run.
const POLICY: &str = "policy.toml";
const STATUS: &str = "status.json";
const LOG: &str = "guard.log";
const NETFILTER: &str = "/proc/sys/net/netfilter";
/// The guard's start, which loads its programs, and its stop, which restores the settings. A clock that counts instructions
/// runs away while everybody waits for a disk.
pub(super) const PATIENCE: Duration = Duration::from_mins(10);
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// Where the programs are and where their files go.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// The guard's binary.
    pub guard: PathBuf,
    /// The root folder that has bpftune.
    pub bpftune: Option<PathBuf>,
    /// Gets the guard's log, policy and last status of each run.
    pub out: PathBuf,
}

/// A started alternative.
pub(super) enum Beside {
    /// Its values are set, nothing runs.
    Nothing,
    /// The job.
    Cron(Cron),
    /// The other tuner.
    Bpftune(Bpftune),
    /// The daemon, the folder of its files and state, where the files are kept after its end, and whether it tells all it saw.
    Guard { guard: Guard, files: PathBuf, kept: PathBuf, observed: bool },
}

/// What an alternative did by itself during the load.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub decisions: Vec<Decision>,
    /// Only the guard tells how long a resize took.
    pub status: Option<Status>,
}

impl Beside {
    /// Writes the alternative's values and starts what it runs. The how manieth of `rounds` it is shifts the job's minute.
    pub fn start(
        alternative: Alternative,
        scale: Scale,
        (pass, rounds): (Pass, u32),
        (places, folder): (&Places, &Path),
        stop: &AtomicBool,
    ) -> Result<Self> {
        for write in alternative.writes(scale, &read) {
            apply(write)?;
        }
        let mode = match alternative {
            Alternative::Cron => return Ok(Self::Cron(Cron::start((pass.before(), rounds), scale.ceilings().max)?)),
            Alternative::Guard => "enforce",
            Alternative::GuardAdvise => "advise",
            Alternative::Bpftune => return Ok(Self::Bpftune(Bpftune::start(places.bpftune.as_deref(), folder, stop)?)),
            Alternative::Ample
            | Alternative::Stock
            | Alternative::Static
            | Alternative::StaticCeiling
            | Alternative::KubeProxy { .. } => return Ok(Self::Nothing),
        };
        // In memory: a wait for a disk would be the alternative's.
        let files = folder.join("guard");
        fs::create_dir(&files).with_context(|| files.display().to_string())?;
        let policy = files.join(POLICY);
        // Absolute: the guest's memory need not be the gateway's.
        let limit = format!("{}MiB", scale.memory_limit() >> 20);
        fs::write(&policy, scale.policy(mode, &limit)).with_context(|| policy.display().to_string())?;
        let mut arguments: Vec<OsString> =
            vec!["--config".into(), policy.into(), "--state-dir".into(), files.clone().into()];
        let observed = pass == Pass::Observed;
        if observed {
            arguments.extend(observer::arguments(&files));
        }
        let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
        let guard = Guard::start_program(&places.guard, &arguments, &files, PATIENCE, LOOK, stop)?;
        guard.check_that_it_measures()?;
        let kept = match pass {
            Pass::Round(round) => format!("{alternative}-{round}"),
            Pass::Observed => format!("{alternative}-observed"),
        };
        Ok(Self::Guard { guard, files, kept: places.out.join(kept), observed })
    }

    /// The process whose CPU and memory are the alternative's price.
    pub fn pid(&self) -> Option<Pid> {
        match self {
            Self::Guard { guard, .. } => Some(guard.pid()),
            Self::Bpftune(bpftune) => Some(bpftune.pid()),
            Self::Nothing | Self::Cron(_) => None,
        }
    }

    /// What it did, asked while the table still is as the load left it.
    pub fn tell(&self) -> Result<Told> {
        match self {
            Self::Nothing | Self::Bpftune(_) => Ok(Told::default()),
            Self::Cron(cron) => Ok(Told { decisions: cron.decisions(), status: None }),
            Self::Guard { guard, files, .. } => {
                let text = guard.status_text()?;
                let file = files.join(STATUS);
                fs::write(&file, &text).with_context(|| file.display().to_string())?;
                let status: Status = Guard::read(&text)?;
                Ok(Told { decisions: Decision::of_guard(&status), status: Some(status) })
            }
        }
    }

    /// Ends it; of a guard in the observed pass with what it saw.
    pub fn stop(self) -> Result<Option<Observed>> {
        match self {
            Self::Nothing => Ok(None),
            Self::Cron(cron) => cron.stop().map(|()| None),
            Self::Bpftune(bpftune) => bpftune.stop().map(|()| None),
            Self::Guard { guard, files, kept, observed } => {
                let pid = guard.pid();
                let ended = guard.stop();
                keep(&files, &kept)?;
                let ended = ended?;
                ensure!(ended.success(), "the guard ended with {ended}");
                observed.then(|| observer::read(&files, Some(pid))).transpose()
            }
        }
    }

    /// Why a run could not be: where its program is gone, what was asked of it last says nothing. Keeps the guard's files.
    pub fn why(&mut self, error: anyhow::Error) -> anyhow::Error {
        match self {
            Self::Nothing | Self::Cron(_) => error,
            Self::Bpftune(bpftune) => match bpftune.ended() {
                Some(how) => error.context(how),
                None => error,
            },
            Self::Guard { guard, files, kept, .. } => {
                let error = match guard.ended() {
                    Some(status) => error.context(format!(
                        "the guard ended with {status} under the load; its log: {}",
                        kept.join(LOG).display()
                    )),
                    None => error,
                };
                match keep(files, kept) {
                    Ok(()) => error,
                    Err(also) => error.context(format!("its files are lost ({also:#})")),
                }
            }
        }
    }
}

/// Copies what a guard leaves out of its folder in memory. It may have come to none of it.
fn keep(files: &Path, kept: &Path) -> Result<()> {
    fs::create_dir_all(kept).with_context(|| kept.display().to_string())?;
    for name in [POLICY, STATUS, LOG] {
        let (from, to) = (files.join(name), kept.join(name));
        if from.exists() {
            fs::copy(&from, &to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
        }
    }
    Ok(())
}

fn path(name: &str) -> PathBuf {
    Path::new(NETFILTER).join(name)
}

fn read(name: &str) -> Option<u64> {
    fs::read_to_string(path(name)).ok()?.trim().parse().ok()
}

/// Writes a value and sees that the kernel took it.
fn apply((name, value): Write) -> Result<()> {
    let path = path(name);
    fs::write(&path, value.to_string()).with_context(|| format!("{}: cannot write {value}", path.display()))?;
    let found = read(name);
    ensure!(found == Some(value), "{}: wrote {value}, it reads {found:?}", path.display());
    Ok(())
}

/// Raises max alone.
pub(super) fn set_max(max: u64) -> Result<()> {
    apply((super::alternative::MAX, max))
}

/// max now.
pub(super) fn max() -> Result<u64> {
    Ok(Settings::read()?.max)
}
