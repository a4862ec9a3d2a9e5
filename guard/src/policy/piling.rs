//! Open connections that pile up: over hours, so that neither the forecast nor an outlook of minutes shows where it leads.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::Estimate;
use crate::observe::Timeout;

/// What has grown for less than this may be a gust.
const CONFIRMED: Duration = Duration::from_mins(10);
/// Between two marks.
const APART: Duration = Duration::from_mins(5);
/// The growth is that of the last hour at most: long enough for the census's own error to count little.
const MARKS: usize = 12;

/// Growth by less than this share of all entries may be none: a census looks at some 2,000 entries and leaves out what has
/// expired and has not been swept yet, of which there is only an estimate, and what it is held against is the lowest of
/// many looks.
const NOISE: f64 = 0.1;

/// Open connections at moments in the past.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Piling {
    /// The oldest first.
    marks: VecDeque<Mark>,
    a_second: f64,
    /// When the growth was last told from none.
    told: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Mark {
    at: Duration,
    entries: f64,
}

impl Piling {
    /// Takes in the next tick. `sound` says whether the time before it was seen at all, `refused` whether flows were refused
    /// in it.
    pub(super) fn look(&mut self, estimate: &Estimate, sound: bool, refused: bool) {
        let open = estimate.states.get(&Timeout::TcpEstablished).map(|state| state.entries);
        let Some(entries) = open.filter(|entries| sound && entries.is_finite()) else {
            *self = Self::default();
            return;
        };
        let now = Mark { at: estimate.at, entries };
        if self.marks.front().is_some_and(|oldest| oldest.at > now.at || oldest.entries > entries) {
            // Fewer than before: nothing piles up.
            self.marks.clear();
            self.told = None;
        }
        let a_second = self.growth(now, NOISE * estimate.table.count as f64, refused);
        if a_second > 0.0 {
            (self.a_second, self.told) = (a_second, Some(now.at));
        } else if self.told.is_none_or(|told| now.at.saturating_sub(told) >= CONFIRMED) {
            // That it is over has to last as long as that it was there: near the noise it comes and goes from look to look.
            self.a_second = 0.0;
        }
        if self.marks.back().is_none_or(|last| now.at.saturating_sub(last.at) >= APART) {
            if self.marks.len() == MARKS {
                self.marks.pop_front();
            }
            self.marks.push_back(now);
        }
    }

    /// The growth until `now` a second, if it is more than `noise`, and as much of it came in the later half of the time:
    /// what rose once and stands since (the first minutes of a load, a deployment) is no pile. Where flows are refused it
    /// stands for want of room.
    fn growth(&self, now: Mark, noise: f64, refused: bool) -> f64 {
        let Some(oldest) = self.marks.front() else { return 0.0 };
        let lasted = now.at.saturating_sub(oldest.at);
        let middle = oldest.at + lasted / 2;
        let Some(middle) = self.marks.iter().min_by_key(|mark| mark.at.abs_diff(middle)) else { return 0.0 };
        let since = |mark: &Mark| (now.entries - mark.entries, now.at.saturating_sub(mark.at).as_secs_f64());
        let ((grown, seconds), (lately, half)) = (since(oldest), since(middle));
        if lasted < CONFIRMED || grown <= noise {
            return 0.0;
        }
        match (refused, lately > noise / 2.0) {
            (true, _) => grown / seconds,
            (false, true) => (grown / seconds).min(lately / half),
            (false, false) => 0.0,
        }
    }

    /// Open connections by which they become more, a second; 0 where nothing has piled up for long enough.
    pub(super) fn a_second(&self) -> f64 {
        self.a_second
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::super::tests::estimate;
    use super::*;
    use crate::model::InState;

    fn minutes(piling: &mut Piling, minutes: Range<u32>, entries: impl Fn(u32) -> f64) {
        for minute in minutes {
            let state = InState { entries: entries(minute), ends: 0.0, unreplied: 0.0 };
            let states = [(Timeout::TcpEstablished, state)].into();
            let at = Duration::from_mins(minute.into());
            piling.look(&Estimate { at, states, ..estimate(10_000, 1 << 22, 0.0) }, true, false);
        }
    }

    fn close(piling: &Piling, a_second: f64) -> bool {
        (piling.a_second() - a_second).abs() < 1e-6
    }

    #[test]
    fn growth_counts_once_it_has_lasted_and_follows_what_it_is_now() {
        let slow = |minute: u32| 1_000.0 + 60.0 * f64::from(minute);
        let mut piling = Piling::default();
        minutes(&mut piling, 0..10, slow);
        assert!(close(&piling, 0.0), "{piling:?}");
        minutes(&mut piling, 10..100, slow);
        assert!(close(&piling, 1.0), "{piling:?}");
        minutes(&mut piling, 100..170, |_| slow(100));
        assert!(close(&piling, 0.0), "{piling:?}");
    }

    #[test]
    fn what_rose_once_and_stands_since_is_no_pile() {
        let step = |minute: u32| if minute < 4 { 1_000.0 + 500.0 * f64::from(minute) } else { 3_000.0 };
        let mut piling = Piling::default();
        for minute in 0..120 {
            minutes(&mut piling, minute..minute + 1, step);
            assert!(close(&piling, 0.0), "minute {minute}: {piling:?}");
        }
    }

    #[test]
    fn what_stands_for_want_of_room_is_still_a_pile() {
        let mut piling = Piling::default();
        minutes(&mut piling, 0..10, |minute| 1_000.0 * f64::from(minute));
        minutes(&mut piling, 10..60, |_| 10_000.0);
        assert!(close(&piling, 0.0), "{piling:?}");
        let states = [(Timeout::TcpEstablished, InState { entries: 10_000.0, ends: 0.0, unreplied: 0.0 })].into();
        let at = Duration::from_hours(1);
        piling.look(&Estimate { at, states, ..estimate(10_000, 10_000, 0.0) }, true, true);
        assert!(piling.a_second() > 0.0, "{piling:?}");
    }

    #[test]
    fn what_a_census_errs_by_is_no_growth() {
        let mut piling = Piling::default();
        minutes(&mut piling, 0..300, |minute| 3_000.0 + 200.0 * f64::from(minute % 7) / 6.0);
        assert!(close(&piling, 0.0), "{piling:?}");
    }

    #[test]
    fn fewer_than_before_or_not_known_is_no_pile() {
        let mut grown = Piling::default();
        minutes(&mut grown, 0..30, |minute| 100.0 * f64::from(minute));
        assert!(grown.a_second() > 1.0);
        let after = |look: &dyn Fn(&mut Piling)| {
            let mut piling = grown.clone();
            look(&mut piling);
            close(&piling, 0.0)
        };
        assert!(after(&|piling| minutes(piling, 30..31, |_| -1.0)));
        assert!(after(&|piling| piling.look(&estimate(5, 100, 0.0), true, false)), "no census");
        assert!(after(&|piling| piling.look(&estimate(5, 100, 0.0), false, false)), "a time that nobody saw");
    }
}
