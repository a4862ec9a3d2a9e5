//! The figures of a run: what each is called, in which unit, and which way is worse. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::table::{grouped, short};

/// Which way a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    /// More is better.
    More,
    /// Less is better.
    Less,
    /// It says what happened, not how well.
    Neither,
}

/// How people read a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unit {
    /// A number.
    Count,
    /// Microseconds.
    Micros,
    /// Milliseconds.
    Millis,
    /// Bytes.
    Bytes,
    /// KiB.
    Kib,
}

/// One figure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    /// Its key in report.json.
    pub key: &'static str,
    /// In words, for a row of the table; indented where they only tell what of the row above.
    pub words: &'static str,
    pub unit: Unit,
    pub better: Better,
    /// A difference up to this is noise, whatever share it is.
    pub noise: u64,
}

/// How much less noise there is in a latency on a clock that counts instructions: nothing else on the host takes its time.
const COUNTED_NOISE: u64 = 50;

impl Figure {
    /// In words that need no row above: what is indented in the table belongs to the last one that is not.
    pub fn name(&self) -> String {
        let Some(own) = self.words.strip_prefix("  ") else { return self.words.to_owned() };
        let above = FIGURES.iter().take_while(|figure| figure.key != self.key);
        let head = above.filter(|figure| !figure.words.starts_with(' ')).last().map_or("", |figure| figure.words);
        // A head's own share of them, as in `latency, p50`, is not theirs.
        format!("{}, {own}", head.split_once(", ").map_or(head, |(all, _)| all))
    }

    /// The same where the clock counts instructions.
    pub fn noise_where_counted(&self) -> u64 {
        let latency = self.key.starts_with("connect_") || self.key.starts_with("request_");
        if latency { self.noise / COUNTED_NOISE } else { self.noise }
    }
}

const fn figure(key: &'static str, words: &'static str, unit: Unit, better: Better, noise: u64) -> Figure {
    Figure { key, words, unit, better, noise }
}

/// All figures, in the order in which they are shown.
pub(crate) const FIGURES: [Figure; 37] = [
    figure("made", "connections made", Unit::Count, Better::More, 10),
    figure("made_per_s", "  a second", Unit::Count, Better::More, 1),
    figure("failed", "connections failed", Unit::Count, Better::Less, 0),
    figure("asked", "further requests on connections kept", Unit::Count, Better::Neither, 0),
    figure("answered", "  answered", Unit::Count, Better::More, 10),
    figure("connect_p50_us", "connect latency (if connected), p50", Unit::Micros, Better::Less, 1_000),
    figure("connect_p99_us", "  p99", Unit::Micros, Better::Less, 20_000),
    figure("connect_p999_us", "  p99.9", Unit::Micros, Better::Neither, 0),
    figure("connect_max_us", "  longest", Unit::Micros, Better::Neither, 0),
    figure("request_p50_us", "request latency, p50", Unit::Micros, Better::Less, 1_000),
    figure("request_p99_us", "  p99", Unit::Micros, Better::Less, 20_000),
    figure("request_p999_us", "  p99.9", Unit::Micros, Better::Neither, 0),
    figure("request_max_us", "  longest", Unit::Micros, Better::Neither, 0),
    figure("dropped", "new flows dropped (a retry counts again)", Unit::Count, Better::Less, 0),
    figure("table_full", "  table full", Unit::Count, Better::Less, 0),
    figure("chain_too_long", "  chain too long", Unit::Count, Better::Less, 0),
    figure("clash_lost", "  clash lost", Unit::Count, Better::Less, 0),
    figure("evicted", "entries evicted (early_drop)", Unit::Count, Better::Less, 0),
    figure("inserts", "entries inserted", Unit::Count, Better::Neither, 0),
    figure("chain_p50", "entries that their chains held before, p50", Unit::Count, Better::Neither, 0),
    figure("chain_p99", "  p99", Unit::Count, Better::Less, 2),
    figure("chain_longest", "  longest", Unit::Count, Better::Neither, 0),
    figure("peak_entries", "peak entries", Unit::Count, Better::Neither, 0),
    figure("highest_max", "highest nf_conntrack_max", Unit::Count, Better::Neither, 0),
    figure("highest_buckets", "highest nf_conntrack_buckets", Unit::Count, Better::Neither, 0),
    figure("memory_mean_bytes", "memory of the table, mean over time", Unit::Bytes, Better::Less, 256 << 10),
    figure("memory_peak_bytes", "  at its peak", Unit::Bytes, Better::Less, 256 << 10),
    figure("memory_at_max_bytes", "  if entries came up to highest max", Unit::Bytes, Better::Neither, 0),
    figure("memory_allowed_mean_bytes", "  if they came up to max at any time, mean", Unit::Bytes, Better::Neither, 0),
    figure("resizes", "resizes during the load", Unit::Count, Better::Neither, 0),
    figure("longest_stall_us", "  longest of the guard's doing", Unit::Micros, Better::Less, 5_000),
    figure("decisions", "changes by itself, its start included", Unit::Count, Better::Neither, 0),
    figure("busy_us_per_started", "the guest's CPU time for a connection started", Unit::Micros, Better::Less, 20),
    figure("instructions_per_started", "instructions for a connection started", Unit::Count, Better::Less, 5_000),
    figure("program_cpu_ms", "CPU time of its program during the load", Unit::Millis, Better::Less, 50),
    figure("program_peak_kib", "resident memory of its program, peak", Unit::Kib, Better::Less, 512),
    figure("lateness_p99_us", "started later than scheduled, p99", Unit::Micros, Better::Neither, 0),
];

