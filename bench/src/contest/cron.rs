//! The job that operators put into a crontab: each minute, raise max if the table is nearly full.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use bench::conntrack;

use super::beside::{max, set_max};
use super::decision::{Decision, now_ms};

/// cron's finest step. Not scaled, as no time is.
const PERIOD: Duration = Duration::from_mins(1);
/// The share of max above which it acts, percent.
const SHARE: u64 = 80;

/// The job, until it is stopped.
pub(super) struct Cron {
    thread: JoinHandle<Result<()>>,
    end: Sender<()>,
    decisions: Arc<Mutex<Vec<Decision>>>,
}

impl Cron {
    /// Starts it; when in the minute it runs for the first time depends on the round.
    pub fn start(round: (u32, u32), ceiling: u64) -> Result<Self> {
        let (end, ended) = mpsc::channel();
        let decisions = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&decisions);
        let mut next = Instant::now() + first(round);
        let thread = thread::Builder::new().name("cron".to_owned()).spawn(move || {
            loop {
                match ended.recv_timeout(next.saturating_duration_since(Instant::now())) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
                next += PERIOD;
                let (count, old) = (conntrack::count()?, max()?);
                if let Some(new) = raised(count, old, ceiling) {
                    set_max(new)?;
                    let evidence = format!("{count} entries of {old}");
                    let decision = Decision::of_job(now_ms()?, old, new, evidence);
                    noted.lock().unwrap_or_else(PoisonError::into_inner).push(decision);
                }
            }
        })?;
        Ok(Self { thread, end, decisions })
    }

    /// What it changed so far.
    pub fn decisions(&self) -> Vec<Decision> {
        self.decisions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it; an error is what went wrong meanwhile.
    pub fn stop(self) -> Result<()> {
        // A job that failed is not there to hear it.
        let _ = self.end.send(());
        self.thread.join().map_err(|_| anyhow!("the job panicked"))?.context("the job")
    }
}

/// When it runs first: in the middle of each round's share of the minute, so that over all rounds no phase is favoured.
fn first((round, rounds): (u32, u32)) -> Duration {
    PERIOD * (2 * round + 1) / (2 * rounds.max(1))
}

/// max after the job, if it acts.
fn raised(count: u64, max: u64, ceiling: u64) -> Option<u64> {
    let new = max.saturating_mul(2).min(ceiling);
    (count.saturating_mul(100) > max.saturating_mul(SHARE) && new > max).then_some(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_above_the_share_and_stops_at_the_ceiling() {
        assert_eq!(raised(6_553, 8_192, 131_072), None);
        assert_eq!(raised(6_554, 8_192, 131_072), Some(16_384));
        assert_eq!(raised(131_072, 100_000, 131_072), Some(131_072));
        assert_eq!(raised(131_072, 131_072, 131_072), None);
    }

    #[test]
    fn rounds_share_the_minute() {
        assert_eq!(first((0, 1)), Duration::from_secs(30));
        assert_eq!([0, 1, 2].map(|round| first((round, 3)).as_secs()), [10, 30, 50]);
    }
}
