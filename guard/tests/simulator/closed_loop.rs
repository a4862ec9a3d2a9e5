//! The loop closed: the table makes samples, the guard's pure parts make plans of them, and the plans change the table.

use std::time::Duration;

use conntrack_guard::model::{Estimate, Model};
use conntrack_guard::observe::{Census, HookTotals, Sample};
use conntrack_guard::policy::{Change, Host, InForce, Limits, Plan, Setting, State, bounds, credit, decide, next_tick};

use crate::faults::{Event, Fault, Faults, since, spoil};
use crate::kernel::{Counters, Kernel, Time, steps};
use crate::outcome::{Made, Outcome, Told};
use crate::referee::Referee;
use crate::scenario::Scenario;
use crate::traffic::Traffic;

/// A reading that failed is tried again after so many seconds.
const AFTER_FAILURE: f64 = 1.0;
/// Between two looks at the entries, in a table with room and in one that is more than half full.
const CENSUS_EVERY: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(2)];
/// When the host was started, before the simulation began.
const BOOTED: Duration = Duration::from_secs(1_000);
/// The time of day at which the guard starts.
const MORNING: f64 = 8.0 * 3_600.0;
const DAY: f64 = 24.0 * 3_600.0;

/// Runs a scenario to its end.
pub fn run(scenario: &Scenario) -> Outcome {
    run_if_possible(scenario).unwrap()
}

/// The same; `None` where the policy's memory limit is below what is in use already: the guard does not start then.
pub fn run_if_possible(scenario: &Scenario) -> Option<Outcome> {
    let mut history = History::begin(scenario)?;
    while history.time() < scenario.lasts {
        history.step();
    }
    Some(history.end())
}

struct History<'a> {
    scenario: &'a Scenario,
    kernel: Kernel,
    traffic: Traffic<'a>,
    /// The step at which the guard starts.
    start: Time,
    next_tick: Time,
    /// Until when the guard does something else, and cannot be woken.
    busy_until: Time,
    /// Inserts so far at which the credit is spent, where one is granted.
    wakes_at: Option<f64>,
    /// Seconds slept.
    slept: f64,
    events: usize,
    faults: Faults,
    origin: HookTotals,
    census: Option<Census>,
    limits: Limits,
    referee: Referee,
    model: Model,
    state: State,
    outcome: Outcome,
    at_start: Counters,
}

impl<'a> History<'a> {
    fn begin(scenario: &'a Scenario) -> Option<Self> {
        let (flows, rates): (Vec<_>, Vec<_>) = scenario.load.iter().map(|(flow, rate)| (flow.clone(), rate)).unzip();
        let (machine, timeouts) = (scenario.machine.clone(), scenario.timeouts.clone());
        let mut kernel = Kernel::new(machine, scenario.max, scenario.buckets, timeouts, flows, scenario.seed);
        let start = steps(scenario.before, scenario.machine.step);
        let mut traffic = Traffic::new(rates, scenario.seed, scenario.strides);
        while kernel.now < start {
            let time = (kernel.now as f64 - start as f64) * scenario.machine.step;
            let limit = start - kernel.now;
            traffic.go_on(&mut kernel, time, limit, f64::INFINITY);
        }
        let found = kernel.table();
        let host = Host {
            table: found,
            memory_total: scenario.machine.memory_total,
            entry_bytes: scenario.machine.entry_bytes,
            page_bytes: 4096,
            timeouts: kernel.timeouts.clone(),
        };
        let limits = Limits::new(&scenario.policy, &host).ok()?;
        let outcome =
            Outcome { found, found_timeouts: kernel.timeouts.clone(), highest_max: found.max, ..Outcome::default() };
        Some(Self {
            scenario,
            traffic,
            start,
            next_tick: start,
            busy_until: start,
            wakes_at: None,
            slept: 0.0,
            events: 0,
            faults: Faults::new(),
            origin: HookTotals::default(),
            census: None,
            referee: Referee::new(&scenario.policy, &scenario.machine, found, &kernel.timeouts),
            limits,
            model: Model::new(scenario.policy.table.horizon),
            state: State::default(),
            outcome,
            at_start: kernel.counters.clone(),
            kernel,
        })
    }

