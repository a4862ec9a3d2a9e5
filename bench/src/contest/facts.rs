//! What of an alternative is judged, and whether it was measured at all. Pure.

use std::collections::BTreeMap;

use bench::load::{Outcome, Traffic};
use bench::scenario::Scenario;

use super::alternative::Alternative;
use super::decision::Decision;
use super::figure::Spread;
use super::report::{Entry, short_of_rounds};
use super::run::{Run, Stall};
use crate::figures::Under;
use crate::scale::MAX_STALL_MS;
use crate::table::grouped;

/// The longest resize that is allowed, microseconds.
pub(super) const STALL_LIMIT_US: u64 = MAX_STALL_MS * 1000;
/// A flood is one from this many percent of its packets on; good clients fare as well from this many percent on.
pub(super) const ENOUGH_PERCENT: u64 = 95;
const TOLD_NONE: &str = "guard told of no resizes";
/// Resizes, by anybody, and changes that the guard's status tells of: the last ones.
const RESIZES_KEPT: usize = 16;
const CHANGES_KEPT: usize = 128;

/// Of one alternative, in all rounds.
#[derive(Clone, Debug)]
pub(super) struct Facts<'a> {
    pub alternative: Alternative,
    pub figures: &'a BTreeMap<String, Spread>,
    /// Rounds that it ran in, and that were asked for: one that failed once does not run again.
    pub rounds: (usize, u32),
    /// Connections, flows and packets that its load started.
    pub started: Option<Spread>,
    /// Of each load that does not flood: what it started, and what of that was made. What a flood sends counts as made
    /// whatever comes of it.
    pub loads: Vec<Served<'a>>,
    /// Under the flood, of each load of good clients: connections started, and those of them that were made.
    pub good: Vec<Served<'a>>,
    /// The same of further requests on connections that stood, of each load whose connections ask again: due, and answered.
    pub established: Vec<Served<'a>>,
    /// Whether somebody attacks beside the good clients, and why it was no attack.
    pub flood: Option<Result<(), String>>,
    /// The longest resize of the guard's doing, its start included, microseconds; or why nobody knows.
    pub stall_us: Result<u64, String>,
}

