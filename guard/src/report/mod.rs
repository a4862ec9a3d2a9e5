//! What the guard tells: its log, and its status for whoever asks. Decides nothing.

mod client;
mod counted;
mod figures_of;
pub mod log;
mod reporter;
mod resizes;
mod restored;
mod server;
mod signals;
mod status;
mod waiting;

use std::path::Path;

#[cfg(test)]
pub(crate) use reporter::tests;

pub use client::{Error as ClientError, ask};
pub use counted::{Clashes, Counted, End, InsertsByNamespace, Namespace, Refused};
pub use reporter::{Mode, Reporter, Start};
pub use resizes::Resize;
pub use restored::{all_back, finish_later, log_restored, restored_line};
pub use server::{Error as ServerError, Server};
pub use status::{BackEnd, ChangeMade, Drops, FORMAT, Forecast, HeldNow, LimitsInForce, SignalNow, Status, Table};
pub use waiting::{Answer, Waiting};

/// Where the daemon answers: fixed, because there is one guard on a host.
pub fn socket() -> &'static Path {
    Path::new("/run/conntrack-guard/status.sock")
}
