//! The real wrk as a load: so many clients that ask over HTTP, each with a connection of its own for each request. A closed loop:
//! a slow gateway slows it down.

mod http;
mod said;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Error, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(crate) use self::http::answer;
use super::{Course, Outcome, Progress, STOP_CHECK};
use crate::churn::{REQUEST_TIMEOUT, Server, Service};
use crate::netns::{Tool, Topology};
use crate::ports;

/// What it needs.
pub(crate) const WRK: Tool = Tool { program: "wrk", package: "wrk" };
/// Has it tell what it counted.
const SCRIPT: &str = include_str!("wrk.lua");

/// Runs it to its end. What it made is known only then.
pub(super) fn run(
    clients: u32,
    course: &Course,
    topology: &Topology,
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<Outcome> {
    let port = ports::HTTP.saturating_add(course.number);
    let server = Server::start(topology, port, Service::Http).context("the server")?;
    let folder = topology.folder()?;
    let file = |name: &str| folder.join(format!("wrk-{}.{name}", course.number));
    let (script, output, errors) = (file("lua"), file("out"), file("err"));
    fs::write(&script, SCRIPT).with_context(|| script.display().to_string())?;
    let mut command = Command::new(WRK.program);
    command
        .args(["--threads", "1", "--connections", &clients.to_string()])
        .args(["--duration", &format!("{}s", course.duration.as_secs())])
        .args(["--timeout", &format!("{}s", REQUEST_TIMEOUT.as_secs())])
        .args(["--header", "Connection: close", "--script"])
        .arg(&script)
        .arg(format!("http://{}/", topology.shape().target(port)))
        .stdin(Stdio::null())
        .stdout(create(&output)?)
        .stderr(create(&errors)?);
    topology.mark(&mut command);
    let start = Instant::now();
    let spawned = topology.clients().run(|| command.spawn())?;
    let mut wrk = spawned.map_err(|error| WRK.missing(&error).map_or(Error::from(error), Error::from))?;
    let status = loop {
        if let Some(status) = wrk.try_wait().context("wrk")? {
            break status;
        }
        if stop.load(Ordering::Relaxed) {
            // It ends with what it has.
            kill(Pid::from_raw(wrk.id().cast_signed()), Signal::SIGINT).context("cannot stop wrk")?;
            break wrk.wait().context("wrk")?;
        }
        thread::sleep(STOP_CHECK);
    };
    let elapsed = start.elapsed();
    server.stop()?;
    let read = |path: &Path| fs::read_to_string(path).with_context(|| path.display().to_string());
    let said = read(&output)?;
    if !status.success() {
        let complaint = read(&errors)?;
        // What goes wrong before its first request it says with its results.
        bail!("wrk ended with {status}: {} {}", said.trim(), complaint.trim());
    }
    let outcome = Outcome { elapsed, ..said::outcome(&said)? };
    progress.start(outcome.started);
    progress.make(outcome.made);
    progress.fail(outcome.failures());
    Ok(outcome)
}

fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| path.display().to_string())
}
