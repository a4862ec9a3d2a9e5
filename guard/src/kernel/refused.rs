//! The programs that sample refused flows are on the way of every new flow, so they are attached only while flows are being
//! refused.

use std::io;
use std::mem;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::signals::Program;

/// They stay attached for so long after the last refusal.
const LINGER: Duration = Duration::from_mins(1);

/// Loaded programs, and their attachments while there is need.
pub struct OnDemand {
    programs: Arc<[(Program, OwnedFd)]>,
    links: Links,
    refused: u64,
    last: Duration,
}

/// The kernel changes the code of the function that is watched and waits for whoever is in it: not in the way of the raise that
/// ends the refusals.
enum Links {
    Off,
    /// A thread attaches the programs.
    Coming(JoinHandle<io::Result<Vec<OwnedFd>>>),
    On(Vec<OwnedFd>),
}

impl OnDemand {
    /// `programs` are loaded and not attached.
    pub fn new(programs: Vec<(Program, OwnedFd)>) -> Self {
        Self { programs: programs.into(), links: Links::Off, refused: 0, last: Duration::ZERO }
    }

    /// Has them attached soon when flows were refused since the last call, and detached after a minute without. `refused` is
    /// the total so far, `now` the time since boot. Does not wait.
    pub fn watch(&mut self, refused: u64, now: Duration) {
        let again = refused != self.refused;
        if again {
            (self.refused, self.last) = (refused, now);
        }
        let over = now.saturating_sub(self.last) > LINGER;
        self.links = match mem::replace(&mut self.links, Links::Off) {
            Links::Off if again => self.attach(),
            // Where it failed it is tried again at the next refusal; the count itself does not need it.
            Links::Coming(thread) if thread.is_finished() => attached(thread).map_or(Links::Off, Links::On),
            Links::On(links) if over => {
                // Without a thread they go here and now.
                let _ = thread::Builder::new().name("detach".to_owned()).spawn(move || drop(links));
                Links::Off
            }
            as_it_is => as_it_is,
        };
    }

    fn attach(&self) -> Links {
        let programs = Arc::clone(&self.programs);
        // What samples miss is no count that is too low.
        let attach = move || programs.iter().map(|(program, loaded)| program.attach(loaded.as_fd(), false)).collect();
        thread::Builder::new().name("attach".to_owned()).spawn(attach).map_or(Links::Off, Links::Coming)
    }
}

fn attached(thread: JoinHandle<io::Result<Vec<OwnedFd>>>) -> Option<Vec<OwnedFd>> {
    thread.join().ok()?.ok()
}

impl Drop for OnDemand {
    fn drop(&mut self) {
        // Nothing of it outlives the guard.
        if let Links::Coming(thread) = mem::replace(&mut self.links, Links::Off) {
            let _ = attached(thread);
        }
    }
}
