//! Putting the originals back, without harm: what cannot come back now stays in the journal for later.

use std::time::Duration;

use super::journal::Journal;
use super::settings::{Settings, takes};
use crate::figures::time;
use crate::model::ResizeCost;
use crate::policy::Setting;

/// How one setting came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The setting.
    pub setting: Setting,
    /// The value to come back to.
    pub original: u64,
    /// What was done.
    pub put: Put,
}

/// What was done about one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// The original is in force again.
    Back {
        /// The value before, equal to the original if nothing had to be written.
        from: u64,
    },
    /// Somebody else has changed it since the guard did; it stays.
    Overwritten {
        /// The value that stands.
        current: u64,
    },
    /// Only part of the way, or not at all: the original would do harm now. The journal keeps it.
    Later {
        /// The value before.
        from: u64,
        /// The value now; equal to `from` if nothing was written.
        now: u64,
        /// What harm.
        why: String,
    },
    /// Nothing is left to do but to take it off the journal, which failed. Another restore finds it done.
    StillInJournal {
        /// What failed, and the way out.
        error: String,
    },
    /// Reading, journalling or writing failed. The journal keeps it.
    Failed {
        /// What failed, and the way out.
        error: String,
    },
}

impl Restored {
    /// Whether nothing is left to do for this setting.
    pub fn is_done(&self) -> bool {
        matches!(self.put, Put::Back { .. } | Put::Overwritten { .. })
    }
}

/// Puts back what the journal holds. Whatever has come back leaves the journal; an empty journal is removed. Safe to
/// repeat. Needs no room on the disk where everything comes back: a full disk is no reason to leave settings changed.
pub fn restore(journal: &mut Journal, settings: &Settings) -> Vec<Restored> {
    let mut all = Vec::new();
    for setting in journal.settings() {
        let Some(original) = journal.entry(setting).map(|entry| entry.original) else { continue };
        let put = put_back(journal, settings, setting, original).unwrap_or_else(|error| Put::Failed { error });
        all.push(Restored { setting, original, put });
    }
    // All in one: an empty journal is removed without another one being written first.
    let done: Vec<Setting> = all.iter().filter(|one| one.is_done()).map(|one| one.setting).collect();
    if !done.is_empty()
        && let Err(error) = journal.forget(&done)
    {
        for one in all.iter_mut().filter(|one| one.is_done()) {
            one.put = Put::StillInJournal { error: error.to_string() };
        }
    }
    all
}

fn put_back(journal: &mut Journal, settings: &Settings, setting: Setting, original: u64) -> Result<Put, String> {
    let say = |error: super::SettingsError| format!("{error}; {}", error.way_out());
    let from = settings.read(setting).map_err(say)?;
    if from == original {
        return Ok(Put::Back { from });
    }
    if !journal.entry(setting).is_some_and(|entry| entry.is_ours(setting, from)) {
        return Ok(Put::Overwritten { current: from });
    }
    let count = settings.count().map_err(say)?;
    let target = match setting {
        Setting::Max => safe_max(original, count).min(from.max(original)),
        Setting::Buckets => match stall_beyond(count, journal.max_stall()) {
            Some(why) => return Ok(Put::Later { from, now: from, why }),
            None => original,
        },
        // Entries take the longer time with their next packet, not all at once.
        Setting::Timeout(_) => original,
    };
    if target != from {
        // Killed between the write and the journal, the next restore knows the original as such, so it needs no record
        // of the intention; any other value would pass for another program's.
        if target != original {
            journal.intend(setting, from, target).map_err(|error| error.to_string())?;
        }
        settings.write(setting, target).map_err(say)?;
        let left = settings.read(setting).map_err(say)?;
        if !takes(setting, target, left) {
            return Err(format!("wrote {target}, but it reads {left}: something else holds this setting"));
        }
    }
    if target == original {
        return Ok(Put::Back { from });
    }
    // The kernel evicts nothing when max falls below the count; it would refuse every new flow instead.
    journal.settle(setting, target).map_err(|error| error.to_string())?;
    Ok(Put::Later { from, now: target, why: format!("{count} entries are in use, {original} would drop new ones") })
}

/// The lowest max, not below the original, that leaves room for a tenth more entries, 1024 at least.
fn safe_max(original: u64, count: u64) -> u64 {
    original.max(count.saturating_add((count / 10).max(1024)))
}

