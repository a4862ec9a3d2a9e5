//! New flows refused for a full table although the count has room: max holds for each network namespace by itself, the
//! count that the guard reads is one namespace's.

use std::time::Duration;

use crate::model::Estimate;

/// A reason given because of refusals stands for so long after the last of them: refusals that come now and then are not
/// told again each time.
const STANDS_FOR: Duration = Duration::from_mins(1);

/// What is remembered of refusals from tick to tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Refusals {
    /// max at the tick before.
    max: Option<u64>,
    /// Entries then.
    count: u64,
    /// When the last one was seen.
    last: Option<Duration>,
    /// Refused since the tick before.
    pub(super) now: u64,
    /// Whether there was one not long ago.
    pub(super) lately: bool,
    /// The highest max with which another network namespace's table was full, as far as is known. What that one needs is
    /// not seen here, so max does not go back to where it refused flows.
    pub(super) elsewhere: Option<u64>,
}

impl Refusals {
    /// Takes in the next estimate. Only what the hooks saw counts, the statistic has other drops in it; and only while
    /// max stood still: what an older max refused says nothing about this one.
    pub(super) fn next(self, estimate: &Estimate) -> Self {
        let stood = self.max.is_none_or(|max| max == estimate.table.max);
        let now = if estimate.table_full_hooked && stood { estimate.table_full } else { 0 };
        let last = if now > 0 { Some(estimate.at) } else { self.last };
        let since = last.and_then(|last| estimate.at.checked_sub(last));
        // A table of this namespace that refused flows a moment ago cannot have been half empty before, too: one sweep of the
        // gc worker may free more than half of it.
        let not_here = self.count.max(estimate.table.count) < estimate.table.max / 2;
        let elsewhere = if now > 0 && not_here { self.elsewhere.max(Some(estimate.table.max)) } else { self.elsewhere };
        let lately = since.is_some_and(|since| since < STANDS_FOR);
        Self { max: Some(estimate.table.max), count: estimate.table.count, last, now, lately, elsewhere }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::estimate;
    use super::*;

    #[test]
    fn a_table_that_was_swept_since_it_refused_flows_was_full_itself() {
        let refused = |count| Estimate { table_full: 3, table_full_hooked: true, ..estimate(count, 10_000, 0.0) };
        let before = |count| Refusals::default().next(&estimate(count, 10_000, 0.0));
        assert_eq!(before(9_990).next(&refused(3_000)).elsewhere, None, "a sweep");
        assert_eq!(before(3_000).next(&refused(3_000)).elsewhere, Some(10_000));
        assert_eq!(Refusals::default().next(&refused(3_000)).elsewhere, Some(10_000), "nothing is known from before");
        assert_eq!(before(3_000).next(&refused(9_990)).elsewhere, None);
    }
}
