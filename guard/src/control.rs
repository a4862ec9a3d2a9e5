//! One tick: observe → model → policy → bounds → actuate → report.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::actuate::{Actuator, DryRun, Effect, Outcome, Restored};
use crate::config::{self, Policy};
use crate::model::{Estimate, Model, ResizeCost};
use crate::observe::{self, Observer, Sample, Timeouts, since_boot, table, timeouts};
use crate::policy::{self, InForce, Limits, Plan, Setting, State, bounds};
use crate::recording::Recorder;
use crate::report::{Brake, Mode, PolicyNow, Reporter};

/// A reading that failed is tried again after this.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// The parts of the loop, and what it remembers from tick to tick.
pub struct Control {
    root: PathBuf,
    /// Which table it guards.
    table: Option<u64>,
    observer: Observer,
    model: Model,
    /// What resizes were seen to cost here, for a stop.
    resize_cost: ResizeCost,
    state: State,
    policy: Policy,
    limits: Limits,
    actuator: Arc<Mutex<Box<dyn Actuator>>>,
    reporter: Reporter,
    brake: Brake,
    recorder: Option<Recorder>,
    /// When the credit was spent that this tick is about.
    spent: Option<Duration>,
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
        brake: Brake,
    ) -> Self {
        let model = Model::new(policy.table.horizon);
        let actuator = Arc::new(Mutex::new(actuator));
        let (resize_cost, state) = (ResizeCost::default(), State::default());
        let (recorder, spent) = (None, None);
        let table = table::number_of(&root);
        Self {
            root,
            table,
            observer,
            model,
            resize_cost,
            state,
            policy,
            limits,
            actuator,
            reporter,
            brake,
            recorder,
            spent,
        }
    }

    /// Hands every sample from now on to `recorder`.
    pub fn record(&mut self, recorder: Recorder) {
        self.recorder = Some(recorder);
    }

    /// Reads, decides, acts, reports. Returns how long to wait for the next tick.
    pub async fn tick(&mut self) -> Duration {
        let spent = self.spent.take();
        let (sample, estimate, plan) = match self.decide(spent.is_some()) {
            Ok(decided) => decided,
            Err(error) => {
                self.reporter.trouble(format!("cannot read the table, so nothing is decided: {error}"));
                return AFTER_FAILURE;
            }
        };
        let outcomes = match self.act(&plan, &estimate).await {
            Ok(outcomes) => {
                self.reporter.no_trouble();
                self.reporter.reacted(spent.map(|spent| since_boot().saturating_sub(spent)));
                for Outcome { change, result } in &outcomes {
                    self.state.told(change.setting, result.failure());
                }
                outcomes
            }
            Err(what) => {
                self.reporter.trouble(what);
                Vec::new()
            }
        };
        let max = outcomes.iter().find_map(max_now).unwrap_or(sample.table.max);
        let credit = self.observer.counting_cpus().and_then(|cpus| {
            let unseen = self.observer.inserts_since_sample();
            policy::credit(&estimate, &self.policy, plan.max_blocked, max, unseen, cpus)
        });
        self.observer.grant(credit.unwrap_or(0));
        self.reporter.tick(&sample, &estimate, &plan, outcomes);
        if spent.is_none() {
            // In a surge it would hold up the next answer.
            self.observer.look_at_entries(&sample.table, estimate.look_within);
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.add(sample);
        }
        policy::next_tick(&estimate, &plan, credit.is_some())
    }

    /// Reads and decides. At rest, or when a surge has `woken` the guard, not everything is read first; what then turns out
    /// to be about more than rest, or than the surge, is decided again on fresh readings alone.
    fn decide(&mut self, woken: bool) -> Result<(Sample, Estimate, Plan), observe::Error> {
        if woken {
            self.observer.may_be_old(true);
        }
        let mut sample = self.observer.sample()?;
        let mut estimate = self.model.observe(&sample);
        self.resize_cost = estimate.resize_cost;
        let before = self.state.clone().paused(self.brake.pauses(sample.at));
        let (mut state, mut plan) = policy::decide(&before, &estimate, &self.policy, &self.limits);
        let only_max = plan.changes.iter().all(|change| change.setting == Setting::Max);
        let will_do = plan.rests() || woken && only_max;
        if !will_do && self.observer.refresh(&mut sample)? {
            estimate.refresh(&sample);
            (state, plan) = policy::decide(&before, &estimate, &self.policy, &self.limits);
        }
        self.observer.may_be_old(plan.rests());
        self.state = state;
        Ok((sample, estimate, plan))
    }

    /// Returns when so many entries have come since the last tick that the next one must not wait.
    pub async fn credit_spent(&mut self) {
        self.spent = Some(self.observer.credit_spent().await);
    }

    /// Takes a new policy with its limits and what it now does with plans; `actuator` is in place of the one before. What
    /// was changed under the old one stays, and is put back at the end.
    pub async fn adopt(&mut self, policy: Policy, limits: Limits, mode: Mode, actuator: Option<Box<dyn Actuator>>) {
        if let Some(actuator) = actuator {
            self.actuator = Arc::new(Mutex::new(actuator));
        }
        let stall = policy.hash.max_stall;
        self.with_actuator(move |actuator| {
            actuator.set_max_stall(stall);
            Vec::<()>::new()
        })
        .await;
        self.model.look_ahead(policy.table.horizon);
        self.reporter.adopt(mode, &limits, policy.table.horizon);
        self.policy = policy;
        self.limits = limits;
    }

    /// What the status says of the policy.
    pub fn tell_policy(&self, now: &PolicyNow) {
        self.reporter.tell_policy(now);
    }

    /// Whether the kernel has no connection tracking any more, or that of a module loaded since. Programs that were attached to
    /// it are dead for good then, though kprobes do not say so.
    pub fn table_is_gone(&self) -> bool {
        let is_another = |(now, before)| now != before;
        !table::is_there(&self.root) || table::number_of(&self.root).zip(self.table).is_some_and(is_another)
    }

    /// Puts back what was changed, as the policy has it. Waits for a write that is still under way.
    pub async fn restore(&self) -> Vec<Restored> {
        let (how, cost) = (self.policy.stop.restore, self.resize_cost);
        self.with_actuator(move |actuator| actuator.restore(how, cost)).await
    }

    /// Checks the plan against the table as it is at this moment, and has it carried out.
    async fn act(&self, plan: &Plan, estimate: &Estimate) -> Result<Vec<Outcome>, String> {
        if plan.changes.is_empty() {
            return Ok(Vec::new());
        }
        let unread = |error| format!("the plan is not carried out: {error}");
        let table = table::read(&self.root).map_err(unread)?;
        // A raise of max in an emergency need not wait for them.
        let shortens = plan.changes.iter().any(|change| matches!(change.setting, Setting::Timeout(_)));
        let timeouts = if shortens { timeouts::read(&self.root).map_err(unread)? } else { Timeouts::new() };
        let found = InForce { table, timeouts, time_of_day: estimate.time_of_day };
        let approved = bounds::check(plan, &self.limits, &found, estimate.entry_bytes, estimate.resize_cost)
            .map_err(|violation| format!("the plan is not carried out: {violation}"))?;
        if self.policy.mode != config::Mode::Enforce {
            // The actuator may be one that writes: it keeps what was changed under an earlier policy.
            return Ok(DryRun.apply(&approved));
        }
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

/// max as it is now, if it was changed.
fn max_now(outcome: &Outcome) -> Option<u64> {
    match outcome.result {
        Effect::Applied { read_back, .. } if outcome.change.setting == Setting::Max => Some(read_back),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::actuate::Live;
    use crate::actuate::testing::FakeKernel;
    use crate::config::{Mode as PolicyMode, Restore};
    use crate::observe::Timeout;
    use crate::policy::{Approved, Host};
    use crate::report::{Start, Status};

    pub(crate) fn control(kernel: &FakeKernel, mode: PolicyMode, actuator: Box<dyn Actuator>) -> Control {
        let policy = Policy { mode, ..Policy::default() };
        let mut observer = Observer::new(kernel.root(), None);
        let found = observer.sample().unwrap();
        let host = Host {
            table: found.table,
            memory_total: found.memory.total,
            entry_bytes: found.entry_bytes,
            page_bytes: 4096,
            timeouts: found.timeouts.clone(),
        };
        let limits = Limits::new(&policy, &host).unwrap();
        let mode = Mode::Enforce;
        let horizon = policy.table.horizon;
        let now = PolicyNow::default();
        let hooks = Err(String::new());
        let reporter = Reporter::new(&Start {
            mode,
            limits: &limits,
            horizon,
            policy: &now,
            found: &found,
            buckets_before: None,
            hooks,
        });
        Control::new(kernel.root().into(), observer, policy, limits, actuator, reporter, Brake::default())
    }

    pub(crate) fn live(kernel: &FakeKernel) -> Box<dyn Actuator> {
        let stall = Policy::default().hash.max_stall;
        Box::new(Live::start(kernel.settings(), &kernel.state_dir(), stall).unwrap())
    }

    fn status(control: &Control) -> Status {
        control.reporter.status().lock().unwrap().clone()
    }

    /// How many changes it has made so far, also while it is borrowed.
    pub(crate) fn changes_made(control: &Control) -> impl Fn() -> u64 + use<> {
        let status = control.reporter.status();
        move || status.lock().unwrap().changes_made
    }

    pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let done = runtime.block_on(work);
        runtime.shutdown_background();
        done
    }

    #[test]
    fn a_full_table_is_raised_reported_and_put_back() {
        let kernel = FakeKernel::new(65536, 16384, 65536);
        block_on(async {
            let mut control = control(&kernel, PolicyMode::Enforce, live(&kernel));
            control.tick().await;
            let raised = kernel.get("nf_conntrack_max");
            assert!(raised > 65536, "{raised}");
            let told = status(&control);
            let made = told.changes.iter().find(|made| made.change.new == raised).unwrap();
            assert!(matches!(made.result, Effect::Applied { read_back, .. } if read_back == raised));
            assert!(!made.change.evidence.is_empty() && !made.change.predicted.is_empty());

            kernel.set("nf_conntrack_count", 5);
            let all = control.restore().await;
            assert!(all.iter().all(Restored::is_done), "{all:?}");
            assert_eq!((kernel.get("nf_conntrack_max"), kernel.get("nf_conntrack_buckets")), (65536, 16384));
        });
    }

    #[test]
    fn advice_changes_nothing_and_is_given_once() {
        let kernel = FakeKernel::new(65536, 16384, 65536);
        block_on(async {
            let mut control = control(&kernel, PolicyMode::Advise, Box::new(DryRun));
            control.tick().await;
            let first = status(&control).changes;
            assert!(first.iter().any(|change| change.result == Effect::Advised), "{first:?}");
            for _ in 0..5 {
                control.tick().await;
            }
            assert_eq!(status(&control).changes, first);
        });
        assert_eq!((kernel.get("nf_conntrack_max"), kernel.get("nf_conntrack_buckets")), (65536, 16384));
        assert!(!kernel.state_dir().exists());
    }

    #[test]
    fn one_setting_that_cannot_be_written_is_said_once_and_shown_and_stops_no_other() {
        let kernel = FakeKernel::new(20_500, 16384, 20_000);
        for file in ["proc/sys/net/netfilter/nf_conntrack_buckets", "sys/module/nf_conntrack/parameters/hashsize"] {
            kernel.make_read_only(file);
        }
        let mut control = control(&kernel, PolicyMode::Enforce, live(&kernel));
        block_on(async {
            for _ in 0..5 {
                control.tick().await;
            }
        });
        let now = status(&control);
        let refused: Vec<_> = now.changes.iter().filter(|one| matches!(one.result, Effect::Refused { .. })).collect();
        assert_eq!(refused.len(), 1, "{now:?}");
        assert!(kernel.get("nf_conntrack_max") > 20_500, "{now:?}");
        let held = now.held.iter().find(|one| one.held.setting == Setting::Buckets).unwrap();
        for part in ["nf_conntrack_buckets", "parameters/hashsize", "as root", "tried again"] {
            assert!(held.held.reason.contains(part), "{part}: {held:?}");
        }
    }

    #[test]
    fn what_is_paused_stays_and_the_rest_does_not() {
        let kernel = FakeKernel::new(65536, 16384, 65536);
        block_on(async {
            let mut control = control(&kernel, PolicyMode::Enforce, live(&kernel));
            control.brake.pause(Setting::Max, Duration::from_hours(1));
            for _ in 0..3 {
                control.tick().await;
            }
            assert_eq!(kernel.get("nf_conntrack_max"), 65536);
            let told = status(&control);
            assert!(told.held.iter().any(|held| held.held.reason.starts_with("paused until ")), "{:?}", told.held);
            assert!(told.changes.iter().all(|made| made.change.setting != Setting::Max), "{:?}", told.changes);
            control.brake.resume(Setting::Max);
            control.tick().await;
            assert!(kernel.get("nf_conntrack_max") > 65536);
        });
    }

    #[test]
    fn without_a_reading_nothing_is_decided_until_it_is_back() {
        let kernel = FakeKernel::new(65536, 65536, 10);
        block_on(async {
            let mut control = control(&kernel, PolicyMode::Enforce, live(&kernel));
            control.tick().await;
            let path = kernel.path("proc/sys/net/netfilter/nf_conntrack_count");
            std::fs::remove_file(&path).unwrap();
            assert_eq!(control.tick().await, AFTER_FAILURE);
            let trouble = status(&control).trouble.unwrap();
            assert!(trouble.contains("nf_conntrack_count"), "{trouble}");
            kernel.set("nf_conntrack_count", 11);
            control.tick().await;
            assert_eq!((status(&control).trouble, status(&control).table.count), (None, 11));
        });
    }

    #[test]
    fn more_than_rest_and_more_than_a_surge_is_decided_on_fresh_timeouts() {
        for (woken, surge) in [(false, 28), (true, 30)] {
            let kernel = FakeKernel::with_timeouts(65536, 65536, 10);
            let mut control = control(&kernel, PolicyMode::Enforce, live(&kernel));
            // The first look sizes the buckets.
            block_on(async { control.tick().await + control.tick().await });
            assert!(control.decide(false).unwrap().2.rests());
            kernel.set(Timeout::Udp.sysctl(), 28);
            assert_eq!(control.decide(false).unwrap().0.timeouts[&Timeout::Udp], 30, "at rest, read a moment ago");
            kernel.set("nf_conntrack_count", 200_000);
            let (sample, estimate, plan) = control.decide(woken).unwrap();
            assert!(plan.changes.iter().any(|change| change.setting == Setting::Max), "{plan:?}");
            assert_eq!((sample.timeouts[&Timeout::Udp], estimate.timeouts[&Timeout::Udp]), (surge, surge));
            assert_eq!(control.decide(false).unwrap().0.timeouts[&Timeout::Udp], 28, "all is read after it");
        }
    }

    /// A kernel that says when a write has begun, and does not finish it before it is told to.
    pub(crate) struct Slow {
        pub begun: Sender<()>,
        pub finish: Receiver<()>,
    }

    impl Actuator for Slow {
        fn apply(&mut self, _: &Approved) -> Vec<Outcome> {
            self.begun.send(()).unwrap();
            // An end without a word is an end as well.
            let _ = self.finish.recv();
            Vec::new()
        }

        fn set_max_stall(&mut self, _: Duration) {}

        fn restore(&mut self, _: Restore, _: ResizeCost) -> Vec<Restored> {
            Vec::new()
        }
    }

    #[test]
    fn a_slow_write_holds_up_no_signal_and_no_second_writer_passes_it() {
        let kernel = FakeKernel::new(65536, 16384, 65536);
        let (begun, begins) = channel();
        let (go_on, finish) = channel();
        block_on(async {
            let mut control = control(&kernel, PolicyMode::Enforce, Box::new(Slow { begun, finish }));
            let short = Duration::from_millis(50);
            assert!(tokio::time::timeout(short, control.tick()).await.is_err(), "the loop was not free");
            begins.recv_timeout(Duration::from_mins(1)).unwrap();
            assert!(tokio::time::timeout(short, control.restore()).await.is_err(), "two writers at once");
            go_on.send(()).unwrap();
            control.restore().await;
        });
    }
}
