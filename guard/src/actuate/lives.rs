//! Whole lives of a host by chance: guards that start, write, stop and are killed at any step, other writers, refused
//! writes, reboots, `restore`. The values found are on disk before the first write, nothing is put back that does harm,
//! and in the end everything is as somebody else had it last.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use self::world::World;
use super::journal::Journal;
use super::testing::{FakeKernel, watch};
use super::{Actuator as _, Found, Inherited, Live, Put, Restored, find_journal, restore};
use crate::config::Restore;
use crate::model::ResizeCost;
use crate::observe::{TableReading, Timeout};
use crate::policy::{Change, InForce, Limits, Plan, Range, Setting, bounds};

mod world;

/// Lives that are lived each time.
const SHARE: u64 = 300;
/// So much happens in each.
const EVENTS: usize = 40;
const SETTINGS: [Setting; 5] = [
    Setting::Max,
    Setting::Buckets,
    Setting::Timeout(Timeout::Udp),
    Setting::Timeout(Timeout::TcpTimeWait),
    Setting::Timeout(Timeout::TcpEstablished),
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

#[test]
fn a_share_of_all_lives() {
    match number("SEED") {
        Some(seed) => live_through(seed),
        None => (0..SHARE).for_each(live_through),
    }
}

#[test]
#[ignore = "takes as long as it is told to: LIVES=100000, FROM for where to begin"]
fn many_lives() {
    let (from, count) = (number("FROM").unwrap_or(1_000_000), number("LIVES").unwrap_or(100_000));
    for done in 0..count {
        if done % 10_000 == 0 {
            println!("{done} of {count} lives, from {from} on");
        }
        live_through(from + done);
    }
}

/// Fails with the number that shows it again and all that happened.
fn live_through(seed: u64) {
    let mut host = Host::new(seed);
    let lived = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..EVENTS {
            host.happen();
        }
        host.end();
    }));
    let world = host.world.borrow();
    assert!(
        lived.is_ok() && world.wrong.is_empty(),
        "life {seed} (SEED={seed} cargo test -p conntrack-guard --lib -- a_share_of_all_lives shows it alone): {}\n{}",
        world.wrong.join("; "),
        world.told.join("\n")
    );
}

/// A host, and the guard on it while there is one.
struct Host {
    world: Rc<RefCell<World>>,
    guard: Option<Live>,
    max_stall: Duration,
}

