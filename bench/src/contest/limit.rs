//! An end in time for what is done on somebody's host: a program that hangs must not hold the host's settings for ever.

use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use bench::processes;

use crate::put_back::run_name;

/// How long after that an end may take. All that is waited for then is programs that were asked to end: the guard, which
/// puts back its settings, takes a second.
const GRACE: Duration = Duration::from_mins(1);
/// What a program that hangs is given before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Does `work`, which is to be done within `limit`: then it is stopped as by Ctrl-C, and its error says why. Where that does not
/// end it within a minute either, the programs that it started are ended, so that nobody waits for them any more; and so each further minute.
pub(super) fn within<T>(limit: Duration, stop: &AtomicBool, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let end_programs = || match processes::end_own(&run_name(process::id()), PATIENCE) {
        Ok(()) => {}
        Err(error) => eprintln!("cannot end what was started: {error}"),
    };
    stopped_after(limit, GRACE, stop, end_programs, work)
}

fn stopped_after<T>(
    limit: Duration,
    grace: Duration,
    stop: &AtomicBool,
    end_programs: impl Fn() + Send,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let words = format!("{} s are over, the most that it was to take", limit.as_secs());
    let (working, done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let words = &words;
        let timer = scope.spawn(move || {
            if !passes(limit, &done) {
                return false;
            }
            eprintln!("{words}: ending; everything is put back first");
            stop.store(true, Ordering::Relaxed);
            while passes(grace, &done) {
                eprintln!("something hangs: ending the programs that were started");
                end_programs();
            }
            true
        });
        let outcome = work();
        drop(working);
        // What was whole by then is not spoilt.
        match (outcome, timer.join()) {
            (Err(error), Ok(true)) => Err(error.context(words.clone())),
            (outcome, _) => outcome,
        }
    })
}

/// Whether the time is over before the work is.
fn passes(time: Duration, done: &Receiver<()>) -> bool {
    matches!(done.recv_timeout(time), Err(RecvTimeoutError::Timeout))
}

#[cfg(test)]
mod tests {
    use anyhow::{bail, ensure};

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_mins(1);

    fn wait_for(flag: &AtomicBool) {
        while !flag.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn what_is_done_in_time_is_not_stopped() {
        let stop = AtomicBool::new(false);
        assert_eq!(stopped_after(LONG, LONG, &stop, || panic!("ended"), || Ok(7)).unwrap(), 7);
        let failed = stopped_after(LONG, LONG, &stop, || panic!("ended"), || -> Result<()> { bail!("of itself") });
        assert_eq!((format!("{:#}", failed.unwrap_err()), stop.into_inner()), ("of itself".to_owned(), false));
    }

    #[test]
    fn what_is_not_is_stopped_and_says_why() {
        let stop = AtomicBool::new(false);
        let work = || -> Result<()> {
            wait_for(&stop);
            bail!("stopped")
        };
        let stopped = stopped_after(SHORT, LONG, &stop, || panic!("ended"), work).unwrap_err();
        assert_eq!(format!("{stopped:#}"), "0 s are over, the most that it was to take: stopped");
    }

    #[test]
    fn what_does_not_hear_of_it_loses_its_programs() {
        let (stop, ended) = (AtomicBool::new(false), AtomicBool::new(false));
        let work = || -> Result<()> {
            wait_for(&ended);
            ensure!(!stop.load(Ordering::Relaxed), "stopped");
            Ok(())
        };
        let stopped = stopped_after(SHORT, SHORT, &stop, || ended.store(true, Ordering::Relaxed), work);
        assert!(format!("{:#}", stopped.unwrap_err()).ends_with(": stopped"));
    }
}
