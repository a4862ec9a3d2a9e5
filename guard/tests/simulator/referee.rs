//! What no plan may do, worked out anew from the policy and the table, so that the bounds are not their own judge.

use conntrack_guard::config::{MemoryLimit, Policy};
use conntrack_guard::observe::{TableReading, Timeouts};
use conntrack_guard::policy::{Change, Setting};

use crate::kernel::Machine;

/// The host as the guard found it.
#[derive(Clone, Debug)]
pub struct Referee {
    policy: Policy,
    found: TableReading,
    found_timeouts: Timeouts,
    memory: f64,
    entry_bytes: f64,
    resize_nanos: f64,
}

impl Referee {
    pub fn new(policy: &Policy, machine: &Machine, found: TableReading, found_timeouts: &Timeouts) -> Self {
        let memory = match policy.table.memory_limit {
            MemoryLimit::Percent(share) => machine.memory_total as f64 * share / 100.0,
            MemoryLimit::Bytes(bytes) => bytes as f64,
        };
        Self {
            policy: policy.clone(),
            found,
            found_timeouts: found_timeouts.clone(),
            memory,
            entry_bytes: machine.entry_bytes as f64,
            resize_nanos: machine.resize_nanos,
        }
    }

    /// What is wrong with this change of a table that is so, if anything.
    pub fn judge(&self, change: &Change, now: &TableReading) -> Option<String> {
        let wrong = match change.setting {
            Setting::Max => self.max(change, now),
            Setting::Buckets => self.buckets(change, now),
            Setting::Timeout(timeout) => {
                let found = self.found_timeouts.get(&timeout).copied().unwrap_or(0);
                let floor = self.policy.timeouts.floor(timeout);
                if !self.policy.timeouts.shorten {
                    Some("the policy leaves timeouts alone".to_owned())
                } else if change.new < floor || change.new > found {
                    Some(format!("out of {floor} to {found}"))
                } else {
                    None
                }
            }
        };
        let wrong = if change.new == 0 { Some("written as 0".to_owned()) } else { wrong };
        let same = (change.new == change.old).then(|| "no change".to_owned());
        wrong
            .or(same)
            .map(|wrong| format!("{} {} → {}: {wrong}, with {now:?}", change.setting.name(), change.old, change.new))
    }

    fn max(&self, change: &Change, now: &TableReading) -> Option<String> {
        let bounds = self.policy.table.max;
        let ceiling = bounds.ceiling.unwrap_or(4_194_304.max(self.found.max).max(bounds.floor.unwrap_or(0)));
        let floor = bounds.floor.unwrap_or(self.found.max).min(ceiling);
        if change.new > ceiling || change.new < floor {
            return Some(format!("out of {floor} to {ceiling}"));
        }
        if change.new < now.max && change.new < now.count {
            return Some("lowered below the count".to_owned());
        }
        let bytes = change.new as f64 * self.entry_bytes + now.buckets as f64 * 8.0;
        (change.new > now.max && bytes > self.memory + 1.0).then(|| format!("{bytes} bytes of {}", self.memory))
    }

    fn buckets(&self, change: &Change, now: &TableReading) -> Option<String> {
        let bounds = self.policy.hash.buckets;
        let ceiling = bounds.ceiling.unwrap_or(4_194_304.max(self.found.buckets).max(bounds.floor.unwrap_or(0)));
        if change.new > ceiling {
            return Some(format!("above {ceiling}"));
        }
        if change.new < now.buckets {
            return Some("lowered".to_owned());
        }
        // Before a resize of this machine has been measured, what an entry takes is reckoned at 700 ns.
        let longest = self.policy.hash.max_stall.as_secs_f64() * (self.resize_nanos / 700.0).max(1.0) + 1e-6;
        let stall = now.count as f64 * self.resize_nanos / 1e9;
        if stall > longest && self.policy.hash.resize_window.is_none() {
            return Some(format!("all packets stalled for {stall} s"));
        }
        let bytes = now.max as f64 * self.entry_bytes + change.new as f64 * 8.0;
        (bytes > self.memory + 1.0).then(|| format!("{bytes} bytes of {}", self.memory))
    }
}
