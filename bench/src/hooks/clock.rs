//! Instructions, read off a clock that counts them: in a guest started with `-icount shift=0` one is one nanosecond.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};

use crate::NotHere;

/// Runs `work` and gives the instructions that this CPU executed from its start until everybody else, whom it may have
/// given work to, was asleep again.
pub(super) fn count<T>(work: impl FnOnce() -> Result<T>) -> Result<(u64, T)> {
    rest()?;
    let start = Instant::now();
    let done = work()?;
    // A listener, ksoftirqd, RCU: they run first now. Waiting asleep would not do: this clock leaps over idle time.
    schedule(libc::SCHED_IDLE)?;
    thread::yield_now();
    let elapsed = start.elapsed();
    schedule(libc::SCHED_OTHER)?;
    Ok((nanoseconds(elapsed), done))
}

/// Lets what earlier work left to be done (sockets are freed after a grace period of RCU) be done, and ends at the same
/// place between two ticks of the timer's interrupt each time, so that equal work meets an equal number of them.
fn rest() -> Result<()> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).context("cannot read the clock")?);
    let since_tick = u64::try_from(now.as_nanos() % TICKS.as_nanos())?;
    thread::sleep(REST + TICKS.saturating_sub(Duration::from_nanos(since_tick)));
    Ok(())
}

/// Refuses a machine whose clock does not count instructions, or that has a second CPU to do part of the work.
pub(super) fn check() -> Result<()> {
    let cpus = thread::available_parallelism().context("the number of CPUs")?.get();
    if cpus != 1 {
        return Err(NotHere(format!(
            "this machine has {cpus} CPUs, and work that moves between them is not counted: use a guest, `cargo xtask \
             bench`"
        ))
        .into());
    }
    // Most of a few, and closely: an interrupt may come into one or two, and another clock may come near by chance.
    let mut times: [u64; 5] = std::array::from_fn(|_| nanoseconds(known_work()));
    times.sort_unstable();
    if times[..3].iter().any(|time| time.abs_diff(KNOWN_WORK) > KNOWN_WORK / 1000) {
        return Err(NotHere(format!(
            "this machine's clock counts no instructions ({KNOWN_WORK} of them took {} ns): use a guest, `cargo xtask bench`",
            times[0]
        ))
        .into());
    }
    Ok(())
}

/// Long enough for RCU; the clock leaps over it.
const REST: Duration = Duration::from_millis(100);
/// A multiple of the ticks of each CONFIG_HZ: 100, 250, 300 (nearly), 1000. REST is a multiple of it.
const TICKS: Duration = Duration::from_millis(20);
/// Instructions that [`known_work`] takes: few beside a timer's interrupt each 4,000,000.
const KNOWN_WORK: u64 = 1_000_000;

#[cfg(target_arch = "x86_64")]
fn known_work() -> Duration {
    let start = Instant::now();
    // SAFETY: counts a register down to zero, two instructions a round; no memory, no stack.
    unsafe {
        std::arch::asm!(
            "2: dec {rounds}",
            "jnz 2b",
            rounds = inout(reg) KNOWN_WORK / 2 => _,
            options(nomem, nostack)
        );
    }
    start.elapsed()
}

/// No guest counts instructions on another architecture.
#[cfg(not(target_arch = "x86_64"))]
fn known_work() -> Duration {
    Duration::ZERO
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Sets the calling thread's scheduling policy.
fn schedule(policy: i32) -> Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 is the calling thread, and the parameters outlive the call.
    let outcome = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    if outcome != 0 {
        return Err(std::io::Error::last_os_error()).context("cannot set the scheduling policy");
    }
    Ok(())
}
