//! What a history begins with, and what happens in it.

use conntrack_guard::config::{Policy, parse};
use conntrack_guard::observe::{Timeout, Timeouts};

use crate::faults::Event;
use crate::kernel::Machine;
use crate::kernel::flow::Flow;
use crate::load::Rate;

/// A history to come.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name, and that of its golden file.
    pub name: String,
    /// The operator's.
    pub policy: Policy,
    /// The host.
    pub machine: Machine,
    /// `nf_conntrack_max` at first.
    pub max: u64,
    /// Buckets at first.
    pub buckets: u64,
    /// Timeouts at first, seconds.
    pub timeouts: Timeouts,
    /// Who comes when.
    pub load: Vec<(Flow, Rate)>,
    /// What happens when, seconds after the start, in order.
    pub events: Vec<(f64, Event)>,
    /// Seconds that the load runs before the guard starts.
    pub before: f64,
    /// Seconds that the guard runs.
    pub lasts: f64,
    /// Starts all chance in it.
    pub seed: u64,
    /// CPUs that count down a credit and wake the guard, as long as the programs are there; `None`: it looks by the clock
    /// alone.
    pub cpus: Option<u64>,
    /// Whether steps in which nothing shows are taken many at a time.
    pub strides: bool,
}

impl Scenario {
    /// A host of 64 GiB as a stock kernel leaves it, with the default policy and no load.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            policy: Policy::default(),
            machine: Machine::default(),
            max: 262_144,
            buckets: 262_144,
            timeouts: Timeout::ALL.iter().map(|timeout| (*timeout, timeout.kernel_default())).collect(),
            load: Vec::new(),
            events: Vec::new(),
            before: 0.0,
            lasts: 60.0,
            seed: 1,
            cpus: None,
            strides: false,
        }
    }

    /// With this policy file.
    pub fn policy(self, text: &str) -> Self {
        let policy = parse(&self.name, text).unwrap();
        Self { policy, ..self }
    }

    /// With max and buckets at first.
    pub fn table(self, max: u64, buckets: u64) -> Self {
        Self { max, buckets, ..self }
    }

    /// With such flows too.
    pub fn load(mut self, flow: Flow, rate: Rate) -> Self {
        self.load.push((flow, rate));
        self
    }

    /// With the load running for so many seconds before the guard starts, and then for so many with it.
    pub fn lasting(self, before: f64, lasts: f64) -> Self {
        Self { before, lasts, ..self }
    }

    /// In steps of so many seconds.
    pub fn step(mut self, step: f64) -> Self {
        self.machine.step = step;
        self
    }

    /// With this at that second.
    pub fn event(mut self, at: f64, event: Event) -> Self {
        self.events.push((at, event));
        self
    }
}
