//! Keeps what the assessment needs from tick to tick, and logs a phase and a settled prediction when they come.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use tracing::info;

use super::assessment::{
    Assessment, CensusNow, ChangedNow, DoubtNow, PredictionsNow, RuleError, SettledNow, StandingNow, StateNow,
};
use super::figures_of::millis;
use crate::actuate::{Effect, Outcome};
use crate::figures::{grouped, percent, time};
use crate::model::{Doubt, Estimate};
use crate::observe::{Sample, Timeout};
use crate::policy::{Expected, Limits, Phase, Plan, Range, Rule, Setting, Settled, Standing};

/// Settled predictions kept for the status.
const SETTLED: usize = 16;
/// Errors of one rule that its median is of.
const ERRORS: usize = 256;
/// Doubts are told for so long.
const DOUBTED: Duration = Duration::from_mins(1);
/// And so many of them at most: those of a minute at the fastest tick.
const DOUBTS: usize = 1_200;

/// What was seen so far.
#[derive(Debug)]
pub(super) struct Assessor {
    /// Where calm leads back to, and how far each may go.
    found_max: u64,
    max: Range,
    buckets: Range,
    /// As they were before an earlier guard.
    buckets_before: Option<u64>,
    timeouts: BTreeMap<Timeout, Range>,
    /// What this guard has set.
    set: HashMap<Setting, Set>,
    phase: Phase,
    /// The first reading: the first phase began then.
    started: Duration,
    settled: u64,
    last: VecDeque<SettledNow>,
    errors: Vec<Errors>,
    doubts: VecDeque<(Duration, Doubt)>,
}

/// A setting that this guard has set.
#[derive(Debug)]
struct Set {
    /// What it was before the guard's first change.
    original: u64,
    /// What another program had set meanwhile, before the guard changed it again: that is what it goes back to.
    theirs: Option<u64>,
    /// What it was set to last.
    to: u64,
    rule: Rule,
    evidence: String,
    /// The value of another program's that was told.
    taken: Option<u64>,
}

/// How far off one rule's predictions were.
#[derive(Debug)]
struct Errors {
    rule: Rule,
    settled: u64,
    last: VecDeque<f64>,
}

impl Set {
    /// Tells once where that is not what the guard set.
    fn found_as(&mut self, setting: Setting, now: u64) {
        let taken = (now != self.to).then_some(now);
        if taken.is_some() && taken != self.taken {
            info!(from = self.to, to = now, "another program set {}", setting.sysctl());
        }
        self.taken = taken;
    }
}

impl Assessor {
    pub(super) fn new(limits: &Limits, buckets_before: Option<u64>, started: Duration) -> Self {
        Self {
            found_max: limits.found_max,
            max: limits.max,
            buckets: limits.buckets,
            buckets_before,
            timeouts: limits.timeouts.clone(),
            set: HashMap::new(),
            phase: Phase::default(),
            started,
            settled: 0,
            last: VecDeque::new(),
            errors: Vec::new(),
            doubts: VecDeque::new(),
        }
    }

    /// Takes the limits of a policy that was loaded anew.
    pub(super) fn adopt(&mut self, limits: &Limits) {
        (self.found_max, self.max, self.buckets) = (limits.found_max, limits.max, limits.buckets);
        self.timeouts.clone_from(&limits.timeouts);
    }

    /// What a tick makes of its readings.
    pub(super) fn tick(
        &mut self,
        sample: &Sample,
        estimate: &Estimate,
        plan: &Plan,
        outcomes: &[Outcome],
    ) -> Assessment {
        self.stand(plan.standing.phase);
        for settled in &plan.settled {
            self.settle(settled, sample.at);
        }
        for outcome in outcomes {
            self.wrote(outcome);
        }
        self.others(sample, outcomes);
        self.doubt(sample.at, &estimate.doubts);
        let Standing { phase, since } = plan.standing;
        Assessment {
            standing: StandingNow { phase, since_ms: millis(since.max(self.started)) },
            load: estimate.load,
            states: states(estimate),
            memory: sample.memory,
            census: sample.census.as_ref().map(|census| CensusNow {
                at_ms: millis(census.at),
                entries: census.entries,
                whole: census.whole,
            }),
            changed: self.changed(sample, outcomes),
            predictions: self.predictions(),
            doubts: self.doubts(),
        }
    }

    fn stand(&mut self, phase: Phase) {
        if phase != self.phase {
            info!(from = self.phase.name(), "phase: {}", phase.name());
            self.phase = phase;
        }
    }

    fn settle(&mut self, settled: &Settled, now: Duration) {
        let &Settled { setting, old, new, rule, decided, expected, real, error } = settled;
        let told = |value: u64| match expected.of {
            Expected::Count => format!("{} entries", grouped(value)),
            Expected::Stall => format!("a stall of {}", time(Duration::from_micros(value))),
        };
        info!(
            rule = rule.name(),
            expected = told(expected.value),
            came = told(real),
            error = percent(error),
            "what came of {} {} -> {}",
            setting.sysctl(),
            old,
            new
        );
        self.settled += 1;
        if self.last.len() >= SETTLED {
            self.last.pop_front();
        }
        self.last.push_back(SettledNow {
            at_ms: millis(now),
            decided_ms: millis(decided),
            setting,
            old,
            new,
            rule,
            of: expected.of,
            expected: expected.value,
            real,
            error,
        });
        if !self.errors.iter().any(|of| of.rule == rule) {
            self.errors.push(Errors { rule, settled: 0, last: VecDeque::new() });
        }
        for of in self.errors.iter_mut().filter(|of| of.rule == rule) {
            of.settled += 1;
            if of.last.len() >= ERRORS {
                of.last.pop_front();
            }
            of.last.push_back(error);
        }
    }

