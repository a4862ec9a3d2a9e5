//! The host's settings as they really are: who gave them which value, and what a restore may do to them.

use std::any::Any;
use std::io;

use super::{
    BTreeMap, Duration, FakeKernel, InForce, Put, Rc, ResizeCost, Restore, Restored, SETTINGS, Setting, TableReading,
    find_journal, fs,
};
use crate::actuate::Found;
use crate::actuate::testing::Moment;

const PAGE: u64 = 512;
const COUNT: &str = "nf_conntrack_count";

/// The guard's process is gone.
pub struct Killed;

/// Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014).
pub struct Chance(u64);

impl Chance {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.bits() % limit as u64).unwrap()
    }

    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

pub struct World {
    pub kernel: Rc<FakeKernel>,
    pub chance: Chance,
    pub wrong: Vec<String>,
    /// What happened, for people.
    pub told: Vec<String>,
    /// What somebody else than the guard gave each setting last.
    theirs: BTreeMap<Setting, u64>,
    boots: u64,
    /// Steps until the guard is killed, and whether writes may fail.
    dies_in: Option<usize>,
    faults: bool,
    /// Nothing goes wrong any more.
    calm: bool,
    /// Before the write that is under way.
    before: u64,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let kernel = Rc::new(FakeKernel::with_timeouts(65_536, 16_384, 1_000));
        let mut world = Self {
            kernel,
            chance: Chance(seed),
            wrong: Vec::new(),
            told: Vec::new(),
            theirs: BTreeMap::new(),
            boots: 1,
            dies_in: None,
            faults: false,
            calm: false,
            before: 0,
        };
        world.settings_of_the_host();
        world
    }

    pub fn tell(&mut self, what: &str) {
        let values: Vec<u64> = SETTINGS.iter().map(|setting| self.read(*setting)).collect();
        let count = self.kernel.get(COUNT);
        self.told.push(format!("{what}; {values:?} with {count} entries, others had {:?}", self.theirs.values()));
    }

    pub fn wrong(&mut self, what: String) {
        self.told.push(format!("WRONG: {what}"));
        self.wrong.push(what);
    }

    pub fn read(&self, setting: Setting) -> u64 {
        self.kernel.get(setting.sysctl())
    }

    /// A value that only the guard (`whose` 0) or only others (1) give, so that it is known whose it is.
    pub fn a_value(&mut self, setting: Setting, whose: u64) -> u64 {
        let any = self.chance.below(200) as u64 * 2 + whose;
        match setting {
            Setting::Max => 2_000 + any * 701 * 2 + whose,
            Setting::Buckets => (2 + any) * PAGE,
            Setting::Timeout(_) => 4 + any,
        }
    }

    fn write(&mut self, setting: Setting, value: u64) {
        self.kernel.set(setting.sysctl(), value);
        self.theirs.insert(setting, value);
    }

    /// An operator, or another program: another value, or the one that it had before the guard came.
    pub fn somebody_writes(&mut self) {
        let setting = SETTINGS[self.chance.below(SETTINGS.len())];
        let value = if self.chance.once_in(4) { self.theirs[&setting] } else { self.a_value(setting, 1) };
        self.write(setting, value);
        self.tell(&format!("somebody sets {} to {value}", setting.name()));
    }

    /// Most of the time there is room.
    pub fn traffic(&mut self) {
        let max = self.read(Setting::Max);
        let part = [1, 10, 50, 80, 90, 95, 100][self.chance.below(7)];
        self.kernel.set(COUNT, max * part / 100);
    }

    pub fn calm(&mut self) {
        self.kernel.set(COUNT, 1);
        self.calm = true;
    }

    fn settings_of_the_host(&mut self) {
        for setting in SETTINGS {
            let value = self.a_value(setting, 1);
            self.write(setting, value);
        }
    }

    /// The kernel forgets, the disk does not; and what was not synchronised may be anything.
    pub fn reboot(&mut self) {
        self.boots += 1;
        let boot = format!("b0075000-0000-4000-8000-{:012}\n", self.boots);
        fs::write(self.kernel.path("proc/sys/kernel/random/boot_id"), boot).unwrap();
        let page = self.kernel.state_dir().join("journal.latest");
        if page.exists() && self.chance.once_in(3) {
            fs::write(page, [0; 4096]).unwrap();
        }
        self.settings_of_the_host();
        self.kernel.set(COUNT, 0);
        self.tell("a reboot");
    }

    /// From now on in a tree of its own, as a killed process leaves this one.
    pub fn leave_the_tree(&mut self) {
        self.kernel = Rc::new(self.kernel.as_it_is());
    }

    /// What the guard gave another value than others had given it last, with the latter.
    pub fn ours(&self) -> Vec<(Setting, u64)> {
        let differs =
            |(setting, theirs): (&Setting, &u64)| (self.read(*setting) != *theirs).then_some((*setting, *theirs));
        self.theirs.iter().filter_map(differs).collect()
    }

    pub fn in_force(&self) -> InForce {
        let [max, buckets] = [Setting::Max, Setting::Buckets].map(|setting| self.read(setting));
        let timeout = |setting: &Setting| match setting {
            Setting::Timeout(timeout) => Some((*timeout, self.read(*setting))),
            _ => None,
        };
        let timeouts = SETTINGS.iter().filter_map(timeout).collect();
        InForce { table: TableReading { max, buckets, count: self.kernel.get(COUNT) }, timeouts, ..InForce::default() }
    }

    pub fn as_it_stands(&self) -> BTreeMap<Setting, u64> {
        SETTINGS.iter().map(|setting| (*setting, self.read(*setting))).collect()
    }

    /// The guard is about to do something, and may not live to see its end.
    pub fn begin(&mut self, faults: bool) -> Rc<FakeKernel> {
        self.faults = faults && !self.calm;
        let dies = !self.calm && self.chance.once_in(3);
        self.dies_in = dies.then(|| self.chance.below(14));
        Rc::clone(&self.kernel)
    }

    /// A step of the guard's. `Err`: it is killed here.
    pub fn at(&mut self, moment: Moment) -> Result<io::Result<()>, Box<dyn Any + Send>> {
        let done = match moment {
            Moment::Writing(setting, value) => self.writing(setting, value),
            Moment::Written(setting, value) => {
                self.written(setting, value);
                Ok(())
            }
            Moment::Saved => Ok(()),
        };
        match &mut self.dies_in {
            Some(0) => {
                self.tell(&format!("killed at {moment:?}"));
                self.leave_the_tree();
                return Err(Box::new(Killed));
            }
            Some(steps) => *steps -= 1,
            None => {}
        }
        Ok(done)
    }

    fn writing(&mut self, setting: Setting, value: u64) -> io::Result<()> {
        let theirs = self.theirs[&setting];
        self.before = self.read(setting);
        let found = find_journal(&self.kernel.state_dir(), &self.kernel.settings());
        let original = match &found {
            Ok(Found::ThisBoot(journal)) => journal.entry(setting).map(|entry| entry.original),
            _ => None,
        };
        if original != Some(theirs) {
            let name = setting.name();
            self.wrong(format!("{name} is set to {value}, and the journal says {original:?} for {theirs}"));
        }
        if self.faults && self.chance.once_in(10) {
            self.tell(&format!("{} is not written", setting.name()));
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        Ok(())
    }

    fn written(&mut self, setting: Setting, value: u64) {
        if setting == Setting::Buckets {
            // As the kernel does.
            self.kernel.set(setting.sysctl(), value.next_multiple_of(PAGE));
        }
        let happens = if self.faults { self.chance.below(20) } else { usize::MAX };
        if happens == 0 {
            // Something swallows it.
            self.kernel.set(setting.sysctl(), self.before);
            self.tell(&format!("{} = {value} has no effect", setting.name()));
        } else if happens == 1 {
            let value = self.a_value(setting, 1);
            self.write(setting, value);
            self.tell(&format!("somebody sets {} to {value} at the same moment", setting.name()));
        }
    }

    /// Whether what a restore did was right.
    pub fn judge(&mut self, before: &BTreeMap<Setting, u64>, how: Restore, max_stall: Duration, all: &[Restored]) {
        self.tell(&format!(
            "{:?}",
            all.iter().map(|one| (one.setting.name(), one.original, &one.put)).collect::<Vec<_>>()
        ));
        let count = self.kernel.get(COUNT);
        let max = self.read(Setting::Max).max(before[&Setting::Max]);
        for (setting, theirs) in self.ours() {
            let told = all.iter().find(|one| one.setting == setting).map(|one| &one.put);
            let reason = match told {
                Some(Put::Later { why, .. }) => !why.is_empty(),
                Some(Put::Failed { error } | Put::StillInJournal { error }) => !error.is_empty(),
                Some(Put::Kept { .. }) => how == Restore::Keep,
                _ => false,
            };
            if !reason {
                self.wrong(format!("{} is not back at {theirs}, and no reason is told: {told:?}", setting.name()));
            }
        }
        for (setting, was) in before {
            let now = self.read(*setting);
            let wrote = all.iter().any(|one| {
                one.setting == *setting
                    && match one.put {
                        Put::Back { from } => from != now,
                        Put::BackOverStall { .. } => true,
                        Put::Later { from, now, .. } => from != now,
                        _ => false,
                    }
            });
            let harm = match setting {
                Setting::Max => now < *was && (now < count + count / 10 || now <= count),
                Setting::Buckets => how != Restore::Now && ResizeCost::default().stall(count) > max_stall,
                Setting::Timeout(_) => {
                    let grown = (count * now / was.max(&1)).min(count * 4);
                    how != Restore::Now && now > *was && grown > max
                }
            };
            if wrote && harm {
                self.wrong(format!("{} goes from {was} to {now} with {count} entries in {max}", setting.name()));
            }
        }
    }
}
