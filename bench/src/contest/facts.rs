//! What of an alternative is judged, and whether it was measured at all. Pure.

use std::collections::BTreeMap;

use bench::load::{Outcome, Traffic, UnderFlood};
use bench::scenario::Scenario;

use super::alternative::Alternative;
use super::figure::Spread;
use super::report::Entry;
use super::run::Run;
use crate::scale::MAX_STALL_MS;
use crate::table::grouped;

/// The longest resize that is allowed, microseconds.
pub(super) const STALL_LIMIT_US: u64 = MAX_STALL_MS * 1000;
/// A flood is one from this many percent of its packets on; good clients fare as well from this many percent on.
pub(super) const ENOUGH_PERCENT: u64 = 95;
const TOLD_NONE: &str = "guard told of no resizes";
const UNSEEN: &str = "guard changed the buckets, and nothing saw how long that took";

/// Of one alternative, in all rounds.
#[derive(Clone, Debug)]
pub(super) struct Facts<'a> {
    pub alternative: Alternative,
    pub figures: &'a BTreeMap<String, Spread>,
    /// Rounds that it ran in, and that were asked for: one that failed once does not run again.
    pub rounds: (u32, u32),
    /// Connections, flows and packets that its load started.
    pub started: Option<Spread>,
    /// Under the flood, of each load of good clients: connections started, and those of them that were made.
    pub good: Vec<Served<'a>>,
    /// The same of further requests on connections that stood, of each load whose connections ask again: due, and answered.
    pub established: Vec<Served<'a>>,
    /// Whether somebody attacks beside the good clients, and why it was no attack.
    pub flood: Option<Result<(), String>>,
    /// The longest resize of the guard's doing, its start included, microseconds; or why nobody knows.
    pub stall_us: Result<u64, &'static str>,
}

/// What a load wanted under the flood, and what it got.
#[derive(Clone, Copy, Debug)]
pub(super) struct Served<'a> {
    /// The load's name.
    pub load: &'a str,
    pub wanted: Spread,
    pub got: Spread,
}

impl<'a> Facts<'a> {
    /// Of an alternative's runs under `scenario`, of which `rounds` were asked for.
    pub fn of(entry: &'a Entry, scenario: &'a Scenario, rounds: u32) -> Self {
        let (mut good, mut established, mut flood) = (Vec::new(), Vec::new(), None);
        for (index, load) in scenario.loads.iter().enumerate() {
            let outcomes = || entry.runs.iter().filter_map(move |run| Some(&run.outcome.loads.get(index)?.outcome));
            let under = |figure: fn(&UnderFlood) -> u64| {
                Spread::of(outcomes().filter_map(move |outcome| outcome.under_flood.as_ref().map(figure)))
            };
            let served = |wanted, got| Some(Served { load: &load.name, wanted: under(wanted)?, got: under(got)? });
            match &load.traffic {
                Traffic::Tcp(connections) => {
                    good.extend(served(|counts| counts.started, |counts| counts.made));
                    if connections.every.is_some() {
                        established.extend(served(|counts| counts.asked, |counts| counts.answered));
                    }
                }
                Traffic::Syn { .. } | Traffic::Scan { .. } => {
                    let sent = outcomes().try_for_each(|outcome| sent(&load.name, outcome));
                    flood = Some(flood.unwrap_or(Ok(())).and(sent));
                }
                _ => {}
            }
        }
        Self {
            alternative: entry.alternative,
            figures: &entry.figures,
            rounds: (u32::try_from(entry.runs.len()).unwrap_or(u32::MAX), rounds),
            started: Spread::of(entry.runs.iter().map(|run| run.outcome.all.started)),
            good,
            established,
            flood,
            stall_us: longest(entry.runs.iter().map(stall)),
        }
    }

    /// Over the rounds; `None` where no round has it.
    pub fn figure(&self, key: &str) -> Option<Spread> {
        self.figures.get(key).copied()
    }

    /// Why its figures say nothing, where they do not.
    pub fn check(&self) -> Result<(), String> {
        let (name, (ran, asked)) = (self.alternative, self.rounds);
        if ran < asked {
            return Err(format!("{name} ran in {ran} of {asked} rounds"));
        }
        match self.started {
            Some(Spread { lowest: 1.., .. }) => Ok(()),
            _ => Err(format!("the load beside {name} started nothing")),
        }
    }

    /// That it made what `other` made, but for a few percent: latencies are those of connections that were made, and what was
    /// refused takes no memory.
    pub fn check_made_as_many(&self, other: Option<&Self>) -> Result<(), String> {
        let made = |of: &Self| of.figure("made").map_or(0, |made| made.median);
        let (ours, theirs) = (made(self), other.map_or(0, made));
        if ours == 0 || is_less(ours, theirs) {
            let of = if theirs > 0 { theirs } else { self.started.map_or(0, |started| started.median) };
            return Err(format!("{} made {} of {}", self.alternative, grouped(ours), grouped(of)));
        }
        Ok(())
    }
}

/// Less than enough of it.
pub(super) fn is_less(figure: u64, of: u64) -> bool {
    figure.saturating_mul(100) < of.saturating_mul(ENOUGH_PERCENT)
}

fn sent(name: &str, outcome: &Outcome) -> Result<(), String> {
    let (made, started) = (outcome.made, outcome.started);
    if started == 0 || is_less(made, started) {
        return Err(format!("no flood: {name} sent {} of {} packets", grouped(made), grouped(started)));
    }
    Ok(())
}

/// The longest resize of the guard's doing in a run.
fn stall(run: &Run) -> Result<u64, &'static str> {
    let stalls = run.stalls.as_ref().ok_or(TOLD_NONE)?;
    let own = stalls.iter().filter(|stall| stall.own).map(|stall| stall.took_us).max();
    let changed = run.decisions.iter().any(|one| one.setting == "buckets" && one.effect == "applied");
    match own {
        Some(longest) => Ok(longest),
        None if changed => Err(UNSEEN),
        None => Ok(0),
    }
}

/// Of all runs. One that is too long is told whatever the others are.
fn longest(stalls: impl Iterator<Item = Result<u64, &'static str>>) -> Result<u64, &'static str> {
    let (mut longest, mut unknown) = (None, None);
    for stall in stalls {
        match stall {
            Ok(stall) => longest = longest.max(Some(stall)),
            Err(why) => unknown = Some(why),
        }
    }
    match (longest, unknown) {
        (Some(longest), None) => Ok(longest),
        (Some(longest), Some(_)) if longest > STALL_LIMIT_US => Ok(longest),
        (_, why) => Err(why.unwrap_or(TOLD_NONE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resize_that_nobody_saw_is_not_known_to_be_short() {
        assert_eq!(longest([Ok(3), Ok(9), Ok(0)].into_iter()), Ok(9));
        assert_eq!(longest([Ok(3), Err(UNSEEN)].into_iter()), Err(UNSEEN));
        assert_eq!(longest([Err(UNSEEN), Ok(STALL_LIMIT_US + 1)].into_iter()), Ok(STALL_LIMIT_US + 1));
        assert_eq!(longest([].into_iter()), Err(TOLD_NONE));
    }

    #[test]
    fn a_flood_is_what_was_sent() {
        let sent = |made, started| sent("syn", &Outcome { started, made, ..Outcome::new().unwrap() });
        assert_eq!(sent(950, 1_000), Ok(()));
        assert_eq!(sent(949, 1_000).unwrap_err(), "no flood: syn sent 949 of 1,000 packets");
        assert!(sent(0, 0).is_err());
    }
}
