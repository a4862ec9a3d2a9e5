//! What the figures say of what is promised: yes, no, or not measured, each with the two figures that it was judged by. Pure.

use std::collections::BTreeMap;

use bench::load::{Outcome, Traffic};
use bench::scenario::Scenario;
use serde::Serialize;

use super::alternative::Alternative;
use super::figure::{Spread, Unit};
use super::report::Entry;
use crate::scale::MAX_STALL_MS;

/// connect p99 is as good as the yardstick's up to this many percent of it.
const LATENCY_PERCENT: u64 = 110;
/// Good clients fare as well as on the yardstick from this many percent of what they made there.
const GOOD_PERCENT: u64 = 95;
/// Far less memory: at most this many percent.
const MEMORY_PERCENT: u64 = 50;
/// What a resize takes at most without holding anything up, microseconds: it ends by waiting for RCU (`synchronize_net`), and
/// nothing tells that wait from the stall before it.
const GRACE_US: u64 = 30_000;

/// Whether a promise is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer {
    Yes,
    No,
    NotMeasured,
}

/// One promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Verdict {
    /// Which one; several verdicts of one key are of several alternatives or loads.
    pub key: &'static str,
    /// What is true, or not.
    pub statement: String,
    pub answer: Answer,
    /// What was measured.
    pub figure: Option<u64>,
    /// What it was held against: another column's figure, or a limit.
    pub against: Option<u64>,
    /// Of both.
    pub unit: Unit,
    /// Why it was not measured.
    pub why: Option<String>,
}