/// What a load wanted, and what it got.
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
        let (mut loads, mut good, mut established, mut flood) = (Vec::new(), Vec::new(), Vec::new(), None);
        for (index, load) in scenario.loads.iter().enumerate() {
            let outcomes = || entry.runs.iter().filter_map(move |run| Some(&run.outcome.loads.get(index)?.outcome));
            let all = |figure: fn(&Outcome) -> u64| Spread::of(outcomes().map(figure));
            let under = |figure: Under| {
                Spread::of(outcomes().filter_map(move |outcome| outcome.under_flood.as_ref().map(figure)))
            };
            let served =
                |wanted: Option<_>, got: Option<_>| Some(Served { load: &load.name, wanted: wanted?, got: got? });
            let floods = matches!(load.traffic, Traffic::Syn { .. } | Traffic::Scan { .. });
            loads.extend(served(all(|of| of.started), all(|of| of.made)).filter(|_| !floods));
            match &load.traffic {
                Traffic::Tcp(connections) => {
                    good.extend(served(under(|counts| counts.started), under(|counts| counts.made)));
                    if connections.every.is_some() {
                        established.extend(served(under(|counts| counts.asked), under(|counts| counts.answered)));
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
            rounds: (entry.runs.len(), rounds),
            started: Spread::of(entry.runs.iter().map(|run| run.outcome.all.started)),
            loads,
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
        if let Some(short) = short_of_rounds(&name.to_string(), ran, asked) {
            return Err(short);
        }
        match self.started {
            Some(Spread { lowest: 1.., .. }) => Ok(()),
            _ => Err(format!("the load beside {name} started nothing")),
        }
    }

    /// That each load made what it made beside `other`, or without one what it started, but for a few percent: latencies are
    /// those of connections that were made, and what was refused takes no memory.
    pub fn check_made_as_many(&self, other: Option<&Self>) -> Result<(), String> {
        let of = |index: usize, load: &Served<'_>| {
            other.and_then(|other| other.loads.get(index)).map_or(load.wanted, |theirs| theirs.got).median
        };
        let mut loads = self.loads.iter().enumerate().map(|(index, load)| (load, of(index, load)));
        if let Some((load, of)) = loads.find(|(load, of)| is_less(load.got.median, *of)) {
            let (name, load, made) = (self.alternative, load.load, grouped(load.got.median));
            return Err(format!("{load} made {made} of {} beside {name}", grouped(of)));
        }
        if self.loads.iter().all(|load| load.got.median == 0) {
            return Err(format!("no load but floods made anything beside {}", self.alternative));
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

/// The longest resize of the guard's doing in a run. Its status keeps the last few, by anybody: one that is not among them may
/// have been longer than all that are.
fn stall(run: &Run) -> Result<u64, String> {
    let stalls = run.stalls.as_ref().ok_or(TOLD_NONE)?;
    longest_of(stalls, &run.decisions)
}

fn longest_of(stalls: &[Stall], decisions: &[Decision]) -> Result<u64, String> {
    let own = || stalls.iter().filter(|stall| stall.own);
    let longest = own().map(|stall| stall.took_us).max().unwrap_or(0);
    let changed = decisions.iter().filter(|one| one.setting == "buckets" && one.effect == "applied").count();
    let seen = own().filter(|stall| stall.error.is_none()).count();
    if longest > STALL_LIMIT_US {
        return Ok(longest);
    }
    if seen < changed {
        return Err(format!("guard changed the buckets {changed} times, and {seen} of these resizes were seen"));
    }
    if stalls.len() >= RESIZES_KEPT && decisions.len() >= CHANGES_KEPT {
        return Err("guard tells of no more resizes and changes than these: earlier ones may be missing".to_owned());
    }
    Ok(longest)
}

/// Of all runs. One that is too long is told whatever the others are.
fn longest(stalls: impl Iterator<Item = Result<u64, String>>) -> Result<u64, String> {
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
        (_, why) => Err(why.unwrap_or_else(|| TOLD_NONE.to_owned())),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use bench::conntrack::Settings;
    use bench::scenario::{self, LoadOutcome};

    use super::*;
    use crate::contest::series::Series;

    #[test]
    fn a_run_whose_resizes_nobody_saw_is_not_known_to_be_short() {
        let unseen = || Err("unseen".to_owned());
        assert_eq!(longest([Ok(3), Ok(9), Ok(0)].into_iter()), Ok(9));
        assert_eq!(longest([Ok(3), unseen()].into_iter()), unseen());
        assert_eq!(longest([unseen(), Ok(STALL_LIMIT_US + 1)].into_iter()), Ok(STALL_LIMIT_US + 1));
        assert_eq!(longest([].into_iter()), Err(TOLD_NONE.to_owned()));
    }

    #[test]
    fn a_resize_that_is_not_among_the_last_ones_is_not_known_to_be_short() {
        let stalls = |own: usize, others: usize, took_us: u64| {
            let stall = |own| Stall { took_us, own, ..Stall::default() };
            [vec![stall(true); own], vec![stall(false); others]].concat()
        };
        let changes = |setting: &str, effect: &'static str, count: usize| {
            let (setting, rule, evidence) = (setting.to_owned(), String::new(), String::new());
            vec![Decision { at_ms: 0, setting, old: 1, new: 2, rule, evidence, effect }; count]
        };
        let buckets = |count| changes("buckets", "applied", count);
        assert_eq!(longest_of(&stalls(2, 3, 7), &buckets(2)), Ok(7));
        assert_eq!(
            longest_of(&stalls(0, 3, 7), &[changes("max", "applied", 9), changes("buckets", "refused", 1)].concat()),
            Ok(0)
        );
        let why = longest_of(&stalls(1, 15, 7), &buckets(2)).unwrap_err();
        assert_eq!(why, "guard changed the buckets 2 times, and 1 of these resizes were seen");
        assert!(longest_of(&[], &buckets(1)).is_err());
        let failed = Stall { error: Some("Out of memory".to_owned()), own: true, ..Stall::default() };
        assert!(longest_of(&[failed], &buckets(1)).is_err(), "not the resize of that change");
        // One that was too long is told whatever was not seen.
        assert_eq!(longest_of(&stalls(1, 15, STALL_LIMIT_US + 1), &buckets(2)), Ok(STALL_LIMIT_US + 1));
        // Both lists are full: changes of buckets may have gone with their resizes.
        let full = changes("max", "applied", CHANGES_KEPT);
        assert!(longest_of(&stalls(2, 14, 7), &full).is_err());
        assert_eq!((longest_of(&stalls(2, 13, 7), &full), longest_of(&stalls(2, 14, 7), &full[1..])), (Ok(7), Ok(7)));
    }

    #[test]
    fn a_flood_is_what_was_sent() {
        let sent = |made, started| sent("syn", &Outcome { started, made, ..Outcome::new().unwrap() });
        assert_eq!(sent(950, 1_000), Ok(()));
        assert_eq!(sent(949, 1_000).unwrap_err(), "no flood: syn sent 949 of 1,000 packets");
        assert!(sent(0, 0).is_err());
    }

    /// One run of a scenario whose loads came to these.
    pub fn entry(scenario: &Scenario, outcomes: &[Outcome]) -> Entry {
        let loads = scenario.loads.iter().zip(outcomes);
        let loads = loads.map(|(load, outcome)| LoadOutcome { name: load.name.clone(), outcome: outcome.clone() });
        let settings = Settings { max: 2, buckets: 1 };
        let run = Run {
            round: 1,
            position: 1,
            figures: BTreeMap::new(),
            outcome: scenario::Outcome { loads: loads.collect(), all: Outcome::new().unwrap() },
            at_start: settings,
            at_end: settings,
            decisions: Vec::new(),
            held: Vec::new(),
            resized: Vec::new(),
            stalls: None,
            left: Vec::new(),
            series: Series::default(),
        };
        Entry {
            alternative: Alternative::Guard,
            what: String::new(),
            own: true,
            figures: BTreeMap::new(),
            runs: vec![run],
            observed: None,
            not_observed: None,
        }
    }

    #[test]
    fn a_floods_packets_do_not_hide_the_good_clients_that_are_lost_beside_it() {
        let text = "duration = \"9s\"\n[[load]]\nname = \"good\"\nkind = \"tcp\"\nrate = 1\n[[load]]\nkind = \"syn\"\nrate = 1\n";
        let scenario = Scenario::parse("test", text).unwrap();
        let outcome = |started, made| Outcome { started, made, ..Outcome::new().unwrap() };
        let entry = |made| entry(&scenario, &[outcome(1_000, made), outcome(90_000, 90_000)]);
        let (lost, ample) = (entry(100), entry(1_000));
        let (lost, ample) = (Facts::of(&lost, &scenario, 1), Facts::of(&ample, &scenario, 1));
        assert_eq!(ample.check_made_as_many(None), Ok(()));
        assert_eq!(lost.check_made_as_many(Some(&ample)).unwrap_err(), "good made 100 of 1,000 beside guard");
        assert_eq!(lost.flood, Some(Ok(())));
        let none = entry(0);
        let none = Facts::of(&none, &scenario, 1);
        assert!(none.check_made_as_many(Some(&none)).unwrap_err().starts_with("no load but floods made anything"));
    }
}
