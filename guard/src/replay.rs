//! The policy over recorded samples: what it would have decided, without a kernel.
//!
//! The entries are those of the recording: they came and went under the settings of that time, so a replay cannot tell what
//! shorter timeouts would have freed. The settings are the replay's own: they start as the host was found and follow the
//! replay's decisions, so that where more entries were in the table than the replay's max allows, its policy would have
//! refused flows.

use std::time::Duration;

use serde::Serialize;

use crate::config::{Mode, Policy};
use crate::model::Model;
use crate::observe::Sample;
use crate::policy::{Change, Host, InForce, Limits, LimitsError, Setting, State, bounds, decide};

/// A guard whose kernel is a recording.
pub struct Replay {
    policy: Policy,
    limits: Limits,
    model: Model,
    state: State,
    settings: InForce,
}

/// What one sample led to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Time since boot of the sample.
    pub at: Duration,
    /// Entries in the recording.
    pub count: u64,
    /// The replay's max after this step.
    pub max: u64,
    /// max as recorded.
    pub recorded_max: u64,
    /// What the policy changed.
    pub changes: Vec<Change>,
    /// How soon the entries should be looked at again, where that can be done.
    pub look_within: Option<Duration>,
}

impl Step {
    /// Entries of the recording that the replay's max has no room for.
    pub fn over(&self) -> u64 {
        if self.max == 0 { 0 } else { self.count.saturating_sub(self.max) }
    }
}

impl Replay {
    /// Starts with the host as its recording found it. `policy` decides as in `enforce`, whatever its mode. Fails when
    /// the policy cannot be kept on that host.
    pub fn new(policy: Policy, host: &Host) -> Result<Self, LimitsError> {
        let policy = Policy { mode: Mode::Enforce, ..policy };
        let limits = Limits::new(&policy, host)?;
        let model = Model::new(policy.table.horizon);
        let settings = InForce { table: host.table, timeouts: host.timeouts.clone(), time_of_day: Duration::ZERO };
        Ok(Self { policy, limits, model, state: State::default(), settings })
    }

    /// Takes in the next sample.
    pub fn step(&mut self, recorded: &Sample) -> Step {
        self.settings.table.count = recorded.table.count;
        self.settings.time_of_day = recorded.time_of_day;
        let (table, timeouts) = (self.settings.table, self.settings.timeouts.clone());
        let sample = Sample { table, timeouts, ..recorded.clone() };
        let estimate = self.model.observe(&sample);
        let (state, plan) = decide(&self.state, &estimate, &self.policy, &self.limits);
        self.state = state;
        let approved = bounds::check(&plan, &self.limits, &self.settings, sample.entry_bytes, estimate.resize_cost);
        // A plan that bounds refuses is one that the guard would not carry out either.
        let changes = approved.map(|approved| approved.changes().to_vec()).unwrap_or_default();
        for change in &changes {
            self.settings.set(change.setting, change.new);
            self.state.told(change.setting, None);
        }
        let (count, recorded_max) = (recorded.table.count, recorded.table.max);
        let look_within = estimate.look_within;
        Step { at: recorded.at, count, max: self.settings.table.max, recorded_max, changes, look_within }
    }
}

impl InForce {
    /// Puts a value in the place of a setting's.
    fn set(&mut self, setting: Setting, value: u64) {
        match setting {
            Setting::Max => self.table.max = value,
            Setting::Buckets => self.table.buckets = value,
            Setting::Timeout(timeout) => {
                self.timeouts.insert(timeout, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Bounds;
    use crate::observe::{Memory, TableReading, Timeouts};
    use crate::policy::Rule;

    const FOUND: TableReading = TableReading { max: 8_192, buckets: 65_536, count: 0 };

    fn host() -> Host {
        Host { table: FOUND, memory_total: 4 << 30, entry_bytes: 320, page_bytes: 4096, timeouts: Timeouts::new() }
    }

    /// A surge to 20,000 entries, as a guard saw it that raised max to 32,768 at once.
    fn surge() -> Vec<Sample> {
        let memory = Memory { total: 4 << 30, available: 2 << 30, pressure: None };
        let at = |second: u64| Sample {
            at: Duration::from_secs(second),
            table: TableReading { max: 32_768, count: (second * 2_000).min(20_000), ..FOUND },
            memory,
            entry_bytes: 320,
            ..Sample::default()
        };
        (0..30).map(at).collect()
    }

    fn replay(policy: Policy) -> Vec<Step> {
        let mut replay = Replay::new(policy, &host()).unwrap();
        surge().iter().map(|sample| replay.step(sample)).collect()
    }

    #[test]
    fn the_settings_are_the_replays_own() {
        let steps = replay(Policy::default());
        let raises = |step: &Step| step.changes.iter().filter(|change| change.rule == Rule::RaiseMax).count();
        assert_eq!((steps[0].max, steps[0].recorded_max), (8_192, 32_768));
        assert!(steps.iter().map(raises).sum::<usize>() >= 1 && steps[29].max >= 20_000, "{:?}", steps[29]);
        assert_eq!(steps.iter().map(Step::over).max(), Some(0), "raised ahead of the entries");
    }

    #[test]
    fn a_policy_that_is_too_narrow_shows_what_it_would_have_refused() {
        let mut policy = Policy { mode: Mode::Off, ..Policy::default() };
        policy.table.max = Bounds { floor: None, ceiling: Some(16_384) };
        let steps = replay(policy);
        assert_eq!((steps[29].max, steps[29].over()), (16_384, 20_000 - 16_384));
    }
}
