//! Ctrl-C and SIGTERM ask for an orderly end: the namespaces, rules and settings are put back on the way out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

/// Set by the first signal.
static STOP: AtomicBool = AtomicBool::new(false);

/// From here on the signals only set the returned flag. To be called before any thread is started, since threads inherit
/// the mask; programs that are started get an empty one from the standard library.
pub(crate) fn catch() -> Result<&'static AtomicBool> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block().context("cannot block signals")?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        while let Ok(signal) = signals.wait() {
            eprintln!("{signal}: ending");
            STOP.store(true, Ordering::Relaxed);
        }
    })?;
    Ok(&STOP)
}
