//! `conntrack-guard pause` and `resume`, on the guard's side: what may not change, until when, and who said so.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tracing::info;

use super::figures_of::millis;
use crate::figures::time;
use crate::observe::since_boot;
use crate::policy::{Pause, Pauses, Setting};

/// The longest pause: a brake ends by itself before it is forgotten. For longer there is `mode` in the policy.
pub const LONGEST: Duration = Duration::from_hours(7 * 24);
/// Characters of a name that goes into the log and the status.
const LONGEST_NAME: usize = 64;

/// What `pause` and `resume` ask of the running guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub enum Order {
    /// Leave these settings alone for a time.
    Pause {
        /// Which.
        settings: Vec<Setting>,
        /// For how long, milliseconds.
        for_ms: u64,
        /// Who wants it, as far as the caller knows.
        by: Option<String>,
    },
    /// These may change again.
    Resume {
        /// Which.
        settings: Vec<Setting>,
    },
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// It is done; one line for people.
    Done(String),
    /// It is not, and why.
    Refused(String),
}

/// Settings that may not change now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausedNow {
    /// Which.
    pub settings: Vec<Setting>,
    /// Time until they may again.
    pub left_ms: u64,
    /// Until when, and who wants it.
    pub until: String,
}

/// The pauses in force. All clones are one: the loop looks here before it decides, the socket's server changes it.
#[derive(Clone, Debug, Default)]
pub struct Brake(Arc<Mutex<Pauses>>);

impl Brake {
    /// The pauses in force now. Logs those that are over.
    pub fn pauses(&self, now: Duration) -> Pauses {
        let mut pauses = self.lock();
        let over = pauses.expire(now);
        if !over.is_empty() {
            info!("the pause is over: {} may change again", names(&over));
        }
        pauses.clone()
    }

    /// Carries out an order of user `uid`.
    pub(super) fn obey(&self, order: Order, uid: u32) -> Reply {
        let now = since_boot();
        match order {
            Order::Pause { settings, for_ms, by } => {
                let length = Duration::from_millis(for_ms);
                if settings.is_empty() || length.is_zero() || length > LONGEST {
                    return Reply::Refused("a pause is for at least one setting, and no longer than 7 days".to_owned());
                }
                let who = name(by).unwrap_or_else(|| format!("user {uid}"));
                let end = humantime::format_rfc3339_seconds(SystemTime::now() + length);
                let pause = Pause { until: now.saturating_add(length), words: format!("until {end} by {who}") };
                let mut pauses = self.lock();
                for setting in &settings {
                    pauses.pause(*setting, pause.clone());
                }
                let all = names(&settings);
                info!("paused {}: {all}", pause.words);
                Reply::Done(format!(
                    "paused for {}, {}: {all}; `conntrack-guard resume` ends it, and so does a restart of the guard",
                    time(length),
                    pause.words
                ))
            }
            Order::Resume { settings } => {
                let mut pauses = self.lock();
                pauses.expire(now);
                let were: Vec<Setting> = settings.iter().copied().filter(|setting| pauses.resume(*setting)).collect();
                if were.is_empty() {
                    return Reply::Done(format!("not paused: {}", names(&settings)));
                }
                info!("resumed: {} may change again", names(&were));
                Reply::Done(format!("{} may change again", names(&were)))
            }
        }
    }

    /// For the status: settings that have the same pause are told together.
    pub(super) fn told(&self) -> Vec<PausedNow> {
        let now = since_boot();
        let mut told: Vec<(Pause, PausedNow)> = Vec::new();
        for (setting, pause) in self.lock().all(now) {
            if let Some((_, paused)) = told.iter_mut().find(|(same, _)| same == pause) {
                paused.settings.push(setting);
                continue;
            }
            let left_ms = millis(pause.until.saturating_sub(now));
            let until = pause.words.clone();
            told.push((pause.clone(), PausedNow { settings: vec![setting], left_ms, until }));
        }
        told.into_iter().map(|(_, paused)| paused).collect()
    }

    #[cfg(test)]
    pub(crate) fn pause(&self, setting: Setting, length: Duration) {
        let order = Order::Pause { settings: vec![setting], for_ms: millis(length), by: None };
        assert!(matches!(self.obey(order, 0), Reply::Done(_)));
    }

