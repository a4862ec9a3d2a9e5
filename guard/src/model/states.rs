//! What each timeout holds in the table.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cohorts::Cohorts;
use super::estimate::InState;
use crate::observe::{Census, Sample, Timeout};

/// A census says how many entries are where for so long; then what comes and ends says it better.
pub(super) const FRESH: Duration = Duration::from_mins(2);

/// From a census where there is a fresh one, else by Little's law: as many as end in the time that the timeout takes.
/// Open connections do not end by their timeout, so only a census knows them.
pub(super) fn states(sample: &Sample, cohorts: &Cohorts) -> BTreeMap<Timeout, InState> {
    // What has run out is in the count until it is freed, and in no census.
    let count = (sample.table.count as f64 - cohorts.dead()).max(0.0);
    let census = sample.census.as_ref();
    let fresh = fresh(sample, FRESH);
    let states = Timeout::ALL.into_iter().filter_map(|timeout| {
        let ends = cohorts.ends(timeout);
        let seen = census.and_then(|census| census.by.get(&timeout)).copied().unwrap_or_default();
        let entries = match fresh {
            Some(census) => count * seen.entries as f64 / all(census) as f64,
            None => cohorts.held(timeout).min(count),
        };
        let unreplied = match (seen.entries, timeout) {
            // The state's own meaning; where it tells nothing, none counts as unreplied.
            (0, Timeout::TcpSynSent) => 1.0,
            (0, _) => 0.0,
            (entries, _) => (seen.unreplied as f64 / entries as f64).min(1.0),
        };
        (entries > 0.0 || ends > 0.0).then_some((timeout, InState { entries, ends, unreplied }))
    });
    states.collect()
}

/// The census, if it is no older than this and has looked at anything.
pub(super) fn fresh(sample: &Sample, age: Duration) -> Option<&Census> {
    sample.census.as_ref().filter(|census| sample.at.saturating_sub(census.at) <= age && all(census) > 0)
}

/// Entries looked at, whatever their protocol.
pub(super) fn all(census: &Census) -> u64 {
    census.by.values().fold(census.other, |sum, state| sum.saturating_add(state.entries))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Toy, kind};
    use super::*;
    use crate::observe;

    #[test]
    fn without_a_census_what_ends_and_its_timeout_tell_what_is_there() {
        let mut toy = Toy::new(&[kind(Timeout::TcpTimeWait, 100.0), kind(Timeout::TcpSynSent, 10.0)]);
        let states = toy.run(400).states;
        assert_eq!(states.len(), 2, "{states:?}");
        let close = |timeout, entries: f64, ends: f64, unreplied: f64| {
            let state = states[&timeout];
            (state.entries / entries - 1.0).abs() < 0.02
                && (state.ends / ends - 1.0).abs() < 0.02
                && (state.unreplied - unreplied).abs() < 1e-9
        };
        assert!(close(Timeout::TcpTimeWait, 12_000.0, 100.0, 0.0), "{states:?}");
        assert!(close(Timeout::TcpSynSent, 1_200.0, 10.0, 1.0), "{states:?}");
    }

    #[test]
    fn a_fresh_census_is_a_sample_of_the_whole_table_and_an_old_one_is_not() {
        let open = observe::InState { entries: 300, unreplied: 30, assured: 270, seconds_left: 0 };
        let mut toy = Toy::new(&[kind(Timeout::TcpTimeWait, 100.0)]);
        toy.sample.table.count = 10_000;
        toy.run(30);
        let by = BTreeMap::from([(Timeout::TcpEstablished, open)]);
        toy.census(Census { entries: 400, by, other: 100, ..Census::default() });
        let states = toy.run(0).states;
        let open = states[&Timeout::TcpEstablished];
        let count = toy.count() as f64;
        assert!((open.entries - 0.75 * count).abs() < 1.0 && (open.unreplied - 0.1).abs() < 1e-9, "{states:?}");
        let states = toy.run(200).states;
        assert!(!states.contains_key(&Timeout::TcpEstablished), "nothing is known of them now: {states:?}");
        assert!(states[&Timeout::TcpTimeWait].entries > 5_000.0, "{states:?}");
    }

    #[test]
    fn what_was_deleted_does_not_pass_for_what_is_there() {
        let mut toy = Toy::new(&[kind(Timeout::TcpTimeWait, 400.0)]);
        toy.run(300);
        toy.flush();
        let estimate = toy.run(2);
        let held = estimate.states[&Timeout::TcpTimeWait].entries;
        assert!(held <= toy.count() as f64, "{held} of {}", toy.count());
    }
}
