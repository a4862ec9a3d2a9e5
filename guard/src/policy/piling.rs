//! Open connections that pile up: over hours, so that neither the forecast nor an outlook of minutes shows where it leads.

use std::time::Duration;

use crate::model::Estimate;
use crate::observe::Timeout;

/// What has grown for less than this may be a gust.
const CONFIRMED: Duration = Duration::from_mins(10);
/// The growth is that of the last 30 to 60 minutes: long enough for the census's own error to count little.
const RENEWED: Duration = Duration::from_mins(30);

/// Growth by less than this share of all entries may be none: a census looks at some 2,000 entries and leaves out what has
/// expired and has not been swept yet, the count that it is drawn out to does not, and what it is held against is the
/// lowest of many looks.
const NOISE: f64 = 0.1;

/// Open connections at two moments in the past.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Piling {
    older: Option<Mark>,
    newer: Option<Mark>,
    a_second: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Mark {
    at: Duration,
    entries: f64,
}

impl Piling {
    /// Takes in the next tick. `sound` says whether the time before it was seen at all.
    pub(super) fn look(self, estimate: &Estimate, sound: bool) -> Self {
        let open = estimate.states.get(&Timeout::TcpEstablished).map(|state| state.entries);
        let Some(entries) = open.filter(|entries| sound && entries.is_finite()) else { return Self::default() };
        let now = Mark { at: estimate.at, entries };
        let Some(older) = self.older.filter(|older| older.at <= now.at && older.entries <= entries) else {
            // The first look, or fewer than before: nothing piles up.
            return Self { older: Some(now), newer: None, a_second: 0.0 };
        };
        let lasted = now.at.saturating_sub(older.at);
        let grown = entries - older.entries;
        let told = lasted >= CONFIRMED && grown > NOISE * estimate.table.count as f64;
        let a_second = if told { grown / lasted.as_secs_f64() } else { 0.0 };
        // The newer mark follows at half the distance, and then takes the older one's place.
        let newer = if lasted >= RENEWED { self.newer.or(Some(now)) } else { None };
        match newer {
            Some(newer) if lasted >= 2 * RENEWED => Self { older: Some(newer), newer: Some(now), a_second },
            newer => Self { older: Some(older), newer, a_second },
        }
    }

    /// Open connections by which they become more, a second; 0 where nothing has piled up for long enough.
    pub(super) fn a_second(&self) -> f64 {
        self.a_second
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::estimate;
    use super::*;
    use crate::model::InState;

    fn run(piling: Piling, minutes: std::ops::Range<u32>, entries: impl Fn(u32) -> f64) -> Piling {
        minutes.fold(piling, |piling, minute| {
            let state = InState { entries: entries(minute), ends: 0.0, unreplied: 0.0 };
            let states = [(Timeout::TcpEstablished, state)].into();
            let at = Duration::from_mins(minute.into());
            piling.look(&Estimate { at, states, ..estimate(10_000, 1 << 22, 0.0) }, true)
        })
    }

    fn close(piling: Piling, a_second: f64) -> bool {
        (piling.a_second() - a_second).abs() < 1e-6
    }

    #[test]
    fn growth_counts_once_it_has_lasted_and_follows_what_it_is_now() {
        let slow = |minute: u32| 1_000.0 + 60.0 * f64::from(minute);
        let early = run(Piling::default(), 0..10, slow);
        assert!(close(early, 0.0), "{early:?}");
        let lasting = run(early, 10..100, slow);
        assert!(close(lasting, 1.0), "{lasting:?}");
        let stopped = run(lasting, 100..170, |_| slow(100));
        assert!(close(stopped, 0.0), "{stopped:?}");
    }

    #[test]
    fn what_a_census_errs_by_is_no_growth() {
        let swinging = |minute: u32| 3_000.0 + 200.0 * f64::from(minute % 7) / 6.0;
        assert!(close(run(Piling::default(), 0..300, swinging), 0.0));
    }

    #[test]
    fn fewer_than_before_or_not_known_is_no_pile() {
        let grown = run(Piling::default(), 0..30, |minute| 100.0 * f64::from(minute));
        assert!(grown.a_second() > 1.0);
        assert!(close(run(grown, 30..31, |_| -1.0), 0.0));
        assert!(close(grown.look(&estimate(5, 100, 0.0), true), 0.0), "no census");
        assert!(close(grown.look(&estimate(5, 100, 0.0), false), 0.0), "a time that nobody saw");
    }
}
