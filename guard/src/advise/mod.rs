//! Settings to keep, for a host that shall do without a guard, or start well with one: the policy runs over what was
//! observed, with settings of its own, and the furthest it went is the advice.

mod emit;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

pub use emit::Emit;

use crate::figures::{bytes, grouped, percent, time};
use crate::observe::Timeout;
use crate::policy::{Host, Setting, table_bytes};
use crate::replay::{Replay, Step};

/// One setting: as found, as it should be, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advised {
    /// The value found.
    pub found: u64,
    /// The value to set; the same where it is right.
    pub advised: u64,
    /// Why, as one line for people.
    pub why: String,
}

/// What to set on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// How long was observed.
    pub observed: Duration,
    /// Samples behind it.
    pub samples: u64,
    /// Most entries seen.
    pub entries: u64,
    /// For `nf_conntrack_max`, entries.
    pub max: Advised,
    /// For `nf_conntrack_buckets`, buckets.
    pub buckets: Advised,
    /// For the timeouts that should be shorter, seconds.
    pub timeouts: BTreeMap<Timeout, Advised>,
    /// Bytes that one entry takes here.
    pub entry_bytes: u64,
    /// Bytes that a full table and its buckets take with the advised sizes.
    pub memory: u64,
    /// `MemTotal`, bytes.
    pub memory_total: u64,
}

/// Watches a replay and remembers the furthest that its policy went.
#[derive(Debug)]
pub struct Adviser {
    host: Host,
    began: Option<Duration>,
    observed: Duration,
    samples: u64,
    entries: u64,
    max: Advised,
    buckets: Advised,
    timeouts: BTreeMap<Timeout, Advised>,
}

impl Adviser {
    /// Nothing seen yet: everything is right as it was found.
    pub fn new(host: &Host) -> Self {
        let found = |found| Advised { found, advised: found, why: String::new() };
        Self {
            host: host.clone(),
            began: None,
            observed: Duration::ZERO,
            samples: 0,
            entries: 0,
            max: found(host.table.max),
            buckets: found(host.table.buckets),
            timeouts: BTreeMap::new(),
        }
    }

    /// Takes in a step of `replay`, just made.
    pub fn look(&mut self, replay: &Replay, step: &Step) {
        let began = *self.began.get_or_insert(step.at);
        self.observed = step.at.saturating_sub(began);
        self.samples += 1;
        self.entries = self.entries.max(step.count);
        for change in &step.changes {
            let advised = Advised { found: change.old, advised: change.new, why: change.evidence.clone() };
            match change.setting {
                Setting::Max if change.new > self.max.advised => {
                    self.max = Advised { found: self.max.found, ..advised };
                }
                Setting::Buckets if change.new > self.buckets.advised => {
                    self.buckets = Advised { found: self.buckets.found, ..advised };
                }
                Setting::Timeout(timeout) if change.new < self.shortest(timeout, change.old) => {
                    let found = self.host.timeouts.get(&timeout).copied().unwrap_or(change.old);
                    self.timeouts.insert(timeout, Advised { found, ..advised });
                }
                _ => {}
            }
        }
        // What a plan sets and what stands after it are the same but for rounding, which is the kernel's.
        self.buckets.advised = self.buckets.advised.max(replay.settings().table.buckets);
    }

    fn shortest(&self, timeout: Timeout, found: u64) -> u64 {
        self.timeouts.get(&timeout).map_or(found, |advised| advised.advised)
    }

    /// The advice.
    pub fn advice(mut self) -> Advice {
        if self.max.why.is_empty() {
            let share = self.entries as f64 / self.max.found.max(1) as f64;
            self.max.why = if self.max.found == 0 {
                "0 means no limit; set one, or no memory limit can be kept".to_owned()
            } else {
                format!("is enough: {} entries at most are {} of it", grouped(self.entries), percent(share))
            };
        }
        if self.buckets.why.is_empty() {
            let chain = 2.0 * self.max.advised as f64 / self.buckets.found.max(1) as f64;
            self.buckets.why = format!("a full table has chains of {chain:.1}");
        }
        let memory = table_bytes(self.max.advised, self.host.entry_bytes, self.buckets.advised);
        Advice {
            observed: self.observed,
            samples: self.samples,
            entries: self.entries,
            max: self.max,
            buckets: self.buckets,
            timeouts: self.timeouts,
            entry_bytes: self.host.entry_bytes,
            memory,
            memory_total: self.host.memory_total,
        }
    }
}

impl Advice {
    /// How much memory the advised sizes take, as a formula of this kernel's sizes.
    pub fn formula(&self) -> String {
        let share = self.memory as f64 / self.memory_total.max(1) as f64;
        format!(
            "{} entries x {} bytes + {} buckets x 8 bytes = {}, {} of the host's {}",
            grouped(self.max.advised),
            self.entry_bytes,
            grouped(self.buckets.advised),
            bytes(self.memory),
            percent(share),
            bytes(self.memory_total)
        )
    }

    /// What it rests on.
    pub fn basis(&self) -> String {
        format!("{} samples over {}", grouped(self.samples), time(self.observed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Policy;
    use crate::observe::{Memory, Sample, TableReading, Timeouts};

    pub(super) fn host() -> Host {
        let table = TableReading { max: 8_192, buckets: 8_192, count: 0 };
        let timeouts = Timeouts::from([(Timeout::TcpTimeWait, 120)]);
        Host { table, memory_total: 4 << 30, entry_bytes: 384, page_bytes: 4096, timeouts }
    }

    /// Advice for a host whose count climbs to `peak` within 20 s, under its max or not.
    fn advice(peak: u64) -> Advice {
        let host = host();
        let mut replay = Replay::new(Policy::default(), &host).unwrap();
        let mut adviser = Adviser::new(&host);
        for second in 0..60 {
            let sample = Sample {
                at: Duration::from_secs(second),
                table: TableReading { count: (second * peak / 20).min(peak), ..host.table },
                memory: Memory { total: 4 << 30, available: 3 << 30, pressure: None },
                entry_bytes: host.entry_bytes,
                timeouts: host.timeouts.clone(),
                ..Sample::default()
            };
            let step = replay.step(&sample);
            adviser.look(&replay, &step);
        }
        adviser.advice()
    }

    #[test]
    fn a_table_that_is_enough_keeps_its_max() {
        let advice = advice(400);
        assert_eq!((advice.max.advised, advice.samples, advice.entries), (8_192, 60, 400));
        assert_eq!(advice.max.why, "is enough: 400 entries at most are 4.9 % of it");
        assert!(advice.buckets.advised > 8_192, "buckets are sized once, for the highest max: {:?}", advice.buckets);
    }

    #[test]
    fn the_furthest_that_the_policy_went_is_the_advice() {
        let advice = advice(40_000);
        assert!(advice.max.advised as f64 * 0.8 >= 40_000.0, "{:?}", advice.max);
        assert_eq!(advice.max.found, 8_192);
        assert!(advice.max.why.contains("passes") || advice.max.why.contains("past"), "{}", advice.max.why);
        let expected = advice.max.advised * 384 + advice.buckets.advised * 8;
        assert_eq!(advice.memory, expected);
        assert!(advice.formula().contains(" entries x 384 bytes + "), "{}", advice.formula());
    }
}
