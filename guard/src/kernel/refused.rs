//! The programs that sample refused flows are on the way of every new flow, so they are attached only while flows are being
//! refused.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use super::signals::Program;

/// They stay attached for so long after the last refusal.
const LINGER: Duration = Duration::from_mins(1);

/// Loaded programs, and their attachments while there is need.
pub struct OnDemand {
    programs: Vec<(Program, OwnedFd)>,
    links: Vec<OwnedFd>,
    refused: u64,
    last: Duration,
}

impl OnDemand {
    /// `programs` are loaded and not attached.
    pub fn new(programs: Vec<(Program, OwnedFd)>) -> Self {
        Self { programs, links: Vec::new(), refused: 0, last: Duration::ZERO }
    }

    /// Attaches when flows were refused since the last call, lets go after a minute without. `refused` is the total so
    /// far, `now` the time since boot.
    pub fn watch(&mut self, refused: u64, now: Duration) {
        if refused != self.refused {
            (self.refused, self.last) = (refused, now);
            if self.links.is_empty() {
                let links: io::Result<_> =
                    self.programs.iter().map(|(program, loaded)| program.attach(loaded.as_fd())).collect();
                // Where it fails it is tried again at the next refusal; the count itself does not need it.
                self.links = links.unwrap_or_default();
            }
        } else if now.saturating_sub(self.last) > LINGER {
            self.links.clear();
        }
    }
}
