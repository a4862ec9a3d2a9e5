//! The whole decision of one tick.

use std::collections::BTreeMap;
use std::time::Duration;

use super::attempts::Attempts;
use super::buckets::grow_buckets;
use super::calm::Calm;
use super::flood::{FloodSeen, SurgeSeen};
use super::foreseen::Foreseen;
use super::harm::fills_before_a_cut_pays;
use super::limits::Limits;
use super::memory::MemoryNow;
use super::obstacle::Obstacle;
use super::ours::Ours;
use super::pause::Pauses;
use super::phase::{Rest, Standing};
use super::piling::Piling;
use super::plan::{Held, Plan, Rule, Setting};
use super::pressure::{Level, Pressure};
use super::raise::raise_max;
use super::refusals::Refusals;
use super::relax::{needed_elsewhere, step_back, waits_for_room};
use super::settle::Predictions;
use super::shorten::{Want, shorten_timeouts};
use super::situation::Situation;
use super::sizing::Sizing;
use super::verdict::Verdict;
use crate::config::{Mode, Policy};
use crate::model::{Doubt, Estimate};
use crate::observe::Timeout;

/// What the policy remembers from tick to tick.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    standing: Standing,
    attempts: Attempts,
    ours: Ours,
    calm: Calm,
    predictions: Predictions,
    refusals: Refusals,
    flood: Option<FloodSeen>,
    surge: Option<SurgeSeen>,
    foreseen: Foreseen,
    piling: Piling,
    /// Whether tasks waited for memory at the tick before.
    memory_short: bool,
    /// Whether something kept max from rising at the tick before.
    limited: bool,
    /// When timeouts were last shortened, and when each of them shows in full.
    shortened: Option<Duration>,
    shows: BTreeMap<Timeout, Duration>,
    /// What more shorter timeouts would take, told until max is free again.
    missing: Vec<Held>,
    /// The buckets at the tick before, and when they last changed.
    buckets: Option<u64>,
    resized: Option<Duration>,
    pauses: Pauses,
    /// Why the last write of a setting failed.
    failures: BTreeMap<Setting, String>,
}

impl State {
    /// The same, with these settings paused from now on.
    #[must_use]
    pub fn paused(self, pauses: Pauses) -> Self {
        Self { pauses, ..self }
    }

    /// Takes in what became of a change: why it failed, with the file and the way out and no figure that moves from try to
    /// try; `None` where the kernel has it.
    pub fn told(&mut self, setting: Setting, failure: Option<String>) {
        if let Some(failure) = failure {
            self.failures.insert(setting, failure);
        } else {
            self.failures.remove(&setting);
            self.attempts.took(setting);
        }
    }
}

