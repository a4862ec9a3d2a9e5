//! What the guard tells: its log, and its status for whoever asks. Decides nothing.

mod client;
pub mod log;
mod reporter;
mod restored;
mod server;
mod signals;
mod status;

use std::path::Path;

#[cfg(test)]
pub(crate) use reporter::tests;

pub use client::{Error as ClientError, ask};
pub use reporter::{Mode, Reporter, Start};
pub use restored::{finish_later, log_restored, restored_line};
pub use server::{Error as ServerError, Server};
pub use status::{BackEnd, ChangeMade, Drops, FORMAT, Forecast, HeldNow, LimitsInForce, Status, Table};

/// Where the daemon answers: fixed, because there is one guard on a host.
pub fn socket() -> &'static Path {
    Path::new("/run/conntrack-guard/status.sock")
}
