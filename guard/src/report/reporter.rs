//! Turns each tick into the status and into log lines: a fact is logged when it is new and when it is over, not each
//! tick.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{info, warn};

use super::assessor::Assessor;
use super::counted::{Counted, RecentlyRefused};
use super::figures_of::{self, millis};
use super::policy_now::PolicyNow;
use super::resizes::{self, Resizes};
use super::signals;
use super::status::{ChangeMade, HeldNow, Status};
use crate::actuate::{Effect, Outcome};
use crate::figures;
use crate::kernel::Attached;
use crate::model::{Estimate, Skew};
use crate::observe::Sample;
use crate::policy::{Change, Held, Limits, Plan, Setting};

/// Changes kept for the status.
const KEPT: usize = 128;

/// What the guard does with its plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Carries them out.
    Enforce,
    /// The policy says `mode = "advise"`.
    Advise,
    /// The policy says `mode = "off"`.
    Off,
    /// `--dry-run`
    DryRun,
}

impl Mode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Advise => "advise",
            Self::Off => "off",
            Self::DryRun => "dry-run",
        }
    }
}

/// What is settled when the guard starts.
#[derive(Debug)]
pub struct Start<'a> {
    /// What it does with its plans.
    pub mode: Mode,
    /// Bounds in force.
    pub limits: &'a Limits,
    /// The forecast's horizon.
    pub horizon: Duration,
    /// Where the policy comes from.
    pub policy: &'a PolicyNow,
    /// The first reading.
    pub found: &'a Sample,
    /// The buckets that there were before an earlier guard whose journal is taken over; `None` where it left them alone.
    pub buckets_before: Option<u64>,
    /// Which back end each signal has, or why there are no eBPF programs at all.
    pub hooks: Result<&'a [Attached], String>,
}

/// Keeps the status and writes the log.
#[derive(Debug)]
pub struct Reporter {
    status: Arc<Mutex<Status>>,
    /// The first reading.
    began: Duration,
    /// Counters are told from here on.
    origin: Option<Sample>,
    refused: RecentlyRefused,
    resizes: Resizes,
    assessor: Assessor,
    /// What was last logged of it.
    skew: Option<Skew>,
    /// The failure last logged for a setting: tried again, it is not news.
    failed: HashMap<Setting, (u64, u64, String)>,
    trouble: Option<String>,
    /// How long the changes of this tick took from the surge that asked for them.
    reaction: Option<Duration>,
}

impl Reporter {
    /// Logs the start.
    pub fn new(start: &Start<'_>) -> Self {
        let table = start.found.table;
        let limits = start.limits;
        info!(
            mode = start.mode.name(),
            max = table.max,
            buckets = table.buckets,
            count = table.count,
            max_bounds = format!("{}..={}", limits.max.floor, limits.max.ceiling),
            bucket_bounds = format!("{}..={}", limits.buckets.floor, limits.buckets.ceiling),
            memory_limit = figures::bytes(limits.memory),
            "conntrack-guard {} watches nf_conntrack",
            env!("CARGO_PKG_VERSION")
        );
        match &start.hooks {
            Ok(rows) => signals::log(rows),
            Err(reason) => {
                warn!(reason, "no eBPF here: runs on proc readings; `conntrack-guard support` says what that loses");
            }
        }
        let status = figures_of::start(start);
        if status.statistics.why.is_some() {
            signals::log_statistics(&status.statistics);
        }
        Self {
            status: Arc::new(Mutex::new(status)),
            began: start.found.at,
            origin: None,
            refused: RecentlyRefused::default(),
            resizes: Resizes::default(),
            assessor: Assessor::new(limits, start.buckets_before, start.found.at),
            skew: None,
            failed: HashMap::new(),
            trouble: None,
            reaction: None,
        }
    }

    /// The status, for the server.
    pub fn status(&self) -> Arc<Mutex<Status>> {
        Arc::clone(&self.status)
    }

    /// Another policy is in force.
    pub fn adopt(&mut self, mode: Mode, limits: &Limits, horizon: Duration) {
        self.assessor.adopt(limits);
        let mut status = self.lock();
        mode.name().clone_into(&mut status.mode);
        status.forecast.horizon_ms = millis(horizon);
        status.bounds = figures_of::bounds(limits, status.bounds.memory_in_use, status.bounds.memory_at_max);
    }

    /// Where the policy comes from, and why the file's is not in force.
    pub fn tell_policy(&self, now: &PolicyNow) {
        self.lock().take_policy(now);
    }

    /// A surge woke the guard, and so long after it everything was written and read back; for the next [`Self::tick`].
    pub fn reacted(&mut self, reaction: Option<Duration>) {
        self.reaction = reaction;
    }

