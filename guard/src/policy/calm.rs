//! How long it has been calm, and how long it must be before something is taken back.

use std::time::Duration;

use crate::config::Policy;

/// The wait for calm doubles no more often than this: 32 times `relax.after`, 5 h 20 min by default.
const MOST_DOUBLINGS: u32 = 5;
/// A step back is given the time that it takes to show what it does, but at least this, and at most [`SOON`] or `relax.after`.
const SHORTEST_PAUSE: Duration = Duration::from_mins(1);

/// Between two sweeps of the gc worker the count rises by all that expires meanwhile, and they come up to a minute apart
/// (`GC_SCAN_INTERVAL_MAX`), and take their time.
const SWEEP: Duration = Duration::from_secs(65);
/// What fits for less than two of them may fit only right after a sweep.
const TWO_SWEEPS: Duration = SWEEP.saturating_mul(2);

/// What a step brings comes late: what expires lingers until it is swept, and every flow has to come round once. A step that
/// is undone within three times that, and this, was too early, however short `relax.after` is.
const SOON: Duration = Duration::from_mins(10);

/// What is remembered of pressure, calm and steps back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Calm {
    /// When the guard first looked.
    begun: Option<Duration>,
    /// When the table was last short of room, in a flood, or refused a flow.
    pressed: Option<Duration>,
    /// When the load last was too high for the next step back.
    unfit: Option<Duration>,
    /// When the last step was taken, and until when it shows.
    step: Option<(Duration, Duration)>,
    /// How long after it a step that is undone was too early, if that is longer than the wait.
    soon: Duration,
    /// How often a step back had to be undone soon after.
    doublings: u32,
}

impl Calm {
    /// Takes in a tick at which the table was `pressed` or not; `sound` says whether the time before it was seen at all.
    pub(super) fn look(&mut self, now: Duration, pressed: bool, sound: bool) {
        let went_back = [self.begun, self.pressed, self.unfit].into_iter().flatten().any(|then| then > now);
        if went_back || !sound {
            // What nobody saw was not calm.
            *self = Self { doublings: self.doublings, begun: Some(now), ..Self::default() };
        }
        self.begun.get_or_insert(now);
        if pressed {
            self.pressed = Some(now);
        }
    }

    /// The next step back would not fit the load now.
    pub(super) fn does_not_fit(&mut self, now: Duration) {
        self.unfit = Some(now);
    }

    /// Whether nothing has pressed for as long as a step back asks for.
    pub(super) fn has_lasted(&self, now: Duration, policy: &Policy) -> bool {
        [self.begun, self.pressed].into_iter().flatten().all(|then| now.saturating_sub(then) >= self.wait(policy))
    }

    /// Whether the load has had room for the next step for as long.
    pub(super) fn has_room(&self, now: Duration, policy: &Policy) -> bool {
        let long = self.wait(policy).max(TWO_SWEEPS);
        let fitted = self.unfit.is_none_or(|unfit| now.saturating_sub(unfit) >= long);
        self.has_lasted(now, policy) && fitted
    }

    /// Whether the last step has shown what it does.
    pub(super) fn has_shown(&self, now: Duration) -> bool {
        self.step.is_none_or(|(_, shown)| now >= shown)
    }

    /// How long calm must last: `relax.after`, longer where steps back have been undone soon.
    pub(super) fn wait(&self, policy: &Policy) -> Duration {
        policy.relax.after.saturating_mul(1 << self.doublings.min(MOST_DOUBLINGS))
    }

    /// A step back is taken, which shows after `shows`.
    pub(super) fn stepped(&mut self, now: Duration, shows: Duration, policy: &Policy) {
        let pause = shows.min(policy.relax.after.max(SOON)).max(SHORTEST_PAUSE);
        self.step = Some((now, now.saturating_add(pause)));
        self.soon = shows.saturating_add(SWEEP).saturating_mul(3).min(SOON);
    }

    /// Room is made again. Soon after a step back, that one came too early, and the next ones wait for longer.
    pub(super) fn undone(&mut self, now: Duration, policy: &Policy) {
        if let Some((step, _)) = self.step.take()
            && now.saturating_sub(step) < self.wait(policy).max(self.soon)
        {
            self.doublings = (self.doublings + 1).min(MOST_DOUBLINGS);
        }
    }

