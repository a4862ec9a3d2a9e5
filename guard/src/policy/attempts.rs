//! What was asked for before, so that a write that does not take is not repeated at every tick.

use std::time::Duration;

use super::plan::{Change, Held};
use super::verdict::Verdict;
use crate::config::Mode;

/// The first wait after a write that did not take; doubles from try to try.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Refusals can end (a sysctl made writable, another program stopped), so the tries never do.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// After this, a change that took is done and forgotten. Longer than the longest wait, or a fight would begin anew
/// after each.
const FORGOTTEN: Duration = Duration::from_mins(2);
/// So often is a change that another program undid made again at once: flows may be dropped meanwhile, and most such
/// programs write only when they start. From then on it waits like one that does not take.
const PROMPT: u32 = 3;

/// The last change asked for on one setting, kept until it is [`FORGOTTEN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    at: Duration,
    old: u64,
    new: u64,
    tries: u32,
    /// Whether its value, or that of an earlier try, has been read since: the setting can be written, so if it reads
    /// lower, another program undid the change.
    took: bool,
}

/// Lets the change of a verdict through or holds it back. `current` is the setting's value as read now. `failure`
/// is why its last write failed, if it did. Answers with what to remember.
pub(super) fn admit(
    last: Option<Attempt>,
    current: u64,
    now: Duration,
    mode: Mode,
    failure: Option<&str>,
    verdict: Verdict,
) -> (Option<Attempt>, Verdict) {
    let last = last.and_then(|attempt| attempt.at_value(current, now, mode));
    let Some(change) = verdict.change.as_ref() else {
        return (last, verdict);
    };
    let fresh = Attempt { at: now, old: change.old, new: change.new, tries: 1, took: false };
    let Some(attempt) = last else {
        return (Some(fresh), verdict);
    };
    let again = |tries| Some(Attempt { tries, took: attempt.took, ..fresh });
    match mode {
        // The advice stands as given; only a larger one is news.
        Mode::Advise | Mode::Off if change.new <= attempt.new => (last, Verdict { change: None, ..verdict }),
        Mode::Advise | Mode::Off => (Some(fresh), verdict),
        // The next step after one that took. What was undone before is not forgotten over it.
        Mode::Enforce if current >= attempt.new => (again(attempt.tries), verdict),
        Mode::Enforce if attempt.waits_at(now) => {
            let held = Some(attempt.held(change, failure));
            (last, Verdict { change: None, held, blocked: true, ..verdict })
        }
        Mode::Enforce => (again(attempt.tries.saturating_add(1)), verdict),
    }
}

impl Attempt {
    /// What is left to remember of it at this value.
    fn at_value(self, current: u64, now: Duration, mode: Mode) -> Option<Self> {
        match mode {
            // Whatever stands now, somebody else set it: a new matter.
            Mode::Advise | Mode::Off => (current == self.old).then_some(self),
            Mode::Enforce => {
                let attempt = Self { took: self.took || current >= self.new, ..self };
                // A clock that went back must not keep it for ever.
                let recent = now.checked_sub(self.at).is_some_and(|since| since < FORGOTTEN);
                (recent || !attempt.took && current == self.old).then_some(attempt)
            }
        }
    }

    fn waits_at(&self, now: Duration) -> bool {
        let waits_since = if self.took { PROMPT + 1 } else { 1 };
        let Some(doublings) = self.tries.checked_sub(waits_since) else { return false };
        let wait = FIRST_WAIT.saturating_mul(1 << doublings.min(16)).min(LONGEST_WAIT);
        // A clock that went back must not hold the guard for ever.
        now.checked_sub(self.at).is_some_and(|since| since < wait)
    }

    fn held(&self, change: &Change, failure: Option<&str>) -> Held {
        let reason = if let Some(failure) = failure {
            format!("{failure}. It is tried again, at most 60 s apart")
        } else if self.took {
            "another program sets it back again and again; it is changed again, at most 60 s apart. Find that program \
             (kube-proxy, tuned, a cron job's sysctl) and let it leave this setting alone"
                .to_owned()
        } else {
            "the last write did not take; it is tried again, at most 60 s apart. See the log for the write's error, or \
             for another program that writes this setting"
                .to_owned()
        };
        Held { setting: change.setting, rule: change.rule, reason }
    }
}