/// What of an alternative is judged.
#[derive(Clone, Debug)]
pub(super) struct Facts<'a> {
    alternative: Alternative,
    figures: &'a BTreeMap<String, Spread>,
    /// Connections made by each load of good clients, by its name.
    good: Vec<(&'a str, Spread)>,
    /// Further requests answered on connections that stood, of each load that has any.
    established: Vec<(&'a str, Spread)>,
    /// The longest resize of the guard's doing, its start included; `None` where nothing tells.
    stall_us: Option<u64>,
}

impl<'a> Facts<'a> {
    /// Of an alternative's runs under `scenario`.
    pub fn of(entry: &'a Entry, scenario: &'a Scenario) -> Self {
        let (mut good, mut established) = (Vec::new(), Vec::new());
        for (index, load) in scenario.loads.iter().enumerate() {
            let Traffic::Tcp(connections) = &load.traffic else { continue };
            let of = |figure: fn(&Outcome) -> u64| {
                let outcomes = entry.runs.iter().filter_map(|run| run.outcome.loads.get(index));
                Some((load.name.as_str(), Spread::of(outcomes.map(|load| figure(&load.outcome)))?))
            };
            good.extend(of(|outcome| outcome.made));
            if connections.every.is_some() {
                established.extend(of(|outcome| outcome.answered));
            }
        }
        let stalls = entry.runs.iter().filter_map(|run| run.stalls.as_ref());
        let own = |stalls: &Vec<super::run::Stall>| {
            stalls.iter().filter(|stall| stall.own).map(|stall| stall.took_us).max().unwrap_or(0)
        };
        Self {
            alternative: entry.alternative,
            figures: &entry.figures,
            good,
            established,
            stall_us: stalls.map(own).max(),
        }
    }

    fn figure(&self, key: &str) -> Option<Spread> {
        self.figures.get(key).copied()
    }
}

/// Whether somebody attacks beside the good clients.
pub(super) fn has_flood(scenario: &Scenario) -> bool {
    scenario.loads.iter().any(|load| matches!(load.traffic, Traffic::Syn { .. } | Traffic::Scan { .. }))
}

/// All promises, whether they could be judged or not.
pub(super) fn all(facts: &[Facts<'_>], flood: bool) -> Vec<Verdict> {
    let of = |alternative| facts.iter().find(|one| one.alternative == alternative);
    let (guard, ample, ceiling) = (of(Alternative::Guard), of(Alternative::Ample), of(Alternative::StaticCeiling));
    let mut all = vec![drops_nothing(guard)];
    let others = facts.iter().filter(|one| !matches!(one.alternative, Alternative::Guard | Alternative::Ample));
    all.extend(others.map(|other| drops(other, guard)));
    all.push(latency(guard, ample));
    all.extend(good_clients(&MADE, guard, ample, flood));
    all.extend(good_clients(&ANSWERED, guard, ample, flood));
    all.push(memory(guard, ceiling));
    all.push(stall(guard));
    all
}

impl Verdict {
    fn judged(key: &'static str, statement: String, unit: Unit, kept: bool, (figure, against): (u64, u64)) -> Self {
        let answer = if kept { Answer::Yes } else { Answer::No };
        Self { key, statement, answer, figure: Some(figure), against: Some(against), unit, why: None }
    }

    fn open(key: &'static str, statement: String, unit: Unit, why: &str) -> Self {
        let why = Some(why.to_owned());
        Self { key, statement, answer: Answer::NotMeasured, figure: None, against: None, unit, why }
    }

    /// The two figures, or why there are none.
    pub fn figures(&self) -> String {
        match (self.figure, self.against, &self.why) {
            (Some(figure), Some(against), _) => format!("{}, {}", self.unit.words(figure), self.unit.words(against)),
            (_, _, Some(why)) => why.clone(),
            _ => String::new(),
        }
    }
}

impl Answer {
    pub fn words(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::NotMeasured => "not measured",
        }
    }
}

const NO_GUARD: &str = "guard did not run";

fn drops_nothing(guard: Option<&Facts<'_>>) -> Verdict {
    let (key, statement) =
        ("guard-drops-nothing", "guard drops no new flow in any round (new flows dropped, 0)".to_owned());
    match guard.and_then(|guard| guard.figure("dropped")) {
        Some(dropped) => Verdict::judged(key, statement, Unit::Count, dropped.highest == 0, (dropped.highest, 0)),
        None => Verdict::open(key, statement, Unit::Count, NO_GUARD),
    }
}

fn drops(other: &Facts<'_>, guard: Option<&Facts<'_>>) -> Verdict {
    let key = "drops-more-than-guard";
    let statement = format!("{} drops more new flows than guard (its, guard's)", other.alternative);
    match (other.figure("dropped"), guard.and_then(|guard| guard.figure("dropped"))) {
        (Some(its), Some(ours)) => {
            let more = its.lowest > ours.highest;
            Verdict::judged(key, statement, Unit::Count, more, (its.median, ours.median))
        }
        _ => Verdict::open(key, statement, Unit::Count, NO_GUARD),
    }
}

/// The yardstick's figure of `key`, where the load met no limit of its table.
fn yardstick(ample: Option<&Facts<'_>>, key: &str) -> Result<Spread, String> {
    let ample = ample.ok_or("the yardstick, ample, did not run")?;
    match ample.figure("dropped") {
        Some(dropped) if dropped.highest > 0 => {
            Err(format!("the yardstick's own table dropped {} new flows", dropped.highest))
        }
        _ => ample.figure(key).ok_or_else(|| "the yardstick has no such figure".to_owned()),
    }
}

fn latency(guard: Option<&Facts<'_>>, ample: Option<&Facts<'_>>) -> Verdict {
    let key = "connect-p99";
    let statement = "guard's connect p99 is within 10 % of the yardstick's (its, the yardstick's)".to_owned();
    let ours = guard.and_then(|guard| guard.figure("connect_p99_us")).ok_or_else(|| NO_GUARD.to_owned());
    match ours.and_then(|ours| Ok((ours, yardstick(ample, "connect_p99_us")?))) {
        Ok((ours, ample)) => {
            let kept = ours.median.saturating_mul(100) <= ample.median.saturating_mul(LATENCY_PERCENT);
            Verdict::judged(key, statement, Unit::Micros, kept, (ours.median, ample.median))
        }
        Err(why) => Verdict::open(key, statement, Unit::Micros, &why),
    }
}

/// What good clients are to get of what they get on the yardstick.
struct Good {
    key: &'static str,
    /// What a load of them does.
    does: &'static str,
    /// Who they are, where no load is named.
    who: &'static str,
    of: for<'f, 'a> fn(&'f Facts<'a>) -> &'f [(&'a str, Spread)],
    /// Why there are none.
    none: &'static str,
}

const MADE: Good = Good {
    key: "good-clients",
    does: "makes at least 95 % of what it makes",
    who: "good clients' load",
    of: |facts| &facts.good,
    none: "no load of good clients",
};
const ANSWERED: Good = Good {
    key: "established",
    does: "is answered at least 95 % of the further requests that it is answered",
    who: "what stood before",
    of: |facts| &facts.established,
    none: "no connection of this scenario asks again (`every`)",
};

