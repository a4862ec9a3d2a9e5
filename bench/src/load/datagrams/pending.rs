//! Datagrams on their way, by when they were sent: too many to be kept one by one.

use std::collections::VecDeque;
use std::time::Duration;

/// After this long without an answer, or an arrival, a datagram is lost.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// Those sent within so long are counted together.
const SLOT: Duration = Duration::from_millis(100);

/// How many were sent in each slot and have not come yet.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Number of the first slot.
    first: u64,
    slots: VecDeque<u64>,
}

impl Pending {
    /// One was sent.
    pub fn sent(&mut self, at: Duration) {
        let Some(index) = self.index(at) else { return };
        if self.slots.len() <= index {
            self.slots.resize(index + 1, 0);
        }
        if let Some(count) = self.slots.get_mut(index) {
            *count += 1;
        }
    }

    /// One that was sent then has come; false where it is lost already, or came before.
    pub fn done(&mut self, at: Duration) -> bool {
        match self.index(at).and_then(|index| self.slots.get_mut(index)) {
            Some(count) if *count > 0 => {
                *count -= 1;
                true
            }
            _ => false,
        }
    }

    /// How many are lost since the last call.
    pub fn expire(&mut self, now: Duration) -> u64 {
        let oldest = slot(now.saturating_sub(TIMEOUT + SLOT));
        let mut lost = 0;
        while self.first < oldest {
            lost += self.slots.pop_front().unwrap_or(0);
            self.first += 1;
        }
        lost
    }

    /// `None` for a slot that is lost.
    fn index(&self, at: Duration) -> Option<usize> {
        slot(at).checked_sub(self.first).and_then(|index| usize::try_from(index).ok())
    }
}

fn slot(at: Duration) -> u64 {
    u64::try_from(at.as_millis() / SLOT.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn what_does_not_come_in_time_is_lost_once() {
        let mut pending = Pending::default();
        for at in [0, 50, 350] {
            pending.sent(ms(at));
        }
        assert!(pending.done(ms(50)));
        assert_eq!(pending.expire(ms(5_100)), 0);
        assert_eq!(pending.expire(ms(5_200)), 1);
        assert_eq!(pending.expire(ms(5_300)), 0);
        assert!(!pending.done(ms(0)), "it is lost");
        assert!(pending.done(ms(350)));
        assert!(!pending.done(ms(350)), "it came before");
        assert_eq!(pending.expire(ms(60_000)), 0);
        pending.sent(ms(60_000));
        assert!(pending.done(ms(60_000)));
    }
}
