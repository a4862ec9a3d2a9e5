//! What the guard adds to a whole TCP connection while it has nothing to decide: its programs, which come by flow, and its own
//! ticks, which come by time.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::figures::median;
use super::report::{Pair, number};
use super::sweep::LOADS;
use super::variants::{Program, VARIANTS};
use crate::guard::Guard;
use crate::idle;

/// What is promised, of the connection's own instructions.
const PROMISED: f64 = 0.01;
/// New connections a second for which the share is told.
const RATES: [f64; 4] = [100.0, 1_000.0, 10_000.0, 100_000.0];
/// How long its ticks are watched, seconds: a multiple of all its periods.
const WATCHED: u32 = 120;
const PATIENCE: Duration = Duration::from_mins(15);

/// The share, in instructions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Share {
    /// A connection with nobody watching, its entry's end not in it, at one entry a bucket.
    pub connection: f64,
    /// What the guard's programs add to the life of an entry, its insert and its end, at the same load.
    pub programs: f64,
    /// What all threads of the guard take in a second, with their system calls.
    pub ticks_a_second: f64,
    /// From so many new connections a second on both together are under a hundredth of the connection; `null` where the
    /// programs alone are more.
    pub kept_from_a_second: Option<f64>,
}

/// Watches a guard's ticks beside the entries that fill the table. It runs: nothing is counted meanwhile.
pub(super) fn ticks(folder: &Path, stop: &AtomicBool) -> Result<f64> {
    let words = ["--dry-run", "--backend", "tracing", "--walk", "sampled"].map(OsStr::new);
    let guard = Guard::start(&words, folder, PATIENCE, stop)?;
    guard.check_that_it_measures()?;
    let taken = idle::measure(&guard, WATCHED)?;
    let ended = guard.stop()?;
    ensure!(ended.success(), "the guard ended with {ended}");
    Ok(taken.instructions)
}

impl Share {
    /// Of the guard as it is by default; `None` where it is not among the pairs.
    pub fn new(pairs: &[Pair], ticks_a_second: f64) -> Option<Self> {
        let load = LOADS.iter().position(|load| load.buckets == super::sweep::ENTRIES)?;
        let guard = |pair: &&Pair| {
            matches!(VARIANTS[pair.variant].program, Program::Guard { backend: "tracing", walk: "sampled" })
        };
        let mine = pairs.iter().filter(guard);
        mine.clone().next()?;
        let connection = median(pairs.iter().map(|pair| pair.alone[load].connection));
        let programs = median(mine.map(|pair| pair.watched[load].life - pair.alone[load].life));
        let left = connection * PROMISED - programs;
        let kept_from_a_second = (left > 0.0).then(|| ticks_a_second / left);
        Some(Self { connection, programs, ticks_a_second, kept_from_a_second })
    }

    /// Of the connection's own instructions, at so many new ones a second.
    fn at(&self, rate: f64) -> f64 {
        (self.programs + self.ticks_a_second / rate) / self.connection
    }

    pub fn words(&self) -> String {
        let at = RATES.map(|rate| format!("{:.2} % at {}", self.at(rate) * 100.0, number(rate)));
        let kept = match self.kept_from_a_second {
            Some(rate) => format!("under 1 % from {} a second on", number(rate.ceil())),
            None => "never under 1 %: its programs alone are more".to_owned(),
        };
        format!(
            "The idle guard's share of a TCP connection of {} instructions, load 1: its programs {} ({:.2} %), and beside\n\
             them {} a second of its own, however many connections there are. Together {} new ones a second: {kept}\n",
            number(self.connection),
            number(self.programs),
            self.programs / self.connection * 100.0,
            number(self.ticks_a_second),
            at.join(", "),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::sweep::Cost;
    use super::*;

    #[test]
    fn ticks_weigh_less_the_more_connections_there_are() {
        let variant = VARIANTS.iter().position(|variant| variant.name == "conntrack-guard: one chain in 64").unwrap();
        let costs = |life| [Cost { life, connection: 100_000.0, ..Cost::default() }; LOADS.len()];
        let pairs = [Pair { variant, alone: costs(15_000.0), watched: costs(15_400.0) }];
        let share = Share::new(&pairs, 300_000.0).unwrap();
        assert_eq!((share.programs, share.kept_from_a_second), (400.0, Some(500.0)));
        assert!((share.at(500.0) - 0.01).abs() < 1e-9 && share.at(1_000.0) < 0.01);
        assert!(share.words().contains("0.70 % at 1,000"), "{}", share.words());
        let dear = [Pair { variant, alone: costs(15_000.0), watched: costs(16_001.0) }];
        assert_eq!(Share::new(&dear, 1.0).unwrap().kept_from_a_second, None);
        assert_eq!(Share::new(&[Pair { variant: 0, ..dear[0] }], 1.0), None);
    }
}