fn good_clients(good: &Good, guard: Option<&Facts<'_>>, ample: Option<&Facts<'_>>, flood: bool) -> Vec<Verdict> {
    let key = good.key;
    let statement =
        |load: &str| format!("under the flood, {load} {} on the yardstick (with guard, the yardstick)", good.does);
    let open = |why: &str| vec![Verdict::open(key, statement(good.who), Unit::Count, why)];
    if !flood {
        return open("nobody floods in this scenario");
    }
    let Some(guard) = guard else { return open(NO_GUARD) };
    if let Err(why) = yardstick(ample, "made") {
        return open(&why);
    }
    let judge = |(name, ours): &(&str, Spread)| {
        let ample = ample.and_then(|ample| (good.of)(ample).iter().find(|(other, _)| other == name));
        let Some((_, ample)) = ample else {
            return Verdict::open(key, statement(name), Unit::Count, "the yardstick has no such load");
        };
        let kept = ours.median.saturating_mul(100) >= ample.median.saturating_mul(GOOD_PERCENT) && ample.median > 0;
        Verdict::judged(key, statement(name), Unit::Count, kept, (ours.median, ample.median))
    };
    let loads = (good.of)(guard);
    if loads.is_empty() { open(good.none) } else { loads.iter().map(judge).collect() }
}

fn memory(guard: Option<&Facts<'_>>, ceiling: Option<&Facts<'_>>) -> Verdict {
    let (key, of) = ("memory", "memory_mean_bytes");
    let statement = "guard's table takes at most half of static-ceiling's memory, mean over time (its, the other's)";
    match (guard.and_then(|guard| guard.figure(of)), ceiling.and_then(|ceiling| ceiling.figure(of))) {
        (Some(ours), Some(theirs)) => {
            let kept = ours.median.saturating_mul(100) <= theirs.median.saturating_mul(MEMORY_PERCENT);
            Verdict::judged(key, statement.to_owned(), Unit::Bytes, kept, (ours.median, theirs.median))
        }
        (None, _) => Verdict::open(key, statement.to_owned(), Unit::Bytes, NO_GUARD),
        (_, None) => Verdict::open(key, statement.to_owned(), Unit::Bytes, "static-ceiling did not run"),
    }
}

