//! What goes wrong between the table and the guard.

use std::collections::BTreeSet;

use conntrack_guard::observe::{Destroys, HookTotals, Sample, StatTotals, Statistics};

/// Something that is wrong for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// No reading succeeds.
    NoSamples,
    /// No program is attached.
    NoHooks,
    /// The program that counts what ends is missing.
    NoDestroys,
    /// ctnetlink answers nothing.
    NoCensus,
    /// Counters have 32 bits and begin anew at 0.
    Wrapped,
    /// The number of buckets cannot be written.
    FixedBuckets,
    /// No timeout can be written.
    FixedTimeouts,
    /// Writes succeed and change nothing.
    Deaf,
}

/// What is wrong at the moment.
pub type Faults = BTreeSet<Fault>;

/// Something that happens at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// From now on this is wrong.
    Begin(Fault),
    /// From now on it is right again.
    End(Fault),
    /// The programs are loaded anew: they count from 0.
    Reload,
    /// The host sleeps for so many seconds: `CLOCK_BOOTTIME` goes on, nothing else does.
    Suspend(f64),
    /// The guard gets no CPU for so many seconds; the table goes on.
    HeldUp(f64),
    /// Another program sets max.
    SetMax(u64),
    /// Another program resizes the hash.
    SetBuckets(u64),
}

/// Takes out of the sample what the faults leave nobody to see.
pub fn spoil(faults: &Faults, sample: &mut Sample) {
    if faults.contains(&Fault::Wrapped) {
        if let Statistics::Proc(totals) = &mut sample.stats {
            wrap_stats(totals);
        }
        sample.hooks.as_mut().map(wrap_hooks).unwrap_or_default();
    }
    if let Some(hooks) = sample.hooks.as_mut().filter(|_| faults.contains(&Fault::NoDestroys)) {
        hooks.destroys = None;
    }
    if faults.contains(&Fault::NoHooks) {
        sample.hooks = None;
    }
    if faults.contains(&Fault::NoCensus) {
        sample.census = None;
    }
}

const LOW: u64 = u32::MAX as u64;
/// What the counters of 32 bits had counted before: they soon begin anew.
const BEFORE: u64 = LOW - 30_000;

fn wrap(counter: &mut u64) {
    *counter = counter.wrapping_add(BEFORE) & LOW;
}

fn wrap_stats(stats: &mut StatTotals) {
    for counter in [&mut stats.drop, &mut stats.early_drop, &mut stats.insert_failed, &mut stats.chain_too_long] {
        wrap(counter);
    }
}

fn wrap_hooks(hooks: &mut HookTotals) {
    hooks.inserts.as_mut().map(wrap).unwrap_or_default();
    hooks.destroys.as_mut().map(wrap_destroys).unwrap_or_default();
}

fn wrap_destroys(destroys: &mut Destroys) {
    let all = destroys.tcp.iter_mut().flatten().chain(&mut destroys.udp).chain(&mut destroys.icmp);
    for counter in all.chain(&mut destroys.other) {
        wrap(counter);
    }
}

/// What the programs count after they were loaded anew: all less what they had counted then.
pub fn since(hooks: &mut HookTotals, origin: &HookTotals) {
    let less = |now: &mut Option<u64>, then: Option<u64>| {
        *now = now.map(|now| now.saturating_sub(then.unwrap_or(0)));
    };
    less(&mut hooks.inserts, origin.inserts);
    if let (Some(now), Some(then)) = (hooks.destroys.as_mut(), origin.destroys.as_ref()) {
        let counters = now.tcp.iter_mut().flatten().chain(&mut now.udp).chain(&mut now.icmp).chain(&mut now.other);
        let origins = then.tcp.iter().flatten().chain(&then.udp).chain(&then.icmp).chain(&then.other);
        for (now, then) in counters.zip(origins) {
            *now -= then;
        }
    }
    if let (Some(now), Some(then)) = (hooks.table_full.as_mut(), origin.table_full) {
        now.refused -= then.refused;
        now.made_room -= then.made_room;
    }
    if let (Some(now), Some(then)) = (hooks.clashes.as_mut(), origin.clashes) {
        now.lost -= then.lost;
        now.resolved -= then.resolved;
    }
    if let (Some(now), Some(then)) = (hooks.chains.as_mut(), origin.chains.as_ref()) {
        for (now, then) in now.original.iter_mut().zip(&then.original).chain(now.reply.iter_mut().zip(&then.reply)) {
            *now -= then;
        }
    }
}
