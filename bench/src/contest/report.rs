//! report.json: everything that was measured, and under which terms. Its fields are described in docs/bench.md.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context;
use bench::conntrack::Settings;
use bench::scenario::Scenario;
use serde::Serialize;

use super::alternative::Alternative;
use super::facts::Facts;
use super::figure::{Figures, Spread};
use super::observer::Observed;
use super::passes::Done;
use super::run::{Run, Terms};
use super::verdict::{self, Verdict};

/// Of the format. Fields are only ever added within one version.
pub(crate) const VERSION: u32 = 1;

/// Of what has not run, nor failed, as of this report.
const STOPPED: &str = "the contest was stopped before";

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub version: u32,
    /// Of the bench, and so of the guard that was built with it.
    pub bench: &'static str,
    pub host: Host,
    pub scale: ScaleNow,
    /// What all of them got.
    pub scenario: Scenario,
    pub rounds: u32,
    pub alternatives: Vec<Entry>,
    /// What is promised, and whether it was kept.
    pub verdicts: Vec<Verdict>,
    /// What was asked for and could not run.
    pub not_run: Vec<NotRun>,
}

/// What it ran on.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Host {
    /// The kernel's release.
    pub kernel: String,
    pub cpus: usize,
    /// `MemTotal`, bytes.
    pub memory_bytes: u64,
    /// Whether its clock counted instructions.
    pub counted: bool,
    /// Whether it is somebody's host and no guest (`--here`).
    pub here: bool,
}

/// The sizes in force.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ScaleNow {
    /// Of all sizes, rates and the memory, as `1/32`.
    pub factor: String,
    pub stock: Settings,
    pub ceilings: Settings,
    /// What the guard's policy allows entries and buckets to take.
    pub memory_limit_bytes: u64,
    /// In words.
    #[serde(skip)]
    pub words: String,
}

/// One alternative in all rounds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Entry {
    #[serde(rename = "name")]
    pub alternative: Alternative,
    /// What it is.
    pub what: String,
    /// Whether it is a program of this project.
    pub own: bool,
    /// Its figures over all rounds, by key.
    pub figures: BTreeMap<String, Spread>,
    /// Each run.
    pub runs: Vec<Run>,
    /// What was seen of it in a run more, beside a guard that only counts, or as the guard that it is.
    pub observed: Option<Observed>,
    /// Why nothing was.
    pub not_observed: Option<String>,
}

/// What could not run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct NotRun {
    #[serde(rename = "name")]
    pub alternative: Alternative,
    pub why: String,
}

impl Entry {
    fn new(
        alternative: Alternative,
        runs: Vec<Run>,
        observed: Option<&Result<Observed, String>>,
        failed: Option<&str>,
    ) -> Self {
        let mut all: Vec<Figures> = runs.iter().map(|run| run.figures.clone()).collect();
        let (observed, not_observed) = match observed {
            Some(Ok(observed)) => (Some(observed.clone()), None),
            Some(Err(why)) => (None, Some(why.clone())),
            None => (None, Some(failed.unwrap_or(STOPPED).to_owned())),
        };
        all.extend(observed.as_ref().map(Observed::figures));
        let figures = Spread::of_all(&all.iter().collect::<Vec<_>>());
        let (what, own) = (alternative.words(), alternative.is_own());
        Self { alternative, what, own, figures, runs, observed, not_observed }
    }
}

impl Report {
    /// Whether all that was asked for ran and was observed.
    pub fn is_whole(&self) -> bool {
        self.not_run.is_empty() && self.alternatives.iter().all(|entry| entry.observed.is_some())
    }

    /// Puts the runs in the order of `against`.
    pub fn new(terms: &Terms<'_>, against: &[Alternative], done: &Done) -> anyhow::Result<Self> {
        let (mut alternatives, mut not_run) = (Vec::new(), done.failed.clone());
        for &alternative in against {
            let runs: Vec<Run> =
                done.runs.iter().filter(|(of, _)| *of == alternative).map(|(_, run)| run.clone()).collect();
            if !runs.is_empty() {
                let observed = done.observed.iter().find(|(of, _)| *of == alternative).map(|(_, observed)| observed);
                let failed = not_run.iter().find(|one| one.alternative == alternative).map(|one| one.why.as_str());
                alternatives.push(Entry::new(alternative, runs, observed, failed));
            } else if !not_run.iter().any(|one| one.alternative == alternative) {
                not_run.push(NotRun { alternative, why: STOPPED.to_owned() });
            }
        }
        let scale = terms.scale;
        let facts: Vec<Facts<'_>> =
            alternatives.iter().map(|entry| Facts::of(entry, &terms.scenario, terms.rounds)).collect();
        let verdicts = verdict::all(&facts);
        Ok(Self {
            version: VERSION,
            bench: env!("CARGO_PKG_VERSION"),
            host: Host::read(terms)?,
            scale: ScaleNow {
                factor: scale.to_string(),
                stock: scale.stock(),
                ceilings: scale.ceilings(),
                memory_limit_bytes: scale.memory_limit(),
                words: scale.words(rate(&terms.scenario)),
            },
            scenario: terms.scenario.clone(),
            rounds: terms.rounds,
            alternatives,
            verdicts,
            not_run,
        })
    }

    /// Of each alternative that ran in some rounds and not in all.
    pub fn short_of_rounds(&self) -> impl Iterator<Item = String> {
        let short = |entry: &Entry| short_of_rounds(&entry.alternative.to_string(), entry.runs.len(), self.rounds);
        self.alternatives.iter().filter_map(short)
    }
}

/// That it ran in fewer rounds than were asked for, in words; `None` where it ran in all.
pub(crate) fn short_of_rounds(name: &str, ran: usize, asked: u32) -> Option<String> {
    (ran < usize::try_from(asked).unwrap_or(usize::MAX)).then(|| format!("{name} ran in {ran} of {asked} rounds"))
}

/// The most new connections, flows and packets a second, as its loads plan them; closed loops plan nothing.
pub(super) fn rate(scenario: &Scenario) -> u64 {
    let highest = scenario.loads.iter().filter_map(|load| Some(load.traffic.rate()?.highest()));
    rounded(highest.sum())
}

/// How many connections, flows and packets its loads start in all, on average; of closed loops nobody knows.
pub(super) fn starts(scenario: &Scenario) -> u64 {
    let total = scenario.loads.iter().filter_map(|load| Some(load.traffic.rate()?.total(load.course.duration)));
    rounded(total.sum())
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are checked where they are read")]
fn rounded(rate: f64) -> u64 {
    rate.round() as u64
}

impl Host {
    fn read(terms: &Terms<'_>) -> anyhow::Result<Self> {
        let meminfo = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
        let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
        let kib: u64 = kib.and_then(|kib| kib.parse().ok()).context("/proc/meminfo: no MemTotal")?;
        Ok(Self {
            kernel: nix::sys::utsname::uname()?.release().to_string_lossy().into_owned(),
            cpus: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            memory_bytes: kib * 1024,
            counted: terms.counted,
            here: terms.here,
        })
    }
}
