//! The time until the next tick. The runtime's own timers wake a process twice for each wait of more than 64 ms, because
//! they lie in a wheel of wheels; at rest that would be every second wake-up.

use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::net::unix::pipe::Receiver;

/// A timer of the kernel's.
pub(super) struct Alarm {
    timer: TimerFd,
    /// The same, to wait for: it reads like a pipe.
    reader: Receiver,
}

impl Alarm {
    pub fn new() -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        let reader = Receiver::from_owned_fd_unchecked(timer.as_fd().try_clone_to_owned()?)?;
        Ok(Self { timer, reader })
    }

    /// Returns after `time`. May be dropped before.
    pub async fn after(&mut self, time: Duration) -> io::Result<()> {
        // Zero would be never.
        let once = Expiration::OneShot(time.max(Duration::from_nanos(1)).into());
        // What is left of an earlier wait goes with it (`timerfd_setup` in fs/timerfd.c).
        self.timer.set(once, TimerSetTimeFlags::empty())?;
        loop {
            self.reader.readable().await?;
            match self.reader.try_read(&mut [0; 8]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read.map(drop),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::time::timeout;

    use super::*;
    use crate::control::tests::block_on;

    const SHORT: Duration = Duration::from_millis(40);

    #[test]
    fn it_waits_as_long_as_it_is_told_to_and_one_that_was_given_up_shortens_no_other() {
        block_on(async {
            let mut alarm = Alarm::new().unwrap();
            for wait in [SHORT, Duration::ZERO, 2 * SHORT] {
                let start = Instant::now();
                alarm.after(wait).await.unwrap();
                assert!(start.elapsed() >= wait);
            }
            assert!(timeout(SHORT, alarm.after(2 * SHORT)).await.is_err());
            // It rings while nobody waits.
            tokio::time::sleep(2 * SHORT).await;
            let start = Instant::now();
            alarm.after(SHORT).await.unwrap();
            assert!(start.elapsed() >= SHORT, "{:?}", start.elapsed());
        });
    }
}
