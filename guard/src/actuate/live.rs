//! The actuator that writes.

use std::path::Path;
use std::time::{Duration, Instant};

use super::journal::{Found, Journal};
use super::restore::{Restored, restore};
use super::settings::{Settings, takes};
use super::{Actuator, Effect, Error, Outcome};
use crate::config::Restore;
use crate::model::ResizeCost;
use crate::policy::{Approved, Change};

/// Journals, writes, reads back.
#[derive(Debug)]
pub struct Live {
    settings: Settings,
    journal: Journal,
}

impl Live {
    /// Opens the state directory, takes over what a guard of this boot left in its journal, so that values it had changed
    /// are not taken for originals, and takes down all other settings as they are.
    pub fn start(settings: Settings, state_dir: &Path, max_stall: Duration) -> Result<Self, Error> {
        let boot_id = settings.boot_id()?;
        let mut journal = match Journal::find(state_dir, &boot_id)? {
            Found::ThisBoot(journal) => journal,
            found => {
                if matches!(found, Found::EarlierBoot) {
                    Journal::remove(state_dir)?;
                }
                Journal::create(state_dir, &boot_id)?
            }
        };
        journal.begin(&settings.all()?, max_stall)?;
        Ok(Self { settings, journal })
    }

    fn write(&mut self, change: &Change) -> Effect {
        if let Err(error) = self.journal.intend(change.setting, change.old, change.new) {
            return Effect::Refused {
                error: error.to_string(),
                way_out: "nothing is changed that could not be put back".into(),
            };
        }
        let start = Instant::now();
        let written = self.settings.write(change.setting, change.new);
        let took = start.elapsed();
        let read = self.settings.read(change.setting);
        if let Ok(left) = read {
            // The intention on disk covers a failure here.
            if let Err(error) = self.journal.settle(change.setting, left) {
                tracing::warn!("{error}");
            }
        }
        match written.and(read) {
            Ok(read_back) if takes(change.setting, change.new, read_back) => Effect::Applied { read_back, took },
            Ok(read_back) => Effect::NoEffect { read_back, took },
            Err(error) => Effect::Refused { error: error.to_string(), way_out: error.way_out().into() },
        }
    }
}

impl Actuator for Live {
    fn apply(&mut self, approved: &Approved) -> Vec<Outcome> {
        let changes = approved.changes().iter();
        changes.map(|change| Outcome { change: change.clone(), result: self.write(change) }).collect()
    }

    fn set_max_stall(&mut self, limit: Duration) {
        self.journal.set_max_stall(limit);
    }

    fn restore(&mut self, how: Restore, cost: ResizeCost) -> Vec<Restored> {
        self.journal.set_resize_cost(cost);
        restore(&mut self.journal, &self.settings, how)
    }
}

#[cfg(test)]
mod tests;
