//! Waits for each arrival of an open loop.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Arrival, Arrivals, Course, Failure, Outcome, Progress, Rate, STOP_CHECK};

/// Late ones that are started in one go before what was started gets its turn.
const BATCH: u32 = 32;
/// From which lateness on they are started in one go.
const LATE: Duration = Duration::from_millis(1);
/// What is later than this is not started at all: a machine that is too slow for its load must still come to its end.
const TOO_LATE: Duration = Duration::from_secs(10);

/// The arrivals of a load that has begun.
pub(crate) struct Schedule {
    arrivals: Arrivals,
    start: Instant,
    in_a_row: u32,
}

impl Schedule {
    /// Begins now.
    pub fn begin(rate: &Rate, course: &Course) -> Self {
        let arrivals = Arrivals::new(rate, course.duration, course.sources, course.seed);
        Self { arrivals, start: Instant::now(), in_a_row: 0 }
    }

    /// When it began.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// The next arrival, at its time or as soon after it as the machine can; counted as started, with its lateness. `None`
    /// after the last, and once `stop` is true.
    pub async fn next(
        &mut self,
        progress: &Progress,
        figures: &RefCell<Outcome>,
        stop: &AtomicBool,
    ) -> Option<Arrival> {
        loop {
            let arrival = self.arrivals.next()?;
            let due = self.start + arrival.at;
            if !wait_until(due, stop).await {
                return None;
            }
            if due.elapsed() > LATE && self.in_a_row < BATCH {
                self.in_a_row += 1;
            } else {
                self.in_a_row = 0;
                tokio::task::yield_now().await;
            }
            let late = due.elapsed();
            progress.start(1);
            let mut figures = figures.borrow_mut();
            figures.lateness.record(late);
            if late < TOO_LATE {
                return Some(arrival);
            }
            figures.fail(Failure::TooLate, 1);
            progress.fail(1);
        }
    }
}

/// False when the load is to stop.
pub(crate) async fn wait_until(due: Instant, stop: &AtomicBool) -> bool {
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        if due <= now {
            return true;
        }
        sleep_until(due.min(now + STOP_CHECK)).await;
    }
    false
}
