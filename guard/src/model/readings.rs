//! What of the next sample is evidence of change, and what is not.

use std::time::Duration;

use super::ends::{Ends, Icmp};
use super::estimate::Doubt;
use crate::observe::{Destroys, Sample, Timeout};

/// Ticks are at most 1 s apart, and so are the tries after a failed reading. After a longer pause nobody knows what was in
/// between: a host that was suspended (CLOCK_BOOTTIME goes on, flows and timeouts do not), or a guard that was held up.
const LATE: Duration = Duration::from_secs(10);
/// No host opens or closes this many flows a second; a difference that says so comes from a counter that was reset or
/// misread, not from traffic.
const ABSURD: f64 = 1e8;

/// Compares each sample with the one before.
#[derive(Clone, Debug, Default)]
pub(super) struct Readings {
    base: Option<Base>,
}

/// What the next sample is compared with.
#[derive(Clone, Debug)]
struct Base {
    at: Duration,
    count: u64,
    /// Inserts and destroys so far; `None` without either hook.
    hooks: Option<(u64, Destroys)>,
    early_drop: u64,
    refused: u64,
}

/// What happened between two samples.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    /// How long it took.
    pub(super) interval: Duration,
    /// By how much the count grew, entries a second.
    pub(super) growth: Option<f64>,
    /// Whether the table evicted entries or refused new ones, as its statistics say.
    pub(super) full: bool,
    /// What the hooks saw; `None` without them, or where their counters are no evidence.
    pub(super) flows: Option<Flow>,
    /// Whether the programs are there at all.
    pub(super) hooked: bool,
}

/// Entries that came and went between two samples.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Flow {
    /// Came.
    pub(super) inserts: f64,
    /// Went, evicted ones among them.
    pub(super) destroys: f64,
    /// Went without a completed handshake, evicted ones among them. Of datagrams the hook does not tell whether they were
    /// answered.
    pub(super) unanswered: f64,
    /// Went because their timeout had run out, as far as that can be told.
    pub(super) ends: Ends,
}

impl Readings {
    /// What happened since the sample before, or `None` where there is no evidence at all; and what is doubtful about it.
    pub(super) fn next(&mut self, sample: &Sample, icmp: Icmp) -> (Option<Step>, Vec<Doubt>) {
        let now = Base::of(sample);
        let Some(base) = self.base.take() else {
            self.base = Some(now);
            return (None, Vec::new());
        };
        if now.at == base.at {
            // The same moment twice tells nothing about time: let the next sample speak for both.
            self.base = Some(base);
            return (None, vec![Doubt::Time]);
        }
        let mut doubts = Vec::new();
        let step = match now.at.checked_sub(base.at) {
            None => {
                doubts.push(Doubt::Time);
                None
            }
            Some(interval) if interval > LATE => {
                doubts.push(Doubt::Late);
                None
            }
            Some(interval) => Some(step(&base, &now, interval, icmp, &mut doubts)),
        };
        self.base = Some(now);
        (step, doubts)
    }
}

impl Base {
    fn of(sample: &Sample) -> Self {
        let hooks = sample.hooks.as_ref();
        Self {
            at: sample.at,
            count: sample.table.count,
            hooks: hooks.and_then(|hooks| hooks.inserts.zip(hooks.destroys.clone())),
            early_drop: sample.stats.totals().map_or(0, |totals| totals.early_drop),
            refused: hooks.and_then(|hooks| hooks.table_full).map_or(0, |full| full.refused),
        }
    }
}

fn step(base: &Base, now: &Base, interval: Duration, icmp: Icmp, doubts: &mut Vec<Doubt>) -> Step {
    let mut doubt = |doubt| {
        if !doubts.contains(&doubt) {
            doubts.push(doubt);
        }
    };
    let difference = now.count as f64 - base.count as f64;
    let growth = plausible(difference, interval).then(|| difference / interval.as_secs_f64());
    if growth.is_none() {
        doubt(Doubt::Jump);
    }
    let evicted = now.early_drop.checked_sub(base.early_drop).unwrap_or_else(|| {
        doubt(Doubt::Backwards);
        0
    });
    let full = evicted > 0 || now.refused > base.refused;
    let flows = match (&base.hooks, &now.hooks) {
        (Some(before), Some(after)) => flow(before, after, evicted, icmp).and_then(|flow| {
            let plausible = plausible(flow.inserts, interval) && plausible(flow.destroys, interval);
            plausible.then_some(flow).ok_or(Doubt::Jump)
        }),
        (Some(_), None) => Err(Doubt::Missing),
        // Not there, or only from now on.
        (None, _) => return Step { interval, growth, full, flows: None, hooked: now.hooks.is_some() },
    };
    let flows = flows.map_err(doubt).ok();
    Step { interval, growth, full, flows, hooked: now.hooks.is_some() }
}

fn flow(before: &(u64, Destroys), after: &(u64, Destroys), evicted: u64, icmp: Icmp) -> Result<Flow, Doubt> {
    let inserts = after.0.checked_sub(before.0).ok_or(Doubt::Backwards)?;
    let destroys = after.1.all().checked_sub(before.1.all()).ok_or(Doubt::Backwards)?;
    let ends = Ends::between(&before.1, &after.1, icmp).ok_or(Doubt::Backwards)?;
    let unanswered = ends.of(Timeout::TcpSynSent) + ends.of(Timeout::TcpSynRecv);
    let ends = ends.less_evicted(evicted as f64);
    Ok(Flow { inserts: inserts as f64, destroys: destroys as f64, unanswered, ends })
}

fn plausible(difference: f64, interval: Duration) -> bool {
    (difference / interval.as_secs_f64()).abs() <= ABSURD
}
