//! The operator's brake: settings that are not to change for a time, whatever the rules say.

use std::collections::BTreeMap;
use std::time::Duration;

use super::plan::{Change, Held, Setting};
use super::verdict::Verdict;

/// The settings that are paused. They are no part of the policy: a reload leaves them, the guard's end ends them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pauses(BTreeMap<Setting, Pause>);

/// How long a setting is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Time since boot at which it ends.
    pub until: Duration,
    /// The same for people, and who wants it: "until 14:05:00 UTC by alice".
    pub words: String,
}

impl Pauses {
    /// Pauses a setting; an earlier pause of it gives way.
    pub fn pause(&mut self, setting: Setting, pause: Pause) {
        self.0.insert(setting, pause);
    }

    /// Ends a pause. Whether there was one.
    pub fn resume(&mut self, setting: Setting) -> bool {
        self.0.remove(&setting).is_some()
    }

    /// Forgets the pauses that are over, and says which settings those were of.
    pub fn expire(&mut self, now: Duration) -> Vec<Setting> {
        self.0.extract_if(.., |_, pause| pause.until <= now).map(|(setting, _)| setting).collect()
    }

    /// The pause of a setting, if it is not over.
    pub fn of(&self, setting: Setting, now: Duration) -> Option<&Pause> {
        self.0.get(&setting).filter(|pause| now < pause.until)
    }

    /// Every pause that is not over.
    pub fn all(&self, now: Duration) -> impl Iterator<Item = (Setting, &Pause)> {
        self.0.iter().map(|(setting, pause)| (*setting, pause)).filter(move |(_, pause)| now < pause.until)
    }

    /// A change of a paused setting becomes what is held. Comes before anything remembers the change as asked for.
    pub(super) fn hold(&self, verdict: Verdict, now: Duration) -> Verdict {
        let Some(Change { setting, rule, .. }) = verdict.change else { return verdict };
        let Some(pause) = self.of(setting, now) else { return verdict };
        let reason =
            format!("paused {}; `conntrack-guard resume {}` lets it change again", pause.words, setting.name());
        Verdict { held: Some(Held { setting, rule, reason }), blocked: true, ..Verdict::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Rule;
    use super::*;

    const UNTIL: Duration = Duration::from_secs(100);
    const BEFORE: Duration = Duration::from_millis(99_999);

    fn paused() -> Pauses {
        let mut pauses = Pauses::default();
        pauses.pause(Setting::Max, Pause { until: UNTIL, words: "until 14:05:00 UTC by alice".to_owned() });
        pauses
    }

    fn wanted(setting: Setting) -> Verdict {
        let change = Change {
            setting,
            old: 1,
            new: 2,
            rule: Rule::RaiseMax,
            evidence: String::new(),
            predicted: String::new(),
            expectation: None,
        };
        Verdict { change: Some(change), ..Verdict::default() }
    }

    #[test]
    fn a_paused_setting_is_held_until_the_pause_is_over_and_others_are_not() {
        let pauses = paused();
        let held = pauses.hold(wanted(Setting::Max), BEFORE);
        assert_eq!((held.change, held.blocked), (None, true));
        assert_eq!(
            held.held.unwrap().reason,
            "paused until 14:05:00 UTC by alice; `conntrack-guard resume max` lets it change again"
        );
        assert_eq!(pauses.hold(wanted(Setting::Max), UNTIL), wanted(Setting::Max));
        assert_eq!(pauses.hold(wanted(Setting::Buckets), BEFORE), wanted(Setting::Buckets));
        let silent = Verdict::default();
        assert_eq!(pauses.hold(silent.clone(), BEFORE), silent, "nothing was wanted, so nothing is held");
    }

    #[test]
    fn a_pause_ends_by_itself_or_by_resume_and_is_told_once() {
        let mut pauses = paused();
        assert_eq!((pauses.expire(BEFORE), pauses.all(BEFORE).count()), (vec![], 1));
        assert_eq!((pauses.expire(UNTIL), pauses.expire(UNTIL)), (vec![Setting::Max], vec![]));
        let mut pauses = paused();
        assert!(pauses.resume(Setting::Max) && !pauses.resume(Setting::Max));
        assert_eq!(pauses, Pauses::default());
    }
}
