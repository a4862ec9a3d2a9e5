//! What the guard tells: its log, and its status for whoever asks. Decides nothing.

mod assessment;
mod assessor;
mod brake;
mod client;
mod counted;
mod figures_of;
pub mod log;
mod policy_now;
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

pub use assessment::{
    Assessment, CensusNow, ChangedNow, DoubtNow, PredictionsNow, RuleError, SettledNow, StandingNow, StateNow,
};
pub use brake::{Brake, LONGEST as LONGEST_PAUSE, Order, PausedNow, Reply, names};
pub use client::{Error as ClientError, ask, order};
pub use counted::{Clashes, Counted, End, InsertsByNamespace, Namespace, Refused};
pub use policy_now::{PolicyNow, Source};
pub use reporter::{Mode, Reporter, Start};
pub use resizes::Resize;
pub use restored::{all_back, finish_later, log_restored, restored_line};
pub use server::{Answers, Error as ServerError, Guarding, Server};
pub use status::{
    BackEnd, ChangeMade, Drops, FORMAT, Forecast, HeldNow, LimitsInForce, SignalNow, StatisticsNow, Status, Table,
};
pub use waiting::{Answer, Waiting};

/// Where the daemon answers: fixed, because there is one guard on a host.
pub fn socket() -> &'static Path {
    Path::new("/run/conntrack-guard/status.sock")
}
