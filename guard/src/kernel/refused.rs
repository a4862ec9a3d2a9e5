//! The program that samples refused flows is on the way of every new flow, so it is attached only while flows are being
//! refused.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use super::sys;

/// It stays attached for so long after the last refusal.
const LINGER: Duration = Duration::from_mins(1);

/// A loaded program, and its attachment while there is need.
pub struct OnDemand {
    program: OwnedFd,
    link: Option<OwnedFd>,
    refused: u64,
    last: Duration,
}

impl OnDemand {
    /// `program` is loaded and not attached.
    pub fn new(program: OwnedFd) -> Self {
        Self { program, link: None, refused: 0, last: Duration::ZERO }
    }

    /// Attaches when flows were refused since the last call, lets go after a minute without. `refused` is the total so
    /// far, `now` the time since boot.
    pub fn watch(&mut self, refused: u64, now: Duration) {
        if refused != self.refused {
            (self.refused, self.last) = (refused, now);
            if self.link.is_none() {
                // Where it fails it is tried again at the next refusal; the count itself does not need it.
                self.link = sys::attach_tracing(self.program.as_fd()).ok();
            }
        } else if now.saturating_sub(self.last) > LINGER {
            self.link = None;
        }
    }
}