fn stall_beyond(count: u64, limit: Duration) -> Option<String> {
    let stall = ResizeCost::default().stall(count);
    (stall > limit).then(|| {
        format!(
            "a resize with {count} entries would stall all tracked packets for about {}, over hash.max-stall of {}",
            time(stall),
            time(limit)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actuate::testing::FakeKernel;
    use crate::actuate::{Found, find_journal};

    const MAX: &str = "nf_conntrack_max";
    const BUCKETS: &str = "nf_conntrack_buckets";

    /// A kernel whose max went from 65536 to 262144 and whose buckets went from 16384 to 65536.
    fn changed(count: u64, max_stall: Duration) -> FakeKernel {
        let kernel = FakeKernel::new(262_144, 65536, count);
        let boot = kernel.settings().boot_id().unwrap();
        let mut journal = Journal::create(&kernel.state_dir(), &boot, max_stall).unwrap();
        for (setting, old, new) in [(Setting::Max, 65536, 262_144), (Setting::Buckets, 16384, 65536)] {
            journal.intend(setting, old, new).unwrap();
            journal.settle(setting, new).unwrap();
        }
        kernel
    }

    fn run(kernel: &FakeKernel) -> Vec<Restored> {
        match find_journal(&kernel.state_dir(), &kernel.settings()).unwrap() {
            Found::ThisBoot(mut journal) => restore(&mut journal, &kernel.settings()),
            _ => Vec::new(),
        }
    }

    #[test]
    fn everything_comes_back_once() {
        let kernel = changed(1000, Duration::from_millis(20));
        let all = run(&kernel);
        assert_eq!(all[0].put, Put::Back { from: 262_144 });
        assert_eq!(all[1].put, Put::Back { from: 65536 });
        assert_eq!((kernel.get(MAX), kernel.get(BUCKETS)), (65536, 16384));
        assert_eq!(run(&kernel), []);
    }

    #[test]
    fn max_stays_above_what_is_in_use_and_comes_back_later() {
        let kernel = changed(100_000, Duration::from_secs(1));
        let all = run(&kernel);
        assert!(matches!(&all[0].put, Put::Later { from: 262_144, now: 110_000, .. }), "{all:?}");
        assert_eq!(kernel.get(MAX), 110_000);
        // More entries by now: it is not raised again either.
        kernel.set("nf_conntrack_count", 105_000);
        let all = run(&kernel);
        assert!(matches!(&all[0].put, Put::Later { from: 110_000, now: 110_000, .. }), "{all:?}");
        assert_eq!(kernel.get(MAX), 110_000);
        kernel.set("nf_conntrack_count", 10);
        assert_eq!(run(&kernel)[0].put, Put::Back { from: 110_000 });
        assert_eq!(kernel.get(MAX), 65536);
        assert_eq!(run(&kernel), []);
    }

    #[test]
    fn the_headroom_is_a_tenth_but_1024_at_least_and_saturates() {
        assert_eq!(safe_max(1000, 500), 1524);
        assert_eq!(safe_max(1000, 100_000), 110_000);
        assert_eq!(safe_max(65536, 10), 65536);
        assert_eq!(safe_max(1, u64::MAX), u64::MAX);
        assert!(safe_max(0, 0) > 0);
    }

    #[test]
    fn buckets_wait_for_a_table_that_resizes_within_the_limit() {
        let kernel = changed(40_000, Duration::from_millis(20));
        let all = run(&kernel);
        assert!(matches!(&all[1].put, Put::Later { now: 65536, why, .. } if why.contains("stall")), "{all:?}");
        assert_eq!((kernel.get(MAX), kernel.get(BUCKETS)), (65536, 65536));
        kernel.set("nf_conntrack_count", 10_000);
        assert_eq!(run(&kernel).len(), 1);
        assert_eq!(kernel.get(BUCKETS), 16384);
    }

    #[test]
    fn what_somebody_else_wrote_stays() {
        let kernel = changed(1000, Duration::from_millis(20));
        kernel.set(MAX, 131_072);
        let all = run(&kernel);
        assert_eq!(all[0].put, Put::Overwritten { current: 131_072 });
        assert_eq!((kernel.get(MAX), kernel.get(BUCKETS)), (131_072, 16384));
        assert_eq!(run(&kernel), []);
    }

    #[test]
    fn without_a_count_nothing_is_written() {
        let kernel = changed(1000, Duration::from_millis(20));
        std::fs::remove_file(kernel.path("proc/sys/net/netfilter/nf_conntrack_count")).unwrap();
        assert!(run(&kernel).iter().all(|one| matches!(one.put, Put::Failed { .. })));
        assert_eq!((kernel.get(MAX), kernel.get(BUCKETS)), (262_144, 65536));
        kernel.set("nf_conntrack_count", 1);
        assert!(run(&kernel).iter().all(Restored::is_done));
    }

    #[test]
    fn a_journal_that_cannot_be_written_keeps_nothing_from_coming_back() {
        let kernel = changed(1000, Duration::from_millis(20));
        // Nothing can be written beside the journal: for root too, and as on a full disk, what is there can be removed.
        std::fs::create_dir(kernel.state_dir().join("journal.json.new")).unwrap();
        let all = run(&kernel);
        assert!(all.iter().all(Restored::is_done), "{all:?}");
        assert_eq!((kernel.get(MAX), kernel.get(BUCKETS)), (65536, 16384));
        assert_eq!(run(&kernel), []);
    }

    #[test]
    fn a_setting_that_is_back_but_still_in_the_journal_is_found_done_later() {
        let kernel = changed(40_000, Duration::from_millis(20));
        let obstacle = kernel.state_dir().join("journal.json.new");
        std::fs::create_dir(&obstacle).unwrap();
        let all = run(&kernel);
        assert!(matches!(&all[0].put, Put::StillInJournal { error } if error.contains("journal.json.new")), "{all:?}");
        assert_eq!((kernel.get(MAX), kernel.get(BUCKETS)), (65536, 65536), "the buckets wait for a smaller table");
        std::fs::remove_dir(&obstacle).unwrap();
        kernel.set("nf_conntrack_count", 1000);
        assert!(run(&kernel).iter().all(Restored::is_done));
        assert_eq!((kernel.get(MAX), kernel.get(BUCKETS)), (65536, 16384));
    }

    #[test]
    fn a_refused_write_stays_in_the_journal() {
        let kernel = changed(1000, Duration::from_millis(20));
        // Reads 65536, which is what the guard left, and refuses writes.
        kernel.make_read_only("proc/sys/net/netfilter/nf_conntrack_buckets");
        kernel.make_read_only("sys/module/nf_conntrack/parameters/hashsize");
        let all = run(&kernel);
        assert_eq!(all[0].put, Put::Back { from: 262_144 });
        assert!(matches!(&all[1].put, Put::Failed { error } if error.contains(BUCKETS)), "{all:?}");
        assert_eq!(run(&kernel).len(), 1);
    }
}