/// What is to change now, and why.
///
/// In an emergency a raise of max is the whole plan: it waits for nothing. Else max comes first, then timeouts, then
/// buckets. A change that did not take (the old value is read again) is asked for again after 1 s, 2 s, 4 s … 10 min, and
/// held in between; so is one that another program undoes again and again, after a few prompt repeats and at most 1 min
/// apart. In `advise` mode, where nothing is carried out, the same advice is not given twice. In `off` mode nothing is
/// decided.
pub fn decide(state: &State, estimate: &Estimate, policy: &Policy, limits: &Limits) -> (State, Plan) {
    let mut state = state.clone();
    let mut plan = Plan { at: estimate.at, standing: state.standing, ..Plan::default() };

    // What came of earlier plans, and what others did.
    let strangers = state.ours.look(estimate, limits);
    plan.settled = state.predictions.settle(estimate, &strangers);
    state.attempts.look(estimate, policy.mode);
    state.look_at_buckets(estimate);
    if policy.mode == Mode::Off {
        return (state, plan);
    }

    // How things stand.
    state.refusals = state.refusals.next(estimate);
    state.flood = FloodSeen::next(state.flood, estimate, &policy.flood);
    state.surge = SurgeSeen::next(state.surge, estimate, &policy.flood);
    let memory = MemoryNow::new(estimate, state.memory_short);
    state.memory_short = memory.short;
    let sizing = Sizing::new(limits, &estimate.table, estimate.entry_bytes);
    let (flood, surge) = (state.flood, state.surge.map(SurgeSeen::highest));
    let for_flood = flood.map(|seen| (seen.highest(estimate, policy, limits), seen));
    let (highest, obstacle) = Obstacle::bound(estimate.table.max, for_flood, &memory, &sizing);
    let highest = highest.max(estimate.table.max);
    let (sizing, memory) = (&sizing, &memory);
    let sound = !estimate.doubts.contains(&Doubt::Late);
    state.piling.look(estimate, sound, state.refusals.lately);
    let piling = state.piling.a_second();
    let situation = Situation { estimate, policy, limits, sizing, memory, flood, highest, obstacle, surge, piling };
    state.foreseen = state.foreseen.look(&situation);
    let short = state.foreseen.is_short(&situation) || fills_before_a_cut_pays(&situation);
    let pressure = Pressure::new(estimate, policy, &state.refusals).foreseen(short);
    let pressed = pressure.level != Level::None || flood.is_some() || state.refusals.lately;
    state.calm.look(estimate.at, pressed, sound);

    // What follows.
    let room = state.raise(&situation, &pressure, &mut plan);
    let alone = pressure.level == Level::Now && !plan.changes.is_empty();
    if !alone {
        state.shorten(&situation, &pressure, &room, &mut plan);
    }
    let rest = if pressed {
        Rest { outstanding: !state.ours.to_take_back(limits).is_empty(), lasted: false }
    } else {
        state.relax(&situation, &mut plan)
    };
    if !alone {
        let verdict = grow_buckets(&situation, room.max, state.resized);
        state.propose(&situation, verdict, None, &mut plan);
    }
    state.standing = state.standing.next(state.standing.phase.next(&pressure, rest), estimate.at);
    plan.standing = state.standing;
    (state, plan)
}

/// What the raise of max came to.
struct Room {
    /// max after this plan; in `advise` mode as it would be.
    max: u64,
    /// What keeps it from being higher, in a few words.
    held_by: Option<&'static str>,
}

impl State {
    fn raise(&mut self, situation: &Situation<'_>, pressure: &Pressure, plan: &mut Plan) -> Room {
        let verdict = raise_max(situation, pressure, self.limited);
        self.limited = verdict.limited.is_some();
        // What it is held by is known in a moment: nothing else is done for it.
        let held_by = verdict.limited.filter(|obstacle| *obstacle != Obstacle::Surge).map(Obstacle::words);
        let now = situation.estimate.table.max;
        let wanted = verdict.change.as_ref().map(|change| change.new);
        let raised = self.propose(situation, verdict, None, plan);
        plan.max_blocked = raised.blocked || wanted.is_some() && situation.policy.mode != Mode::Enforce;
        match wanted {
            Some(_) if raised.blocked => Room { max: now, held_by: Some("a pause, or a write that does not take") },
            // Advice that was given stands.
            Some(new) => Room { max: new, held_by },
            None => Room { max: now, held_by },
        }
    }

    fn shorten(&mut self, situation: &Situation<'_>, pressure: &Pressure, room: &Room, plan: &mut Plan) {
        let &Situation { estimate, policy, .. } = situation;
        let (max, held_by) = match (room.held_by, pressure.level) {
            (Some(held_by), _) => (room.max, held_by),
            // It may rise, and that will not be enough.
            (None, Level::Foreseen) => (situation.highest, situation.obstacle.words()),
            (None, _) => {
                self.missing.clear();
                return;
            }
        };
        // What the last round brings is to be seen in the forecast first.
        let failed = |timeout: &Timeout| self.attempts.waits(Setting::Timeout(*timeout), estimate, policy.mode);
        if self.shows.extract_if(.., |timeout, _| failed(timeout)).count() > 0 {
            self.shortened = None;
        }
        self.shows.retain(|_, shows| *shows > estimate.at);
        let soon = self.shortened.and_then(|then| estimate.at.checked_sub(then));
        let paused = soon.is_some_and(|since| since < policy.table.horizon);
        if pressure.level != Level::None && !paused {
            let waits = |setting| self.attempts.waits(setting, estimate, policy.mode);
            let showing =
                self.shows.iter().map(|(timeout, shows)| (*timeout, shows.saturating_sub(estimate.at))).collect();
            let want = Want {
                held_by,
                max,
                gain: self.predictions.shorten,
                waits: &waits,
                refused: self.refusals.lately,
                showing: &showing,
            };
            let mut shortened = shorten_timeouts(situation, &want);
            if !pressure.is_on() {
                // What is foreseen may not come: nobody is told that it is too much.
                shortened.held.clear();
            }
            if !shortened.changes.is_empty() || !shortened.held.is_empty() {
                self.missing = shortened.held;
            }
            for (cut, change, without) in shortened.changes {
                let verdict = Verdict { change: Some(change), ..Verdict::default() };
                if self.propose(situation, verdict, Some(without), plan).made {
                    self.shortened = Some(estimate.at);
                    self.shows.insert(cut.timeout, estimate.at.saturating_add(cut.after));
                }
            }
        }
        plan.held.extend(self.missing.iter().cloned());
    }

