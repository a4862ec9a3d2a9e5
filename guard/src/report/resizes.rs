//! Resizes of the hash table: who, from what to what, for how long. The guard's own are told as its changes.

use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::figures_of::millis;
use crate::actuate::{Effect, Outcome};
use crate::figures;
use crate::observe::ResizeEvent;
use crate::policy::Setting;

/// Resizes kept for the status.
const KEPT: usize = 16;

/// A resize of the hash table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resize {
    /// When it was done.
    pub at_ms: u64,
    /// How long it took, the wait for another resize included. All conntrack packets stall for most of it.
    pub took_us: u64,
    /// Whether this guard asked for it.
    pub own: bool,
    /// The process that did, as the host numbers it.
    pub pid: u32,
    /// Its command.
    pub comm: String,
    /// The id of its cgroup: the inode number of its folder in the cgroup v2 tree.
    pub cgroup: u64,
    /// Buckets before; `null` where the kernel does not show them.
    pub from: Option<u64>,
    /// Buckets after, or those asked for.
    pub to: Option<u64>,
    /// Entries whose two tuples it moved: as many as were in the table when the guard looked next, those of all network
    /// namespaces as far as they are known. Always estimated.
    pub entries: u64,
    /// Why it failed.
    pub error: Option<String>,
}

/// Tells the guard's own resizes from those of others.
#[derive(Debug, Default)]
pub(super) struct Resizes {
    /// What the guard wrote and has not seen as an event yet. In a container its process has another number on the host,
    /// so the number alone does not tell.
    written: Vec<Written>,
}

/// One write of the guard's.
#[derive(Debug)]
enum Written {
    /// So many buckets.
    Buckets(u64),
    /// It failed, perhaps in the kernel's function and perhaps before.
    Failed,
}

impl Resizes {
    /// What this tick wrote. Its events come with the next reading.
    pub fn wrote(&mut self, outcomes: &[Outcome]) {
        let resizes = outcomes.iter().filter(|outcome| outcome.change.setting == Setting::Buckets);
        self.written.extend(resizes.filter_map(|outcome| match outcome.result {
            Effect::Applied { read_back, .. } => Some(Written::Buckets(read_back)),
            // Whatever it reads now, the function may have been called.
            Effect::NoEffect { .. } => Some(Written::Buckets(outcome.change.new)),
            Effect::Refused { .. } => Some(Written::Failed),
            Effect::Advised => None,
        }));
    }

    /// The events of one reading, with so many entries in the table; others' resizes are logged.
    pub fn told(&mut self, events: &[ResizeEvent], entries: u64) -> Vec<Resize> {
        let told = events.iter().map(|event| self.one(event, entries)).collect();
        // An own write whose event did not come with the reading after it was refused before the function.
        self.written.clear();
        told
    }

    fn one(&mut self, event: &ResizeEvent, entries: u64) -> Resize {
        let place = self.written.iter().position(|written| match written {
            Written::Buckets(buckets) => event.result >= 0 && Some(*buckets) == event.to,
            Written::Failed => event.result < 0,
        });
        let own = place.map(|place| self.written.swap_remove(place)).is_some() || event.pid == std::process::id();
        let error = (event.result < 0).then(|| Errno::from_raw(-event.result).desc().to_owned());
        if !own {
            let (pid, cgroup, took) = (event.pid, event.cgroup, figures::time(event.took));
            let [from, to] = [event.from, event.to].map(|buckets| buckets.map_or_else(|| "?".into(), figures::grouped));
            let comm = &event.comm;
            match &error {
                None => {
                    info!(
                        comm,
                        pid, cgroup, took, entries, "somebody else resized the hash table from {from} to {to} buckets"
                    );
                }
                Some(error) => info!(comm, pid, cgroup, error, "somebody else could not resize the hash table"),
            }
        }
        Resize {
            at_ms: millis(event.at),
            took_us: u64::try_from(event.took.as_micros()).unwrap_or(u64::MAX),
            own,
            pid: event.pid,
            comm: event.comm.clone(),
            cgroup: event.cgroup,
            from: event.from,
            to: event.to,
            // One that failed moved nothing.
            entries: if error.is_some() { 0 } else { entries },
            error,
        }
    }
}

/// Adds to the list, from which the oldest go.
pub(super) fn keep(list: &mut Vec<Resize>, new: Vec<Resize>) {
    list.extend(new);
    list.drain(..list.len().saturating_sub(KEPT));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::{Change, Rule};

    fn event(pid: u32, to: u64, result: i32) -> ResizeEvent {
        ResizeEvent {
            at: Duration::from_secs(3),
            took: Duration::from_millis(140),
            pid,
            comm: "sysctl".into(),
            cgroup: 77,
            from: Some(1024),
            to: Some(to),
            result,
        }
    }

    fn wrote(setting: Setting, new: u64, result: Effect) -> Outcome {
        let change = Change {
            setting,
            old: 1024,
            new,
            rule: Rule::PresizeBuckets,
            evidence: String::new(),
            predicted: String::new(),
            expectation: None,
        };
        Outcome { change, result }
    }

    #[test]
    fn own_resizes_are_known_by_what_was_written_or_by_the_process() {
        let applied = |read_back| Effect::Applied { read_back, took: Duration::ZERO };
        let own = |resizes: &mut Resizes, events: &[ResizeEvent]| -> Vec<bool> {
            resizes.told(events, 0).iter().map(|resize| resize.own).collect()
        };
        let mut resizes = Resizes::default();
        assert_eq!(own(&mut resizes, &[event(1, 4096, 0), event(std::process::id(), 512, 0)]), [false, true]);
        resizes.wrote(&[wrote(Setting::Buckets, 4000, applied(4096)), wrote(Setting::Max, 9999, applied(9999))]);
        let events = [event(1, 9999, 0), event(1, 4096, 0), event(1, 4096, 0)];
        assert_eq!(own(&mut resizes, &events), [false, true, false], "one write is one resize");
        resizes.wrote(&[wrote(Setting::Buckets, 4096, applied(4096))]);
        resizes.told(&[], 0);
        assert_eq!(own(&mut resizes, &[event(1, 4096, 0)]), [false], "a later one of the same size is not ours");
        resizes.wrote(&[wrote(Setting::Buckets, 4096, Effect::Advised)]);
        assert_eq!(own(&mut resizes, &[event(1, 4096, 0)]), [false]);
        let refused = || Effect::Refused { error: String::new(), way_out: String::new() };
        resizes.wrote(&[wrote(Setting::Buckets, 4096, refused())]);
        assert_eq!(own(&mut resizes, &[event(1, 4096, 0), event(1, 1024, -libc::ENOMEM)]), [false, true]);
    }

    #[test]
    fn a_failure_is_told_in_words_and_the_list_is_bounded() {
        let mut resizes = Resizes::default();
        let failed = resizes.told(&[event(1, 4096, -libc::ENOMEM)], 9);
        assert_eq!(failed[0].error.as_deref(), Some("Out of memory"));
        assert_eq!((failed[0].at_ms, failed[0].took_us, failed[0].entries), (3000, 140_000, 0));
        let mut list = failed;
        for to in 0..40 {
            keep(&mut list, resizes.told(&[event(1, to, 0)], 9));
        }
        assert_eq!((list.len(), list[15].to, list[15].entries), (KEPT, Some(39), 9));
    }
}
