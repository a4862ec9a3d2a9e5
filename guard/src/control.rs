//! One tick: observe → model → policy → bounds → actuate → report.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::actuate::{Actuator, Outcome, Restored};
use crate::config::Policy;
use crate::model::Model;
use crate::observe::{Observer, table};
use crate::policy::{self, Limits, Plan, State, bounds};
use crate::report::Reporter;

/// A reading that failed is tried again after this.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// The parts of the loop, and what it remembers from tick to tick.
pub struct Control {
    root: PathBuf,
    observer: Observer,
    model: Model,
    state: State,
    policy: Policy,
    limits: Limits,
    actuator: Arc<Mutex<Box<dyn Actuator>>>,
    reporter: Reporter,
}

impl Control {
    /// `root` is where proc and sysfs are mounted below.
    pub fn new(
        root: PathBuf,
        observer: Observer,
        policy: Policy,
        limits: Limits,
        actuator: Box<dyn Actuator>,
        reporter: Reporter,
    ) -> Self {
        let model = Model::new(policy.table.horizon);
        let actuator = Arc::new(Mutex::new(actuator));
        Self { root, observer, model, state: State::default(), policy, limits, actuator, reporter }
    }

    /// Reads, decides, acts, reports. Returns how long to wait for the next tick.
    pub async fn tick(&mut self) -> Duration {
        let sample = match self.observer.sample() {
            Ok(sample) => sample,
            Err(error) => {
                self.reporter.trouble(format!("cannot read the table, so nothing is decided: {error}"));
                return AFTER_FAILURE;
            }
        };
        let estimate = self.model.observe(&sample);
        let (state, plan) = policy::decide(&self.state, &estimate, &self.policy, &self.limits);
        self.state = state;
        let outcomes = match self.act(&plan, sample.entry_bytes).await {
            Ok(outcomes) => {
                self.reporter.no_trouble();
                outcomes
            }
            Err(what) => {
                self.reporter.trouble(what);
                Vec::new()
            }
        };
        self.reporter.tick(&sample, &estimate, &plan, outcomes);
        policy::next_tick(&estimate)
    }

    /// Puts back what was changed. Waits for a write that is still under way.
    pub async fn restore(&self) -> Vec<Restored> {
        self.with_actuator(|actuator| actuator.restore()).await
    }

    /// Checks the plan against the table as it is at this moment, and has it carried out.
    async fn act(&self, plan: &Plan, entry_bytes: u64) -> Result<Vec<Outcome>, String> {
        if plan.changes.is_empty() {
            return Ok(Vec::new());
        }
        let found = table::read(&self.root).map_err(|error| format!("the plan is not carried out: {error}"))?;
        let approved = bounds::check(plan, &self.limits, &found, entry_bytes)
            .map_err(|violation| format!("the plan is not carried out: {violation}"))?;
        Ok(self.with_actuator(move |actuator| actuator.apply(&approved)).await)
    }

    /// Runs on a thread of its own: the kernel may take long over a write, and signals and questions must not wait for
    /// it. The lock keeps it to one writer, also when the one who asked has gone.
    async fn with_actuator<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn Actuator) -> Vec<T> + Send + 'static,
    ) -> Vec<T> {
        let actuator = Arc::clone(&self.actuator);
        let work = move || work(actuator.lock().unwrap_or_else(PoisonError::into_inner).as_mut());
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done,
            Err(error) => {
                // Only a panic comes here, and the release build ends the process with it.
                tracing::error!("the writer failed: {error}");
                Vec::new()
            }
        }
    }
}