impl Host {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        let max_stall = Duration::from_millis([1, 20, 1_000][world.chance.below(3)]);
        Self { world: Rc::new(RefCell::new(world)), guard: None, max_stall }
    }

    fn happen(&mut self) {
        let (what, torn) = {
            let chance = &mut self.world.borrow_mut().chance;
            (chance.below(16), chance.once_in(4))
        };
        match (what, self.guard.is_some()) {
            (0..3, _) => self.world.borrow_mut().somebody_writes(),
            (3..5, _) => self.world.borrow_mut().traffic(),
            (5, _) => self.reboot(),
            (6, true) => self.killed_now(torn),
            (7, true) => self.stop(),
            (_, true) => self.apply(),
            (6..9, false) => self.restore_command(),
            (_, false) => self.start(),
        }
    }

    /// Does this with the guard's steps watched. `None`: it was killed meanwhile.
    fn watched<T>(&mut self, faults: bool, work: impl FnOnce(&mut Option<Live>, &FakeKernel) -> T) -> Option<T> {
        let kernel = self.world.borrow_mut().begin(faults);
        let world = Rc::clone(&self.world);
        let watching =
            watch(move |moment| world.borrow_mut().at(moment).unwrap_or_else(|killed| resume_unwind(killed)));
        let done = catch_unwind(AssertUnwindSafe(|| work(&mut self.guard, &kernel)));
        drop(watching);
        match done {
            Ok(done) => Some(done),
            Err(cause) if cause.is::<world::Killed>() => {
                // What it still writes goes into the tree that is left behind.
                self.guard = None;
                None
            }
            Err(cause) => resume_unwind(cause),
        }
    }

    fn start(&mut self) {
        self.world.borrow_mut().tell("a guard starts");
        self.inherits_what_was_ours();
        let stall = self.max_stall;
        self.watched(false, |guard, kernel| {
            *guard = Some(Live::start(kernel.settings(), &kernel.state_dir(), stall).unwrap());
        });
    }

    /// What the guard takes for its predecessor's is just that, with the values that others gave it last.
    fn inherits_what_was_ours(&self) {
        let mut world = self.world.borrow_mut();
        let kernel = Rc::clone(&world.kernel);
        let inherited = Inherited::read(&kernel.settings(), &kernel.state_dir()).unwrap();
        let ours: Vec<_> = world.ours();
        if inherited.taken_over != ours {
            world.wrong(format!("takes over {:?} where {ours:?} is the guard's", inherited.taken_over));
        }
    }

    fn apply(&mut self) {
        let plan = self.plan();
        self.world.borrow_mut().tell(&format!(
            "a plan: {:?}",
            plan.changes.iter().map(|change| (change.setting.name(), change.old, change.new)).collect::<Vec<_>>()
        ));
        let found = self.world.borrow().in_force();
        let Ok(approved) = bounds::check(&plan, &limits(), &found, 320, ResizeCost::default()) else { return };
        self.watched(true, |guard, _| guard.as_mut().map(|guard| guard.apply(&approved)));
    }

    fn plan(&self) -> Plan {
        let world = &mut *self.world.borrow_mut();
        let mut changes = Vec::new();
        for setting in SETTINGS {
            if world.chance.once_in(2) {
                changes.push(Change::bare(setting, world.read(setting), world.a_value(setting, 0)));
            }
        }
        Plan { changes, ..Plan::default() }
    }

    fn stop(&mut self) {
        let how = [Restore::WhenSafe, Restore::Keep, Restore::Now][self.world.borrow_mut().chance.below(3)];
        self.put_back(how, |guard, _| {
            guard.take().map_or_else(Vec::new, |mut guard| guard.restore(how, ResizeCost::default()))
        });
        self.guard = None;
    }

    fn restore_command(&mut self) {
        self.put_back(Restore::WhenSafe, |_, kernel| command(kernel));
    }

    fn put_back(&mut self, how: Restore, work: impl FnOnce(&mut Option<Live>, &FakeKernel) -> Vec<Restored>) {
        self.world.borrow_mut().tell(&format!("a restore, {how:?}"));
        let before = self.world.borrow().as_it_stands();
        if let Some(all) = self.watched(true, work) {
            self.world.borrow_mut().judge(&before, how, self.max_stall, &all);
        }
    }

    /// kill -9 between two changes. The thread that saves may have got anywhere.
    fn killed_now(&mut self, torn: bool) {
        {
            let mut world = self.world.borrow_mut();
            world.tell("the guard is killed");
            world.leave_the_tree();
            if torn {
                fs::write(world.kernel.state_dir().join("journal.json.new"), "{\"version\": 2, \"boo").unwrap();
            }
        }
        self.guard = None;
    }

    fn reboot(&mut self) {
        self.world.borrow_mut().leave_the_tree();
        self.guard = None;
        self.world.borrow_mut().reboot();
    }

    /// Nobody does anything any more, and nothing stands in the way: all is as somebody else had it last.
    fn end(&mut self) {
        self.world.borrow_mut().leave_the_tree();
        self.guard = None;
        self.world.borrow_mut().calm();
        self.put_back(Restore::WhenSafe, |_, kernel| command(kernel));
        let mut world = self.world.borrow_mut();
        let left = world.ours();
        if !left.is_empty() {
            world.wrong(format!("not back in calm: {left:?}"));
        }
        // Of one that was killed while it removed its journal, the page may be left: without the journal it says nothing.
        if world.kernel.state_dir().join("journal.json").exists() {
            world.wrong("the journal is left".to_owned());
        }
    }
}

/// As `conntrack-guard restore` does it.
fn command(kernel: &FakeKernel) -> Vec<Restored> {
    match find_journal(&kernel.state_dir(), &kernel.settings()).unwrap() {
        Found::Nothing => Vec::new(),
        Found::EarlierBoot => {
            Journal::remove(&kernel.state_dir()).unwrap();
            Vec::new()
        }
        Found::ThisBoot(mut journal) => restore(&mut journal, &kernel.settings(), Restore::WhenSafe),
    }
}

/// Wide: what a guard may choose is not what is tested here.
fn limits() -> Limits {
    let wide = Range { floor: 2, ceiling: 1 << 40 };
    Limits {
        max: wide,
        found_max: 1,
        buckets: wide,
        memory: u64::MAX,
        max_stall: Duration::MAX,
        resize_window: None,
        bucket_step: 512,
        timeouts: Timeout::ALL.map(|timeout| (timeout, wide)).into(),
    }
}
