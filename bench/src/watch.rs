//! Runs a load and watches the gateway's table meanwhile.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use bench::churn::{Churn, Outcome, Progress};
use bench::conntrack::{self, Drops, Settings, Statistics};
use bench::netns::Topology;
use bench::scenario;
use serde::Serialize;

use crate::table::grouped;

/// How often the table is read.
const SAMPLE: Duration = Duration::from_millis(100);
/// How often a line of progress is printed.
const LINE: Duration = Duration::from_secs(2);

/// What a load, or a scenario, did to the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Observed<O = Outcome> {
    /// What became of it.
    pub outcome: O,
    /// What the kernel dropped and evicted during the load.
    pub drops: Drops,
    /// The most entries seen in the table.
    pub peak_entries: u64,
    /// Lowest values seen of each setting.
    pub lowest: Settings,
    /// Highest values seen of each setting.
    pub highest: Settings,
    /// The settings after the load.
    pub at_end: Settings,
}

/// What a line of progress says of the load itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sums {
    pub made: u64,
    pub failed: u64,
    pub open: u64,
}

impl Sums {
    /// Of all loads of a scenario.
    pub fn of(progress: &scenario::Progress) -> Self {
        Self {
            made: progress.sum(Progress::made),
            failed: progress.sum(Progress::failed),
            open: progress.sum(Progress::open),
        }
    }
}

/// Runs `churn` to its end, handing a line of progress to `show` every other second.
pub(crate) fn load(churn: &Churn, topology: &Topology, stop: &AtomicBool, show: impl Fn(&str)) -> Result<Observed> {
    let progress = Arc::new(Progress::default());
    let sums = || Sums { made: progress.made(), failed: progress.failed(), open: progress.open() };
    observe(|| churn.run(topology, &progress, stop), sums, show)
}

/// Runs `work` to its end and watches the table.
pub(crate) fn observe<O: Send>(
    work: impl FnOnce() -> Result<O> + Send,
    sums: impl Fn() -> Sums,
    show: impl Fn(&str),
) -> Result<Observed<O>> {
    let before = Statistics::read()?;
    let settings = Settings::read()?;
    let (mut lowest, mut highest, mut peak_entries) = (settings, settings, 0);
    let mut next_line = LINE;
    let look = |elapsed| {
        let (now, entries) = (Settings::read()?, conntrack::count()?);
        peak_entries = peak_entries.max(entries);
        lowest = Settings { max: lowest.max.min(now.max), buckets: lowest.buckets.min(now.buckets) };
        highest = Settings { max: highest.max.max(now.max), buckets: highest.buckets.max(now.buckets) };
        if elapsed >= next_line {
            next_line += LINE;
            let drops = Statistics::read()?.drops_since(&before);
            show(&line(elapsed, sums(), entries, now, drops));
        }
        Ok(())
    };
    let outcome = while_running(work, SAMPLE, look)?;
    let drops = Statistics::read()?.drops_since(&before);
    Ok(Observed { outcome, drops, peak_entries, lowest, highest, at_end: Settings::read()? })
}

/// Calls `look` every `period`, with the time since the start, until `work` has ended.
pub(crate) fn while_running<O: Send>(
    work: impl FnOnce() -> Result<O> + Send,
    period: Duration,
    mut look: impl FnMut(Duration) -> Result<()>,
) -> Result<O> {
    thread::scope(|scope| {
        let running = scope.spawn(work);
        let start = Instant::now();
        while !running.is_finished() {
            thread::sleep(period);
            look(start.elapsed())?;
        }
        running.join().map_err(|_| anyhow!("the load panicked"))?
    })
}

/// What is shown of a moment.
pub(crate) fn line(elapsed: Duration, sums: Sums, entries: u64, settings: Settings, drops: Drops) -> String {
    format!(
        "{:3} s  made {:>7}  failed {:>6}  open {:>5}  entries {:>7} of max {:>7}  buckets {:>7}  new flows dropped {:>6}",
        elapsed.as_secs(),
        grouped(sums.made),
        grouped(sums.failed),
        grouped(sums.open),
        grouped(entries),
        grouped(settings.max),
        grouped(settings.buckets),
        grouped(drops.new_flows()),
    )
}
