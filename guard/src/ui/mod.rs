//! What people read on a terminal: aligned tables, figures with units. Reads nothing itself.

mod advice;
mod assessment;
mod counted;
mod decisions;
mod plot;
mod replay;
mod screen;
mod support;
mod table;

use std::io::{self, Write};

pub use advice::AdviceScreen;
pub use plot::plot;
pub use replay::ReplayScreen;
pub use screen::{StatusScreen, unguarded};
pub use support::SupportScreen;
pub use table::{Align, Table};

/// Writes `text` to standard output. A reader that went away (`conntrack-guard status | head`) is no failure.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
