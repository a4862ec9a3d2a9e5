//! What a guard before this one left behind.

use std::path::Path;

use super::journal::{Found, Journal};
use super::settings::Settings;
use super::{Error, find_journal};
use crate::policy::Setting;

/// What an earlier guard's journal says, held against the settings in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    /// There is a journal of an earlier boot: it is of no use any more.
    pub earlier_boot: bool,
    /// Settings still as the earlier guard left them, with the originals to come back to.
    pub taken_over: Vec<(Setting, u64)>,
    /// Settings that somebody else has written since, with the values that now stand.
    pub overwritten: Vec<(Setting, u64)>,
}

impl Inherited {
    /// Reads the journal of a state directory. Changes nothing.
    pub fn read(settings: &Settings, state_dir: &Path) -> Result<Self, Error> {
        match find_journal(state_dir, settings)? {
            Found::Nothing => Ok(Self::default()),
            Found::EarlierBoot => Ok(Self { earlier_boot: true, ..Self::default() }),
            Found::ThisBoot(journal) => Self::of(&journal, settings),
        }
    }

    /// What a setting was before the earlier guard, where it still is as that left it.
    pub fn original(&self, setting: Setting) -> Option<u64> {
        self.taken_over.iter().find(|(taken_over, _)| *taken_over == setting).map(|(_, original)| *original)
    }

    fn of(journal: &Journal, settings: &Settings) -> Result<Self, Error> {
        let mut inherited = Self::default();
        let all = settings.all()?;
        for setting in journal.touched() {
            let (Some(entry), Some((_, current))) = (journal.entry(setting), all.iter().find(|one| one.0 == setting))
            else {
                continue;
            };
            if !entry.is_ours(setting, *current) {
                inherited.overwritten.push((setting, *current));
            } else if *current != entry.original {
                inherited.taken_over.push((setting, entry.original));
            }
        }
        Ok(inherited)
    }
}
