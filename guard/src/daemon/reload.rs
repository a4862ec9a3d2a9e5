//! A new policy for a running guard: all of it or nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use tokio::signal::unix::Signal;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::policies::{Draft, Policies, log_differences};
use super::{NO_WAY_BACK, signals, watch};
use crate::actuate::{Actuator, Live, Settings};
use crate::config::{self, Mode};
use crate::control::Control;
use crate::observe::table;
use crate::policy::{Host, Limits};

/// What asks for a reload: SIGHUP, or another file.
pub(super) struct Reload {
    pub policies: Policies,
    hangup: Signal,
    changed: Arc<Notify>,
    watching: Option<JoinHandle<()>>,
    keeping: Option<JoinHandle<()>>,
}

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// SIGHUP: wants an answer in the log whatever comes of it.
    Hangup,
    /// The file is another one.
    Changed,
}

/// The table that a policy is for.
pub(super) struct Ground {
    pub root: PathBuf,
    /// As found at the start, with the originals of what guards changed: limits are reckoned from it.
    pub host: Host,
    /// Whether there is a journal, and so a way back.
    pub writes: bool,
}

impl Reload {
    /// Listens from now on.
    pub fn new(policies: Policies) -> anyhow::Result<Self> {
        let changed = Arc::new(Notify::new());
        let watching = policies.file().map(|(file, seen)| {
            let file = file.to_path_buf();
            tokio::spawn(watch::watch(file, seen, Arc::clone(&changed)))
        });
        Ok(Self { policies, hangup: signals::hangup()?, changed, watching, keeping: None })
    }

    /// Waits for the next wish.
    pub async fn wanted(&mut self) -> Why {
        tokio::select! {
            _ = self.hangup.recv() => Why::Hangup,
            () = self.changed.notified() => Why::Changed,
        }
    }

    /// Reads the file, and puts its policy in force if it is valid and can be kept here; else the one in force stays.
    pub async fn carry_out(&mut self, why: Why, control: &mut Control, ground: &mut Ground) {
        match self.policies.read() {
            Ok(Some(draft)) => match self.prepare(&draft, ground) {
                Ok((limits, actuator)) => self.adopt(draft, limits, actuator, control, ground).await,
                Err(refused) => self.refuse(why, &format!("{refused:#}")),
            },
            Ok(None) if self.policies.file().is_none() => {
                info!("SIGHUP: there is no policy file to reload; give one with --config");
            }
            Ok(None) => {
                if self.policies.unchanged() {
                    info!("the policy file is valid again, and as it was");
                } else if why == Why::Hangup {
                    info!("SIGHUP: the policy file is as it was");
                }
            }
            Err(errors) => self.refuse(why, &errors.to_string()),
        }
        control.tell_policy(self.policies.now());
    }

    /// What the policy needs on this host, or why it cannot be had. Changes nothing.
    fn prepare(&self, draft: &Draft, ground: &Ground) -> anyhow::Result<(Limits, Option<Box<dyn Actuator>>)> {
        let policy = self.policies.as_in_force(draft.policy.clone());
        let table = table::read(&ground.root).context("cannot read the table")?;
        let mut host = ground.host.clone();
        host.table.count = table.count;
        let limits = Limits::new(&policy, &host)?;
        // With the buckets that there are now.
        limits.hold(&table, host.entry_bytes)?;
        let needs_journal = policy.mode == Mode::Enforce && !ground.writes;
        let actuator = needs_journal.then(|| start(&ground.root, self.policies.state_dir(), &policy)).transpose()?;
        Ok((limits, actuator))
    }

    async fn adopt(
        &mut self,
        draft: Draft,
        limits: Limits,
        actuator: Option<Box<dyn Actuator>>,
        control: &mut Control,
        ground: &mut Ground,
    ) {
        let old = self.policies.policy().clone();
        ground.writes |= actuator.is_some();
        self.policies.adopt(draft);
        let policy = self.policies.policy();
        log_differences(&old, policy);
        for warning in config::warnings(policy) {
            warn!("{warning}");
        }
        control.adopt(policy.clone(), limits, self.policies.mode(), actuator).await;
        self.keep().await;
    }

    /// Has the last good policy written: the loop does not wait for the disk, but for the one before, which must not come
    /// later.
    async fn keep(&mut self) {
        self.kept().await;
        let keep = self.policies.to_keep();
        self.keeping = keep.map(|keep| tokio::task::spawn_blocking(move || keep.write()));
    }

    async fn kept(&mut self) {
        if let Some(keeping) = self.keeping.take() {
            // A panic there has been told by the panic.
            let _ = keeping.await;
        }
    }

    fn refuse(&mut self, why: Why, reason: &str) {
        // SIGHUP and the watch of the file both come for one change.
        if why == Why::Changed && self.policies.is_refused_for(reason) {
            return;
        }
        self.policies.refuse(reason);
        warn!("the policy above is not taken; the one of before stays in force");
    }
}

impl Drop for Reload {
    fn drop(&mut self) {
        if let Some(watching) = &self.watching {
            watching.abort();
        }
    }
}

/// The actuator that writes, with its journal.
pub(super) fn start(root: &Path, state_dir: &Path, policy: &config::Policy) -> anyhow::Result<Box<dyn Actuator>> {
    let live = Live::start(Settings::new(root), state_dir, policy.hash.max_stall).context(NO_WAY_BACK)?;
    Ok(Box::new(live))
}

#[cfg(test)]
pub(super) mod tests;
