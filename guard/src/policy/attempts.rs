//! What was asked for before, so that a write that does not take is not repeated at every tick.

use std::collections::BTreeMap;
use std::time::Duration;

use super::plan::{Change, Held, Setting};
use super::situation::in_force;
use super::verdict::Verdict;
use crate::config::Mode;
use crate::model::Estimate;

/// The first wait after a write that did not take; doubles from try to try.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Refusals can end (a sysctl made writable, a cgroup's program gone) and nothing tells of it, so the tries never end:
/// ten of them in the first quarter of an hour, and then one every ten minutes.
const LONGEST_WAIT: Duration = Duration::from_mins(10);
/// The longest wait where another program undoes what took: each time it does, the table is as small as it was.
const LONGEST_IN_FIGHT: Duration = Duration::from_mins(1);
/// After this, a change that took is done and forgotten. Longer than the longest wait in a fight, or the fight would
/// begin anew after each.
const FORGOTTEN: Duration = Duration::from_mins(2);
/// So often is a change that another program undid made again at once: flows may be dropped meanwhile, and most such
/// programs write only when they start. From then on it waits like one that does not take.
const PROMPT: u32 = 3;

/// The last change asked for on each setting, kept until it is [`FORGOTTEN`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attempts(BTreeMap<Setting, Attempt>);

/// The last change asked for on one setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Attempt {
    at: Duration,
    old: u64,
    new: u64,
    tries: u32,
    /// Whether its value, or that of an earlier try, has been read since: the setting can be written, so if it reads
    /// otherwise, another program undid the change.
    took: bool,
}

impl Attempts {
    /// Looks at what became of them.
    pub(super) fn look(&mut self, estimate: &Estimate, mode: Mode) {
        self.0.retain(|setting, attempt| {
            let kept = in_force(estimate, *setting).and_then(|current| attempt.at_value(current, estimate.at, mode));
            kept.is_some_and(|kept| {
                *attempt = kept;
                true
            })
        });
    }

    /// The kernel had the last value: if it reads otherwise, another program undid it.
    pub(super) fn took(&mut self, setting: Setting) {
        if let Some(attempt) = self.0.get_mut(&setting) {
            attempt.took = true;
        }
    }

    /// Whether a change of this setting would be held back now because the last one did not take.
    pub(super) fn waits(&self, setting: Setting, estimate: &Estimate, mode: Mode) -> bool {
        let current = in_force(estimate, setting);
        mode == Mode::Enforce
            && self.0.get(&setting).is_some_and(|attempt| {
                current.is_some_and(|current| !attempt.reached(current)) && attempt.waits_at(estimate.at)
            })
    }

    /// Lets the change of a verdict through, and remembers it, or holds it back. `failure`: why the setting's last write
    /// failed, if it did.
    pub(super) fn admit(
        &mut self,
        estimate: &Estimate,
        mode: Mode,
        failure: Option<&str>,
        verdict: Verdict,
    ) -> Verdict {
        let Some(change) = verdict.change.as_ref() else { return verdict };
        let last = self.0.get(&change.setting);
        let fresh = Attempt { at: estimate.at, old: change.old, new: change.new, tries: 1, took: false };
        let again = |last: &Attempt, tries| Attempt { tries, took: last.took, ..fresh };
        let next = match (last, mode) {
            // The advice stands as given; only one that goes further by an eighth is news, or it would follow each flow.
            (Some(last), Mode::Advise | Mode::Off) if last.is_as_far(change) => {
                return Verdict { change: None, ..verdict };
            }
            (None, _) | (Some(_), Mode::Advise | Mode::Off) => fresh,
            // The next step after one that took. What was undone before is not forgotten over it.
            (Some(last), Mode::Enforce) if last.reached(change.old) => again(last, last.tries),
            (Some(last), Mode::Enforce) if last.waits_at(estimate.at) => {
                let held = Some(last.held(change, failure));
                return Verdict { change: None, held, blocked: true, ..verdict };
            }
            (Some(last), Mode::Enforce) => again(last, last.tries.saturating_add(1)),
        };
        self.0.insert(change.setting, next);
        verdict
    }
}

impl Attempt {
    /// What is left to remember of it at this value.
    fn at_value(self, current: u64, now: Duration, mode: Mode) -> Option<Self> {
        match mode {
            // Whatever stands now, somebody else set it: a new matter.
            Mode::Advise | Mode::Off => (current == self.old).then_some(self),
            Mode::Enforce => {
                let attempt = Self { took: self.took || self.reached(current), ..self };
                // A clock that went back must not keep it for ever.
                let recent = now.checked_sub(self.at).is_some_and(|since| since < FORGOTTEN);
                (recent || !attempt.took && current == self.old).then_some(attempt)
            }
        }
    }

    /// Whether the setting is where it was to go, or further: the kernel rounds buckets up.
    fn reached(&self, current: u64) -> bool {
        if self.new > self.old { current >= self.new } else { current <= self.new }
    }

    /// Whether it went nearly as far as this change would, in the same direction.
    fn is_as_far(&self, change: &Change) -> bool {
        let (raises, near) = (change.new > change.old, self.new / 8);
        let as_far = if raises { change.new <= self.new.saturating_add(near) } else { change.new >= self.new - near };
        (self.new > self.old) == raises && as_far
    }

    fn waits_at(&self, now: Duration) -> bool {
        let (waits_since, longest) = if self.took { (PROMPT + 1, LONGEST_IN_FIGHT) } else { (1, LONGEST_WAIT) };
        let Some(doublings) = self.tries.checked_sub(waits_since) else { return false };
        let wait = FIRST_WAIT.saturating_mul(1 << doublings.min(16)).min(longest);
        // A clock that went back must not hold the guard for ever.
        now.checked_sub(self.at).is_some_and(|since| since < wait)
    }

    fn held(&self, change: &Change, failure: Option<&str>) -> Held {
        let reason = if let Some(failure) = failure {
            format!("{failure}. It is tried again, at most 10 min apart")
        } else if self.took {
            "another program sets it back again and again; it is changed again, at most 60 s apart. Find that program \
             (kube-proxy, tuned, a cron job's sysctl) and let it leave this setting alone"
                .to_owned()
        } else {
            "the last write did not take; it is tried again, at most 10 min apart. See the log for the write's error, or \
             for another program that writes this setting"
                .to_owned()
        };
        Held { setting: change.setting, rule: change.rule, reason }
    }
}
