//! When somebody floods, and what good clients do meanwhile, counted by itself: over a whole run, what fails while the flood
//! lasts would be lost among what goes well before and after it.

use std::ops::Range;
use std::time::Duration;

use serde::Serialize;

use super::{Load, Traffic};

/// The times at which some load of the kinds `syn` and `scan` is to send, by the scenario: of several floods all times
/// together, without what lies between them. A load whose rate falls to 0 does not flood until it rises again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Floods(Vec<Range<Duration>>);

/// What came of what a load did under the flood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UnderFlood {
    /// Connections that were to start then (of a closed loop: that did).
    pub started: u64,
    /// Those of them that were made, be it after the flood.
    pub made: u64,
    /// Further requests on connections that stood which were due then.
    pub asked: u64,
    /// Those of them whose whole reply came.
    pub answered: u64,
}

impl Floods {
    /// After the start of the scenario that has these loads; `None` where nobody floods.
    pub fn of(loads: &[Load]) -> Option<Self> {
        let is_flood = |load: &&Load| matches!(load.traffic, Traffic::Syn { .. } | Traffic::Scan { .. });
        let floods: Vec<&Load> = loads.iter().filter(is_flood).collect();
        let times = |load: &&Load| {
            let (start, rate) = (load.start, load.traffic.rate());
            let own = rate.map(|rate| rate.above_zero(load.course.duration)).unwrap_or_default();
            own.into_iter().map(move |time| start + time.start..start + time.end).collect::<Vec<_>>()
        };
        (!floods.is_empty()).then(|| Self(floods.iter().flat_map(times).collect()))
    }

    /// The same, after the start of a load that starts so long after the scenario.
    #[must_use]
    pub fn after(&self, start: Duration) -> Self {
        Self(self.0.iter().map(|time| time.start.saturating_sub(start)..time.end.saturating_sub(start)).collect())
    }

    /// Whether somebody floods at this time. The end of a flood is none of it.
    pub fn contain(&self, at: Duration) -> bool {
        self.0.iter().any(|time| time.contains(&at))
    }
}

impl UnderFlood {
    pub(super) fn merge(&mut self, other: &Self) {
        self.started += other.started;
        self.made += other.made;
        self.asked += other.asked;
        self.answered += other.answered;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    fn seconds(loads: &str, after: f64) -> Vec<u64> {
        let text = format!("duration = \"60s\"\n[[load]]\nkind = \"tcp\"\nrate = 1\n{loads}");
        let floods = Floods::of(&Scenario::parse("test", &text).unwrap().loads).unwrap();
        let floods = floods.after(Duration::from_secs_f64(after));
        // In the middle of each second.
        (0..70).filter(|second| floods.contain(Duration::from_millis(second * 1_000 + 500))).collect()
    }

    fn range(range: Range<u64>) -> Vec<u64> {
        range.collect()
    }

    const FLOOD: &str = "[[load]]\nkind = \"syn\"\nrate = 1\nstart = \"15s\"\nduration = \"30s\"\n";

    #[test]
    fn a_flood_lasts_from_its_start_and_up_to_its_end() {
        assert_eq!(seconds(FLOOD, 0.0), range(15..45));
        let scenario = Scenario::parse("test", &format!("duration = \"60s\"\n{FLOOD}")).unwrap();
        let floods = Floods::of(&scenario.loads).unwrap();
        let at = |millis| floods.contain(Duration::from_millis(millis));
        assert_eq!([14_999, 15_000, 44_999, 45_000].map(at), [false, true, true, false]);
    }

    #[test]
    fn several_floods_are_all_their_times_and_nothing_between() {
        let scan = |start: u64, lasts: u64| {
            format!("[[load]]\nkind = \"scan\"\nrate = 1\nstart = \"{start}s\"\nduration = \"{lasts}s\"\n")
        };
        let apart = format!("{FLOOD}{}", scan(50, 5));
        assert_eq!(seconds(&apart, 0.0), [range(15..45), range(50..55)].concat());
        let overlapping = format!("{FLOOD}{}{}", scan(40, 10), scan(20, 2));
        assert_eq!(seconds(&overlapping, 0.0), range(15..50));
    }

    #[test]
    fn a_load_counts_from_its_own_start() {
        assert_eq!(seconds(FLOOD, 10.0), range(5..35));
        assert_eq!(seconds(FLOOD, 20.0), range(0..25));
        assert_eq!(seconds(FLOOD, 45.0), range(0..0));
    }

    #[test]
    fn a_rate_of_0_is_no_flood_and_any_other_is_one() {
        let flood = |rate: &str| format!("[[load]]\nkind = \"syn\"\nstart = \"10s\"\nrate = {rate}\n");
        let burst = flood("{ peak = 9, after = \"5s\", for = \"10s\" }");
        assert_eq!(seconds(&burst, 0.0), range(15..25));
        let on_a_base = flood("{ base = 1, peak = 9, after = \"5s\", for = \"10s\" }");
        assert_eq!(seconds(&on_a_base, 0.0), range(10..60));
        let wave = flood("{ points = [[\"0s\", 0], [\"5s\", 9], [\"10s\", 0], [\"20s\", 0], [\"25s\", 9]] }");
        assert_eq!(seconds(&wave, 0.0), [range(10..20), range(30..60)].concat());
    }

    #[test]
    fn good_clients_alone_are_under_no_flood() {
        let text = "duration = \"60s\"\n[[load]]\nkind = \"tcp\"\nrate = 1\n[[load]]\nkind = \"dns\"\nrate = 1\n";
        assert_eq!(Floods::of(&Scenario::parse("test", text).unwrap().loads), None);
    }
}