    /// All is taken back. When that has stood for as long as the wait was, the steps were not too early.
    pub(super) fn all_back(&mut self, now: Duration, policy: &Policy) {
        if let Some((step, _)) = self.step
            && now.saturating_sub(step) >= self.wait(policy).max(self.soon)
        {
            self.doublings = self.doublings.saturating_sub(1);
            self.step = Some((now, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn calm_lasts_from_the_last_pressure_and_from_the_start() {
        let policy = Policy::default();
        let mut calm = Calm::default();
        calm.look(100 * MINUTE, false, true);
        assert!(!calm.has_lasted(109 * MINUTE, &policy) && calm.has_lasted(110 * MINUTE, &policy));
        calm.look(112 * MINUTE, true, true);
        calm.look(115 * MINUTE, true, true);
        assert!(!calm.has_lasted(124 * MINUTE, &policy) && calm.has_lasted(125 * MINUTE, &policy));
        calm.does_not_fit(126 * MINUTE);
        assert!(!calm.has_room(135 * MINUTE, &policy) && calm.has_room(136 * MINUTE, &policy));
        let hasty = Policy { relax: crate::config::Relax { after: MINUTE }, ..Policy::default() };
        assert!(
            !calm.has_room(128 * MINUTE, &hasty) && calm.has_room(129 * MINUTE, &hasty),
            "the same after each sweep"
        );
        calm.stepped(136 * MINUTE, 2 * MINUTE, &policy);
        assert!(!calm.has_shown(137 * MINUTE) && calm.has_shown(138 * MINUTE));
    }

    #[test]
    fn what_nobody_saw_was_not_calm() {
        let policy = Policy::default();
        let mut calm = Calm::default();
        calm.look(MINUTE, false, true);
        calm.look(60 * MINUTE, false, false);
        assert!(!calm.has_lasted(61 * MINUTE, &policy));
        calm.look(2 * MINUTE, false, true);
        assert!(
            !calm.has_lasted(11 * MINUTE, &policy) && calm.has_lasted(12 * MINUTE, &policy),
            "a clock that went back"
        );
    }

    #[test]
    fn a_step_that_is_undone_soon_doubles_the_wait_up_to_a_bound_and_calm_halves_it() {
        let policy = Policy::default();
        let mut calm = Calm::default();
        for _ in 0..9 {
            calm.stepped(MINUTE, MINUTE, &policy);
            calm.undone(2 * MINUTE, &policy);
        }
        assert_eq!(calm.wait(&policy), 320 * MINUTE);
        calm.undone(3 * MINUTE, &policy);
        assert_eq!(calm.wait(&policy), 320 * MINUTE);
        calm.stepped(MINUTE, MINUTE, &policy);
        calm.undone(1_000 * MINUTE, &policy);
        assert_eq!(calm.wait(&policy), 320 * MINUTE, "late is not too early");
        calm.stepped(MINUTE, MINUTE, &policy);
        calm.all_back(300 * MINUTE, &policy);
        assert_eq!(calm.wait(&policy), 320 * MINUTE);
        calm.all_back(321 * MINUTE, &policy);
        assert_eq!(calm.wait(&policy), 160 * MINUTE);
    }

    #[test]
    fn a_step_is_undone_soon_while_it_still_shows_however_short_the_wait_is() {
        let policy = Policy { relax: crate::config::Relax { after: MINUTE }, ..Policy::default() };
        let mut calm = Calm::default();
        // 120 s of TIME_WAIT.
        calm.stepped(10 * MINUTE, 2 * MINUTE, &policy);
        calm.all_back(13 * MINUTE, &policy);
        calm.undone(15 * MINUTE, &policy);
        assert_eq!(calm.wait(&policy), 2 * MINUTE);
        calm.stepped(20 * MINUTE, 2 * MINUTE, &policy);
        calm.undone(30 * MINUTE, &policy);
        assert_eq!(calm.wait(&policy), 2 * MINUTE, "late is not too early");
        // Five days of ESTABLISHED.
        calm.stepped(31 * MINUTE, 7_200 * MINUTE, &policy);
        calm.undone(42 * MINUTE, &policy);
        assert_eq!(calm.wait(&policy), 2 * MINUTE);
    }
}