/// A duration as figures hold it.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The figures of one run; one that was not measured is not in it.
pub(crate) type Figures = BTreeMap<String, u64>;

/// A figure over all rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spread {
    /// The middle one; of an even number the lower of the two.
    pub median: u64,
    pub lowest: u64,
    pub highest: u64,
}

impl Spread {
    /// Of the same figure of several runs; `None` where no run has it.
    pub fn of(values: impl Iterator<Item = u64>) -> Option<Self> {
        let mut values: Vec<u64> = values.collect();
        values.sort_unstable();
        let median = *values.get(values.len().checked_sub(1)? / 2)?;
        Some(Self { median, lowest: *values.first()?, highest: *values.last()? })
    }

    /// Of every figure that some run has.
    pub fn of_all(runs: &[&Figures]) -> BTreeMap<String, Self> {
        let spread = |figure: &Figure| {
            let values = runs.iter().filter_map(|figures| figures.get(figure.key).copied());
            Some((figure.key.to_owned(), Self::of(values)?))
        };
        FIGURES.iter().filter_map(spread).collect()
    }
}

impl Unit {
    /// As people read it.
    pub fn words(self, value: u64) -> String {
        match self {
            Self::Count => grouped(value),
            Self::Micros => short(Duration::from_micros(value)),
            Self::Millis => short(Duration::from_millis(value)),
            Self::Bytes => format!("{} KiB", grouped(value >> 10)),
            Self::Kib => format!("{} KiB", grouped(value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn keys_are_distinct() {
        assert_eq!(FIGURES.iter().map(|figure| figure.key).collect::<BTreeSet<_>>().len(), FIGURES.len());
    }

    #[test]
    fn each_name_says_by_itself_which_figure_it_is() {
        let name = |key: &str| FIGURES.iter().find(|figure| figure.key == key).unwrap().name();
        assert_eq!(name("connect_p50_us"), "connect latency (if connected), p50");
        assert_eq!(name("connect_p99_us"), "connect latency (if connected), p99");
        assert_eq!(name("request_p99_us"), "request latency, p99");
        assert_eq!(name("chain_p99"), "entries that their chains held before, p99");
        assert_eq!(name("table_full"), "new flows dropped (a retry counts again), table full");
        assert_eq!(name("memory_peak_bytes"), "memory of the table, at its peak");
        assert_eq!(FIGURES.iter().map(Figure::name).collect::<BTreeSet<_>>().len(), FIGURES.len());
    }

    #[test]
    fn a_median_is_a_value_that_was_measured() {
        let of = |values: &[u64]| Spread::of(values.iter().copied());
        assert_eq!(of(&[3, 1, 2]), Some(Spread { median: 2, lowest: 1, highest: 3 }));
        assert_eq!(of(&[4, 1]).map(|spread| spread.median), Some(1));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn what_no_run_measured_has_no_spread() {
        let run = |made| Figures::from([("made".to_owned(), made)]);
        let all = Spread::of_all(&[&run(5), &run(7)]);
        assert_eq!(all.into_iter().map(|(key, of)| (key, of.highest)).collect::<Vec<_>>(), [("made".to_owned(), 7)]);
    }
}
