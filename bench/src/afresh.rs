//! The same start for each load: an empty table at rest, and the settings it begins with.

use std::io::{Error, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bench::conntrack::{self, Settings};
use bench::netns;

use crate::table::grouped;
use crate::{NotHere, ctnetlink};

/// An emptied table that stayed so for this long is at rest.
const REST: Duration = Duration::from_secs(2);
/// Until then it must be at rest.
const REST_LIMIT: Duration = Duration::from_secs(30);

/// Empties the table and writes the settings.
pub(crate) fn start(settings: Settings, stop: &AtomicBool) -> Result<()> {
    empty(stop)?;
    settings.write().map_err(|error| {
        let refused = error.chain().any(|cause| {
            let source: Option<&Error> = cause.downcast_ref();
            source.is_some_and(|source| source.kind() == ErrorKind::PermissionDenied)
        });
        if refused { netns::Error::NotPermitted { what: format!("{error:#}") }.into() } else { error }
    })
}

/// Flushes until no packet of an earlier load makes an entry any more.
pub(crate) fn empty(stop: &AtomicBool) -> Result<()> {
    let start = Instant::now();
    let mut at_rest_since = None;
    while !stop.load(Ordering::Relaxed) {
        if conntrack::count()? > 0 {
            at_rest_since = None;
            ctnetlink::flush()?;
        } else if at_rest_since.get_or_insert_with(Instant::now).elapsed() >= REST {
            return Ok(());
        }
        if start.elapsed() > REST_LIMIT {
            bail!("the table does not come to rest: {} entries after {} s", conntrack::count()?, REST_LIMIT.as_secs());
        }
        thread::sleep(Duration::from_millis(100));
    }
    bail!("stopped; everything is put back");
}

/// Refuses a host that somebody uses: `who` empties the kernel's table and shrinks it. `instead`: the command that runs it
/// in a guest.
pub(crate) fn check_unused(who: &str, instead: &str) -> Result<()> {
    let entries = conntrack::count()?;
    if entries == 0 {
        return Ok(());
    }
    let entries = grouped(entries);
    let text =
        format!("this kernel tracks {entries} connections, which {who} would cut off: run it in a guest, `{instead}`");
    Err(NotHere(text).into())
}
