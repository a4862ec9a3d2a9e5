//! The changes of the guard's that stand and can be taken back: max and the timeouts. Buckets stay.

use super::limits::Limits;
use super::plan::{Change, Setting};
use super::situation::in_force;
use crate::model::Estimate;

/// A setting that reads as the guard set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) setting: Setting,
    /// What was there before the guard's first change of it.
    original: u64,
    /// What was there before the last one.
    before: u64,
    /// What it was set to.
    set: u64,
}

/// All of them, in the order in which they were first changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ours {
    all: Vec<Own>,
    begun: bool,
}

impl Ours {
    /// Looks at what stands. Where another program has set a value since, the setting is its own and is left to it.
    /// Answers with the settings that others set.
    pub(super) fn look(&mut self, estimate: &Estimate, limits: &Limits) -> Vec<Setting> {
        if !self.begun {
            self.begun = true;
            self.inherit(estimate, limits);
        }
        let mut strangers = Vec::new();
        self.all.retain_mut(|own| {
            let current = in_force(estimate, own.setting);
            if current == Some(own.set) {
                own.before = own.set;
            } else if current == Some(own.before) {
                // The write did not take.
                own.set = own.before;
            } else {
                strangers.push(own.setting);
                return false;
            }
            own.set != own.original
        });
        strangers
    }

    /// What an earlier guard left: its originals are those of `limits`.
    fn inherit(&mut self, estimate: &Estimate, limits: &Limits) {
        let timeouts = limits.timeouts.iter().map(|(timeout, range)| (Setting::Timeout(*timeout), range.ceiling));
        for (setting, original) in timeouts.chain([(Setting::Max, limits.found_max)]) {
            let Some(current) = in_force(estimate, setting).filter(|current| *current > 0) else { continue };
            // The guard shortens timeouts and raises max; whatever else differs is not its doing.
            let ours = match setting {
                Setting::Max => current > original && original > 0,
                Setting::Buckets | Setting::Timeout(_) => current < original,
            };
            if ours {
                self.all.push(Own { setting, original, before: current, set: current });
            }
        }
    }

    /// Remembers a change that is about to be written.
    pub(super) fn changed(&mut self, change: &Change) {
        if change.setting == Setting::Buckets {
            return;
        }
        let &Change { setting, old, new, .. } = change;
        if let Some(own) = self.all.iter_mut().find(|own| own.setting == setting) {
            (own.before, own.set) = (old, new);
        } else {
            self.all.push(Own { setting, original: old, before: old, set: new });
        }
    }

    /// What is to go back, in that order: timeouts first, the last one shortened before all others, then max. A setting
    /// that is as near to its original as the bounds let it be is not among them.
    pub(super) fn to_take_back(&self, limits: &Limits) -> Vec<Own> {
        let timeouts = self.all.iter().rev().filter(|own| matches!(own.setting, Setting::Timeout(_)));
        let max = self.all.iter().filter(|own| own.setting == Setting::Max);
        timeouts.chain(max).copied().filter(|own| own.target(limits).is_some()).collect()
    }
}

impl Own {
    /// Where it goes back to: its original, or the nearest value within the bounds. `None` if it is there, or if the
    /// bounds now lie on its other side.
    pub(super) fn target(&self, limits: &Limits) -> Option<u64> {
        let range = match self.setting {
            Setting::Max => Some(&limits.max),
            Setting::Timeout(timeout) => limits.timeouts.get(&timeout),
            Setting::Buckets => None,
        }?;
        let target = self.original.clamp(range.floor, range.ceiling.max(range.floor));
        let towards = if self.original < self.set { target < self.set } else { target > self.set };
        towards.then_some(target)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::super::limits::Range;
    use super::super::tests::estimate;
    use super::*;
    use crate::observe::{Timeout, Timeouts};

    const TIME_WAIT: Setting = Setting::Timeout(Timeout::TcpTimeWait);

    fn limits() -> Limits {
        Limits {
            max: Range { floor: 8_192, ceiling: 1 << 22 },
            found_max: 8_192,
            buckets: Range { floor: 512, ceiling: 1 << 22 },
            memory: 1 << 40,
            max_stall: Duration::from_millis(20),
            resize_window: None,
            bucket_step: 512,
            timeouts: BTreeMap::from([
                (Timeout::TcpTimeWait, Range { floor: 30, ceiling: 120 }),
                (Timeout::Udp, Range { floor: 15, ceiling: 30 }),
            ]),
        }
    }

    fn reading(max: u64, time_wait: u64, udp: u64) -> Estimate {
        let timeouts = Timeouts::from([(Timeout::TcpTimeWait, time_wait), (Timeout::Udp, udp)]);
        Estimate { timeouts, ..estimate(10, max, 0.0) }
    }

    fn order(ours: &Ours) -> Vec<(Setting, u64)> {
        let all = ours.to_take_back(&limits());
        all.iter().map(|own| (own.setting, own.target(&limits()).unwrap())).collect()
    }

    #[test]
    fn timeouts_go_back_first_and_the_last_one_before_the_others() {
        let mut ours = Ours::default();
        ours.look(&reading(8_192, 120, 30), &limits());
        ours.changed(&Change::bare(Setting::Max, 8_192, 16_384));
        ours.changed(&Change::bare(TIME_WAIT, 120, 30));
        ours.changed(&Change::bare(Setting::Timeout(Timeout::Udp), 30, 15));
        ours.changed(&Change::bare(Setting::Max, 16_384, 32_768));
        assert_eq!(ours.look(&reading(32_768, 30, 15), &limits()), []);
        let udp = Setting::Timeout(Timeout::Udp);
        assert_eq!(order(&ours), [(udp, 30), (TIME_WAIT, 120), (Setting::Max, 8_192)]);
        ours.changed(&Change::bare(udp, 15, 30));
        ours.look(&reading(32_768, 30, 30), &limits());
        assert_eq!(order(&ours), [(TIME_WAIT, 120), (Setting::Max, 8_192)], "what is back is forgotten");
    }

    #[test]
    fn what_others_set_is_theirs_and_what_did_not_take_is_as_before() {
        let mut ours = Ours::default();
        ours.look(&reading(8_192, 120, 30), &limits());
        ours.changed(&Change::bare(Setting::Max, 8_192, 16_384));
        ours.changed(&Change::bare(TIME_WAIT, 120, 30));
        assert_eq!(ours.look(&reading(9_000, 120, 30), &limits()), [Setting::Max]);
        assert_eq!(order(&ours), [], "max is another program's, the timeout was never changed");
    }

    #[test]
    fn what_an_earlier_guard_left_goes_back_too() {
        let mut ours = Ours::default();
        ours.look(&reading(65_536, 30, 40), &limits());
        assert_eq!(order(&ours), [(TIME_WAIT, 120), (Setting::Max, 8_192)], "40 s are longer than found");
    }

    #[test]
    fn nothing_goes_back_out_of_bounds() {
        let mut ours = Ours::default();
        ours.look(&reading(65_536, 30, 30), &limits());
        let mut narrow = limits();
        narrow.max.floor = 20_000;
        narrow.timeouts.clear();
        let all = ours.to_take_back(&narrow);
        assert_eq!(all.iter().map(|own| own.target(&narrow)).collect::<Vec<_>>(), [Some(20_000)]);
        narrow.max.floor = 65_536;
        assert_eq!(ours.to_take_back(&narrow), []);
    }
}
