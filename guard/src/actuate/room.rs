//! Whether the table has room for what a restore brings back: nothing here may drop a flow.

use super::journal::{Entry, Journal};
use super::settings::Settings;
use crate::policy::{Setting, has_headroom, headroom};

/// A timeout put back makes the entries it is for stay longer, and with the same load there are that many times more of
/// them. Beyond four times as long it takes hours until they are, which are not a restore's to foresee.
const LONGEST_STRETCH: u64 = 4;

/// The table, and what is to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Entries in use.
    pub count: u64,
    /// Entries expected once the timeouts are back.
    grown: u64,
    /// Max in force.
    max: u64,
    /// Max as it was found.
    original: u64,
}

impl Room {
    /// Reads the table, and holds it against the journal.
    pub fn look(journal: &Journal, settings: &Settings) -> Result<Self, String> {
        let count = settings.count().map_err(|error| error.with_way_out())?;
        let max = settings.read(Setting::Max).map_err(|error| error.with_way_out())?;
        let ours = |entry: &&Entry| entry.is_ours(Setting::Max, max);
        let original = journal.entry(Setting::Max).filter(ours).map_or(max, |entry| entry.original);
        let mut grown = count;
        for setting in journal.touched().into_iter().filter(|setting| matches!(setting, Setting::Timeout(_))) {
            if let (Ok(now), Some(entry)) = (settings.read(setting), journal.entry(setting))
                && entry.is_ours(setting, now)
            {
                grown = grown.max(stretched(count, now, entry.original));
            }
        }
        Ok(Self { count, grown, max, original })
    }

    /// Whether max as it was found is higher than it is now.
    pub fn max_rises(&self) -> bool {
        self.max != 0 && self.original > self.max
    }

    /// What harm the timeouts found would do, if any.
    pub fn harm_of_timeouts(&self) -> Option<String> {
        (!has_headroom(self.grown, self.max)).then(|| {
            let Self { count, grown, max, .. } = self;
            format!("{count} entries may become {grown} with the timeouts found, and nf_conntrack_max is {max}")
        })
    }

    /// What harm max as it was found would do, if any.
    pub fn harm_of_max(&self) -> Option<String> {
        // Timeouts that wait do not count.
        let entries = if self.harm_of_timeouts().is_none() { self.grown } else { self.count };
        (!has_headroom(entries, self.original) && (self.original < self.max || self.max == 0)).then(|| {
            let coming = if entries > self.count { format!(", and may become {entries}") } else { String::new() };
            format!("{} entries are in use{coming}; {} could drop new ones", self.count, self.original)
        })
    }

    /// The lowest max, not below the original, that drops nobody now.
    pub fn lowest_max(&self, original: u64) -> u64 {
        original.max(self.count.saturating_add(headroom(self.count, original)))
    }
}

/// `count` entries whose timeouts go from `now` to `original` seconds.
fn stretched(count: u64, now: u64, original: u64) -> u64 {
    let times = u128::from(original) * u128::from(count) / u128::from(now.max(1));
    u64::try_from(times).unwrap_or(u64::MAX).min(count.saturating_mul(LONGEST_STRETCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_stays_above_what_is_there_and_its_room() {
        let room = |count| Room { count, grown: count, max: 1 << 20, original: 1_000 };
        assert_eq!(room(100_000).lowest_max(1_000), 110_000);
        assert_eq!(room(500).lowest_max(1_000), 1_000);
        assert_eq!(room(u64::MAX).lowest_max(1), u64::MAX);
        assert!(room(0).lowest_max(0) > 0);
    }

    #[test]
    fn entries_grow_with_their_timeouts_but_not_beyond_four_times() {
        assert_eq!(stretched(1_000, 30, 120), 4_000);
        assert_eq!(stretched(1_000, 15, 30), 2_000);
        assert_eq!(stretched(1_000, 7_875, 432_000), 4_000);
        assert_eq!(stretched(1_000, 60, 30), 500);
        assert_eq!(stretched(u64::MAX, 0, u64::MAX), u64::MAX);
    }

    #[test]
    fn timeouts_wait_for_a_table_that_holds_what_they_bring() {
        let room = |count, grown| Room { count, grown, max: 65_536, original: 16_384 };
        let calm = room(1_000, 4_000);
        assert_eq!((calm.harm_of_timeouts(), calm.harm_of_max()), (None, None));
        // Max as it is has the room, max as it was has not.
        let busy = room(5_000, 20_000);
        assert_eq!(busy.harm_of_timeouts(), None);
        assert!(busy.harm_of_max().unwrap().contains("may become 20000"));
        let full = room(20_000, 80_000);
        assert!(full.harm_of_timeouts().unwrap().contains("80000"));
        assert!(full.harm_of_max().is_some());
        // The timeouts wait, so max is held against what there is.
        assert_eq!(Room { original: 32_768, ..full }.harm_of_max(), None);
        // Higher than now is never a harm.
        assert_eq!(Room { max: 21_000, original: 21_500, ..full }.harm_of_max(), None);
    }
}
