//! A conntrack table made of numbers, with the guard's pure parts in charge of it.

use std::time::Duration;

use conntrack_guard::config::Policy;
use conntrack_guard::model::Model;
use conntrack_guard::observe::{Destroys, HookTotals, Memory, Sample, TableFull, TableReading, Timeouts};
use conntrack_guard::policy::{Host, InForce, Limits, Plan, Setting, State, bounds, decide, next_tick};

pub const MEMORY: Memory = Memory { total: 64 << 30, available: 32 << 30, pressure: None };
pub const ENTRY_BYTES: u64 = 320;

/// A sample without hooks.
pub fn sample(at: Duration, table: TableReading) -> Sample {
    Sample { at, table, hooks: None, memory: MEMORY, entry_bytes: ENTRY_BYTES, ..Sample::default() }
}

pub fn host(table: TableReading) -> Host {
    Host { table, memory_total: MEMORY.total, entry_bytes: ENTRY_BYTES, page_bytes: 4096, timeouts: Timeouts::new() }
}

/// The table, its clock and the guard.
pub struct Simulation {
    pub now: Duration,
    pub table: TableReading,
    /// New flows refused because the table was full.
    pub dropped: u64,
    inserts: u64,
    fraction: f64,
    with_hooks: bool,
    policy: Policy,
    limits: Limits,
    model: Model,
    state: State,
}

impl Simulation {
    pub fn new(policy: Policy, table: TableReading, with_hooks: bool) -> Self {
        let limits = Limits::new(&policy, &host(table)).unwrap();
        Self {
            now: Duration::from_secs(1_000),
            table,
            dropped: 0,
            inserts: 0,
            fraction: 0.0,
            with_hooks,
            model: Model::new(policy.table.horizon),
            policy,
            limits,
            state: State::default(),
        }
    }

    /// Lets `rate` new flows a second arrive for `time`; none leaves.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates of tests are small and positive")]
    pub fn grow(&mut self, rate: f64, time: Duration) {
        self.now += time;
        let arrivals = rate * time.as_secs_f64() + self.fraction;
        self.fraction = arrivals.fract();
        let admitted = (arrivals as u64).min(self.table.max.saturating_sub(self.table.count));
        self.dropped += arrivals as u64 - admitted;
        self.inserts += admitted;
        self.table.count += admitted;
    }

    /// One tick: what the daemon does. Answers with the plan, carried out, and with the time until the next tick.
    pub fn tick(&mut self) -> (Plan, Duration) {
        let mut sample = sample(self.now, self.table);
        if self.with_hooks {
            sample.hooks = Some(HookTotals {
                inserts: Some(self.inserts),
                destroys: Some(Destroys::default()),
                table_full: Some(TableFull { refused: self.dropped, made_room: 0 }),
                ..HookTotals::default()
            });
        }
        let estimate = self.model.observe(&sample);
        let (state, plan) = decide(&self.state, &estimate, &self.policy, &self.limits);
        self.state = state;
        let found = InForce { table: self.table, ..InForce::default() };
        let approved = bounds::check(&plan, &self.limits, &found, ENTRY_BYTES, estimate.resize_cost).unwrap();
        for change in approved.changes() {
            match change.setting {
                Setting::Max => self.table.max = change.new,
                Setting::Buckets => self.table.buckets = change.new,
                Setting::Timeout(_) => {}
            }
        }
        let wait = next_tick(&estimate, &plan, false);
        (plan, wait)
    }

    /// Ticks for `time` while `rate` new flows a second arrive; answers with all plans.
    pub fn run(&mut self, rate: f64, time: Duration) -> Vec<Plan> {
        let end = self.now + time;
        let mut plans = Vec::new();
        while self.now < end {
            let (plan, wait) = self.tick();
            plans.push(plan);
            self.grow(rate, wait);
        }
        plans
    }
}