    #[cfg(test)]
    pub(crate) fn resume(&self, setting: Setting) {
        self.obey(Order::Resume { settings: vec![setting] }, 0);
    }

    fn lock(&self) -> MutexGuard<'_, Pauses> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// "every setting", or their names.
pub fn names(settings: &[Setting]) -> String {
    if Setting::all().all(|setting| settings.contains(&setting)) {
        return "every setting".to_owned();
    }
    let named = |settings: &[Setting]| settings.iter().map(|setting| setting.name()).collect::<Vec<_>>().join(", ");
    let others: Vec<Setting> = Setting::all().filter(|setting| !settings.contains(setting)).collect();
    if others.len() < settings.len() { format!("every setting but {}", named(&others)) } else { named(settings) }
}

/// A name that does no harm to a log.
fn name(by: Option<String>) -> Option<String> {
    let name: String = by?.chars().filter(|sign| !sign.is_control()).take(LONGEST_NAME).collect();
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause(settings: &[Setting], for_ms: u64) -> Order {
        Order::Pause { settings: settings.to_vec(), for_ms, by: Some("alice\n".to_owned()) }
    }

    fn done(reply: Reply) -> String {
        match reply {
            Reply::Done(text) => text,
            Reply::Refused(text) => panic!("{text}"),
        }
    }

    #[test]
    fn what_is_short_is_named() {
        assert_eq!(names(&[Setting::Max, Setting::Buckets]), "max, buckets");
        let all: Vec<Setting> = Setting::all().collect();
        assert_eq!(names(&all), "every setting");
        let rest: Vec<Setting> = Setting::all().filter(|setting| *setting != Setting::Max).collect();
        assert_eq!(names(&rest), "every setting but max");
    }

    #[test]
    fn a_pause_is_told_with_its_end_and_who_wants_it_and_ends_by_itself() {
        let brake = Brake::default();
        let said = done(brake.obey(pause(&[Setting::Max, Setting::Buckets], 60_000), 0));
        assert!(said.starts_with("paused for 1 min, until 20"), "{said}");
        assert!(
            said.contains("Z by alice: max, buckets; ") && said.ends_with("so does a restart of the guard"),
            "{said}"
        );
        let told = brake.told();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].settings, [Setting::Max, Setting::Buckets]);
        assert!((50_000..=60_000).contains(&told[0].left_ms), "{told:?}");
        let now = since_boot();
        assert!(brake.pauses(now).of(Setting::Max, now).is_some());
        assert_eq!(brake.pauses(now + Duration::from_mins(1)), Pauses::default());
        assert_eq!(brake.told(), []);
    }

    #[test]
    fn one_setting_may_be_let_go_while_the_others_stay() {
        let brake = Brake::default();
        let all: Vec<Setting> = Setting::all().collect();
        assert!(done(brake.obey(pause(&all, 1_000_000), 0)).contains(" by alice: every setting; "));
        assert_eq!(done(brake.obey(Order::Resume { settings: vec![Setting::Max] }, 0)), "max may change again");
        assert_eq!(done(brake.obey(Order::Resume { settings: vec![Setting::Max] }, 0)), "not paused: max");
        assert_eq!(brake.told()[0].settings.len(), all.len() - 1);
        assert!(done(brake.obey(Order::Resume { settings: all }, 0)).starts_with("every setting but max "));
        assert_eq!(brake.told(), []);
    }

    #[test]
    fn a_pause_without_an_end_or_a_setting_is_refused() {
        let brake = Brake::default();
        for order in [pause(&[], 1_000), pause(&[Setting::Max], 0), pause(&[Setting::Max], u64::MAX)] {
            assert!(matches!(brake.obey(order, 0), Reply::Refused(_)));
        }
        assert_eq!(brake.told(), []);
        let nameless = Order::Pause { settings: vec![Setting::Max], for_ms: 1_000, by: Some("\u{7}".to_owned()) };
        assert!(done(brake.obey(nameless, 1_000)).contains("by user 1000: max;"));
    }
}
