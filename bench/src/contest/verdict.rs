//! What the figures say of what is promised: yes, no, or not measured, each with the two figures that it was judged by. Pure.

use serde::Serialize;

use super::alternative::Alternative;
use super::facts::{Facts, STALL_LIMIT_US, Served, is_less};
use super::figure::{Spread, Unit};

/// connect p99 is as good as the yardstick's up to this many percent of it.
const LATENCY_PERCENT: u64 = 110;
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

/// All promises, whether they could be judged or not.
pub(super) fn all(facts: &[Facts<'_>]) -> Vec<Verdict> {
    let of = |alternative| facts.iter().find(|one| one.alternative == alternative);
    let (guard, ample, ceiling) = (of(Alternative::Guard), of(Alternative::Ample), of(Alternative::StaticCeiling));
    let mut all = vec![drops_nothing(guard, ample)];
    let others = facts.iter().filter(|one| !matches!(one.alternative, Alternative::Guard | Alternative::Ample));
    all.extend(others.map(|other| drops(other, guard)));
    all.push(latency(guard, ample));
    all.extend(good_clients(&MADE, guard, ample));
    all.extend(good_clients(&ANSWERED, guard, ample));
    all.push(memory(guard, ceiling, ample));
    all.push(stall(guard));
    all
}

impl Verdict {
    fn judged(key: &'static str, statement: String, unit: Unit, kept: bool, (figure, against): (u64, u64)) -> Self {
        let answer = if kept { Answer::Yes } else { Answer::No };
        Self { key, statement, answer, figure: Some(figure), against: Some(against), unit, why: None }
    }

    /// The same where a yes needs something more: without it a no stays one.
    fn judged_if(self, check: Result<(), String>) -> Self {
        match check {
            Err(why) if self.answer == Answer::Yes => Self::open(self.key, self.statement, self.unit, &why),
            _ => self,
        }
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

/// The figures of a column, where it is there and whole.
fn column<'f, 'a>(of: Option<&'f Facts<'a>>, name: &str) -> Result<&'f Facts<'a>, String> {
    let facts = of.ok_or_else(|| format!("{name} did not run"))?;
    facts.check()?;
    Ok(facts)
}

fn of_guard<'f, 'a>(guard: Option<&'f Facts<'a>>) -> Result<&'f Facts<'a>, String> {
    column(guard, "guard")
}

fn figure(facts: &Facts<'_>, key: &str) -> Result<Spread, String> {
    facts.figure(key).ok_or_else(|| format!("{} has no such figure", facts.alternative))
}

fn drops_nothing(guard: Option<&Facts<'_>>, ample: Option<&Facts<'_>>) -> Verdict {
    let (key, statement) =
        ("guard-drops-nothing", "guard drops no new flow in any round (new flows dropped, 0)".to_owned());
    match of_guard(guard).and_then(|guard| Ok((guard, figure(guard, "dropped")?))) {
        Ok((guard, dropped)) => {
            Verdict::judged(key, statement, Unit::Count, dropped.highest == 0, (dropped.highest, 0))
                .judged_if(guard.check_made_as_many(ample))
        }
        Err(why) => Verdict::open(key, statement, Unit::Count, &why),
    }
}

fn drops(other: &Facts<'_>, guard: Option<&Facts<'_>>) -> Verdict {
    let key = "drops-more-than-guard";
    let statement = format!("{} drops more new flows than guard (its, guard's)", other.alternative);
    let both = || -> Result<_, String> {
        other.check()?;
        Ok((figure(other, "dropped")?, figure(of_guard(guard)?, "dropped")?))
    };
    match both() {
        Ok((its, ours)) => {
            let more = its.lowest > ours.highest;
            Verdict::judged(key, statement, Unit::Count, more, (its.median, ours.median))
        }
        Err(why) => Verdict::open(key, statement, Unit::Count, &why),
    }
}

/// The yardstick, where the load met no limit of its table.
fn yardstick<'f, 'a>(ample: Option<&'f Facts<'a>>) -> Result<&'f Facts<'a>, String> {
    let ample = column(ample, "the yardstick, ample,")?;
    match ample.figure("dropped") {
        Some(dropped) if dropped.highest > 0 => {
            Err(format!("the yardstick's own table dropped {} new flows", dropped.highest))
        }
        _ => Ok(ample),
    }
}

fn latency(guard: Option<&Facts<'_>>, ample: Option<&Facts<'_>>) -> Verdict {
    let (key, of) = ("connect-p99", "connect_p99_us");
    let statement = "guard's connect p99 is within 10 % of the yardstick's (its, the yardstick's)".to_owned();
    let both = || -> Result<_, String> {
        let (guard, ample) = (of_guard(guard)?, yardstick(ample)?);
        Ok((figure(guard, of)?.median, figure(ample, of)?.median, guard.check_made_as_many(Some(ample))))
    };
    match both() {
        Ok((ours, ample, made)) => {
            let kept = ours.saturating_mul(100) <= ample.saturating_mul(LATENCY_PERCENT);
            Verdict::judged(key, statement, Unit::Micros, kept, (ours, ample)).judged_if(made)
        }
        Err(why) => Verdict::open(key, statement, Unit::Micros, &why),
    }
}

/// What good clients are to get, under the flood, of what they get then on the yardstick.
struct Good {
    key: &'static str,
    /// What a load of them does.
    does: &'static str,
    /// Who they are, where no load is named.
    who: &'static str,
    of: for<'f, 'a> fn(&'f Facts<'a>) -> &'f [Served<'a>],
    /// Why there are none.
    none: &'static str,
}

const NO_FLOOD: &str = "nobody floods in this scenario";
const MADE: Good = Good {
    key: "good-clients",
    does: "makes of the connections started then at least 95 % of what it makes",
    who: "good clients' load",
    of: |facts| &facts.good,
    none: "no load of kind `tcp` starts a connection while somebody floods",
};
const ANSWERED: Good = Good {
    key: "established",
    does: "is answered of the further requests due then at least 95 % of what it is answered",
    who: "what stood before",
    of: |facts| &facts.established,
    none: "no connection asks again (`every`) while somebody floods",
};

fn good_clients(good: &Good, guard: Option<&Facts<'_>>, ample: Option<&Facts<'_>>) -> Vec<Verdict> {
    let key = good.key;
    let statement =
        |load: &str| format!("under the flood, {load} {} on the yardstick (with guard, the yardstick)", good.does);
    let open = |why: &str| vec![Verdict::open(key, statement(good.who), Unit::Count, why)];
    let flooded = |facts: &Facts<'_>| facts.flood.clone().unwrap_or_else(|| Err(NO_FLOOD.to_owned()));
    let both = || -> Result<_, String> {
        let guard = of_guard(guard)?;
        flooded(guard)?;
        let ample = yardstick(ample)?;
        flooded(ample)?;
        Ok((guard, ample))
    };
    let (guard, ample) = match both() {
        Ok(both) => both,
        Err(why) => return open(&why),
    };
    // By the yardstick's: what the guard's clients wanted may be none because all of them were cut off before.
    let wanting = (good.of)(ample).iter().zip((good.of)(guard)).filter(|(ample, _)| ample.wanted.highest > 0);
    let judge = |(ample, ours): (&Served<'_>, &Served<'_>)| {
        let kept = !is_less(ours.got.median, ample.got.median) && ample.got.median > 0;
        Verdict::judged(key, statement(ours.load), Unit::Count, kept, (ours.got.median, ample.got.median))
    };
    let verdicts: Vec<Verdict> = wanting.map(judge).collect();
    if verdicts.is_empty() { open(good.none) } else { verdicts }
}

fn memory(guard: Option<&Facts<'_>>, ceiling: Option<&Facts<'_>>, ample: Option<&Facts<'_>>) -> Verdict {
    let (key, of) = ("memory", "memory_mean_bytes");
    let statement = "guard's table takes at most half of static-ceiling's memory, mean over time (its, the other's)";
    let both = || -> Result<_, String> {
        let (guard, ceiling) = (of_guard(guard)?, column(ceiling, "static-ceiling")?);
        let made = guard.check_made_as_many(Some(ceiling)).and_then(|()| guard.check_made_as_many(ample));
        Ok((figure(guard, of)?.median, figure(ceiling, of)?.median, made))
    };
    match both() {
        Ok((ours, theirs, made)) => {
            let kept = ours.saturating_mul(100) <= theirs.saturating_mul(MEMORY_PERCENT);
            Verdict::judged(key, statement.to_owned(), Unit::Bytes, kept, (ours, theirs)).judged_if(made)
        }
        Err(why) => Verdict::open(key, statement.to_owned(), Unit::Bytes, &why),
    }
}

fn stall(guard: Option<&Facts<'_>>) -> Verdict {
    let (key, limit) = ("stall", STALL_LIMIT_US);
    let statement =
        "no resize of guard's doing, at its start neither, takes longer than max-stall (the longest, the limit)";
    match of_guard(guard).and_then(|guard| guard.stall_us.map_err(str::to_owned)) {
        Ok(longest) if longest > limit && longest.saturating_sub(GRACE_US) <= limit => {
            let why = format!(
                "the longest resize took {}, of which up to {} hold nothing up; the limit is {}",
                Unit::Micros.words(longest),
                Unit::Micros.words(GRACE_US),
                Unit::Micros.words(limit)
            );
            Verdict::open(key, statement.to_owned(), Unit::Micros, &why)
        }
        Ok(longest) => Verdict::judged(key, statement.to_owned(), Unit::Micros, longest <= limit, (longest, limit)),
        Err(why) => Verdict::open(key, statement.to_owned(), Unit::Micros, &why),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type Column = (Alternative, BTreeMap<String, Spread>, u64);

    fn spread(value: u64) -> Spread {
        Spread { median: value, lowest: value, highest: value }
    }

    fn column(alternative: Alternative, dropped: u64, p99: u64, memory: u64, good: u64) -> Column {
        let figures = [("dropped", dropped), ("connect_p99_us", p99), ("memory_mean_bytes", memory), ("made", good)];
        (alternative, figures.into_iter().map(|(key, value)| (key.to_owned(), spread(value))).collect(), good)
    }

    fn served(load: &str, got: u64) -> Served<'_> {
        Served { load, wanted: spread(1_000), got: spread(got) }
    }

    fn facts((alternative, figures, good): &Column, stall_us: u64) -> Facts<'_> {
        Facts {
            alternative: *alternative,
            figures,
            rounds: (3, 3),
            started: Some(spread(100)),
            good: vec![served("good", *good)],
            established: vec![served("held", *good)],
            flood: Some(Ok(())),
            stall_us: Ok(stall_us),
        }
    }

    fn judge(columns: &[Column], stall_us: u64) -> Vec<Verdict> {
        all(&columns.iter().map(|column| facts(column, stall_us)).collect::<Vec<_>>())
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
            judge(&columns, stall)
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
        let nothing = judge(&[column(Alternative::Stock, 1, 9, 9, 9)], 0);
        assert!(nothing.iter().all(|one| one.answer == Answer::NotMeasured && one.why.is_some()), "{nothing:?}");
        assert_eq!(KEYS.map(|key| answers(&nothing, key).len()), [1; 7]);

        let (guard, full) = (column(Alternative::Guard, 0, 9, 9, 9), column(Alternative::Ample, 3, 9, 9, 9));
        let full = judge(&[full, guard.clone()], 0);
        for key in ["connect-p99", "good-clients", "established"] {
            assert_eq!(answers(&full, key), [Answer::NotMeasured], "a yardstick that was full is none");
        }
    }

    /// Of ample, static-ceiling and guard, all of whose promises are kept, once `change` was done to the facts.
    fn changed(change: impl FnOnce(&mut [Facts<'_>])) -> Vec<Verdict> {
        let columns = [
            column(Alternative::Ample, 0, 1_000, 9_000, 100),
            column(Alternative::StaticCeiling, 1, 1_000, 2_000, 100),
            column(Alternative::Guard, 0, 1_000, 1_000, 100),
        ];
        let mut facts: Vec<_> = columns.iter().map(|column| facts(column, 0)).collect();
        assert!(all(&facts).iter().all(|one| one.answer == Answer::Yes));
        change(&mut facts);
        all(&facts)
    }

    fn open(verdicts: &[Verdict], why: &str) -> Vec<&'static str> {
        let open = verdicts.iter().filter(|one| one.answer == Answer::NotMeasured);
        open.inspect(|one| assert_eq!(one.why.as_deref(), Some(why))).map(|one| one.key).collect()
    }

    #[test]
    fn a_column_that_lacks_rounds_or_a_load_is_not_judged() {
        let died = changed(|facts| facts[2].rounds = (1, 3));
        assert_eq!(open(&died, "guard ran in 1 of 3 rounds"), KEYS);
        let died = changed(|facts| facts[0].rounds = (2, 3));
        assert_eq!(open(&died, "ample ran in 2 of 3 rounds"), ["connect-p99", "good-clients", "established"]);
        let died = changed(|facts| facts[1].rounds = (2, 3));
        assert_eq!(open(&died, "static-ceiling ran in 2 of 3 rounds"), ["drops-more-than-guard", "memory"]);
        let idle = changed(|facts| facts[2].started = Some(spread(0)));
        assert_eq!(open(&idle, "the load beside guard started nothing"), KEYS);
    }

    #[test]
    fn a_flood_is_judged_where_it_was_one() {
        let quiet = changed(|facts| facts.iter_mut().for_each(|one| one.flood = None));
        assert_eq!(open(&quiet, NO_FLOOD), ["good-clients", "established"]);
        for column in [0, 2] {
            let unsent = changed(|facts| facts[column].flood = Some(Err("no flood".to_owned())));
            assert_eq!(open(&unsent, "no flood"), ["good-clients", "established"]);
        }
    }

    #[test]
    fn a_yes_needs_as_many_connections_as_the_others_and_a_no_does_not() {
        let with = |p99: u64, memory: u64, made: u64| {
            let columns = [
                column(Alternative::Ample, 0, 1_000, 9_000, 1_000),
                column(Alternative::StaticCeiling, 1, 1_000, 2_000, 1_000),
                column(Alternative::Guard, 0, p99, memory, made),
            ];
            let verdicts = judge(&columns, 0);
            ["guard-drops-nothing", "connect-p99", "memory"].map(|key| {
                let one = verdicts.iter().find(|one| one.key == key).unwrap();
                (one.answer, one.why.clone())
            })
        };
        assert!(with(1_000, 1_000, 950).iter().all(|(answer, _)| *answer == Answer::Yes));
        for (answer, why) in with(1_000, 1_000, 949) {
            assert_eq!((answer, why.as_deref()), (Answer::NotMeasured, Some("guard made 949 of 1,000")));
        }
        assert_eq!(with(1_101, 1_001, 949).map(|(answer, _)| answer), [Answer::NotMeasured, Answer::No, Answer::No]);
    }

    #[test]
    fn a_stall_that_nobody_saw_is_not_judged() {
        let unseen = changed(|facts| facts[2].stall_us = Err("nothing saw it"));
        assert_eq!(open(&unseen, "nothing saw it"), ["stall"]);
    }

    #[test]
    fn new_clients_and_those_that_ask_again_are_judged_apart() {
        let judge = |answered: &[(usize, u64)]| {
            let verdicts = changed(|facts| {
                for column in [0, 2] {
                    let of = answered.iter().filter(|(of, _)| *of == column);
                    facts[column].established = of.map(|(_, answered)| served("held", *answered)).collect();
                }
            });
            assert_eq!(answers(&verdicts, "good-clients"), [Answer::Yes]);
            verdicts.into_iter().find(|one| one.key == "established").unwrap()
        };
        let (ample, guard) = (0, 2);
        assert_eq!(judge(&[(ample, 1_000), (guard, 950)]).answer, Answer::Yes);
        let less = judge(&[(ample, 1_000), (guard, 949)]);
        assert_eq!((less.answer, less.figure, less.against), (Answer::No, Some(949), Some(1_000)));
        let nobody = judge(&[]);
        assert_eq!(nobody.answer, Answer::NotMeasured);
        assert!(nobody.why.unwrap().contains("`every`"));
    }

    #[test]
    fn a_load_counts_where_it_wants_something_on_the_yardstick_while_somebody_floods() {
        let none = |load| Served { load, wanted: spread(0), got: spread(0) };
        let before = changed(|facts| facts.iter_mut().for_each(|one| one.good = vec![none("good")]));
        assert_eq!(open(&before, MADE.none), ["good-clients"]);
        let one_of_two = changed(|facts| facts.iter_mut().for_each(|one| one.good.push(none("before the flood"))));
        assert_eq!(answers(&one_of_two, "good-clients"), [Answer::Yes]);
        // Whoever was cut off before the flood asks nothing more.
        let cut_off = changed(|facts| facts[2].established = vec![none("held")]);
        assert_eq!(answers(&cut_off, "established"), [Answer::No]);
    }
}
