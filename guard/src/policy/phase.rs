//! Where the guard stands between calm and emergency, and how it comes from one to the other.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pressure::{Level, Pressure};

/// What the guard is about, as an operator would say it.
///
/// | from | to | when |
/// |---|---|---|
/// | any | `emergency` | the count is past the high-water mark, or new flows are refused |
/// | any | `pressed` | the forecast passes the mark, or max cannot rise as far as the load will ask for in a minute |
/// | `pressed`, `emergency` | `pressed` | none of these any more, but the forecast is still above three quarters of the mark |
/// | any | `waiting` | nothing presses, and changes of the guard's stand that can be taken back |
/// | any | `relaxing` | the same, and it has been calm for `relax.after` |
/// | any | `calm` | nothing presses, and nothing is left to take back |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Nothing presses, and nothing is left to take back.
    #[default]
    Calm,
    /// The table is about to be short of room, or was a moment ago: room is made before it is needed.
    Pressed,
    /// The count is past the mark already, or new flows are refused: max is raised alone and at once.
    Emergency,
    /// Nothing presses any more. What was changed stays until calm has lasted.
    Waiting,
    /// Calm has lasted: changes are taken back step by step.
    Relaxing,
}

/// What the next phase depends on beside the pressure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rest {
    /// Whether changes of the guard's stand that can be taken back.
    pub(super) outstanding: bool,
    /// Whether it has been calm for as long as a step back asks for.
    pub(super) lasted: bool,
}

impl Phase {
    /// The phase's name in the status and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Pressed => "pressed",
            Self::Emergency => "emergency",
            Self::Waiting => "waiting",
            Self::Relaxing => "relaxing",
        }
    }

    pub(super) fn next(self, pressure: &Pressure, rest: Rest) -> Self {
        let was_pressed = matches!(self, Self::Pressed | Self::Emergency);
        match pressure.level {
            Level::Now => Self::Emergency,
            Level::Coming | Level::Foreseen => Self::Pressed,
            Level::None if was_pressed && pressure.near => Self::Pressed,
            Level::None if !rest.outstanding => Self::Calm,
            Level::None if rest.lasted => Self::Relaxing,
            Level::None => Self::Waiting,
        }
    }
}

/// A phase and when it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Which.
    pub phase: Phase,
    /// Time since boot at which it began; zero for the first.
    pub since: Duration,
}

impl Standing {
    pub(super) fn next(self, phase: Phase, now: Duration) -> Self {
        if phase == self.phase { self } else { Self { phase, since: now } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pressure(level: Level, near: bool) -> Pressure {
        Pressure { level, near, reach: 0 }
    }

    #[test]
    fn every_transition_is_as_written() {
        let all = [Phase::Calm, Phase::Pressed, Phase::Emergency, Phase::Waiting, Phase::Relaxing];
        for from in all {
            for (outstanding, lasted) in [(false, false), (false, true), (true, false), (true, true)] {
                let rest = Rest { outstanding, lasted };
                let to = |level, near| from.next(&pressure(level, near), rest);
                assert_eq!(to(Level::Now, true), Phase::Emergency);
                assert_eq!([to(Level::Coming, true), to(Level::Foreseen, false)], [Phase::Pressed; 2]);
                let calm = match (outstanding, lasted) {
                    (false, _) => Phase::Calm,
                    (true, false) => Phase::Waiting,
                    (true, true) => Phase::Relaxing,
                };
                assert_eq!(to(Level::None, false), calm);
                let was_pressed = matches!(from, Phase::Pressed | Phase::Emergency);
                assert_eq!(to(Level::None, true), if was_pressed { Phase::Pressed } else { calm });
            }
        }
    }

    #[test]
    fn a_phase_that_stays_keeps_its_beginning() {
        let begun = Standing::default().next(Phase::Pressed, Duration::from_secs(5));
        assert_eq!(begun.next(Phase::Pressed, Duration::from_secs(9)), begun);
        assert_eq!(begun.next(Phase::Calm, Duration::from_secs(9)).since, Duration::from_secs(9));
    }
}
