//! Chain lengths at insert, from two readings of the histograms.

use super::ChainStats;
use crate::observe::{Chains, TableReading};

/// Statistics of the chains measured between two readings; `None` when none was, or when a counter went backwards (the
/// programs were loaded anew in between).
pub(super) fn between(earlier: &Chains, later: &Chains, table: &TableReading) -> Option<ChainStats> {
    if earlier.original.len() != later.original.len() || earlier.reply.len() != later.reply.len() {
        return None;
    }
    let original = differences(&earlier.original, &later.original)?;
    let reply = differences(&earlier.reply, &later.reply)?;
    let places = original.len().max(reply.len());
    let at = |counts: &[u64], length: usize| u128::from(counts.get(length).copied().unwrap_or(0));
    let merged: Vec<u128> = (0..places).map(|length| at(&original, length) + at(&reply, length)).collect();

    let measured: u128 = merged.iter().sum();
    if measured == 0 {
        return None;
    }
    let entries = merged
        .iter()
        .zip(0_u128..)
        .fold(0_u128, |sum, (count, length)| sum.saturating_add(count.saturating_mul(length)));
    Some(ChainStats {
        one_in: later.one_in,
        measured: u64::try_from(measured).unwrap_or(u64::MAX),
        mean: entries as f64 / measured as f64,
        p50: quantile(&merged, measured, 50),
        p99: quantile(&merged, measured, 99),
        max: merged.iter().rposition(|count| *count > 0).map_or(0, |length| length as u64),
        expected_mean: if table.buckets == 0 { 0.0 } else { 2.0 * table.count as f64 / table.buckets as f64 },
    })
}

fn differences(earlier: &[u64], later: &[u64]) -> Option<Vec<u64>> {
    later.iter().zip(earlier).map(|(new, old)| new.checked_sub(*old)).collect()
}

/// The shortest length that at least `percent` of the chains do not exceed.
fn quantile(counts: &[u128], measured: u128, percent: u128) -> u64 {
    let mut seen = 0_u128;
    for (count, length) in counts.iter().zip(0_u64..) {
        seen += count;
        if seen.saturating_mul(100) >= measured.saturating_mul(percent) {
            return length;
        }
    }
    counts.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::CHAIN_LENGTHS;

    fn chains(original: &[(usize, u64)], reply: &[(usize, u64)]) -> Chains {
        let histogram = |places: &[(usize, u64)]| {
            let mut counts = vec![0; CHAIN_LENGTHS];
            for (length, count) in places {
                counts[*length] = *count;
            }
            counts
        };
        Chains { original: histogram(original), reply: histogram(reply), ..Chains::default() }
    }

    const TABLE: TableReading = TableReading { max: 8192, buckets: 1024, count: 2048 };

    #[test]
    fn both_directions_count_and_only_what_came_since() {
        let earlier = chains(&[(0, 1000)], &[(60, 5)]);
        let later = chains(&[(0, 1090), (2, 5)], &[(60, 6), (1, 4)]);
        let stats = between(&earlier, &later, &TABLE).unwrap();
        assert_eq!((stats.measured, stats.p50, stats.p99, stats.max), (100, 0, 2, 60));
        assert!((stats.mean - 0.74).abs() < 1e-12, "{stats:?}");
        assert!((stats.expected_mean - 4.0).abs() < 1e-12, "{stats:?}");
    }

    #[test]
    fn no_insert_and_a_counter_that_went_backwards_give_nothing() {
        let some = chains(&[(3, 10)], &[(3, 10)]);
        assert_eq!(between(&some, &some, &TABLE), None);
        assert_eq!(between(&some, &chains(&[(3, 9)], &[(3, 20)]), &TABLE), None);
        let empty = Chains::default();
        assert_eq!(between(&empty, &some, &TABLE), None);
    }

    #[test]
    fn counts_at_the_end_of_the_range_do_not_overflow() {
        let none = chains(&[], &[]);
        let all = Chains {
            original: vec![u64::MAX; CHAIN_LENGTHS],
            reply: vec![u64::MAX; CHAIN_LENGTHS],
            ..Chains::default()
        };
        let stats = between(&none, &all, &TableReading::default()).unwrap();
        assert_eq!((stats.measured, stats.p50, stats.max), (u64::MAX, 63, 127));
        assert!((stats.mean - 63.5).abs() < 1e-9 && stats.expected_mean == 0.0, "{stats:?}");
    }
}
