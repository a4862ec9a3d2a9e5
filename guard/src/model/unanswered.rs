//! Entries that nobody answered: how many there are, and how many of them a surge brought.

use std::time::Duration;

use super::cohorts::Cohorts;
use super::estimate::Load;
use super::states::all;
use crate::observe::{Census, Sample, Timeout};

/// So large a share is unusual, if it is by so much larger than in calm.
const UNUSUAL: f64 = 0.5;
const MORE: f64 = 0.25;
/// What came on top of calm has to be this share of all entries: less could be the chance that is in a census.
const TELLS: f64 = 0.1;

/// The table in calm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Calm {
    pub(super) entries: f64,
    /// The share of them that is unanswered.
    pub(super) unanswered: f64,
}

/// What one look at the entries says of a surge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seen {
    /// When it was taken.
    pub(super) at: Duration,
    /// The unanswered share of what came on top of calm.
    share: f64,
    /// The unanswered share of all entries.
    of_all: f64,
    /// That share in calm.
    calm: f64,
    /// Different sources of the unanswered entries that were looked at.
    sources: u64,
    /// Whether enough came on top of calm to tell.
    pub(super) tells: bool,
    /// Whether there are enough unanswered entries on top of calm to matter, whatever else came.
    pub(super) lasts: bool,
}

impl Seen {
    /// By a census of so many entries, of which this share is unanswered. What came on top of calm is what the table grew
    /// by; in one that could not grow, what is unanswered now and was not before.
    pub(super) fn new(census: &Census, entries: u64, share: f64, calm: Calm) -> Self {
        let entries = entries as f64;
        let unanswered = share * entries - calm.unanswered * calm.entries;
        let more = (entries - calm.entries).max(unanswered);
        let tells = more > 0.0 && more >= TELLS * entries;
        Self {
            at: census.at,
            share: if tells { (unanswered / more).max(0.0) } else { 0.0 },
            of_all: share,
            calm: calm.unanswered,
            sources: census.unreplied_sources,
            tells,
            lasts: unanswered > 0.0 && unanswered >= TELLS * entries,
        }
    }

    /// By the share of those that went lately without an answer, where `entries` of that kind are there. `None` where
    /// that is nothing unusual: those that are there may be others.
    pub(super) fn by_ends(sample: &Sample, share: f64, calm: f64, entries: f64) -> Option<Self> {
        let of_all = (entries / (sample.table.count as f64).max(1.0)).min(1.0);
        let seen = Self { at: sample.at, share, of_all, calm, sources: 0, tells: true, lasts: true };
        seen.is_unanswered().then_some(seen)
    }

    /// Whether most of what came on top of calm is unanswered, and that is not usual here.
    pub(super) fn is_unanswered(&self) -> bool {
        self.tells && differs(self.share, self.calm)
    }

    /// As a flood.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share from 0 to 1 of a count")]
    pub(super) fn flood(self, sample: &Sample) -> Load {
        let entries = (self.of_all * sample.table.count as f64).round() as u64;
        Load::Flood { unreplied: self.share, entries, sources: self.sources }
    }
}

/// Whether so large an unanswered share is unusual where it is this in calm.
pub(super) fn differs(share: f64, calm: f64) -> bool {
    share >= UNUSUAL && share >= calm + MORE
}

/// The share of the entries that is without a reply, or whose SYN/ACK nobody acknowledged (SYN_RECV): the answer to a
/// forged source. `count` entries were there when they were looked at.
///
/// What is unanswered and older than its timeout lives by its packets, so of each kind no more than came in that time is
/// a flood's.
pub(super) fn unanswered(census: &Census, count: u64, cohorts: &Cohorts) -> f64 {
    let looked_at = all(census) as f64;
    if looked_at <= 0.0 {
        return 0.0;
    }
    let each_stands_for = (count as f64 / looked_at).max(1e-9);
    let unanswered = census.by.iter().map(|(timeout, state)| {
        let entries = if *timeout == Timeout::TcpSynRecv { state.entries } else { state.unreplied } as f64;
        cohorts.came_within(*timeout).map_or(entries, |came| entries.min(came / each_stands_for))
    });
    (unanswered.sum::<f64>() / looked_at).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Calm = Calm { entries: 50_000.0, unanswered: 0.02 };

    fn seen(entries: u64, share: f64, calm: Calm) -> Seen {
        Seen::new(&Census { unreplied_sources: 9, ..Census::default() }, entries, share, calm)
    }

    #[test]
    fn it_is_what_came_on_top_of_calm_that_counts() {
        // 40,000 of 90,000 are no half of the table, but all that came.
        assert!(seen(90_000, 41_000.0 / 90_000.0, CALM).is_unanswered());
        assert!(!seen(90_000, 10_000.0 / 90_000.0, CALM).is_unanswered());
        let few = seen(54_000, 5_000.0 / 54_000.0, CALM);
        assert!(!few.tells && !few.is_unanswered());
    }

    #[test]
    fn in_a_table_that_could_not_grow_it_is_what_took_the_place_of_others() {
        assert!(seen(50_000, 0.4, CALM).is_unanswered());
        assert!(!seen(50_000, 0.02, CALM).tells);
        assert!(!seen(20_000, 0.02, CALM).tells, "it shrank");
        assert!(!seen(0, 0.0, Calm { entries: 0.0, unanswered: 0.0 }).tells);
    }

    #[test]
    fn a_flood_lasts_though_answered_flows_come_beside_it() {
        // 60,000 entries of it, and 190,000 that are answered.
        let beside = seen(300_000, 61_000.0 / 300_000.0, CALM);
        assert!(beside.lasts && !beside.is_unanswered());
        assert!(!seen(300_000, 20_000.0 / 300_000.0, CALM).lasts);
    }

    #[test]
    fn where_calm_looks_the_same_nothing_is_unusual() {
        assert!(!seen(500_000, 1.0, Calm { unanswered: 0.9, ..CALM }).is_unanswered());
        assert!(Seen::by_ends(&Sample::default(), 0.9, 0.8, 10.0).is_none());
    }

    #[test]
    fn a_flood_says_how_many_entries_are_its_own() {
        let mut sample = Sample::default();
        sample.table.count = 100_000;
        let Load::Flood { unreplied, entries, sources } = seen(90_000, 0.5, CALM).flood(&sample) else {
            unreachable!()
        };
        assert!((unreplied - 1.0).abs() < 0.15 && entries == 50_000 && sources == 9, "{unreplied} {entries}");
    }
}
