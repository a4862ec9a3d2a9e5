//! The actuator of `--dry-run` and of `mode = "advise"`.

use std::time::Duration;

use super::{Actuator, Effect, Outcome, Restored};
use crate::config::Restore;
use crate::model::ResizeCost;
use crate::policy::{Approved, Change};

/// Writes nothing, journals nothing.
#[derive(Debug, Default)]
pub struct DryRun;

impl Actuator for DryRun {
    fn apply(&mut self, approved: &Approved) -> Vec<Outcome> {
        let advised = |change: &Change| Outcome { change: change.clone(), result: Effect::Advised };
        approved.changes().iter().map(advised).collect()
    }

    fn set_max_stall(&mut self, _: Duration) {}

    fn restore(&mut self, _: Restore, _: ResizeCost) -> Vec<Restored> {
        Vec::new()
    }
}
