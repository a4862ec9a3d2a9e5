//! The rule that shortens timeouts when max may not rise: the cuts that free enough, for the least harm.

use std::collections::BTreeMap;
use std::time::Duration;

use super::gain::Gain;
use super::harm::{Cut, is_offloaded, possible, room};
use super::plan::{Change, Expectation, Expected, Held, Rule, Setting};
use super::situation::{SHORT, Situation};
use super::unseen::unseen;
use crate::figures::{grouped, per_second, time};
use crate::observe::{Timeout, Timeouts};

/// The cuts are to bring the count this far below the mark, so that what is near the mark needs one round, not many.
const SPARE: f64 = 0.9;
/// A cut that frees less than one part in so many of max is not worth its harm: nobody could tell its effect from noise.
const WORTHWHILE_PART: u64 = 100;

/// What the rule goes by beside the situation.
pub(super) struct Want<'a> {
    /// What keeps max from rising, in a few words.
    pub(super) held_by: &'static str,
    /// max as it will be after this plan.
    pub(super) max: u64,
    /// How right the predicted gains have been.
    pub(super) gain: Gain,
    /// Whether the last write of a setting did not take.
    pub(super) waits: &'a dyn Fn(Setting) -> bool,
    /// Whether new flows are refused: then a cut that helps soon is wanted besides one that does less harm and helps late.
    pub(super) refused: bool,
    /// Earlier cuts that have not shown in full, each with the time that this still takes.
    pub(super) showing: &'a BTreeMap<Timeout, Duration>,
}

/// What the rule answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Shortened {
    /// Each cut with its change and with the count expected without any of them at its expectation's time.
    pub(super) changes: Vec<(Cut, Change, u64)>,
    /// What is missing, if the cuts are not enough.
    pub(super) held: Vec<Held>,
}

/// Chooses the cuts. None when the present timeouts are expected to free enough by themselves.
pub(super) fn shorten_timeouts(situation: &Situation<'_>, want: &Want<'_>) -> Shortened {
    let ledger = Ledger::new(situation, want);
    let chosen = ledger.choose(possible(situation, want.waits));
    let enough = ledger.fits(ledger.latest(&chosen).max(situation.policy.table.horizon), &chosen);
    let changes = chosen.iter().map(|cut| ledger.change(cut, &chosen)).collect();
    let held = if enough { Vec::new() } else { missing(situation) };
    Shortened { changes, held }
}

/// Works out what cuts bring.
struct Ledger<'a> {
    situation: &'a Situation<'a>,
    want: &'a Want<'a>,
    target: u64,
}