    /// A tick that read and decided.
    pub fn tick(&mut self, sample: &Sample, estimate: &Estimate, plan: &Plan, outcomes: Vec<Outcome>) {
        let uptime_ms = millis(sample.at.saturating_sub(self.began));
        self.tell_chains(estimate);
        let (counted, resized) = match &sample.hooks {
            Some(totals) => {
                self.refused.add(sample.at, &totals.refused);
                (Some(Counted::new(totals, &self.refused)), self.resizes.told(&totals.resizes, estimate.entries))
            }
            None => (None, Vec::new()),
        };
        self.resizes.wrote(&outcomes);
        let assessment = self.assessor.tick(sample, estimate, plan, &outcomes);
        let news: Vec<Outcome> = outcomes.into_iter().filter(|outcome| self.is_news(outcome)).collect();
        let reaction = self.reaction.take();
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.uptime_ms = uptime_ms;
        status.at_ms = millis(sample.at);
        status.drops = figures_of::drops(self.origin.get_or_insert_with(|| sample.clone()), sample, &status.signals);
        let statistics = figures_of::statistics(sample);
        if statistics.source != status.statistics.source {
            signals::log_statistics(&statistics);
        }
        status.statistics = statistics;
        status.table = figures_of::table(sample, status.table.peak_count);
        status.bounds.memory_in_use = figures_of::memory(sample.table.count, sample);
        status.bounds.memory_at_max = figures_of::memory(sample.table.max, sample);
        status.forecast = figures_of::forecast(estimate, status.forecast.horizon_ms);
        status.chains = estimate.chains;
        status.assessment = assessment;
        signals::strayed(&mut status.signals, sample.hooks.as_ref().map_or(0, |hooks| hooks.strayed));
        status.counted = counted;
        resizes::keep(&mut status.resizes, resized);
        status.estimated = figures_of::estimated(&status);
        for outcome in news {
            let reaction_us = reaction.and_then(|took| u64::try_from(took.as_micros()).ok());
            log_outcome(&outcome, reaction_us);
            status.remember(plan.at, outcome, reaction_us);
        }
        status.hold(&plan.held, millis(plan.at));
    }

    /// Something failed that the next tick may find mended. Logged when it is new.
    pub fn trouble(&mut self, what: String) {
        if self.trouble.as_ref() != Some(&what) {
            warn!("{what}");
        }
        self.lock().trouble = Some(what.clone());
        self.trouble = Some(what);
    }

    /// The tick went through.
    pub fn no_trouble(&mut self) {
        if self.trouble.take().is_some() {
            info!("works again");
            self.lock().trouble = None;
        }
    }

    /// Logs what is wrong with the chains, when that is new and when it is over.
    fn tell_chains(&mut self, estimate: &Estimate) {
        let skew = estimate.chains.and_then(|chains| chains.skew);
        if skew != self.skew {
            if let (Some(skew), Some(chains)) = (skew, estimate.chains) {
                warn!(
                    mean = format!("{:.2}", chains.mean),
                    expected_mean = format!("{:.2}", chains.expected_mean),
                    p99 = chains.p99,
                    expected_p99 = chains.expected_p99,
                    longest = chains.max,
                    "skewed hash chains: {}",
                    skew.words()
                );
            } else {
                info!("no skewed hash chains any more");
            }
        }
        self.skew = skew;
    }

    /// A failure that is tried again for the same values with the same result has been told already.
    fn is_news(&mut self, outcome: &Outcome) -> bool {
        let Change { setting, old, new, .. } = outcome.change;
        let failure = match &outcome.result {
            Effect::Applied { .. } | Effect::Advised => {
                self.failed.remove(&setting);
                return true;
            }
            Effect::NoEffect { read_back, .. } => format!("reads back {read_back}"),
            Effect::Refused { error, .. } => error.clone(),
        };
        let this = (old, new, failure);
        self.failed.insert(setting, this.clone()) != Some(this)
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Status {
    fn remember(&mut self, at: Duration, Outcome { change, result }: Outcome, reaction_us: Option<u64>) {
        if matches!(result, Effect::Applied { .. } | Effect::Advised) {
            self.changes_made += 1;
        }
        if self.changes.len() >= KEPT {
            self.changes.remove(0);
        }
        self.changes.push(ChangeMade { at_ms: millis(at), change, result, reaction_us });
    }

    fn hold(&mut self, held: &[Held], now_ms: u64) {
        self.held.retain(|HeldNow { held: old, .. }| {
            let still = held.contains(old);
            if !still {
                info!(rule = old.rule.name(), reason = old.reason, "no longer held: {}", old.setting.sysctl());
            }
            still
        });
        for new in held {
            if !self.held.iter().any(|old| old.held == *new) {
                info!(rule = new.rule.name(), reason = new.reason, "held: {} stays", new.setting.sysctl());
                self.held.push(HeldNow { held: new.clone(), since_ms: now_ms });
            }
        }
    }
}

fn log_outcome(Outcome { change, result }: &Outcome, reaction_us: Option<u64>) {
    let Change { setting, old, new, rule, evidence, predicted, .. } = change;
    let (name, rule) = (setting.sysctl(), rule.name());
    match result {
        Effect::Applied { read_back, took } => {
            let took = figures::time(*took);
            info!(old, new, read_back, took, reaction_us, rule, evidence, predicted, "set {name}");
        }
        Effect::Advised => info!(old, new, rule, evidence, predicted, "would set {name}"),
        Effect::NoEffect { read_back, took } => {
            let took = figures::time(*took);
            warn!(
                old,
                new,
                read_back,
                took,
                rule,
                evidence,
                "{name} was written but reads otherwise: another program holds it (look for a cgroup's sysctl program, \
                 or for who writes it)"
            );
        }
        Effect::Refused { error, way_out } => warn!(old, new, rule, evidence, error, way_out, "could not set {name}"),
    }
}

#[cfg(test)]
pub(crate) mod tests;
