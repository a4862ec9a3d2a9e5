//! A guard that starts before nf_conntrack is loaded waits for it: on most hosts the first firewall rule or kube-proxy
//! loads the module, and whoever starts services does not know when.

use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};

use super::signals::Stop;
use crate::actuate::{Access, AccessError};
use crate::cli::Failure;
use crate::report::{self, ClientError, Server, Waiting};

/// Between two looks: one file's metadata.
const LOOK: Duration = Duration::from_millis(500);

/// The right to change the table below `root`, as soon as there is one; `None` if a signal came first. While it waits,
/// `conntrack-guard status` is told so at `socket`.
pub async fn access(root: &Path, socket: &Path, stop: &mut Stop) -> Result<Option<Access>, Failure> {
    let missing = match Access::take(root) {
        Err(missing @ AccessError::NoConntrack(_)) => missing,
        other => return Ok(Some(other?)),
    };
    // The lock is a file of the module's, so until there is one the socket tells whether another guard waits.
    if !matches!(report::ask(socket), Err(ClientError::NotRunning)) {
        return Err(AccessError::Taken.into());
    }
    let server = Server::bind(socket).map_err(anyhow::Error::from)?;
    warn!("waiting for nf_conntrack: {missing}");
    let answers = tokio::spawn(server.run(Waiting::new(missing.to_string())));
    let access = loop {
        tokio::select! {
            () = sleep(LOOK) => {}
            () = stop.received() => break Ok(None),
        }
        match Access::take(root) {
            Err(AccessError::NoConntrack(_)) => {}
            taken => break taken.map(Some),
        }
    };
    // Takes the socket away.
    answers.abort();
    let _ = answers.await;
    if let Ok(Some(_)) = access {
        info!("nf_conntrack is there");
    }
    Ok(access?)
}