    /// Seconds since the guard's start, without those slept.
    fn time(&self) -> f64 {
        (self.kernel.now as f64 - self.start as f64) * self.scenario.machine.step
    }

    fn since_boot(&self) -> Duration {
        let seconds = self.kernel.now as f64 * self.scenario.machine.step + self.slept;
        BOOTED + Duration::from_secs_f64(seconds)
    }

    fn step(&mut self) {
        while let Some((_, event)) = self.scenario.events.get(self.events).filter(|(at, _)| *at <= self.time()) {
            self.happen(*event);
            self.events += 1;
        }
        if self.kernel.now >= self.next_tick {
            self.tick();
        }
        let time = self.time();
        let next =
            self.scenario.events.get(self.events).map_or(self.scenario.lasts, |(at, _)| at.min(self.scenario.lasts));
        let limit = self.steps((next - time).max(0.0)).min(self.next_tick - self.kernel.now);
        let until_woken = self.wakes_at.map_or(f64::INFINITY, |wakes_at| wakes_at - self.kernel.counters.inserts);
        self.traffic.go_on(&mut self.kernel, time, limit, until_woken);
        if self.wakes_at.is_some_and(|wakes_at| self.kernel.counters.inserts >= wakes_at) {
            self.wakes_at = None;
            self.next_tick = self.next_tick.min(self.busy_until.max(self.kernel.now));
        }
        let count = self.kernel.count();
        if count > self.outcome.peak.0 {
            self.outcome.peak = (count, time);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Begin(fault) => {
                self.faults.insert(fault);
            }
            Event::End(fault) => {
                self.faults.remove(&fault);
            }
            Event::Reload => self.origin = self.kernel.counters.hooks(),
            Event::Suspend(seconds) => self.slept += seconds,
            Event::HeldUp(seconds) => {
                self.next_tick = self.kernel.now.max(self.next_tick) + self.steps(seconds);
                self.busy_until = self.next_tick;
            }
            Event::SetMax(max) => self.kernel.max = max,
            Event::SetBuckets(buckets) => {
                let at = self.since_boot();
                self.kernel.resize(buckets, "sysctl", at);
            }
        }
    }

    fn steps(&self, seconds: f64) -> Time {
        steps(seconds, self.scenario.machine.step)
    }

    fn sample(&mut self) -> Sample {
        let at = self.since_boot();
        let half_full = self.kernel.count() > self.kernel.max as f64 / 2.0;
        let every = CENSUS_EVERY[usize::from(half_full && self.kernel.max > 0)];
        let next = self.census.as_ref().map_or(Duration::ZERO, |census| census.at + every);
        if at >= next && !self.faults.contains(&Fault::NoCensus) {
            self.census = Some(self.kernel.census(at));
        }
        let time_of_day = Duration::from_secs_f64((MORNING + self.time() + self.slept) % DAY);
        let mut sample = self.kernel.sample(at, time_of_day);
        sample.census.clone_from(&self.census);
        if let Some(hooks) = sample.hooks.as_mut() {
            since(hooks, &self.origin);
        }
        spoil(&self.faults, &mut sample);
        sample
    }

    fn tick(&mut self) {
        if self.faults.contains(&Fault::NoSamples) {
            self.next_tick = self.kernel.now + self.steps(AFTER_FAILURE);
            return;
        }
        self.outcome.ticks += 1;
        let sample = self.sample();
        let estimate = self.model.observe(&sample);
        self.outcome.foresight.add(&estimate);
        let (state, plan) = decide(&self.state, &estimate, &self.scenario.policy, &self.limits);
        self.state = state;
        self.tell(&plan);
        self.outcome.settled.extend(plan.settled.iter().cloned());
        let busy = self.carry_out(&plan, &estimate);
        self.busy_until = self.kernel.now + busy;
        let credit = self.credit(&estimate, &plan);
        self.wakes_at = credit.map(|credit| self.kernel.counters.inserts + credit);
        let due = |census: &Census| estimate.look_within.is_some_and(|within| estimate.at >= census.at + within);
        if self.census.as_ref().is_some_and(due) && !self.faults.contains(&Fault::NoCensus) {
            self.census = Some(self.kernel.census(estimate.at));
        }
        let pause = next_tick(&estimate, &plan, credit.is_some());
        self.next_tick = self.busy_until + self.steps(pause.as_secs_f64()).max(1);
    }