    fn wrote(&mut self, Outcome { change, result }: &Outcome) {
        let Effect::Applied { read_back, .. } = *result else { return };
        let before = self.set.get_mut(&change.setting).map(|set| {
            set.found_as(change.setting, change.old);
            (set.original, if set.taken.is_some() { Some(change.old) } else { set.theirs })
        });
        let (original, theirs) = before.unwrap_or((change.old, None));
        let evidence = change.evidence.clone();
        let set = Set { original, theirs, to: read_back, rule: change.rule, evidence, taken: None };
        self.set.insert(change.setting, set);
    }

    /// Tells of each value that somebody else has set where this guard had set one.
    fn others(&mut self, sample: &Sample, outcomes: &[Outcome]) {
        for (setting, set) in &mut self.set {
            // The hook on resizes tells who it was.
            let told_elsewhere = *setting == Setting::Buckets && sample.hooks.is_some();
            let now = in_force(*setting, sample, outcomes).filter(|_| !told_elsewhere);
            if let Some(now) = now {
                set.found_as(*setting, now);
            }
        }
    }

    fn doubt(&mut self, now: Duration, doubts: &[Doubt]) {
        self.doubts.extend(doubts.iter().map(|doubt| (now, *doubt)));
        self.doubts.retain(|(at, _)| at.saturating_add(DOUBTED) > now && *at <= now);
        let many = self.doubts.len().saturating_sub(DOUBTS);
        self.doubts.drain(..many);
    }

    fn doubts(&self) -> Vec<DoubtNow> {
        let mut told: Vec<DoubtNow> = Vec::new();
        for &(at, doubt) in &self.doubts {
            let last_ms = millis(at);
            match told.iter_mut().find(|known| known.doubt == doubt) {
                Some(known) => (known.times, known.last_ms) = (known.times + 1, last_ms),
                None => told.push(DoubtNow { doubt, times: 1, last_ms }),
            }
        }
        told
    }

    fn predictions(&self) -> PredictionsNow {
        let by_rule = self.errors.iter().map(|of| RuleError {
            rule: of.rule,
            settled: of.settled,
            median_error: median(&of.last),
        });
        PredictionsNow { settled: self.settled, last: self.last.iter().cloned().collect(), by_rule: by_rule.collect() }
    }

    fn changed(&self, sample: &Sample, outcomes: &[Outcome]) -> Vec<ChangedNow> {
        let by_this_guard = || self.set.get(&Setting::Buckets).map(|set| set.original);
        let buckets = self.buckets_before.or_else(by_this_guard);
        let table =
            [(Setting::Max, Some(self.found_max), self.max.floor), (Setting::Buckets, buckets, self.buckets.floor)];
        let timeouts = self.timeouts.iter();
        let timeouts = timeouts.map(|(timeout, range)| (Setting::Timeout(*timeout), Some(range.ceiling), range.floor));
        let all = table.into_iter().chain(timeouts).filter_map(|(setting, original, floor)| {
            let now = in_force(setting, sample, outcomes)?;
            let set = self.set.get(&setting).filter(|set| set.to == now);
            let original = set.and_then(|set| set.theirs).or(original)?;
            let (rule, evidence) = set.map(|set| (set.rule, set.evidence.clone())).unzip();
            (now != original).then_some(ChangedNow { setting, original, now, floor, rule, evidence })
        });
        all.collect()
    }
}

/// What the tick read, but for what it wrote since; `None` for a timeout that this kernel has not.
fn in_force(setting: Setting, sample: &Sample, outcomes: &[Outcome]) -> Option<u64> {
    let read = match setting {
        Setting::Max => sample.table.max,
        Setting::Buckets => sample.table.buckets,
        Setting::Timeout(timeout) => *sample.timeouts.get(&timeout)?,
    };
    let written = outcomes.iter().rfind(|outcome| outcome.change.setting == setting);
    Some(written.map_or(read, |outcome| match outcome.result {
        Effect::Applied { read_back, .. } | Effect::NoEffect { read_back, .. } => read_back,
        Effect::Refused { .. } | Effect::Advised => read,
    }))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates: a count of entries")]
fn states(estimate: &Estimate) -> Vec<StateNow> {
    let mut states: Vec<StateNow> = estimate
        .states
        .iter()
        .map(|(timeout, state)| StateNow {
            timeout: *timeout,
            entries: state.entries.round() as u64,
            ends_per_s: state.ends,
            unreplied: state.unreplied,
        })
        .filter(|state| state.entries > 0 || state.ends_per_s > 0.0)
        .collect();
    states.sort_by_key(|state| std::cmp::Reverse(state.entries));
    states
}

/// The upper one of two.
fn median(errors: &VecDeque<f64>) -> f64 {
    let mut sorted: Vec<f64> = errors.iter().copied().collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests;