impl<'a> Ledger<'a> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a u64, never negative")]
    fn new(situation: &'a Situation<'a>, want: &'a Want<'a>) -> Self {
        let target = (want.max as f64 * situation.policy.table.high_water * SPARE) as u64;
        Self { situation, want, target }
    }

    /// The cuts that are needed, the least harmful first. What the present timeouts, the earlier cuts among them, and less
    /// harmful cuts will have freed once they show needs no cut.
    fn choose(&self, mut possible: Vec<Cut>) -> Vec<Cut> {
        if self.want.refused {
            // It is not cut deeper for want of patience.
            possible.retain(|cut| !self.want.showing.contains_key(&cut.timeout));
        }
        possible.sort_by_key(|cut| (cut.harm, u64::MAX - self.gain(cut, &[])));
        let mut chosen: Vec<Cut> = Vec::new();
        for cut in possible {
            let worthwhile = self.gain(&cut, &chosen) >= (self.want.max / WORTHWHILE_PART).max(1);
            if worthwhile && !self.fits(self.needed_at(&cut, &chosen), &chosen) {
                chosen.push(cut);
            }
        }
        self.spare(&mut chosen);
        chosen
    }

    /// When it shows whether a cut is needed.
    fn needed_at(&self, cut: &Cut, chosen: &[Cut]) -> Duration {
        if self.want.refused { cut.after } else { cut.after.max(self.latest(chosen)) }
    }

    /// When these cuts and the earlier ones show in full.
    fn latest(&self, cuts: &[Cut]) -> Duration {
        let earlier = self.want.showing.values().copied();
        cuts.iter().map(|cut| cut.after).chain(earlier).max().unwrap_or_default()
    }

    /// Takes off what is not needed after all, the most harmful first, and halves the deepest harm if half is enough.
    fn spare(&self, chosen: &mut Vec<Cut>) {
        let times: Vec<Duration> = chosen.iter().map(|cut| self.needed_at(cut, chosen)).collect();
        let enough = |cuts: &[Cut]| times.iter().all(|after| self.fits(*after, cuts));
        if !enough(chosen) {
            return;
        }
        for index in (0..chosen.len()).rev() {
            let cut = chosen.remove(index);
            if !enough(chosen) {
                chosen.insert(index, cut);
            }
        }
        if self.situation.flood.is_some() {
            // Who floods can send more, and only what nobody answers pays.
            return;
        }
        if let Some(last) = chosen.pop() {
            chosen.push(last.halved());
            if !enough(chosen) {
                chosen.pop();
                chosen.push(last);
            }
        }
    }

    fn fits(&self, after: Duration, cuts: &[Cut]) -> bool {
        self.expected(after, cuts) <= self.target
    }

    /// Entries that the load will ask for with these cuts, the gain corrected by what came of earlier ones.
    fn expected(&self, after: Duration, cuts: &[Cut]) -> u64 {
        let shown = cuts.iter().filter(|cut| cut.after <= after);
        let unseen = shown.fold(0_u64, |sum, cut| sum.saturating_add(self.unseen(cut)));
        let gain = self.seen(after, &self.timeouts(cuts)).saturating_add(unseen);
        self.without(after).saturating_sub(self.want.gain.of(gain))
    }

    /// Entries that there will be with these cuts, max in the way.
    fn within_max(&self, after: Duration, cuts: &[Cut]) -> u64 {
        let (most, timeouts) = (self.want.max.max(self.situation.estimate.table.count), self.timeouts(cuts));
        let expected = self.expected(after, cuts);
        if after > SHORT {
            return expected.min(most);
        }
        let outlook = |max| self.situation.estimate.outlook.count(self.situation.foresight(after), &timeouts, max);
        // By so much what was learnt, and what the outlook does not know of, is more or less than it.
        let seen = outlook(0);
        let there = outlook(self.want.max);
        there.saturating_add(expected.saturating_sub(seen)).saturating_sub(seen.saturating_sub(expected)).min(most)
    }

    /// What the outlook sees of the gain of other timeouts.
    fn seen(&self, after: Duration, timeouts: &Timeouts) -> u64 {
        let after = self.situation.foresight(after);
        let without = self.situation.demand(after, &self.situation.estimate.timeouts);
        without.saturating_sub(self.situation.demand(after, timeouts))
    }

    /// What a cut brings that the outlook does not know of.
    fn unseen(&self, cut: &Cut) -> u64 {
        let seen = self.seen(cut.after, &self.situation.timeouts_with(cut.timeout, cut.to));
        unseen(self.situation, cut.timeout, cut.to, cut.after, seen)
    }

    fn without(&self, after: Duration) -> u64 {
        self.situation.demand_in_force(after)
    }

    /// What one more cut frees, when it pays.
    fn gain(&self, cut: &Cut, chosen: &[Cut]) -> u64 {
        let mut with = chosen.to_vec();
        with.retain(|other| other.timeout != cut.timeout);
        let before = self.expected(cut.after, &with);
        with.push(*cut);
        before.saturating_sub(self.expected(cut.after, &with))
    }

    fn timeouts(&self, cuts: &[Cut]) -> Timeouts {
        let mut timeouts = self.situation.estimate.timeouts.clone();
        timeouts.extend(cuts.iter().map(|cut| (cut.timeout, cut.to)));
        timeouts
    }

    /// The cut with its change, and the count expected without it.
    fn change(&self, cut: &Cut, chosen: &[Cut]) -> (Cut, Change, u64) {
        let estimate = self.situation.estimate;
        let state = estimate.states.get(&cut.timeout).copied().unwrap_or_default();
        let change = Change {
            setting: Setting::Timeout(cut.timeout),
            old: cut.from,
            new: cut.to,
            rule: Rule::ShortenTimeout,
            evidence: format!(
                "{} entries press on {} and max is held by {}; {} wait for this timeout, {} end by it",
                grouped(estimate.forecast),
                grouped(self.want.max),
                self.want.held_by,
                grouped(whole(state.entries)),
                per_second(state.ends)
            ),
            predicted: format!(
                "{} entries fewer in {}; those that are there keep the time they have",
                grouped(self.gain(cut, chosen)),
                time(cut.after)
            ),
            expectation: Some(Expectation {
                of: Expected::Count,
                value: self.within_max(cut.after, chosen),
                at: estimate.at.saturating_add(cut.after),
            }),
        };
        (*cut, change, self.without(cut.after))
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, NaN becomes 0")]
fn whole(entries: f64) -> u64 {
    entries.round() as u64
}

/// Why no cut is left that would help.
fn missing(situation: &Situation<'_>) -> Vec<Held> {
    let held = |setting, reason: &str| Held { setting, rule: Rule::ShortenTimeout, reason: reason.to_owned() };
    if !situation.policy.timeouts.shorten {
        // The operator wants it so; what holds max is told already.
        return Vec::new();
    }
    let mut all = Vec::new();
    let established = Timeout::TcpEstablished;
    let holds = situation.estimate.states.get(&established).is_some_and(|state| state.entries >= 1.0);
    if is_offloaded(situation, established) && holds && room(situation.limits, situation, established).is_some() {
        all.push(held(
            Setting::Timeout(established),
            "flows are offloaded to a flowtable, which gives them long timeouts of its own: this one is not shortened \
             while one is in use. Take the flowtable out of the ruleset to have it shortened",
        ));
    }
    let reason = if situation.estimate.states.is_empty() {
        "which entries fill the table is not known, so no timeout is shortened; `conntrack-guard support` says what a \
         census of the entries and the eBPF programs need here"
    } else if situation.flood.is_some() {
        "the timeouts of flows without a reply are as short as their floors let them be, or would free too little; \
         lower floors under [timeouts], or drop the flood before it is tracked (nftables: notrack, synproxy)"
    } else {
        "the timeouts are as short as their floors let them be, or would free too little; lower floors under \
         [timeouts], let max rise further, or find out what fills the table"
    };
    all.push(held(Setting::Max, reason));
    all
}

#[cfg(test)]
mod tests;
