//! Runs a load and watches the gateway's table meanwhile.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use bench::churn::{Churn, Outcome, Progress};
use bench::conntrack::{self, Drops, Settings, Statistics};
use bench::netns::Topology;
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
    let outcome = thread::scope(|scope| -> Result<O> {
        let running = scope.spawn(work);
        let start = Instant::now();
        let mut next_line = LINE;
        while !running.is_finished() {
            thread::sleep(SAMPLE);
            let (now, entries) = (Settings::read()?, conntrack::count()?);
            peak_entries = peak_entries.max(entries);
            lowest = Settings { max: lowest.max.min(now.max), buckets: lowest.buckets.min(now.buckets) };
            highest = Settings { max: highest.max.max(now.max), buckets: highest.buckets.max(now.buckets) };
            if start.elapsed() >= next_line {
                next_line += LINE;
                let drops = Statistics::read()?.drops_since(&before);
                show(&line(start.elapsed(), sums(), entries, now, drops));
            }
        }
        running.join().map_err(|_| anyhow!("the load panicked"))?
    })?;
    let drops = Statistics::read()?.drops_since(&before);
    Ok(Observed { outcome, drops, peak_entries, lowest, highest, at_end: Settings::read()? })
}

fn line(elapsed: Duration, sums: Sums, entries: u64, settings: Settings, drops: Drops) -> String {
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
