//! One alternative under the load, from a clean kernel state back to one.

use std::fmt::{self, Display, Formatter};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bench::conntrack::{Settings, Statistics};
use bench::load::{Distribution, Outcome};
use bench::netns::Topology;
use bench::scenario::{self, Progress, Scenario};
use serde::Serialize;

use super::alternative::Alternative;
use super::beside::{Beside, Places, Told};
use super::busy;
use super::decision::{Decision, now_ms};
use super::figure::{Figures, micros};
use super::here::first;
use super::observer::{Observed, Observer};
use super::series::{Origin, Resized, Series};
use crate::memory::{Entries, Usage};
use crate::prefill::Prefill;
use crate::put_back::RunFolder;
use crate::scale::Scale;
use crate::status::{Resize, Status};
use crate::sysctls::Sysctls;
use crate::watch::{self, Sums};
use crate::{afresh, ctnetlink, memory};

/// How often both sides are read: more seldom where that made more samples than these.
const SAMPLE: Duration = Duration::from_millis(200);
const SAMPLES: u32 = 1_200;
/// How often a line of progress is printed.
const LINE: Duration = Duration::from_secs(5);

const OBSERVER: &str = "the guard that observes";

/// What all runs have in common.
pub(super) struct Terms<'a> {
    pub scenario: Scenario,
    pub scale: Scale,
    pub rounds: u32,
    pub places: Places,
    /// The settings as found, before the first run.
    pub found: Sysctls,
    /// Whether a nanosecond of this machine's clock is an instruction.
    pub counted: bool,
    /// Whether it is a host's own kernel and not a guest's.
    pub here: bool,
    pub stop: &'a AtomicBool,
}

/// What one run was.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Run {
    /// Counted from 1.
    pub round: u32,
    /// The how manieth in its round, counted from 1.
    pub position: u32,
    /// Its figures, by key.
    pub figures: Figures,
    /// What became of the load.
    pub outcome: scenario::Outcome,
    /// The settings when the load began, the alternative already at work.
    pub at_start: Settings,
    /// The settings after the load.
    pub at_end: Settings,
    /// What the alternative changed by itself.
    pub decisions: Vec<Decision>,
    /// What it wanted and may not have, as of the end.
    pub held: Vec<String>,
    /// Changes of the number of buckets that were seen.
    pub resized: Vec<Resized>,
    /// Resizes since the guard's start with how long they took, as it tells; `null` where none ran.
    pub stalls: Option<Vec<Stall>>,
    /// Settings that were not as before its start after its end; the bench puts them back.
    pub left: Vec<String>,
    /// The table over time.
    pub series: Series,
}

/// A resize, for most of which all packets of tracked flows wait.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Stall {
    /// When it was done, milliseconds after the load's start; below 0 before it.
    pub at_ms: i64,
    pub took_us: u64,
    /// Buckets before and after, those asked for where it failed; `null` where the kernel does not show them.
    pub from: Option<u64>,
    pub to: Option<u64>,
    /// Why it failed.
    pub error: Option<String>,
    /// Whether the guard asked for it, or else which program.
    pub own: bool,
    pub comm: String,
}

/// One of the passes over all alternatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// What figures are of, counted from 1.
    Round(u32),
    /// One more, after the rounds: see [`Observer`].
    Observed,
}

impl Pass {
    /// Counted from 1; the one after the rounds has none, 0.
    fn number(self) -> u32 {
        match self {
            Self::Round(round) => round,
            Self::Observed => 0,
        }
    }

    /// How many rounds were before it.
    pub fn before(self) -> u32 {
        self.number().saturating_sub(1)
    }
}

impl Display for Pass {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Round(round) => write!(formatter, "round {round}"),
            Self::Observed => formatter.write_str("observed"),
        }
    }
}

/// A run, and in the observed pass what was seen of it.
pub(super) type Seen = (Run, Option<Observed>);

