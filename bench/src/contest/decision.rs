//! What an alternative changed by itself, and when.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::status::{Effect, Status};

/// One change, carried out or only advised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Decision {
    /// When, milliseconds after the load's start; below 0 before it.
    pub at_ms: i64,
    /// `max`, `buckets` or a timeout, as the guard names it.
    pub setting: String,
    /// Before.
    pub old: u64,
    /// After.
    pub new: u64,
    /// By which rule.
    pub rule: String,
    /// Why.
    pub evidence: String,
    /// `applied`, `no-effect`, `refused` or `advised`.
    pub effect: &'static str,
}

impl Decision {
    /// What the guard's status tells. Times still count from the boot.
    pub fn of_guard(status: &Status) -> Vec<Self> {
        let decision = |change: &crate::status::Change| Self {
            at_ms: i64::try_from(change.at_ms).unwrap_or(i64::MAX),
            setting: change.setting.clone(),
            old: change.old,
            new: change.new,
            rule: change.rule.clone(),
            evidence: change.evidence.clone(),
            effect: match change.result {
                Effect::Applied { .. } => "applied",
                Effect::Ignored { .. } => "no-effect",
                Effect::Refused { .. } => "refused",
                Effect::Advised => "advised",
            },
        };
        status.changes.iter().map(decision).collect()
    }

    /// A raise by the job each minute.
    pub fn of_job(at_ms: i64, old: u64, new: u64, evidence: String) -> Self {
        Self { at_ms, setting: "max".to_owned(), old, new, rule: "cron".to_owned(), evidence, effect: "applied" }
    }

    /// Lets its time count from the load's start.
    pub fn since(mut self, start_ms: i64) -> Self {
        self.at_ms = self.at_ms.saturating_sub(start_ms);
        self
    }
}

/// Milliseconds since the boot, on the guard's clock.
pub(super) fn now_ms() -> Result<i64> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).context("the time since the boot")?;
    Ok(i64::try_from(Duration::from(now).as_millis())?)
}
