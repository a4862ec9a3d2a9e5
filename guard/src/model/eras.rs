//! Which timeouts were in force when: an entry keeps the one of its last packet, whatever is written afterwards.

use std::collections::VecDeque;

use super::ends::PerTimeout;
use crate::observe::{Timeout, Timeouts};

/// Changes that are remembered; entries from before the oldest count as its own.
const ERAS: usize = 12;

/// The timeouts in force over time, seconds on the clock of the cohorts.
#[derive(Clone, Debug, Default)]
pub(super) struct Eras {
    eras: VecDeque<Era>,
}

/// A time in which the timeouts stood still.
#[derive(Clone, Debug)]
pub(super) struct Era {
    since: f64,
    timeouts: [u64; Timeout::ALL.len()],
}

/// When entries came that end together, and under which timeouts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<'a> {
    pub(super) era: &'a Era,
    pub(super) from: f64,
    pub(super) to: f64,
}

/// One timeout over time, for who asks for one moment after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct OverTime<'a> {
    eras: &'a VecDeque<Era>,
    timeout: Timeout,
    place: usize,
    seconds: f64,
    until: f64,
}

impl OverTime<'_> {
    /// How long an entry stays whose last packet came then, which is not before the moment asked for last.
    pub(super) fn seconds_at(&mut self, at: f64) -> f64 {
        while self.until <= at {
            self.place += 1;
            self.seconds = self.eras.get(self.place).map_or(self.seconds, |era| era.seconds(self.timeout));
            self.until = since(self.eras, self.place + 1);
        }
        self.seconds
    }
}

/// When the era in this place began; after the last, never.
fn since(eras: &VecDeque<Era>, place: usize) -> f64 {
    eras.get(place).map_or(f64::INFINITY, |era| era.since)
}

impl Era {
    /// How long an entry stays after its last packet.
    pub(super) fn seconds(&self, timeout: Timeout) -> f64 {
        self.timeouts[timeout as usize] as f64
    }
}

impl Eras {
    /// These are in force from `now` on; what is not among them has the kernel's default. Answers with whether they are
    /// others than before.
    pub(super) fn remember(&mut self, now: f64, timeouts: &Timeouts) -> bool {
        let timeouts =
            Timeout::ALL.map(|timeout| timeouts.get(&timeout).copied().unwrap_or_else(|| timeout.kernel_default()));
        let others = self.eras.back().is_none_or(|era| era.timeouts != timeouts);
        if others {
            self.eras.push_back(Era { since: now, timeouts });
        }
        if self.eras.len() > ERAS {
            self.eras.pop_front();
        }
        others
    }

    /// The last of them, seconds; 0 before the first.
    pub(super) fn in_force(&self) -> PerTimeout {
        self.eras.back().map_or([0.0; Timeout::ALL.len()], |era| era.timeouts.map(|seconds| seconds as f64))
    }

    /// One timeout, from the oldest era on.
    pub(super) fn over_time(&self, timeout: Timeout) -> OverTime<'_> {
        let seconds = self.eras.front().map_or(0.0, |era| era.seconds(timeout));
        OverTime { eras: &self.eras, timeout, place: 0, seconds, until: since(&self.eras, 1) }
    }

    /// How long an entry stays whose last packet came then.
    pub(super) fn stays(&self, at: f64, timeout: Timeout) -> f64 {
        let era = self.eras.iter().rev().find(|era| era.since <= at).or(self.eras.front());
        era.map_or(0.0, |era| era.seconds(timeout))
    }

    /// When this timeout last changed, and the longest that it was for an entry that was there then or came since, seconds.
    pub(super) fn last_change(&self, timeout: Timeout) -> (f64, f64) {
        let Some(last) = self.eras.back() else { return (f64::NEG_INFINITY, 0.0) };
        let mut longest = last.seconds(timeout);
        let mut changed = f64::NEG_INFINITY;
        for (before, after) in self.eras.iter().zip(self.eras.iter().skip(1)).rev() {
            if after.since + before.seconds(timeout) < last.since {
                break;
            }
            if (before.seconds(timeout) - after.seconds(timeout)).abs() > 0.5 {
                changed = changed.max(after.since);
                longest = longest.max(before.seconds(timeout));
            }
        }
        (changed, longest)
    }

    /// When those came whose time ran out between `before` and `now`, if they stayed open for so long. Two spans where
    /// the timeout became shorter, none where it became longer.
    pub(super) fn came_for(&self, timeout: Timeout, open: f64, before: f64, now: f64) -> Vec<Span<'_>> {
        let spans = self.eras.iter().enumerate().map(|(index, era)| {
            let seconds = era.seconds(timeout);
            let since = if index == 0 { f64::NEG_INFINITY } else { era.since };
            let until = self.eras.get(index + 1).map_or(f64::INFINITY, |next| next.since);
            Span { era, from: (before - seconds).max(since) - open, to: (now - seconds).min(until) - open }
        });
        spans.filter(|span| span.from < span.to).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_keep_the_timeout_of_their_last_packet() {
        let mut eras = Eras::default();
        let udp = |seconds| Timeouts::from([(Timeout::Udp, seconds)]);
        for (now, seconds) in [(0.0, 30), (50.0, 30), (100.0, 10), (200.0, 60)] {
            eras.remember(now, &udp(seconds));
        }
        let spans = |now: f64| -> Vec<_> {
            eras.came_for(Timeout::Udp, 2.0, now - 1.0, now).iter().map(|span| (span.from, span.to)).collect()
        };
        assert_eq!(spans(90.0), [(57.0, 58.0)]);
        assert_eq!(spans(115.0), [(82.0, 83.0), (102.0, 103.0)], "the longer and the shorter one");
        assert_eq!(spans(205.0), [(192.0, 193.0)]);
        assert_eq!(spans(230.0), [], "nothing came for which they would have run out now");
        assert_eq!(spans(270.0), [(207.0, 208.0)]);
        let mut udp = eras.over_time(Timeout::Udp);
        let at = [-5.0, 99.0, 100.0, 1e9].map(|at| udp.seconds_at(at));
        assert_eq!(at.map(f64::to_bits), [30.0, 30.0, 10.0, 60.0].map(f64::to_bits));
        let mut later = eras.over_time(Timeout::Udp);
        assert_eq!(later.seconds_at(1e9).to_bits(), 60.0_f64.to_bits(), "several eras later");
        assert!((eras.in_force()[Timeout::Icmp as usize] - 30.0).abs() < 1e-9, "the kernel's default");
    }
}