impl Terms<'_> {
    /// The passes in their order.
    pub fn passes(&self) -> impl Iterator<Item = Pass> + use<> {
        (1..=self.rounds).map(Pass::Round).chain([Pass::Observed])
    }

    /// Runs one alternative and puts everything back, whatever came of it. `position`: the how manieth in its pass, from 1.
    pub fn run(&self, alternative: Alternative, pass: Pass, position: u32) -> Result<Seen> {
        let run = self.afresh(alternative, pass, position);
        // Of a load that was cut short.
        let emptied = if run.is_err() { ctnetlink::flush() } else { Ok(()) };
        first(first(run, emptied), self.found.put_back().context("cannot put the settings back"))
    }

    fn afresh(&self, alternative: Alternative, pass: Pass, position: u32) -> Result<Seen> {
        afresh::start(self.scale.stock(), self.stop)?;
        let stock = Sysctls::read()?;
        let topology = self.scenario.topology()?;
        for line in topology.leftovers() {
            eprintln!("{line}");
        }
        // Whoever tunes finds them, as on a gateway that is in use.
        let prefill = Prefill::new(self.scenario.prefill.entries, self.stop)?;
        // In memory: a wait for a disk would be the alternative's.
        let folder = RunFolder::new()?;
        // The guard's own programs see everything already. Whoever else resizes the table at its start must be seen.
        let halted = match pass {
            Pass::Observed if !alternative.is_own() => {
                Some(Observer::start(&self.places, folder.path(), self.stop).context(OBSERVER)?)
            }
            _ => None,
        };
        let places = (&self.places, folder.path());
        let mut beside = Beside::start(alternative, self.scale, (pass, self.rounds), places, self.stop)?;
        let Loaded { began, ended, series, outcome, busy, ran, at_start, at_end, usage, told } =
            match self.load((alternative, pass), &topology, &beside) {
                Ok(loaded) => loaded,
                Err(error) => return Err(beside.why(error)),
            };
        // With its sockets: those whose entries were evicted or refused send again and again, and so would make entries.
        topology.remove()?;
        prefill.remove()?;
        afresh::empty(self.stop)?;
        let observed = match (beside.stop()?, halted) {
            (None, Some(halted)) => Some(halted.end(self.stop).context(OBSERVER)?),
            (own, _) => own,
        };
        let left = stock.changed()?;
        let decisions: Vec<Decision> = told.decisions.iter().map(|one| one.clone().since(began)).collect();
        let mut figures =
            figures(self.scenario.duration, &outcome.all, &series, &told, usage, began, Entries::read()?)?;
        if let Some(each) = (busy * 1000).checked_div(outcome.all.started) {
            figures.insert("busy_us_per_started".to_owned(), each);
        }
        if let Some(each) = ran.filter(|_| self.counted).and_then(|ran| ran.checked_div(outcome.all.started)) {
            figures.insert("instructions_per_started".to_owned(), each);
        }
        let run = Run {
            round: pass.number(),
            position,
            figures,
            at_start,
            at_end,
            decisions,
            held: told.status.iter().flat_map(|status| &status.held).map(ToString::to_string).collect(),
            resized: series.resized(),
            stalls: told.status.as_ref().map(|status| stalls(status, began)),
            left: left.iter().map(|path| path.display().to_string()).collect(),
            outcome,
            series,
        };
        Ok((run, observed.map(|observed| observed.since(began, ended))))
    }

    /// The load beside an alternative at work, until both sides are told.
    fn load(&self, (alternative, pass): (Alternative, Pass), topology: &Topology, beside: &Beside) -> Result<Loaded> {
        memory::shrink()?;
        let at_start = Settings::read()?;
        let began = now_ms()?;
        let origin = Origin::now(beside.pid())?;
        let (mut series, progress) = (Series::default(), Progress::new(&self.scenario));
        series.sample(Duration::ZERO, &origin, Sums::of(&progress))?;
        let (before, mut next_line) = (Statistics::read()?, LINE);
        let look = |elapsed| {
            let sums = Sums::of(&progress);
            series.sample(elapsed, &origin, sums)?;
            if elapsed >= next_line {
                next_line += LINE;
                let entries = series.count.last().copied().unwrap_or_default();
                let drops = Statistics::read()?.drops_since(&before);
                let line = watch::line(elapsed, sums, entries, Settings::read()?, drops);
                eprintln!("{alternative:<14} {pass}{line}");
            }
            Ok(())
        };
        let (start, busy_before, ran_before) = (Instant::now(), busy::milliseconds()?, busy::task_nanoseconds());
        let period = SAMPLE.max(self.scenario.duration / SAMPLES);
        let outcome = watch::while_running(|| self.scenario.run(topology, &progress, self.stop), period, look)?;
        ensure!(!self.stop.load(Ordering::Relaxed), "stopped; everything is put back");
        // What came since the last one belongs to the load too.
        series.sample(start.elapsed(), &origin, Sums::of(&progress))?;
        let busy = busy::milliseconds()?.saturating_sub(busy_before);
        let ran = busy::task_nanoseconds().zip(ran_before).map(|(after, before)| after.saturating_sub(before));
        let at_end = Settings::read()?;
        let usage = beside.pid().map(Usage::read).transpose()?;
        let told = beside.tell()?;
        let ended = now_ms()?;
        Ok(Loaded { began, ended, series, outcome, busy, ran, at_start, at_end, usage, told })
    }
}

