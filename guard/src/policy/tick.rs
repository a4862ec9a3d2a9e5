//! When to look at the table again.

use std::time::Duration;

use super::plan::Plan;
use crate::model::{Estimate, Load};

/// Between two looks at rest, where a surge wakes the guard.
const REST: Duration = Duration::from_secs(2);
/// Between two looks in calm.
const CALM: Duration = Duration::from_secs(1);
/// Between two looks when it is urgent.
const URGENT: Duration = Duration::from_millis(50);
/// So many looks at least until the table is full at the present growth: a table that is full within 1 s is looked at
/// every 50 ms, and growth that doubles meanwhile is still seen in time.
const LOOKS_UNTIL_FULL: u32 = 20;
/// Between two looks while it is not known what a surge is: the one that tells waits for the next.
const UNKNOWN: Duration = Duration::from_millis(250);
/// New entries a second with which a surge may begin between two looks, without any sign before it. The raise that
/// answers it must come before the table is full, so a table with little room is looked at more often.
const SURGE: f64 = 32_768.0;
/// So many looks while such a surge fills the room.
const LOOKS_IN_SURGE: f64 = 4.0;

/// The time until the next sample: 1 s in calm, down to 50 ms when the table is, or may soon be, short of room. `wakes`: a surge
/// wakes the guard by itself, before the table is full; it then is 2 s at rest, which is where so few flows come that they
/// would not fill the table in 40 s if none of them ended.
///
/// Where `plan`, made from the same estimate, could not have the max it wanted, looking sooner would help nobody.
pub fn next_tick(estimate: &Estimate, plan: &Plan, wakes: bool) -> Duration {
    let table = &estimate.table;
    let calm = if estimate.load == Load::Surge { UNKNOWN } else { CALM };
    if table.max == 0 || plan.max_blocked {
        return calm;
    }
    let room = table.max.saturating_sub(table.count) as f64;
    let by_growth = estimate.time_to_full.map_or(REST, |time| time / LOOKS_UNTIL_FULL);
    if wakes {
        let rate = estimate.insert_rate.unwrap_or(0.0).max(estimate.insert_rate_long.unwrap_or(0.0));
        let quiet = plan.rests() && estimate.load != Load::Surge;
        let rests = quiet && rate * REST.as_secs_f64() * f64::from(LOOKS_UNTIL_FULL) <= room;
        return by_growth.clamp(URGENT, if rests { REST } else { calm });
    }
    // A host that opens many flows already may open twice as many the next moment.
    let surge = SURGE.max(2.0 * estimate.insert_rate.unwrap_or(0.0));
    let by_room = Duration::try_from_secs_f64(room / surge / LOOKS_IN_SURGE).unwrap_or(CALM);
    by_growth.min(by_room).clamp(URGENT, calm)
}

#[cfg(test)]
mod tests {
    use super::super::phase::{Phase, Standing};
    use super::super::plan::{Change, Setting};
    use super::super::tests::estimate;
    use super::*;

    #[test]
    fn calm_is_looked_at_once_a_second() {
        assert_eq!(next_tick(&estimate(1_000, 262_144, 0.0), &Plan::default(), false), CALM);
        assert_eq!(next_tick(&estimate(1_000, 0, 1e9), &Plan::default(), false), CALM, "no limit is never reached");
    }

    #[test]
    fn a_table_that_is_full_within_a_second_is_looked_at_every_50_ms() {
        let mut soon = estimate(100_000, 1_000_000, 0.0);
        soon.time_to_full = Some(Duration::from_secs(1));
        assert_eq!(next_tick(&soon, &Plan::default(), false), URGENT);
        assert_eq!(next_tick(&soon, &Plan::default(), true), URGENT, "whether or not a surge wakes it");
        soon.time_to_full = Some(Duration::from_secs(5));
        assert_eq!(next_tick(&soon, &Plan::default(), false), Duration::from_millis(250));
        soon.time_to_full = Some(Duration::from_secs(100));
        assert_eq!(next_tick(&soon, &Plan::default(), false), CALM);
        soon.time_to_full = Some(Duration::from_secs(30));
        assert_eq!(next_tick(&soon, &Plan::default(), true), Duration::from_millis(1_500), "growth is no rest");
    }

    #[test]
    fn rest_is_where_little_comes_and_nothing_is_done() {
        let mut quiet = estimate(5_536, 65_536, 0.0);
        let rests = |estimate: &Estimate, plan: &Plan| next_tick(estimate, plan, true) == REST;
        assert!(rests(&quiet, &Plan::default()));
        quiet.insert_rate_long = Some(1_500.0);
        assert!(rests(&quiet, &Plan::default()));
        quiet.insert_rate_long = Some(1_501.0);
        assert_eq!(next_tick(&quiet, &Plan::default(), true), CALM, "40 s of it might fill the room of 60,000");
        quiet.insert_rate_long = None;
        let standing = Standing { phase: Phase::Waiting, ..Standing::default() };
        assert_eq!(next_tick(&quiet, &Plan { standing, ..Plan::default() }, true), CALM);
        let changes = vec![Change::bare(Setting::Buckets, 1_024, 2_048)];
        assert_eq!(next_tick(&quiet, &Plan { changes, ..Plan::default() }, true), CALM);
    }

    #[test]
    fn a_table_at_its_limit_is_looked_at_once_a_second() {
        let full = estimate(1_000, 1_000, 100.0);
        assert_eq!(next_tick(&full, &Plan::default(), false), URGENT);
        assert_eq!(next_tick(&full, &Plan { max_blocked: true, ..Plan::default() }, false), CALM);
    }

    #[test]
    fn what_is_not_known_is_soon_looked_at_again() {
        let surge = Estimate { load: Load::Surge, ..estimate(1_000, 262_144, 0.0) };
        for max_blocked in [false, true] {
            assert_eq!(next_tick(&surge, &Plan { max_blocked, ..Plan::default() }, true), UNKNOWN);
        }
    }

    #[test]
    fn little_room_is_watched_closely_even_in_calm() {
        assert_eq!(next_tick(&estimate(0, 65_536, 0.0), &Plan::default(), false), Duration::from_millis(500));
        assert_eq!(next_tick(&estimate(0, 1_024, 0.0), &Plan::default(), false), URGENT);
        assert_eq!(next_tick(&estimate(0, 1_024, 0.0), &Plan::default(), true), REST, "a surge wakes it");
        let mut busy = estimate(0, 262_144, 0.0);
        busy.insert_rate = Some(65_536.0);
        assert_eq!(next_tick(&busy, &Plan::default(), false), Duration::from_millis(500));
    }
}
