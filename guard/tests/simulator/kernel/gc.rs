//! `gc_worker`: the sweep over the whole table that frees what has expired and nobody met.

use conntrack_guard::observe::Timeout;

use super::cohorts::{Entries, Freed, NOTHING, Time, steps};
use super::flow::Phase;

/// `GC_SCAN_EXPIRED_MAX` is 64000 / HZ in each jiffy.
const FREED_A_SECOND: f64 = 64_000.0;
/// `GC_SCAN_INTERVAL_MIN` and `GC_SCAN_INTERVAL_MAX`, seconds.
const INTERVAL: (f64, f64) = (1.0, 60.0);
/// `GC_SCAN_INTERVAL_CLAMP`: what an entry's time counts for at most, seconds.
const CLAMP: f64 = 300.0;
/// `GC_SCAN_INITIAL_COUNT`: so many entries' weight has the longest interval in the mean.
const INITIAL: f64 = 100.0;
/// A share of max: above it a sweep after refusals also takes closing connections (`nf_conntrack_max95`).
const NEARLY_FULL: f64 = 0.95;

/// Where the worker is.
#[derive(Clone, Debug, Default)]
pub struct Gc {
    /// When the next sweep begins.
    next: Time,
    began: Time,
    /// While it sweeps: what it still will free.
    ahead: Option<f64>,
    early_drop: bool,
}

impl Gc {
    /// A new flow was refused: the next sweep makes room.
    pub fn table_was_full(&mut self) {
        self.early_drop = true;
    }

    /// When it does the next thing, as far as that is known.
    pub fn next(&self) -> Option<Time> {
        self.ahead.is_none().then_some(self.next)
    }

    /// What it frees in so many seconds up to now.
    pub fn run(&mut self, entries: &mut Entries, now: Time, step: f64, seconds: f64, max: u64) -> Freed {
        let mut freed = Freed::new();
        let dead = entries.dead();
        let ahead = match self.ahead {
            Some(ahead) => ahead.min(dead),
            None if now < self.next => return freed,
            None => {
                self.began = now;
                if std::mem::take(&mut self.early_drop) {
                    let over = entries.count() - max as f64 * NEARLY_FULL;
                    freed = entries.evict(over, evictable_when_nearly_full);
                }
                dead
            }
        };
        let take = ahead.min(FREED_A_SECOND * seconds);
        if take > 0.0 {
            freed.extend(entries.free_dead(take / dead));
        }
        if ahead - take > NOTHING {
            self.ahead = Some(ahead - take);
        } else {
            self.ahead = None;
            let pause = steps(interval(entries), step).saturating_sub(now - self.began);
            self.next = now + pause.max(1);
        }
        freed
    }
}

/// The mean time that entries have left.
fn interval(entries: &Entries) -> f64 {
    let left = entries.seconds_left(|left| left.clamp(INTERVAL.0, CLAMP));
    let sum: f64 = left.iter().zip(&entries.classes).map(|(left, class)| left * class.live).sum();
    ((INTERVAL.1 * INITIAL + sum) / (INITIAL + entries.live())).clamp(INTERVAL.0, INTERVAL.1)
}

/// `gc_worker_can_early_drop` and `tcp_can_early_drop`.
fn evictable_when_nearly_full(phase: &Phase) -> bool {
    let closing =
        [Timeout::TcpFinWait, Timeout::TcpCloseWait, Timeout::TcpLastAck, Timeout::TcpTimeWait, Timeout::TcpClose];
    !phase.assured || closing.contains(&phase.state)
}