/// What a load and what ran beside it came to.
struct Loaded {
    /// When it began, milliseconds since the boot.
    began: i64,
    /// And when it had ended.
    ended: i64,
    series: Series,
    outcome: scenario::Outcome,
    /// Milliseconds of all CPUs.
    busy: u64,
    /// Nanoseconds that tasks ran.
    ran: Option<u64>,
    at_start: Settings,
    at_end: Settings,
    usage: Option<Usage>,
    told: Told,
}

fn stalls(status: &Status, began: i64) -> Vec<Stall> {
    let stall = |resize: &Resize| Stall {
        at_ms: i64::try_from(resize.at_ms).unwrap_or(i64::MAX).saturating_sub(began),
        took_us: resize.took_us,
        from: resize.from,
        to: resize.to,
        error: resize.error.clone(),
        own: resize.own,
        comm: resize.comm.clone(),
    };
    status.resizes.iter().map(stall).collect()
}

/// `planned`: for how long the loads start anything.
fn figures(
    planned: Duration,
    outcome: &Outcome,
    series: &Series,
    told: &Told,
    usage: Option<Usage>,
    began: i64,
    entries: Entries,
) -> Result<Figures> {
    let mut all = Figures::new();
    let mut set = |key: &str, value: Option<u64>| {
        if let Some(value) = value {
            all.insert(key.to_owned(), value);
        }
    };
    let last = |column: &[u64]| column.last().copied();
    let most = |column: &[u64]| column.iter().max().copied();
    set("made", Some(outcome.made));
    // Not until the last failure has timed out: one that fails would count as many that were slow.
    set("made_per_s", u64::try_from(u128::from(outcome.made) * 1000 / planned.as_millis().max(1)).ok());
    set("failed", Some(outcome.failures()));
    set("asked", (outcome.asked > 0).then_some(outcome.asked));
    set("answered", (outcome.asked > 0).then_some(outcome.answered));
    let mut latency = |name: &str, of: &Distribution| {
        if of.count() > 0 {
            for (which, value) in [("p50", of.at(0.5)), ("p99", of.at(0.99)), ("p999", of.at(0.999)), ("max", of.max())]
            {
                set(&format!("{name}_{which}_us"), Some(micros(value)));
            }
        }
    };
    latency("connect", &outcome.connect);
    latency("request", &outcome.request);
    set("lateness_p99_us", (outcome.lateness.count() > 0).then(|| micros(outcome.lateness.at(0.99))));
    set("dropped", last(&series.dropped()));
    set("table_full", last(&series.table_full));
    set("chain_too_long", last(&series.chain_too_long));
    set("clash_lost", last(&series.clash_lost));
    set("evicted", last(&series.evicted));
    set("peak_entries", most(&series.count));
    set("highest_max", most(&series.max));
    set("highest_buckets", most(&series.buckets));
    set("memory_mean_bytes", series.mean_until(planned, &series.memory_bytes));
    set("memory_peak_bytes", most(&series.memory_bytes));
    let highest = most(&series.max).zip(most(&series.buckets));
    let at = |max, buckets| Entries { objects: max, ..entries }.bytes_with(buckets);
    set("memory_at_max_bytes", highest.map(|(max, buckets)| at(max, buckets)));
    let allowed: Vec<u64> = series.max.iter().zip(&series.buckets).map(|(&max, &buckets)| at(max, buckets)).collect();
    set("memory_allowed_mean_bytes", series.mean_until(planned, &allowed));
    set("resizes", Some(u64::try_from(series.resized().len())?));
    if let Some(status) = &told.status {
        let own = stalls(status, began).into_iter().filter(|stall| stall.own && stall.at_ms >= 0);
        set("longest_stall_us", Some(own.map(|stall| stall.took_us).max().unwrap_or(0)));
    }
    set("decisions", Some(u64::try_from(told.decisions.len())?));
    set("program_cpu_ms", last(&series.program_cpu_ms));
    set("program_peak_kib", usage.map(|usage| usage.peak_kib));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_fails_late_makes_the_others_no_slower() {
        let series = Series {
            at_ms: vec![10_000, 18_000],
            memory_bytes: vec![7, 70],
            max: vec![5, 50],
            buckets: vec![0, 0],
            ..Series::default()
        };
        let outcome = Outcome { made: 990, elapsed: Duration::from_secs(18), ..Outcome::new().unwrap() };
        let entries = Entries { objects: 0, object_bytes: 1 };
        let figures = figures(Duration::from_secs(10), &outcome, &series, &Told::default(), None, 0, entries).unwrap();
        assert_eq!((figures["made_per_s"], figures["memory_mean_bytes"]), (99, 7));
        assert_eq!((figures["memory_allowed_mean_bytes"], figures["memory_peak_bytes"]), (5, 70));
    }
}
