//! What the figures say of what is promised: yes, no, or not measured, each with the two figures that it was judged by. Pure.

use serde::Serialize;

use super::alternative::Alternative;
use super::facts::{Facts, STALL_LIMIT_US, Served, is_less};
use super::figure::{Spread, Unit};
use crate::table::grouped;

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
    all.extend(others.map(|other| drops(other, guard, ample)));
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

fn drops(other: &Facts<'_>, guard: Option<&Facts<'_>>, ample: Option<&Facts<'_>>) -> Verdict {
    let key = "drops-more-than-guard";
    let statement = format!("{} drops more new flows than guard (its, guard's)", other.alternative);
    let both = || -> Result<_, String> {
        other.check()?;
        let guard = of_guard(guard)?;
        Ok((figure(other, "dropped")?, figure(guard, "dropped")?, guard.check_made_as_many(ample)))
    };
    match both() {
        Ok((its, ours, made)) => {
            let more = its.lowest > ours.highest;
            Verdict::judged(key, statement, Unit::Count, more, (its.median, ours.median)).judged_if(made)
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
        let kept = !is_less(ours.got.median, ample.got.median);
        let (statement, figures) = (statement(ours.load), (ours.got.median, ample.got.median));
        Verdict::judged(key, statement, Unit::Count, kept, figures).judged_if(was_served(ample))
    };
    let verdicts: Vec<Verdict> = wanting.map(judge).collect();
    if verdicts.is_empty() { open(good.none) } else { verdicts }
}

/// A load that gets little even where the table has room for all is held up by something else, and says nothing of the table.
fn was_served(ample: &Served<'_>) -> Result<(), String> {
    let Served { load, wanted, got } = ample;
    if is_less(got.median, wanted.median) {
        let (got, wanted) = (grouped(got.median), grouped(wanted.median));
        return Err(format!("the yardstick itself served {load} {got} of {wanted}"));
    }
    Ok(())
}

fn memory(guard: Option<&Facts<'_>>, ceiling: Option<&Facts<'_>>, ample: Option<&Facts<'_>>) -> Verdict {
    let (key, of) = ("memory", "memory_mean_bytes");
    let statement = "guard's table takes at most half of static-ceiling's memory, mean over time (its, the other's)";
    let both = || -> Result<_, String> {
        let (guard, ceiling) = (of_guard(guard)?, column(ceiling, "static-ceiling")?);
        let of_ample = ample.map_or(Ok(()), |ample| guard.check_made_as_many(Some(ample)));
        let made = guard.check_made_as_many(Some(ceiling)).and(of_ample);
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
    match of_guard(guard).and_then(|guard| guard.stall_us.clone()) {
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
mod tests;
