//! Settings to keep, for a host that shall do without a guard, or start well with one: the policy runs over what was
//! observed, with settings of its own. The furthest it went is the advice, but no more than twice what the entries needed
//! that came: a forecast that a burst did not keep is no reason for good.

mod emit;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

pub use emit::Emit;

use crate::figures::{bytes, grouped, percent, time};
use crate::observe::Timeout;
use crate::policy::{ENTRIES_PER_BUCKET, Host, Setting, fitting, table_bytes};
use crate::replay::Step;

/// A table that was as full as this may have refused flows: what it would have held is not known.
const FULL: f64 = 0.95;
/// The most that is advised, against what the entries needed that came.
const SPARE: u64 = 2;

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
    high_water: f64,
    /// Whether the table was full at some time.
    full: bool,
    began: Option<Duration>,
    observed: Duration,
    samples: u64,
    entries: u64,
    max: Advised,
    timeouts: BTreeMap<Timeout, Advised>,
}

impl Adviser {
    /// Nothing seen yet: everything is right as it was found. `high_water` is the policy's.
    pub fn new(host: &Host, high_water: f64) -> Self {
        let found = |found| Advised { found, advised: found, why: String::new() };
        Self {
            host: host.clone(),
            high_water,
            full: false,
            began: None,
            observed: Duration::ZERO,
            samples: 0,
            entries: 0,
            max: found(host.table.max),
            timeouts: BTreeMap::new(),
        }
    }

    /// Takes in a step of the replay.
    pub fn look(&mut self, step: &Step) {
        let began = *self.began.get_or_insert(step.at);
        self.observed = step.at.saturating_sub(began);
        self.samples += 1;
        self.entries = self.entries.max(step.count);
        self.full |= step.count as f64 >= step.recorded_max as f64 * FULL;
        for change in &step.changes {
            let advised = Advised { found: change.old, advised: change.new, why: change.evidence.clone() };
            match change.setting {
                Setting::Max if change.new > self.max.advised => {
                    self.max = Advised { found: self.max.found, ..advised };
                }
                Setting::Timeout(timeout) if change.new < self.shortest(timeout, change.old) => {
                    let found = self.host.timeouts.get(&timeout).copied().unwrap_or(change.old);
                    self.timeouts.insert(timeout, Advised { found, ..advised });
                }
                _ => {}
            }
        }
    }

    /// Enough for max; never fewer than there are, and a whole page of them.
    fn buckets(&self) -> Advised {
        let found = self.host.table.buckets;
        let wanted = self.max.advised.div_ceil(ENTRIES_PER_BUCKET);
        let wanted = wanted.checked_next_multiple_of(self.host.bucket_step()).unwrap_or(wanted);
        let advised = if wanted > found { wanted } else { found };
        let chain = 2.0 * self.max.advised as f64 / advised.max(1) as f64;
        Advised { found, advised, why: format!("chains of {chain:.1} in a full table") }
    }

    fn shortest(&self, timeout: Timeout, found: u64) -> u64 {
        self.timeouts.get(&timeout).map_or(found, |advised| advised.advised)
    }

    /// The advice.
    pub fn advice(mut self) -> Advice {
        let needed = fitting(self.entries, self.high_water).saturating_mul(SPARE).max(self.max.found);
        if self.max.advised > needed && !self.full {
            self.max.why = format!(
                "twice what {} entries at most need to stay under {} of it",
                grouped(self.entries),
                percent(self.high_water)
            );
            self.max.advised = needed;
        }
        if self.max.found == 0 {
            // As the kernel itself begins: an entry for each bucket.
            self.max.advised = needed.max(self.host.table.buckets);
            self.max.why = format!(
                "0 means no limit before Linux 6.19, so no memory limit can be kept, and is refused from there on; this is \
                 room for twice the {} entries seen at most, and no less than the buckets",
                grouped(self.entries)
            );
        } else if self.max.why.is_empty() {
            let share = self.entries as f64 / self.max.found as f64;
            self.max.why = format!("is enough: {} entries at most are {} of it", grouped(self.entries), percent(share));
        }
        let buckets = self.buckets();
        let memory = table_bytes(self.max.advised, self.host.entry_bytes, buckets.advised);
        Advice {
            observed: self.observed,
            samples: self.samples,
            entries: self.entries,
            max: self.max,
            buckets,
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
    use crate::replay::Replay;

    pub(super) fn host() -> Host {
        let table = TableReading { max: 8_192, buckets: 8_192, count: 0 };
        let timeouts = Timeouts::from([(Timeout::TcpTimeWait, 120)]);
        Host { table, memory_total: 4 << 30, entry_bytes: 384, page_bytes: 4096, timeouts }
    }

    /// Advice for a host whose count climbs to `peak` within 20 s, under a max as recorded.
    fn advice(peak: u64, recorded_max: u64) -> Advice {
        let host = host();
        let mut replay = Replay::new(Policy::default(), &host).unwrap();
        let mut adviser = Adviser::new(&host, 0.8);
        for second in 0..60 {
            let sample = Sample {
                at: Duration::from_secs(second),
                table: TableReading { max: recorded_max, count: (second * peak / 20).min(peak), ..host.table },
                memory: Memory { total: 4 << 30, available: 3 << 30, pressure: None },
                entry_bytes: host.entry_bytes,
                timeouts: host.timeouts.clone(),
                ..Sample::default()
            };
            adviser.look(&replay.step(&sample));
        }
        adviser.advice()
    }

    #[test]
    fn a_table_that_is_enough_keeps_its_max() {
        let advice = advice(400, 8_192);
        assert_eq!((advice.max.advised, advice.samples, advice.entries), (8_192, 60, 400));
        assert_eq!(advice.max.why, "is enough: 400 entries at most are 4.9 % of it");
        assert_eq!((advice.buckets.advised, advice.buckets.why.as_str()), (8_192, "chains of 2.0 in a full table"));
    }

    #[test]
    fn a_table_that_was_full_gets_the_furthest_that_the_policy_went_and_why() {
        let advice = advice(40_000, 8_192);
        assert!(advice.max.advised as f64 * 0.8 >= 40_000.0, "{:?}", advice.max);
        assert_eq!((advice.max.found, advice.buckets.advised), (8_192, advice.max.advised.div_ceil(1_024) * 512));
        assert!(advice.max.why.contains("passes") || advice.max.why.contains("past"), "{}", advice.max.why);
        let expected = advice.max.advised * 384 + advice.buckets.advised * 8;
        assert_eq!(advice.memory, expected);
        assert!(advice.formula().contains(" entries x 384 bytes + "), "{}", advice.formula());
    }

    #[test]
    fn no_limit_is_no_advice_and_is_in_no_file() {
        let mut host = host();
        host.table.max = 0;
        for (count, expected) in [(1_000, 8_192), (40_000, 100_000)] {
            let mut adviser = Adviser::new(&host, 0.8);
            let at = Duration::from_secs(1);
            adviser.look(&Step { at, count, max: 0, recorded_max: 0, changes: Vec::new(), look_within: None });
            let advice = adviser.advice();
            assert_eq!((advice.max.found, advice.max.advised), (0, expected));
            let line = format!("nf_conntrack_max = {expected}\n");
            assert!(advice.file(Emit::Sysctl).contains(&line), "{}", advice.file(Emit::Sysctl));
        }
    }

    #[test]
    fn a_forecast_that_did_not_come_true_is_no_reason_for_good() {
        let advice = advice(40_000, 1 << 20);
        assert_eq!(advice.max.advised, 100_000);
        assert_eq!(advice.max.why, "twice what 40,000 entries at most need to stay under 80 % of it");
    }
}
