//! The policy over what was recorded, or is observed now, instead of over the kernel's settings.

use std::io::{IsTerminal as _, stderr};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::{ROOT, print, print_json, tell};
use crate::actuate::{Inherited, STATE_DIR, Settings};
use crate::advise::Adviser;
use crate::cli::{AdviseArgs, Failure, ReplayArgs};
use crate::config::{self, Policy};
use crate::daemon::found::host;
use crate::figures::time;
use crate::kernel::{Hooks, Options};
use crate::observe::Observer;
use crate::policy::Host;
use crate::recording::{Header, Reader, Recorded};
use crate::replay::{Replay, Step};
use crate::ui::{self, AdviceScreen, ReplayScreen};

/// Between two looks at this host.
const PACE: Duration = Duration::from_secs(1);
/// Between two words on how long it still takes.
const PROGRESS: Duration = Duration::from_secs(10);

/// `replay`
pub fn replay(args: &ReplayArgs) -> Result<(), Failure> {
    let policy = policy(args.config.as_deref())?;
    let mut steps = Vec::new();
    run(&policy, &args.recording, |_, step| steps.push(step))?;
    if let Some(file) = &args.plot {
        ui::plot(&steps, file)?;
    }
    if !args.json {
        return print(&ReplayScreen(&steps).to_string());
    }
    steps.iter().try_for_each(print_json)
}

/// `advise`
pub fn advise(args: &AdviseArgs) -> Result<(), Failure> {
    let policy = policy(args.config.as_deref())?;
    let mut adviser: Option<Adviser> = None;
    let look = |host: &Host, step: Step| {
        adviser.get_or_insert_with(|| Adviser::new(host, policy.table.high_water)).look(&step);
    };
    match &args.recording {
        Some(recording) => run(&policy, recording, look)?,
        None => observe(&policy, args.length, look)?,
    }
    let adviser =
        adviser.ok_or_else(|| anyhow::anyhow!("there is no sample to go by: record or observe for longer"))?;
    let advice = adviser.advice();
    match args.emit {
        Some(emit) => print(&advice.file(emit)),
        None if args.json => print_json(&advice),
        None => print(&AdviceScreen(&advice).to_string()),
    }
}

fn policy(file: Option<&Path>) -> Result<Policy, Failure> {
    Ok(file.map(config::load).transpose()?.unwrap_or_default())
}

/// Runs the policy over a recording and gives each step to `each`.
fn run(policy: &Policy, recording: &Path, mut each: impl FnMut(&Host, Step)) -> Result<(), Failure> {
    let mut current: Option<(Header, Replay)> = None;
    for recorded in Reader::open(recording).context("there is nothing to go by")? {
        match recorded.context("the recording is read no further")? {
            // A guard that goes on in the next file goes on here too.
            Recorded::Begins(header) if current.as_ref().is_some_and(|(before, _)| before.same_start(&header)) => {}
            Recorded::Begins(header) => {
                let replay = Replay::new(policy.clone(), &header.host).map_err(Failure::invalid)?;
                current = Some((*header, replay));
            }
            Recorded::Sample(sample) => {
                if let Some((header, replay)) = &mut current {
                    let step = replay.step(&sample);
                    each(&header.host, step);
                }
            }
            Recorded::Cut(path) => {
                tell(&format!("{} ends in the middle: its guard was killed, or is still writing", path.display()));
            }
        }
    }
    Ok(())
}

/// The same over this host as it is now.
fn observe(policy: &Policy, length: Duration, mut each: impl FnMut(&Host, Step)) -> Result<(), Failure> {
    let root = Path::new(ROOT);
    let found = Observer::new(root, None).sample().context("cannot read the table")?;
    let inherited = Inherited::read(&Settings::new(root), Path::new(STATE_DIR)).unwrap_or_else(|error| {
        tell(&format!("what a guard may have changed passes for what was found: {error}"));
        Inherited::default()
    });
    if !inherited.taken_over.is_empty() {
        tell("a guard has changed settings here: as found counts what was there before it");
    }
    let host = host(&found, &inherited);
    let hooks = Hooks::attach(Options::default());
    if let Err(error) = &hooks {
        tell(&format!("observing by the count alone, and so with less sight of bursts: {error}"));
    }
    let mut observer = Observer::new(root, hooks.ok());
    let mut replay = Replay::new(policy.clone(), &host).map_err(Failure::invalid)?;
    let (start, mut told) = (Instant::now(), None);
    loop {
        if stderr().is_terminal() && told.is_none_or(|told: Instant| told.elapsed() >= PROGRESS) {
            tell(&format!("observing for another {}", time(length.saturating_sub(start.elapsed()))));
            told = Some(Instant::now());
        }
        let sample = observer.sample().context("cannot read the table")?;
        let step = replay.step(&sample);
        let within = step.look_within;
        each(&host, step);
        observer.look_at_entries(&sample.table, within);
        // Two samples at least: one alone tells of no change.
        let left = length.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        sleep(PACE.min(left));
    }
}
