//! Which policy is in force: the file's, the defaults where there is none, or the last good one where the file's cannot be
//! had.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tracing::{error, info, warn};

use super::watch::{Fingerprint, fingerprint};
use crate::actuate;
use crate::cli::{Failure, RunArgs};
use crate::config::{self, Policy};
use crate::policy::{Host, Limits};
use crate::report::{Mode, PolicyNow, Source};

/// In the state directory: the text of the last policy file that was in force.
const LAST_GOOD: &str = "policy.last-good.toml";

/// The policy in force, and where the next one comes from.
pub(super) struct Policies {
    file: Option<PathBuf>,
    state_dir: PathBuf,
    dry_run: bool,
    /// The file when it was last read.
    seen: Option<Fingerprint>,
    /// As in force: a dry run never enforces.
    policy: Policy,
    /// What it was read from.
    text: String,
    now: PolicyNow,
}

/// A policy, valid as such.
pub(super) struct Draft {
    pub policy: Policy,
    text: String,
}

impl Policies {
    /// Reads the policy file. Where it is invalid and an earlier one was in force, that one is taken.
    pub fn start(args: &RunArgs) -> Result<Self, Failure> {
        let seen = args.config.as_deref().and_then(fingerprint);
        let draft = match &args.config {
            Some(file) => read(file),
            None => Ok(Draft { policy: Policy::default(), text: String::new() }),
        };
        let file = args.config.as_ref().map(|file| file.display().to_string());
        let source = if args.config.is_some() { Source::File } else { Source::Defaults };
        let mut policies = Self {
            file: args.config.clone(),
            state_dir: args.state_dir.clone(),
            dry_run: args.dry_run,
            seen,
            policy: Policy::default(),
            text: String::new(),
            now: PolicyNow { source, file, refused: Vec::new() },
        };
        match draft {
            Ok(draft) => policies.adopt(draft),
            Err(errors) => policies.fall_back(&errors.to_string(), errors.into())?,
        }
        for warning in config::warnings(&policies.policy) {
            warn!("{warning}");
        }
        Ok(policies)
    }

    /// In force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What becomes of its plans.
    pub fn mode(&self) -> Mode {
        match self.policy.mode {
            _ if self.dry_run => Mode::DryRun,
            config::Mode::Enforce => Mode::Enforce,
            config::Mode::Advise => Mode::Advise,
            config::Mode::Off => Mode::Off,
        }
    }

    /// The file, if there is one, and its state when it was last read.
    pub fn file(&self) -> Option<(&Path, Option<Fingerprint>)> {
        Some((self.file.as_deref()?, self.seen))
    }

    /// For the status.
    pub fn now(&self) -> &PolicyNow {
        &self.now
    }

    /// Where the journal and the last good policy are.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// The policy's limits on this host. Where it cannot be kept here, the last good one is tried.
    pub fn limits(&mut self, host: &Host) -> Result<Limits, Failure> {
        match Limits::new(&self.policy, host) {
            Err(unkept) if self.now.source == Source::File => {
                self.fall_back(&unkept.to_string(), Failure::invalid(unkept))?;
                Limits::new(&self.policy, host).map_err(Failure::invalid)
            }
            limits => limits.map_err(Failure::invalid),
        }
    }

    /// The file as it is now; `None`: the policy in force was read from the same text.
    pub fn read(&mut self) -> Result<Option<Draft>, config::Errors> {
        let Some(file) = &self.file else { return Ok(None) };
        self.seen = fingerprint(file);
        let draft = read(file)?;
        Ok((draft.text != self.text || self.now.source != Source::File).then_some(draft))
    }

    /// This one is in force from now on.
    pub fn adopt(&mut self, draft: Draft) {
        self.policy = self.as_in_force(draft.policy);
        self.text = draft.text;
        self.now.refused.clear();
        if self.file.is_some() {
            self.now.source = Source::File;
        }
    }

    /// A policy as it would be in force.
    pub fn as_in_force(&self, mut policy: Policy) -> Policy {
        if self.dry_run && policy.mode == config::Mode::Enforce {
            policy.mode = config::Mode::Advise;
        }
        policy
    }

    /// What is to be kept of the file in force, for a start that finds none. Only of a policy that was in force on this host.
    pub fn to_keep(&self) -> Option<Keep> {
        let kept = self.now.source == Source::File && !self.dry_run;
        kept.then(|| Keep { state_dir: self.state_dir.clone(), text: self.text.clone() })
    }

    /// Whether that has been told already.
    pub fn is_refused_for(&self, why: &str) -> bool {
        self.now.refused.iter().map(String::as_str).eq(why.lines())
    }

    /// Notes, for the log and the status, why the file is not in force.
    pub fn refuse(&mut self, why: &str) {
        self.now.refused = why.lines().map(str::to_owned).collect();
        for line in why.lines() {
            error!("{line}");
        }
    }

    /// The file is as it was when it was taken.
    pub fn unchanged(&mut self) -> bool {
        !std::mem::take(&mut self.now.refused).is_empty()
    }

    /// Takes the last good policy because of `why`; without one the start fails.
    fn fall_back(&mut self, why: &str, failure: Failure) -> Result<(), Failure> {
        if self.dry_run {
            return Err(failure);
        }
        let path = self.state_dir.join(LAST_GOOD);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(failure),
            Err(error) => {
                warn!("no last good policy: cannot read {}: {error}", path.display());
                return Err(failure);
            }
        };
        let policy = match config::parse(&path.display().to_string(), &text) {
            Ok(policy) => policy,
            Err(errors) => {
                warn!("the last good policy is none for this version: {errors}");
                return Err(failure);
            }
        };
        self.adopt(Draft { policy, text });
        self.now.source = Source::LastGood;
        self.refuse(why);
        error!(
            "NOT READY: the policy above is invalid, so the last good one is in force ({}); mend the file, and it is \
             taken without a restart",
            path.display()
        );
        Ok(())
    }
}

/// The last good policy, to be put on the disk.
pub(super) struct Keep {
    state_dir: PathBuf,
    text: String,
}

impl Keep {
    /// Waits for the disk.
    pub fn write(&self) {
        if fs::read(self.state_dir.join(LAST_GOOD)).is_ok_and(|kept| kept == self.text.as_bytes()) {
            return;
        }
        if let Err((path, error)) = actuate::replace(&self.state_dir, LAST_GOOD, self.text.as_bytes()) {
            warn!(
                "a start with an invalid policy will have none to fall back on: cannot write {}: {error}",
                path.display()
            );
        }
    }
}

fn read(file: &Path) -> Result<Draft, config::Errors> {
    let text = config::read(file)?;
    let policy = config::parse(&file.display().to_string(), &text)?;
    Ok(Draft { policy, text })
}

/// Logs what a reload changes.
pub(super) fn log_differences(old: &Policy, new: &Policy) {
    let all = config::differences(old, new);
    for config::Difference { key, old, new } in &all {
        info!(old, new, "policy: {key}");
    }
    if all.is_empty() {
        info!("policy reloaded: every key as before");
    } else {
        info!("policy reloaded: {} of its keys changed", all.len());
    }
}
