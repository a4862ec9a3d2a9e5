//! The entries, sorted by when something happens to them next.

use std::collections::BTreeMap;

use conntrack_guard::observe::{Timeout, Timeouts};

use super::flow::{Flow, Phase, To};

/// Steps since the simulation began.
pub type Time = u64;

/// Never in this simulation.
pub const NEVER: Time = Time::MAX;
/// Below this a count is rounding error.
pub const NOTHING: f64 = 1e-6;
/// A survival as small as this is near where floating point loses digits.
const SMALL: f64 = 1e-60;

/// Entries of one kind of flow in one state.
#[derive(Clone, Debug)]
pub struct Class {
    pub flow: usize,
    pub phase: Phase,
    /// The first class of its flow: exits count from there.
    first: usize,
    /// Entries whose time has not run out.
    pub live: f64,
    /// Entries whose time has run out, and which nobody has met yet.
    pub dead: f64,
    /// The share of an entry put in at the beginning that no eviction has taken since. A cohort's weight is its count
    /// divided by the survival when it came, so that an eviction need not visit each cohort.
    survival: f64,
}

#[derive(Clone, Copy, Debug)]
struct Cohort {
    class: usize,
    exit: usize,
    /// When it goes on to what its exit says.
    leaves: Time,
    /// When its next packet comes.
    packet: Time,
    expires: Time,
    weight: f64,
}

impl Cohort {
    fn is_like(&self, other: &Self) -> bool {
        let key = |cohort: &Self| (cohort.class, cohort.exit, cohort.leaves, cohort.packet, cohort.expires);
        key(self) == key(other)
    }
}

/// What happened in one step.
#[derive(Clone, Debug, Default)]
pub struct Met {
    /// Entries that expired although their flow had more to send.
    pub broken: f64,
    /// Entries that the kernel killed.
    pub freed: Freed,
}

/// Entries freed, by state and ASSURED.
pub type Freed = Vec<(Timeout, bool, f64)>;

/// All entries.
#[derive(Clone, Debug)]
pub struct Entries {
    pub flows: Vec<Flow>,
    pub classes: Vec<Class>,
    calendar: BTreeMap<Time, Vec<Cohort>>,
    first_of: Vec<usize>,
    step: f64,
    now: Time,
}

impl Entries {
    pub fn new(flows: Vec<Flow>, step: f64) -> Self {
        let (mut classes, mut first_of) = (Vec::new(), Vec::new());
        for (index, flow) in flows.iter().enumerate() {
            let first = classes.len();
            first_of.push(first);
            for phase in flow.phases.iter().cloned() {
                classes.push(Class { flow: index, phase, first, live: 0.0, dead: 0.0, survival: 1.0 });
            }
        }
        Self { flows, classes, calendar: BTreeMap::new(), first_of, step, now: 0 }
    }

    pub fn live(&self) -> f64 {
        self.classes.iter().map(|class| class.live).sum()
    }

    pub fn dead(&self) -> f64 {
        self.classes.iter().map(|class| class.dead).sum()
    }

    pub fn count(&self) -> f64 {
        self.live() + self.dead()
    }

    /// New flows of one kind, let in.
    pub fn begin(&mut self, flow: usize, count: f64, timeouts: &Timeouts) {
        self.enter(self.first_of[flow], count, timeouts);
    }

    fn enter(&mut self, class: usize, count: f64, timeouts: &Timeouts) {
        if count <= NOTHING {
            return;
        }
        self.classes[class].live += count;
        for exit in 0..self.classes[class].phase.exits.len() {
            let way = self.classes[class].phase.exits[exit];
            let leaves = if way.after.is_finite() { self.now + steps(way.after, self.step).max(1) } else { NEVER };
            let weight = count * way.share / self.classes[class].survival;
            self.schedule(Cohort { class, exit, leaves, packet: 0, expires: 0, weight }, timeouts);
        }
    }

    /// A packet has just come: the cohort's time begins anew.
    fn schedule(&mut self, cohort: Cohort, timeouts: &Timeouts) {
        let phase = &self.classes[cohort.class].phase;
        let seconds = timeouts.get(&phase.state).copied().unwrap_or_else(|| phase.state.kernel_default());
        let expires = self.now + steps(seconds as f64, self.step).max(1);
        let refresh = phase.every.map_or(NEVER, |every| self.now + steps(every, self.step).max(1));
        let packet = cohort.leaves.min(refresh);
        self.insert(Cohort { packet, expires, ..cohort });
    }

