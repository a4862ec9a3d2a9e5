//! Ctrl-C and SIGTERM ask for an orderly end: the namespaces, rules and settings are put back on the way out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// Set by the first signal.
static STOP: AtomicBool = AtomicBool::new(false);

/// From here on the signals only set the returned flag. They are handled, not blocked: programs that are started would
/// inherit the mask and not hear them.
pub(crate) fn catch() -> Result<&'static AtomicBool> {
    let runtime = Builder::new_current_thread().enable_io().build().context("cannot wait for signals")?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        let listen = |kind| signal(kind).context("cannot listen for signals");
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?)
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            loop {
                let received = tokio::select! {
                    received = interrupt.recv() => received,
                    received = terminate.recv() => received,
                };
                if received.is_none() {
                    return;
                }
                eprintln!("ending; everything is put back first");
                STOP.store(true, Ordering::Relaxed);
            }
        });
    })?;
    Ok(&STOP)
}
