//! Putting the originals back, without harm: what cannot come back now stays in the journal for later.

use std::time::{Duration, Instant};

use super::journal::Journal;
use super::room::Room;
use super::settings::{Settings, takes};
use crate::config::Restore;
use crate::figures::time;
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
    /// The same, by a resize that was expected to stall tracked packets for longer than the policy allows the guard's own.
    BackOverStall {
        /// The value before.
        from: u64,
        /// How long the write took.
        took: Duration,
        /// `hash.max-stall`
        limit: Duration,
    },
    /// Left on purpose, for the next guard.
    Kept {
        /// The value that stands.
        now: u64,
    },
    /// Somebody else has changed it since the guard did; it stays.
    Overwritten {
        /// The value that stands.
        current: u64,
    },
    /// The kernel no longer has this setting.
    Gone,
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
    /// Whether all is as it was meant to be.
    pub fn is_done(&self) -> bool {
        self.is_over() || matches!(self.put, Put::Kept { .. })
    }

    /// Whether the journal has no more use for the original.
    fn is_over(&self) -> bool {
        matches!(self.put, Put::Back { .. } | Put::BackOverStall { .. } | Put::Overwritten { .. } | Put::Gone)
    }
}

/// Puts back what the journal holds: a max that rises, as longer timeouts need its room, then timeouts, then a max that falls,
/// then buckets. Whatever has come back leaves the journal; an
/// empty journal is removed. Safe to repeat. Needs no room on the disk where everything comes back: a full disk is no reason
/// to leave settings changed.
pub fn restore(journal: &mut Journal, settings: &Settings, how: Restore) -> Vec<Restored> {
    let mut touched = journal.touched();
    let mut room = Room::look(journal, settings);
    let rises = room.as_ref().is_ok_and(Room::max_rises);
    touched.sort_by_key(|setting| match setting {
        Setting::Max if rises => 0,
        Setting::Timeout(_) => 1,
        Setting::Max => 2,
        Setting::Buckets => 3,
    });
    let mut all = Vec::new();
    for setting in touched {
        let Some(original) = journal.entry(setting).map(|entry| entry.original) else { continue };
        let put = match (&room, how) {
            (_, Restore::Keep) => keep(journal, settings, setting),
            (Ok(room), _) => put_back(journal, settings, setting, original, room, how),
            (Err(error), _) => Err(error.clone()),
        };
        all.push(Restored { setting, original, put: put.unwrap_or_else(|error| Put::Failed { error }) });
        if setting == Setting::Max && rises {
            // It may have failed.
            room = Room::look(journal, settings);
        }
    }
    // All in one: an empty journal is removed without another one being written first.
    let over: Vec<Setting> = all.iter().filter(|one| one.is_over()).map(|one| one.setting).collect();
    if let Err(error) = journal.forget(&over) {
        for one in all.iter_mut().filter(|one| one.is_done()) {
            one.put = Put::StillInJournal { error: error.to_string() };
        }
    }
    all
}

/// The value in force if the guard left it; else what there is to say instead.
fn ours(journal: &Journal, settings: &Settings, setting: Setting) -> Result<Result<u64, Put>, String> {
    let current = match settings.read(setting) {
        // A tracker's module may go, and its timeouts with it; max and buckets go with the table alone.
        Err(error) if matches!(setting, Setting::Timeout(_)) && error.is_missing() => return Ok(Err(Put::Gone)),
        read => read.map_err(|error| error.with_way_out())?,
    };
    let Some(entry) = journal.entry(setting) else { return Ok(Err(Put::Overwritten { current })) };
    Ok(if current == entry.original {
        Err(Put::Back { from: current })
    } else if entry.is_ours(setting, current) {
        Ok(current)
    } else {
        Err(Put::Overwritten { current })
    })
}

fn keep(journal: &Journal, settings: &Settings, setting: Setting) -> Result<Put, String> {
    Ok(ours(journal, settings, setting)?.map_or_else(|put| put, |now| Put::Kept { now }))
}

fn put_back(
    journal: &mut Journal,
    settings: &Settings,
    setting: Setting,
    original: u64,
    room: &Room,
    how: Restore,
) -> Result<Put, String> {
    let from = match ours(journal, settings, setting)? {
        Ok(from) => from,
        Err(put) => return Ok(put),
    };
    let limit = journal.max_stall();
    let stall = journal.resize_cost().stall(room.count);
    let stalls = setting == Setting::Buckets && stall > limit;
    let harm = match setting {
        Setting::Timeout(_) => room.harm_of_timeouts(),
        Setting::Max => room.harm_of_max(),
        Setting::Buckets => stalls.then(|| {
            format!(
                "a resize with {} entries would stall all tracked packets for about {}, over hash.max-stall of {}",
                room.count,
                time(stall),
                time(limit)
            )
        }),
    };
    let target = match (harm, how, setting) {
        (Some(_), Restore::Now, Setting::Max) => room.lowest_max(original).min(from.max(original)),
        (Some(why), Restore::WhenSafe | Restore::Keep, _) => return Ok(Put::Later { from, now: from, why }),
        _ => original,
    };
    let took = write(journal, settings, setting, from, target)?;
    Ok(if target != original {
        let why = format!("{} entries are in use, {original} would drop new ones", room.count);
        Put::Later { from, now: target, why }
    } else if stalls {
        Put::BackOverStall { from, took, limit }
    } else {
        Put::Back { from }
    })
}

/// Writes `target` in place of `from`, and makes sure of it.
fn write(
    journal: &mut Journal,
    settings: &Settings,
    setting: Setting,
    from: u64,
    target: u64,
) -> Result<Duration, String> {
    if target == from {
        return Ok(Duration::ZERO);
    }
    // Killed between the write and the journal, the next restore knows the original as such, so it needs no record of the
    // intention; any other value would pass for another program's.
    let back = journal.entry(setting).is_some_and(|entry| entry.original == target);
    if !back {
        journal.intend(setting, from, target).map_err(|error| error.to_string())?;
    }
    let start = Instant::now();
    settings.write(setting, target).map_err(|error| error.with_way_out())?;
    let took = start.elapsed();
    let left = settings.read(setting).map_err(|error| error.with_way_out())?;
    if !takes(setting, target, left) {
        return Err(format!("wrote {target}, but it reads {left}: something else holds this setting"));
    }
    if !back {
        journal.settle(setting, left).map_err(|error| error.to_string())?;
    }
    Ok(took)
}

#[cfg(test)]
mod tests;
