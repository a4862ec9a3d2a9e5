//! The actuator that writes.

use std::path::Path;
use std::time::{Duration, Instant};

use super::journal::{Found, Journal};
use super::restore::{Restored, restore};
use super::settings::{Settings, takes};
use super::{Actuator, Effect, Error, Outcome};
use crate::policy::{Approved, Change, Setting};

/// Journals, writes, reads back.
#[derive(Debug)]
pub struct Live {
    settings: Settings,
    journal: Journal,
}

/// What a guard before this one left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    /// There was a journal of an earlier boot; it has been removed.
    pub earlier_boot: bool,
    /// Settings still as the earlier guard left them, with the originals that a stop now puts back.
    pub taken_over: Vec<(Setting, u64)>,
    /// Settings that somebody else has written since, with the values that now stand.
    pub overwritten: Vec<(Setting, u64)>,
}

impl Live {
    /// Opens the state directory and takes over what a guard of this boot left in its journal, so that values it had
    /// changed are not taken for originals.
    pub fn start(settings: Settings, state_dir: &Path, max_stall: Duration) -> Result<(Self, Inherited), Error> {
        let boot_id = settings.boot_id()?;
        let mut inherited = Inherited::default();
        let mut journal = match Journal::find(state_dir, &boot_id)? {
            Found::ThisBoot(journal) => journal,
            found => {
                if matches!(found, Found::EarlierBoot) {
                    Journal::remove(state_dir)?;
                    inherited.earlier_boot = true;
                }
                Journal::create(state_dir, &boot_id, max_stall)?
            }
        };
        journal.set_max_stall(max_stall);
        for setting in journal.settings() {
            let current = settings.read(setting)?;
            match journal.entry(setting) {
                Some(entry) if entry.is_ours(setting, current) => inherited.taken_over.push((setting, entry.original)),
                _ => {
                    journal.forget(&[setting])?;
                    inherited.overwritten.push((setting, current));
                }
            }
        }
        Ok((Self { settings, journal }, inherited))
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

    fn restore(&mut self) -> Vec<Restored> {
        restore(&mut self.journal, &self.settings)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::actuate::testing::FakeKernel;
    use crate::policy::Rule;

    const STALL: Duration = Duration::from_millis(20);

    fn change(setting: Setting, old: u64, new: u64) -> Change {
        Change {
            setting,
            old,
            new,
            rule: Rule::RaiseMax,
            evidence: String::new(),
            predicted: String::new(),
            expectation: None,
        }
    }

    fn start(kernel: &FakeKernel) -> (Live, Inherited) {
        Live::start(kernel.settings(), &kernel.state_dir(), STALL).unwrap()
    }

    fn journalled(kernel: &FakeKernel) -> bool {
        kernel.state_dir().join("journal.json").exists()
    }

    #[test]
    fn a_change_is_written_read_back_and_journalled() {
        let kernel = FakeKernel::new(65536, 16384, 10);
        let (mut live, inherited) = start(&kernel);
        assert_eq!(inherited, Inherited::default());
        let effect = live.write(&change(Setting::Max, 65536, 131_072));
        assert!(matches!(effect, Effect::Applied { read_back: 131_072, .. }), "{effect:?}");
        assert_eq!(kernel.get("nf_conntrack_max"), 131_072);
        assert!(journalled(&kernel));
    }

    #[test]
    fn a_refused_write_leaves_no_journal() {
        let kernel = FakeKernel::new(65536, 16384, 10);
        kernel.make_read_only("proc/sys/net/netfilter/nf_conntrack_max");
        let (mut live, _) = start(&kernel);
        let effect = live.write(&change(Setting::Max, 65536, 131_072));
        let Effect::Refused { error, way_out } = effect else { panic!("{effect:?}") };
        assert!(error.contains("nf_conntrack_max") && way_out.contains("as root"), "{error}; {way_out}");
        assert!(!journalled(&kernel));
    }

    #[test]
    fn a_write_without_effect_is_told_apart_and_leaves_no_journal() {
        let kernel = FakeKernel::new(65536, 16384, 10);
        kernel.make_deaf("proc/sys/net/netfilter/nf_conntrack_max");
        let (mut live, _) = start(&kernel);
        let effect = live.write(&change(Setting::Max, 33, 51));
        assert!(matches!(effect, Effect::NoEffect { read_back: 33, .. }), "{effect:?}");
        assert!(!journalled(&kernel));
    }

    #[test]
    fn nothing_is_written_that_is_not_journalled() {
        let kernel = FakeKernel::new(65536, 16384, 10);
        let (mut live, _) = start(&kernel);
        fs::remove_dir(kernel.state_dir()).unwrap();
        let effect = live.write(&change(Setting::Max, 65536, 131_072));
        assert!(matches!(&effect, Effect::Refused { error, .. } if error.contains("journal")), "{effect:?}");
        assert_eq!(kernel.get("nf_conntrack_max"), 65536);
    }

    #[test]
    fn a_start_after_a_kill_takes_the_originals_over() {
        let kernel = FakeKernel::new(65536, 16384, 10);
        let (mut live, _) = start(&kernel);
        live.write(&change(Setting::Max, 65536, 131_072));
        drop(live);
        let (mut live, inherited) = start(&kernel);
        assert_eq!(inherited.taken_over, [(Setting::Max, 65536)]);
        live.write(&change(Setting::Max, 131_072, 262_144));
        live.restore();
        assert_eq!(kernel.get("nf_conntrack_max"), 65536);
        assert!(!journalled(&kernel));
    }

    #[test]
    fn killed_between_journal_and_write_or_between_write_and_journal_the_original_comes_back() {
        for kernel_has in [65536, 131_072] {
            let kernel = FakeKernel::new(65536, 16384, 10);
            let (mut live, _) = start(&kernel);
            live.journal.intend(Setting::Max, 65536, 131_072).unwrap();
            kernel.set("nf_conntrack_max", kernel_has);
            drop(live);
            start(&kernel).0.restore();
            assert_eq!(kernel.get("nf_conntrack_max"), 65536);
            assert!(!journalled(&kernel));
        }
    }

    #[test]
    fn a_start_leaves_what_somebody_else_wrote_meanwhile() {
        let kernel = FakeKernel::new(65536, 16384, 10);
        let (mut live, _) = start(&kernel);
        live.write(&change(Setting::Max, 65536, 131_072));
        drop(live);
        kernel.set("nf_conntrack_max", 99_999);
        let (mut live, inherited) = start(&kernel);
        assert_eq!(inherited.overwritten, [(Setting::Max, 99_999)]);
        live.restore();
        assert_eq!(kernel.get("nf_conntrack_max"), 99_999);
        assert!(!journalled(&kernel));
    }

    #[test]
    fn a_journal_of_an_earlier_boot_is_removed_and_not_applied() {
        let kernel = FakeKernel::new(65536, 16384, 10);
        let (mut live, _) = start(&kernel);
        live.write(&change(Setting::Max, 65536, 131_072));
        drop(live);
        fs::write(kernel.path("proc/sys/kernel/random/boot_id"), "another\n").unwrap();
        let (mut live, inherited) = start(&kernel);
        assert!(inherited.earlier_boot && inherited.taken_over.is_empty() && !journalled(&kernel));
        live.restore();
        assert_eq!(kernel.get("nf_conntrack_max"), 131_072);
    }
}
