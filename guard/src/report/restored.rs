//! What a restore did, for people: the log of a stopping guard and the output of `conntrack-guard restore` say the same.

use std::path::Path;

use anyhow::ensure;
use tracing::{info, warn};

use crate::actuate::{Put, Restored};
use crate::figures::time;

/// Logs what a stop put back.
pub fn log_restored(all: &[Restored]) {
    for one in all {
        let line = restored_line(one);
        if one.is_done() { info!("{line}") } else { warn!("{line}") }
    }
}

/// An error if something is left to do: the exit code is the only thing that a service manager looks at. The journal in
/// `state_dir` keeps the rest.
pub fn all_back(all: &[Restored], state_dir: &Path) -> anyhow::Result<()> {
    let left: Vec<&str> = all.iter().filter(|one| !one.is_done()).map(|one| one.setting.sysctl()).collect();
    ensure!(left.is_empty(), "not everything is put back: {}; {}", left.join(", "), finish_later(state_dir));
    Ok(())
}

/// How to finish what a restore left.
pub fn finish_later(state_dir: &Path) -> String {
    format!(
        "the original is kept in {}: run `conntrack-guard restore` later, or the next start takes it over",
        state_dir.display()
    )
}

/// One restored setting as a line for people.
pub fn restored_line(Restored { setting, original, put }: &Restored) -> String {
    let name = setting.sysctl();
    match put {
        Put::Back { from } if from == original => format!("{name} is {original} already, as it was found"),
        Put::Back { from } => format!("{name} put back from {from} to {original}"),
        Put::BackOverStall { from, took, limit } => format!(
            "{name} put back from {from} to {original}; the resize took {}, and tracked packets stalled meanwhile \
             (stop.restore = \"now\" does not heed hash.max-stall of {})",
            time(*took),
            time(*limit)
        ),
        Put::Kept { now } => format!(
            "{name} stays {now} and not {original} for the next guard (stop.restore = \"keep\"); `conntrack-guard restore` \
             puts it back"
        ),
        Put::Gone => format!("{name} is gone from this kernel, and {original} with it"),
        Put::Overwritten { current } => {
            format!("{name} stays {current}: another program has set it since (it was found as {original})")
        }
        Put::Later { from, now, why } if from == now => format!("{name} stays {now} and not {original} for now: {why}"),
        Put::Later { from, now, why } => format!("{name} put from {from} to {now} and not {original} for now: {why}"),
        Put::StillInJournal { error } => format!("{name} needs nothing more, but the journal still holds it: {error}"),
        Put::Failed { error } => format!("{name} not put back to {original}: {error}"),
    }
}