    /// New entries until the guard is woken: the CPUs share the load evenly, so that none spends its credit before the
    /// others do.
    fn credit(&self, estimate: &Estimate, plan: &Plan) -> Option<f64> {
        let cpus = self.scenario.cpus.filter(|_| !self.faults.contains(&Fault::NoHooks))?;
        let each = credit(estimate, &self.scenario.policy, plan.max_blocked, self.kernel.max, 0, cpus)?;
        Some(each as f64 * cpus as f64)
    }

    fn tell(&mut self, plan: &Plan) {
        for held in &plan.held {
            let last =
                self.outcome.told.iter().rev().find(|told| told.setting == held.setting && told.rule == held.rule);
            if last.is_none_or(|last| last.reason != held.reason) {
                let (setting, rule, reason) = (held.setting, held.rule, held.reason.clone());
                self.outcome.told.push(Told { at: self.time(), setting, rule, reason });
            }
        }
    }

    /// What the daemon does with a plan. Answers with the steps that it took.
    fn carry_out(&mut self, plan: &Plan, estimate: &Estimate) -> Time {
        let found = InForce {
            table: self.kernel.table(),
            timeouts: self.kernel.timeouts.clone(),
            time_of_day: estimate.time_of_day,
        };
        let approved = match bounds::check(plan, &self.limits, &found, estimate.entry_bytes, estimate.resize_cost) {
            Ok(approved) => approved,
            Err(violation) => {
                self.outcome.refused_plans.push(format!("{:.2} s: {violation}", self.time()));
                return 0;
            }
        };
        let mut busy = 0;
        for change in approved.changes() {
            let (failure, steps) = self.write(change);
            self.state.told(change.setting, failure);
            busy += steps;
        }
        busy
    }

    /// Answers with why it failed, if it did, and with the steps that it took.
    fn write(&mut self, change: &Change) -> (Option<String>, Time) {
        let now = self.kernel.table();
        if let Some(wrong) = self.referee.judge(change, &now) {
            self.outcome.offences.push(format!("{:.2} s: {wrong}", self.time()));
        }
        self.outcome.changes.push(Made { at: self.time(), change: change.clone(), count: now.count });
        let refused = self.faults.contains(&Fault::FixedBuckets) && change.setting == Setting::Buckets
            || self.faults.contains(&Fault::FixedTimeouts) && matches!(change.setting, Setting::Timeout(_));
        if refused {
            return (Some(format!("{} cannot be written", change.setting.sysctl())), 0);
        }
        if self.faults.contains(&Fault::Deaf) {
            return (Some("the last write went through and changed nothing".to_owned()), 0);
        }
        match change.setting {
            Setting::Max => self.kernel.max = change.new,
            Setting::Buckets => return (None, self.kernel.resize(change.new, "conntrack-guard", self.since_boot())),
            Setting::Timeout(timeout) => {
                self.kernel.timeouts.insert(timeout, change.new);
            }
        }
        self.outcome.highest_max = self.outcome.highest_max.max(self.kernel.max);
        (None, 0)
    }

    fn end(self) -> Outcome {
        let (now, then) = (&self.kernel.counters, &self.at_start);
        Outcome {
            table: self.kernel.table(),
            timeouts: self.kernel.timeouts.clone(),
            flows: now.inserts + now.dropped() - then.inserts - then.dropped(),
            refused: now.refused - then.refused,
            too_long: now.too_long - then.too_long,
            no_memory: now.no_memory - then.no_memory,
            evicted: now.evicted - then.evicted,
            broken: now.broken - then.broken,
            ..self.outcome
        }
    }
}
