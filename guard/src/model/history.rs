//! How many entries came when: what ends in the next seconds came one timeout ago.

use std::collections::VecDeque;

/// Kept second by second for so long, seconds: the longest of the timeouts that end most entries, and then some.
const FINE_FOR: f64 = 600.0;
/// Beyond that, one point in so many seconds.
const COARSE: f64 = 30.0;
/// The oldest point, seconds: 3 h. What lives longer is an open connection, and those end when they like.
const KEPT: f64 = 10_800.0;
/// Ticks within this share a point, seconds.
const FINE: f64 = 1.0;

/// The sum of inserts over time. Points left out later leave the others exact.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    coarse: VecDeque<Point>,
    fine: VecDeque<Point>,
    /// The newest reading.
    now: Option<Point>,
}

#[derive(Clone, Copy, Debug)]
struct Point {
    at: f64,
    sum: f64,
}

/// Inserts in a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Came {
    /// Those that are known.
    pub(super) entries: f64,
    /// Seconds of the span that are before all memory.
    pub(super) unknown: f64,
}

impl History {
    /// So many came until `at`, since the reading before.
    pub(super) fn add(&mut self, at: f64, interval: f64, inserts: f64) {
        let start = Point { at: at - interval, sum: 0.0 };
        let last = self.now.unwrap_or(start);
        if self.fine.back().is_none_or(|point| last.at - point.at >= FINE) {
            self.fine.push_back(last);
        }
        self.now = Some(Point { at, sum: last.sum + inserts });
        while let Some(point) = self.fine.pop_front_if(|point| at - point.at > FINE_FOR) {
            if self.coarse.back().is_none_or(|last| point.at - last.at >= COARSE) {
                self.coarse.push_back(point);
            }
        }
        while self.coarse.pop_front_if(|point| at - point.at > KEPT).is_some() {}
    }

    /// Only this share of all that came is left.
    pub(super) fn thin(&mut self, share: f64) {
        for point in self.coarse.iter_mut().chain(&mut self.fine).chain(&mut self.now) {
            point.sum *= share.clamp(0.0, 1.0);
        }
    }

    /// What came from `from` to `to`, both seconds on the clock of `add`. What is after the newest reading is nothing.
    pub(super) fn came(&self, from: f64, to: f64) -> Came {
        let Some(start) = self.coarse.front().or(self.fine.front()) else {
            return Came { entries: 0.0, unknown: (to - from).max(0.0) };
        };
        if to <= from {
            return Came::default();
        }
        Came { entries: self.sum(to) - self.sum(from), unknown: (start.at.min(to) - from).max(0.0) }
    }

    /// The sum at a time, evenly between two points.
    fn sum(&self, at: f64) -> f64 {
        let points = if self.fine.front().is_some_and(|point| point.at <= at) { &self.fine } else { &self.coarse };
        let next = points.partition_point(|point| point.at <= at);
        let after = points.get(next).or_else(|| self.fine.front().filter(|point| point.at > at)).or(self.now.as_ref());
        let before = next.checked_sub(1).and_then(|index| points.get(index));
        match (before, after) {
            (Some(before), Some(after)) if after.at > before.at => {
                let part = ((at - before.at) / (after.at - before.at)).clamp(0.0, 1.0);
                before.sum + part * (after.sum - before.sum)
            }
            // Before all memory, or at the newest reading.
            (before, after) => before.or(after).map_or(0.0, |point| point.sum),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `rate` inserts a second, read four times a second.
    fn filled(history: &mut History, from: f64, seconds: u32, rate: f64) {
        for quarter in 1..=4 * seconds {
            history.add(from + f64::from(quarter) / 4.0, 0.25, rate / 4.0);
        }
    }

    fn close(came: Came, entries: f64, unknown: f64) -> bool {
        (came.entries - entries).abs() < 1e-6 * entries.max(1.0) && (came.unknown - unknown).abs() < 1e-9
    }

    #[test]
    fn what_came_is_found_again_between_the_points_too() {
        let mut history = History::default();
        filled(&mut history, 100.0, 60, 10.0);
        filled(&mut history, 160.0, 60, 1_000.0);
        assert!(close(history.came(100.0, 160.0), 600.0, 0.0));
        assert!(close(history.came(159.0, 160.5), 510.0, 0.0), "{:?}", history.came(159.0, 160.5));
        assert!(close(history.came(219.9, 220.0), 100.0, 0.0), "{:?}", history.came(219.9, 220.0));
        assert!(close(history.came(220.0, 230.0), 0.0, 0.0), "the future brought nothing yet");
        assert!(close(history.came(90.0, 101.0), 10.0, 10.0));
        assert!(close(history.came(10.0, 20.0), 0.0, 10.0));
        assert!(close(history.came(20.0, 10.0), 0.0, 0.0));
        assert!(close(History::default().came(10.0, 20.0), 0.0, 10.0));
    }

    #[test]
    fn old_points_get_fewer_and_none_of_what_came_is_lost() {
        let mut history = History::default();
        filled(&mut history, 0.0, 20_000, 10.0);
        let points = history.fine.len() + history.coarse.len();
        assert!(points < 1_000, "{points} points");
        assert!(close(history.came(10_000.0, 20_000.0), 100_000.0, 0.0), "{:?}", history.came(10_000.0, 20_000.0));
        assert!(close(history.came(15_000.0, 15_007.0), 70.0, 0.0), "{:?}", history.came(15_000.0, 15_007.0));
        assert!(close(history.came(19_395.0, 19_405.0), 100.0, 0.0), "{:?}", history.came(19_395.0, 19_405.0));
        assert!(history.came(9_000.0, 10_000.0).unknown > 100.0);
    }
}
