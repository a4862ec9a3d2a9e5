//! The same start for each load: an empty table at rest, and the settings it begins with.

use std::io::{Error, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use bench::conntrack::{self, Settings};
use bench::netns;

use crate::table::grouped;
use crate::{NotHere, ctnetlink};

/// How often an emptied table is looked at. All is counted in looks, not by the clock: one that counts instructions leaps
/// while everybody waits for a disk.
const LOOK: Duration = Duration::from_millis(100);
/// An emptied table that was empty at so many looks in a row is at rest: 2 s.
const REST: u32 = 20;
/// Until then it must be at rest: 30 s.
const LIMIT: u32 = 300;

/// Empties the table and writes the settings.
pub(crate) fn start(settings: Settings, stop: &AtomicBool) -> Result<()> {
    // Also where it is empty: this loads nf_conntrack_netlink, which a guard looks at the entries through if it is there. The
    // first of several must not be the only one without.
    ctnetlink::flush()?;
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
    let mut empty = 0;
    for _ in 0..LIMIT {
        ensure!(!stop.load(Ordering::Relaxed), "stopped; everything is put back");
        if conntrack::count()? > 0 {
            empty = 0;
            ctnetlink::flush()?;
        } else {
            empty += 1;
        }
        if empty == REST {
            return Ok(());
        }
        thread::sleep(LOOK);
    }
    bail!("the table does not come to rest: {} entries after {LIMIT} looks", conntrack::count()?);
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