    fn relax(&mut self, situation: &Situation<'_>, plan: &mut Plan) -> Rest {
        let &Situation { estimate, policy, limits, .. } = situation;
        let now = estimate.at;
        let elsewhere = self.refusals.elsewhere;
        let all = self.ours.to_take_back(limits);
        let mut free = all.iter().filter(|own| !self.attempts.waits(own.setting, estimate, policy.mode));
        let Some(step) = free.find_map(|own| step_back(situation, own, self.predictions.relax, elsewhere)) else {
            self.calm.all_back(now, policy);
            if let Some(max) = elsewhere.filter(|_| all.iter().any(|own| own.setting == Setting::Max)) {
                plan.held.push(Held { setting: Setting::Max, rule: Rule::RelaxMax, reason: needed_elsewhere(max) });
            }
            return Rest { outstanding: false, lasted: false };
        };
        if !step.fits {
            self.calm.does_not_fit(now);
        }
        let lasted = self.calm.has_room(now, policy);
        if lasted && self.calm.has_shown(now) {
            let shows = step.shows;
            let verdict = Verdict { change: Some(step.change), ..Verdict::default() };
            if self.propose(situation, verdict, Some(step.without), plan).made {
                self.calm.stepped(now, shows, policy);
            }
        } else if !lasted && self.calm.has_lasted(now, policy) {
            let (setting, rule) = (step.change.setting, step.change.rule);
            plan.held.push(Held { setting, rule, reason: waits_for_room(situation) });
        }
        Rest { outstanding: true, lasted }
    }

    /// Puts what a rule answers into the plan, unless it is paused or a write of it just did not take. `without`: the count
    /// expected without the change, where it is made for its effect on the count.
    fn propose(
        &mut self,
        situation: &Situation<'_>,
        verdict: Verdict,
        without: Option<u64>,
        plan: &mut Plan,
    ) -> Proposed {
        let &Situation { estimate, policy, .. } = situation;
        let verdict = self.pauses.hold(verdict, estimate.at);
        let failure = verdict.change.as_ref().and_then(|change| self.failures.get(&change.setting));
        let verdict = self.attempts.admit(estimate, policy.mode, failure.map(String::as_str), verdict);
        let made = verdict.change.is_some();
        if let Some(change) = &verdict.change
            && policy.mode == Mode::Enforce
        {
            self.ours.changed(change);
            let effect = |after| situation.effect(change, after);
            self.predictions.expect(change, without.unwrap_or(0), estimate.at, effect);
            if matches!(change.rule, Rule::RaiseMax | Rule::ShortenTimeout) {
                self.calm.undone(estimate.at, policy);
            }
        }
        plan.changes.extend(verdict.change);
        plan.held.extend(verdict.held);
        Proposed { made, blocked: verdict.blocked }
    }

    fn look_at_buckets(&mut self, estimate: &Estimate) {
        let buckets = estimate.table.buckets;
        if self.buckets.is_some_and(|before| before != buckets) {
            self.resized = Some(estimate.at);
        }
        self.buckets = Some(buckets);
    }
}

/// What became of what a rule asked for.
struct Proposed {
    made: bool,
    blocked: bool,
}
