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
    /// Inserts and destroys so far; `None` without their hook.
    inserts: Option<u64>,
    destroys: Option<Destroys>,
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
    /// Entries that came; `None` without the insert hook, or where its counter is no evidence.
    pub(super) inserts: Option<f64>,
    /// Whether that hook is there at all.
    pub(super) counts_inserts: bool,
    /// What came and went; `None` without either hook, or where their counters are no evidence.
    pub(super) flows: Option<Flow>,
    /// Whether both are there.
    pub(super) counts_flows: bool,
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
    /// New flows refused because the table was full.
    pub(super) refused: f64,
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
            inserts: hooks.and_then(|hooks| hooks.inserts),
            destroys: hooks.and_then(|hooks| hooks.destroys.clone()),
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
    let inserts = counted(base.inserts.as_ref(), now.inserts.as_ref(), |before, after| {
        let inserts = after.checked_sub(*before).ok_or(Doubt::Backwards)? as f64;
        plausible(inserts, interval).then_some(inserts).ok_or(Doubt::Jump)
    });
    let destroys = counted(base.destroys.as_ref(), now.destroys.as_ref(), |before, after| {
        let (destroys, ends) = went(before, after, icmp).ok_or(Doubt::Backwards)?;
        plausible(destroys, interval).then_some((destroys, ends)).ok_or(Doubt::Jump)
    });
    let inserts = inserts.map_err(&mut doubt).ok().flatten();
    let destroys = destroys.map_err(&mut doubt).ok().flatten();
    let flows = inserts.zip(destroys).map(|(inserts, (destroys, ends))| Flow {
        inserts,
        destroys,
        unanswered: ends.of(Timeout::TcpSynSent) + ends.of(Timeout::TcpSynRecv),
        ends: ends.less_evicted(evicted as f64),
        refused: now.refused.saturating_sub(base.refused) as f64,
    });
    let counts_inserts = now.inserts.is_some();
    Step {
        interval,
        growth,
        full,
        inserts,
        counts_inserts,
        flows,
        counts_flows: counts_inserts && now.destroys.is_some(),
    }
}

/// What the two readings of a counter tell: nothing where it is not there, or only from now on.
fn counted<C, T>(
    before: Option<&C>,
    after: Option<&C>,
    tell: impl FnOnce(&C, &C) -> Result<T, Doubt>,
) -> Result<Option<T>, Doubt> {
    match (before, after) {
        (Some(before), Some(after)) => tell(before, after).map(Some),
        (Some(_), None) => Err(Doubt::Missing),
        (None, _) => Ok(None),
    }
}

/// Entries that went, and how; `None` where a counter went backwards.
fn went(before: &Destroys, after: &Destroys, icmp: Icmp) -> Option<(f64, Ends)> {
    let destroys = after.all().checked_sub(before.all())?;
    Some((destroys as f64, Ends::between(before, after, icmp)?))
}

fn plausible(difference: f64, interval: Duration) -> bool {
    (difference / interval.as_secs_f64()).abs() <= ABSURD
}
