//! How long a resize of the hash table holds up all conntrack packets, learnt from the resizes that were.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::observe::ResizeEvent;

/// What a resize takes besides moving entries: the wait for an RCU grace period (`synchronize_net`) after it, in which no
/// packet waits. Less than this of a measured time may be nothing else.
const GRACE: Duration = Duration::from_millis(30);
/// With fewer entries a measured time says next to nothing about one of them.
const FEWEST: u64 = 10_000;
/// Nanoseconds an entry that no machine is below or above: two cache misses, and an emulated one.
const RANGE: (u64, u64) = (100, 20_000);
/// A resize that was faster than expected takes off this part of the difference.
const EASING: u64 = 4;

/// What one entry adds to the stall of a resize.
///
/// `nf_conntrack_hash_resize` moves both tuples of each entry under all conntrack locks: 0.7 µs an entry in counted
/// instructions, 0.37 to 0.48 µs measured natively at 1,000,000 entries; the larger figure is where it starts. The new
/// buckets are allocated and zeroed before the locks are taken, so their number adds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ResizeCost {
    /// Nanoseconds an entry.
    nanos: u64,
}

/// How long a resize that was made held up all conntrack packets: between these two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stalled {
    /// What it took, less a grace period.
    pub least: Duration,
    /// What it took.
    pub most: Duration,
}

impl Stalled {
    /// Of a resize that went through.
    pub(super) fn by(event: &ResizeEvent) -> Option<Self> {
        (event.result == 0).then(|| Self { least: event.took.saturating_sub(GRACE), most: event.took })
    }
}

impl Default for ResizeCost {
    fn default() -> Self {
        Self { nanos: 700 }
    }
}

impl ResizeCost {
    /// The stall with `count` entries in the table.
    pub fn stall(self, count: u64) -> Duration {
        Duration::from_nanos(count.saturating_mul(self.nanos))
    }

    /// What this resize, made with so many entries, adds to what is known.
    ///
    /// The measured time bounds the stall from above, and less the grace period from below. A stall that is longer than
    /// thought counts at once, since the next one is decided on it; a shorter one may have been luck, and counts little.
    pub(super) fn learn(&mut self, event: &ResizeEvent, count: u64) {
        let Some(stalled) = Stalled::by(event).filter(|_| count >= FEWEST) else { return };
        let an_entry = |time: Duration| u64::try_from(time.as_nanos() / u128::from(count)).unwrap_or(u64::MAX);
        let (least, most) = (an_entry(stalled.least), an_entry(stalled.most));
        let nanos = if least > self.nanos { least } else { self.nanos - self.nanos.saturating_sub(most) / EASING };
        self.nanos = nanos.clamp(RANGE.0, RANGE.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(resizes: &[(u64, u64)]) -> u64 {
        let mut cost = ResizeCost::default();
        for (millis, count) in resizes {
            let event = ResizeEvent { took: Duration::from_millis(*millis), ..event() };
            cost.learn(&event, *count);
        }
        cost.nanos
    }

    fn event() -> ResizeEvent {
        ResizeEvent {
            at: Duration::from_secs(5),
            took: Duration::from_millis(1),
            pid: 1,
            comm: "sysctl".to_owned(),
            cgroup: 1,
            from: Some(1_024),
            to: Some(2_048),
            result: 0,
        }
    }

    #[test]
    fn it_grows_with_the_entries() {
        assert_eq!(ResizeCost::default().stall(0), Duration::ZERO);
        assert_eq!(ResizeCost::default().stall(200_000), Duration::from_millis(140));
        assert_eq!(ResizeCost::default().stall(u64::MAX), Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn a_long_stall_counts_at_once_and_short_ones_little_by_little() {
        assert_eq!(after(&[(430, 200_000)]), 2_000);
        assert_eq!(after(&[(80, 200_000)]), 625, "a quarter of the way from 700 to 400");
        let many = after(&[(80, 200_000); 40]);
        assert!((400..410).contains(&many), "{many}");
    }

    #[test]
    fn what_the_grace_period_explains_is_no_stall() {
        assert_eq!(after(&[(32, 20_000), (20, 20_000)]), 700);
        assert_eq!(after(&[(5_000, 100)]), 700, "so few entries tell nothing");
    }

    #[test]
    fn no_measurement_makes_it_absurd() {
        assert_eq!(after(&[(1 << 40, 20_000)]), 20_000);
        assert_eq!(after(&[(0, 1 << 40); 100]), 100);
        let mut cost = ResizeCost::default();
        cost.learn(&ResizeEvent { result: -12, took: Duration::from_secs(9), ..event() }, 20_000);
        assert_eq!(cost, ResizeCost::default(), "it failed before it moved an entry");
    }
}