fn stall(guard: Option<&Facts<'_>>) -> Verdict {
    let (key, limit) = ("stall", MAX_STALL_MS * 1000);
    let statement =
        "no resize of guard's doing, at its start neither, takes longer than max-stall (the longest, the limit)";
    match guard.map(|guard| guard.stall_us) {
        Some(Some(longest)) if longest > limit && longest.saturating_sub(GRACE_US) <= limit => {
            let why = format!(
                "the longest resize took {}, of which up to {} hold nothing up; the limit is {}",
                Unit::Micros.words(longest),
                Unit::Micros.words(GRACE_US),
                Unit::Micros.words(limit)
            );
            Verdict::open(key, statement.to_owned(), Unit::Micros, &why)
        }
        Some(Some(longest)) => {
            Verdict::judged(key, statement.to_owned(), Unit::Micros, longest <= limit, (longest, limit))
        }
        Some(None) => Verdict::open(key, statement.to_owned(), Unit::Micros, "guard told of no resizes"),
        None => Verdict::open(key, statement.to_owned(), Unit::Micros, NO_GUARD),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Column = (Alternative, BTreeMap<String, Spread>, u64);

    fn column(alternative: Alternative, dropped: u64, p99: u64, memory: u64, good: u64) -> Column {
        let one = |key: &str, value| (key.to_owned(), Spread { median: value, lowest: value, highest: value });
        let figures = [("dropped", dropped), ("connect_p99_us", p99), ("memory_mean_bytes", memory), ("made", good)];
        (alternative, figures.into_iter().map(|(key, value)| one(key, value)).collect(), good)
    }

    fn judge(columns: &[Column], flood: bool, stall_us: Option<u64>) -> Vec<Verdict> {
        let facts = columns.iter().map(|(alternative, figures, good)| Facts {
            alternative: *alternative,
            figures,
            good: vec![("good", Spread { median: *good, lowest: *good, highest: *good })],
            established: vec![("held", Spread { median: *good, lowest: *good, highest: *good })],
            stall_us,
        });
        all(&facts.collect::<Vec<_>>(), flood)
    }

    fn answers(verdicts: &[Verdict], key: &str) -> Vec<Answer> {
        verdicts.iter().filter(|one| one.key == key).map(|one| one.answer).collect()
    }

    const KEYS: [&str; 7] = [
        "guard-drops-nothing",
        "drops-more-than-guard",
        "connect-p99",
        "good-clients",
        "established",
        "memory",
        "stall",
    ];

    #[test]
    fn each_promise_is_kept_up_to_its_limit_and_broken_beyond() {
        let ample = column(Alternative::Ample, 0, 1_000, 9_000, 100);
        let rivals = [column(Alternative::Stock, 1, 9, 9, 9), column(Alternative::StaticCeiling, 0, 9, 2_000, 9)];
        let with = |guard: Column, stall| {
            let columns = [[ample.clone(), guard].as_slice(), &rivals].concat();
            judge(&columns, true, Some(stall))
        };
        let kept = with(column(Alternative::Guard, 0, 1_100, 1_000, 95), 20_000);
        for key in ["guard-drops-nothing", "connect-p99", "good-clients", "established", "memory", "stall"] {
            assert_eq!(answers(&kept, key), [Answer::Yes], "{key}");
        }
        // static-ceiling drops no more than the guard.
        assert_eq!(answers(&kept, "drops-more-than-guard"), [Answer::Yes, Answer::No]);
        let broken = with(column(Alternative::Guard, 1, 1_101, 1_001, 94), 50_001);
        assert!(broken.iter().all(|one| one.answer == Answer::No), "{broken:?}");
        // It may have waited for nothing but RCU.
        let between = with(column(Alternative::Guard, 0, 1_100, 1_000, 95), 50_000);
        assert_eq!(answers(&between, "stall"), [Answer::NotMeasured]);
        assert!(kept.iter().chain(&broken).all(|one| one.figure.is_some() && one.against.is_some()));
    }

    #[test]
    fn what_has_no_figures_is_not_judged_and_says_why() {
        let nothing = judge(&[column(Alternative::Stock, 1, 9, 9, 9)], true, None);
        assert!(nothing.iter().all(|one| one.answer == Answer::NotMeasured && one.why.is_some()), "{nothing:?}");
        assert_eq!(KEYS.map(|key| answers(&nothing, key).len()), [1; 7]);

        let (guard, full) = (column(Alternative::Guard, 0, 9, 9, 9), column(Alternative::Ample, 3, 9, 9, 9));
        let full = judge(&[full, guard.clone()], true, Some(0));
        for key in ["connect-p99", "good-clients", "established"] {
            assert_eq!(answers(&full, key), [Answer::NotMeasured], "a yardstick that was full is none");
        }
        let quiet = judge(&[column(Alternative::Ample, 0, 9, 9, 9), guard], false, Some(0));
        assert_eq!(answers(&quiet, "good-clients"), [Answer::NotMeasured]);
        assert_eq!(answers(&quiet, "established"), [Answer::NotMeasured]);
        assert_eq!(answers(&quiet, "connect-p99"), [Answer::Yes]);
    }

    #[test]
    fn new_clients_and_those_that_ask_again_are_judged_apart() {
        let (_, figures, _) = column(Alternative::Ample, 0, 9, 9, 100);
        let judge = |answered: &[(Alternative, u64)]| {
            let facts = [Alternative::Ample, Alternative::Guard].map(|alternative| {
                let spread = |value| Spread { median: value, lowest: value, highest: value };
                let answered = answered.iter().filter(|(of, _)| *of == alternative);
                let established = answered.map(|(_, answered)| ("held", spread(*answered))).collect();
                Facts { alternative, figures: &figures, good: vec![("good", spread(100))], established, stall_us: None }
            });
            let verdicts = all(&facts, true);
            assert_eq!(answers(&verdicts, "good-clients"), [Answer::Yes]);
            verdicts.into_iter().find(|one| one.key == "established").unwrap()
        };
        let (ample, guard) = (Alternative::Ample, Alternative::Guard);
        assert_eq!(judge(&[(ample, 1_000), (guard, 950)]).answer, Answer::Yes);
        let less = judge(&[(ample, 1_000), (guard, 949)]);
        assert_eq!((less.answer, less.figure, less.against), (Answer::No, Some(949), Some(1_000)));
        let nobody = judge(&[]);
        assert_eq!(nobody.answer, Answer::NotMeasured);
        assert!(nobody.why.unwrap().contains("`every`"));
    }
}
