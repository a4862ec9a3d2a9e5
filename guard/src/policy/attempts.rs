//! What was asked for before, so that a write that does not take is not repeated at every tick.

use std::time::Duration;

use super::plan::{Change, Held};
use super::verdict::Verdict;
use crate::config::Mode;

/// The first wait after a write that did not take; doubles from try to try.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Refusals can end (a sysctl made writable, another program stopped), so the tries never do.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// The last change asked for on one setting, kept while the setting still shows the old value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    at: Duration,
    old: u64,
    new: u64,
    tries: u32,
}

/// Lets the change of a verdict through or holds it back. `current` is the setting's value as read now. Answers with what
/// to remember.
pub(super) fn admit(
    last: Option<Attempt>,
    current: u64,
    now: Duration,
    mode: Mode,
    verdict: Verdict,
) -> (Option<Attempt>, Verdict) {
    // Another value than the one before the write: it took, or somebody else set it. Either way it is a new matter.
    let last = last.filter(|attempt| attempt.old == current);
    let Some(change) = verdict.change.as_ref() else {
        return (last, verdict);
    };
    let fresh = Attempt { at: now, old: change.old, new: change.new, tries: 1 };
    let Some(attempt) = last else {
        return (Some(fresh), verdict);
    };
    match mode {
        // The advice stands as given; only a larger one is news.
        Mode::Advise if change.new <= attempt.new => (last, Verdict { change: None, ..verdict }),
        Mode::Enforce if attempt.waits_at(now) => {
            let held = Some(held(change));
            (last, Verdict { change: None, held, ..verdict })
        }
        Mode::Advise => (Some(fresh), verdict),
        Mode::Enforce => (Some(Attempt { tries: attempt.tries.saturating_add(1), ..fresh }), verdict),
    }
}

impl Attempt {
    fn waits_at(&self, now: Duration) -> bool {
        let doublings = self.tries.saturating_sub(1).min(16);
        let wait = FIRST_WAIT.saturating_mul(1 << doublings).min(LONGEST_WAIT);
        // A clock that went back must not hold the guard for ever.
        now.checked_sub(self.at).is_some_and(|since| since < wait)
    }
}

fn held(change: &Change) -> Held {
    Held {
        setting: change.setting,
        rule: change.rule,
        reason:
            "the last write did not take; it is tried again, at most 60 s apart. See the log for the write's error, or \
                 for another program that writes this setting"
                .to_owned(),
    }
}
