//! Waits for each arrival of an open loop.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Arrival, Arrivals, Course, Failure, Floods, Outcome, Progress, Rate, STOP_CHECK};

/// Late ones that are started in one go before what was started gets its turn.
const BATCH: u32 = 32;
/// From which lateness on they are started in one go.
const LATE: Duration = Duration::from_millis(1);
/// What is later than this is not started at all: a machine that is too slow for its load must still come to its end.
const TOO_LATE: Duration = Duration::from_secs(10);
/// Nobody looked for so long: the whole machine stood still, or its clock leapt, as that of an emulated guest may. The schedule
/// then goes on where it was.
const STANDSTILL: Duration = TOO_LATE;

/// The arrivals of a load that has begun.
pub(crate) struct Schedule {
    arrivals: Arrivals,
    start: Instant,
    /// While these last what is started is counted by itself too.
    floods: Option<Floods>,
    /// By how much the schedule was moved.
    moved: Duration,
    /// When the last one was started.
    looked: Instant,
    in_a_row: u32,
}

impl Schedule {
    /// Begins now.
    pub fn begin(rate: &Rate, course: &Course) -> Self {
        Self::begin_under(None, rate, course)
    }

    /// The same where others flood meanwhile: their times are after its start.
    pub fn begin_under(floods: Option<Floods>, rate: &Rate, course: &Course) -> Self {
        let arrivals = Arrivals::new(rate, course.duration, course.sources, course.seed);
        let start = Instant::now();
        Self { arrivals, start, floods, moved: Duration::ZERO, looked: start, in_a_row: 0 }
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
            let due = self.start + self.moved + arrival.at;
            if !wait_until(due, stop).await {
                return None;
            }
            if due.elapsed() > LATE && self.in_a_row < BATCH {
                self.in_a_row += 1;
            } else {
                self.in_a_row = 0;
                tokio::task::yield_now().await;
            }
            let now = Instant::now();
            let (late, gap) = (now - due, now - due.max(self.looked));
            self.looked = now;
            let stood_still = gap >= STANDSTILL;
            if stood_still {
                self.moved += gap;
            }
            progress.start(1);
            let mut figures = figures.borrow_mut();
            figures.lateness.record(late);
            figures.count_under(self.floods.as_ref(), arrival.at, |counts| counts.started += 1);
            if late < TOO_LATE || stood_still {
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

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;
    use tokio::time::advance;

    use super::*;

    const COURSE: Course = Course { duration: Duration::from_mins(1), sources: 1, seed: 1, number: 0 };

    /// Goes through a load of ten a second, with the clock of the runtime: `between` is what happens after each.
    fn go(between: impl AsyncFn(u64)) -> (u64, Outcome, Duration) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (progress, figures) = (Progress::default(), RefCell::new(Outcome::new().unwrap()));
            let mut schedule = Schedule::begin(&Rate::constant(10.0), &COURSE);
            let mut count = 0;
            while schedule.next(&progress, &figures, &AtomicBool::new(false)).await.is_some() {
                count += 1;
                between(count).await;
            }
            assert_eq!(progress.started(), count + progress.failed());
            (count, figures.into_inner(), schedule.start().elapsed())
        })
    }

    #[test]
    fn each_comes_at_its_time() {
        let (count, figures, took) = go(async |_| ());
        assert!((500..700).contains(&count), "{count}");
        assert!(figures.lateness.max() <= Duration::from_millis(2), "{figures:?}");
        assert!(took > Duration::from_secs(55) && took <= Duration::from_mins(1), "{took:?}");
    }

    #[test]
    fn a_machine_too_slow_for_its_load_comes_to_an_end_and_says_what_it_left_out() {
        // Each takes 0.2 s, and ten come a second.
        let (count, figures, took) = go(async |_| advance(Duration::from_millis(200)).await);
        let left_out = figures.failed[&Failure::TooLate];
        assert!((200..400).contains(&count) && left_out > 100, "{count} {left_out}");
        assert!(took < Duration::from_secs(75), "{took:?}");
    }

    #[test]
    fn a_stall_is_made_up_for_and_a_leap_of_the_clock_is_not() {
        let stall = |seconds| {
            go(async move |count| {
                if count == 100 {
                    advance(Duration::from_secs(seconds)).await;
                }
            })
        };
        let (count, stalled, took) = stall(8);
        // All that came due in the stall is started at its end, late.
        assert!(stalled.lateness.at(0.95) > Duration::from_secs(1), "{stalled:?}");
        assert!(stalled.failures() == 0 && took <= Duration::from_mins(1), "{stalled:?} {took:?}");
        let (same, leapt, took) = stall(900);
        assert_eq!((same, leapt.failures()), (count, 0));
        // Only one is late: the next ones are as far apart as they would have been.
        assert!(leapt.lateness.at(0.99) <= Duration::from_millis(2), "{leapt:?}");
        assert!(took > Duration::from_secs(955), "{took:?}");
    }
}
