//! How many entries the host's memory has room for at this moment, besides `table.memory-limit`.

use super::limits::entry_cost;
use crate::model::Estimate;
use crate::observe::Memory;

/// The share of the last 10 s (per cent, `some avg10` of /proc/pressure/memory) in which some task waited for memory, from
/// which on max is not raised: entries are allocated in softirq (`GFP_ATOMIC`), which fails first. A fifth of the time
/// is far from what swap-free hosts show at rest (0 to 1) and well under the 60 at which systemd-oomd kills.
const PRESSURE_HIGH: f64 = 20.0;
/// Memory counts as short until the pressure has fallen to this.
const PRESSURE_OVER: f64 = 10.0;
/// One part of so many of the host's memory is left alone by a raise…
const RESERVE_PART: u64 = 20;
/// …but no less than that under which the kubelet evicts pods (`memory.available<100Mi`)…
const LEAST_RESERVE: u64 = 100 << 20;
/// …and no more than this, or large hosts would keep gigabytes for nothing.
const MOST_RESERVE: u64 = 1 << 30;

/// What memory has to say about a larger table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemoryNow {
    /// Whether tasks wait for memory.
    pub(super) short: bool,
    /// The largest max whose entries, beyond those there are, fit what is available less the reserve.
    pub(super) entries: u64,
    /// Bytes left alone.
    pub(super) reserve: u64,
}

impl MemoryNow {
    /// `was_short`: what the tick before said.
    pub(super) fn new(estimate: &Estimate, was_short: bool) -> Self {
        let Memory { total, available, pressure } = estimate.memory;
        let bound = if was_short { PRESSURE_OVER } else { PRESSURE_HIGH };
        let short = pressure.is_some_and(|pressure| pressure >= bound);
        let reserve = (total / RESERVE_PART).clamp(LEAST_RESERVE, MOST_RESERVE);
        let more = available.saturating_sub(reserve) / entry_cost(estimate.entry_bytes);
        // Without MemTotal nothing is known, and table.memory-limit has to do.
        let entries = if total == 0 { u64::MAX } else { estimate.table.count.saturating_add(more) };
        Self { short, entries, reserve }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::estimate;
    use super::*;

    fn with(total: u64, available: u64, pressure: Option<f64>, was_short: bool) -> MemoryNow {
        let mut estimate = estimate(1_000, 8_192, 0.0);
        estimate.memory = Memory { total, available, pressure };
        MemoryNow::new(&estimate, was_short)
    }

    #[test]
    fn a_reserve_is_left_alone() {
        assert_eq!(with(2 << 30, 200 << 20, None, false).entries, 320_815);
        assert_eq!(with(2 << 30, 50 << 20, None, false).entries, 1_000, "entries there are already need no more");
        assert_eq!(with(1 << 40, 1 << 40, None, false).reserve, MOST_RESERVE);
        assert_eq!(with(256 << 20, 1 << 20, None, false).reserve, LEAST_RESERVE);
        assert_eq!(with(0, 0, None, false).entries, u64::MAX, "nothing is known");
    }

    #[test]
    fn pressure_is_over_only_well_below_where_it_began() {
        let short = |pressure, was| with(1 << 30, 1 << 30, pressure, was).short;
        assert!(!short(None, true) && !short(Some(19.9), false) && short(Some(20.0), false));
        assert!(short(Some(10.0), true) && !short(Some(9.9), true) && !short(Some(f64::NAN), false));
    }
}