    /// Cohorts to which the same will happen become one.
    fn insert(&mut self, cohort: Cohort) {
        let due = self.calendar.entry(cohort.packet.min(cohort.expires)).or_default();
        match due.iter_mut().rev().take(8).find(|other| other.is_like(&cohort)) {
            Some(other) => other.weight += cohort.weight,
            None => due.push(cohort),
        }
    }

    /// Everything that happens up to and with this step, each at its time, but nothing before `from`: until then packets
    /// were held up.
    pub fn advance(&mut self, from: Time, now: Time, timeouts: &Timeouts, met: &mut Met) {
        while let Some(due) = self.calendar.first_entry().filter(|due| *due.key() <= now) {
            self.now = from.max(*due.key());
            for cohort in due.remove() {
                self.happen(cohort, timeouts, met);
            }
        }
        self.now = now;
    }

    fn happen(&mut self, cohort: Cohort, timeouts: &Timeouts, met: &mut Met) {
        let class = &mut self.classes[cohort.class];
        let count = (cohort.weight * class.survival).min(class.live);
        if count <= NOTHING {
            class.live = (class.live - count).max(0.0);
            return;
        }
        let goes_on = cohort.packet <= self.now;
        if goes_on && cohort.leaves > self.now {
            self.schedule(cohort, timeouts);
            return;
        }
        class.live -= count;
        if !goes_on {
            class.dead += count;
            if cohort.packet != NEVER {
                met.broken += count;
            }
            return;
        }
        match class.phase.exits[cohort.exit].to {
            To::Phase(phase) => {
                let next = class.first + phase;
                self.enter(next, count, timeouts);
            }
            To::Freed => met.freed.push((class.phase.state, class.phase.assured, count)),
            To::Silence => {
                // Its last packet came just now.
                class.live += count;
                self.fall_silent(cohort, timeouts);
            }
        }
    }

    fn fall_silent(&mut self, cohort: Cohort, timeouts: &Timeouts) {
        let phase = &self.classes[cohort.class].phase;
        let seconds = timeouts.get(&phase.state).copied().unwrap_or_else(|| phase.state.kernel_default());
        let expires = self.now + steps(seconds as f64, self.step).max(1);
        self.insert(Cohort { leaves: NEVER, packet: NEVER, expires, ..cohort });
    }

    /// Frees this share of what has expired.
    pub fn free_dead(&mut self, share: f64) -> Freed {
        let mut freed = Freed::new();
        for class in self.classes.iter_mut().filter(|class| class.dead > 0.0) {
            // The last crumb goes with the rest.
            let gone = if class.dead < NOTHING { class.dead } else { class.dead * share };
            class.dead -= gone;
            freed.push((class.phase.state, class.phase.assured, gone));
        }
        freed
    }

    /// Takes so many of the live entries that pass, evenly.
    pub fn evict(&mut self, count: f64, may: impl Fn(&Phase) -> bool) -> Freed {
        let there: f64 = self.classes.iter().filter(|class| may(&class.phase)).map(|class| class.live).sum();
        if there <= NOTHING || count <= 0.0 {
            return Freed::new();
        }
        // A survival of 0 could not be divided by.
        let share = (count / there).min(1.0 - 1e-9);
        let mut freed = Freed::new();
        let mut small = Vec::new();
        for (index, class) in self.classes.iter_mut().enumerate().filter(|(_, class)| may(&class.phase)) {
            freed.push((class.phase.state, class.phase.assured, class.live * share));
            class.live -= class.live * share;
            class.survival *= 1.0 - share;
            if class.survival < SMALL {
                small.push((index, std::mem::replace(&mut class.survival, 1.0)));
            }
        }
        for (index, survival) in small {
            for cohort in self.calendar.values_mut().flatten().filter(|cohort| cohort.class == index) {
                cohort.weight *= survival;
            }
        }
        freed
    }

    /// For each class that has live entries: their mean of `of` the seconds left.
    pub fn seconds_left(&self, of: impl Fn(f64) -> f64) -> Vec<f64> {
        let mut sums = vec![0.0; self.classes.len()];
        for cohort in self.calendar.values().flatten() {
            let left = cohort.expires.saturating_sub(self.now) as f64 * self.step;
            sums[cohort.class] += cohort.weight * self.classes[cohort.class].survival * of(left);
        }
        sums.iter()
            .zip(&self.classes)
            .map(|(sum, class)| if class.live > NOTHING { sum / class.live } else { 0.0 })
            .collect()
    }
}

/// Steps that so many seconds take, rounded up.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds are positive, and `as` saturates")]
pub fn steps(seconds: f64, step: f64) -> Time {
    // 0.3 / 0.1 is a little more than 3.
    (seconds / step - 1e-6).ceil() as Time
}
