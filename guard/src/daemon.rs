//! `conntrack-guard run`: starts the parts in the order in which nothing is changed before everything is checked, ticks,
//! and on a signal puts everything back.

mod waiting;

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{SigSet, Signal as Number};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::actuate::{Actuator, DryRun, Inherited, Journal, Live, Settings};
use crate::cli::{Failure, RunArgs};
use crate::config::{self, Policy};
use crate::control::Control;
use crate::figures::time;
use crate::kernel::{self, Hooks};
use crate::observe::{Observer, Sample, memory};
use crate::policy::{Host, Limits, Setting};
use crate::recording::{self, Header, Hour, Recorder, Writer};
use crate::report::{self, Brake, Guarding, Mode, Reporter, Server, Start};

/// How long a stop waits for a write that the kernel has not finished: a resize takes 1 s with 1,000,000 entries.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

const NO_WAY_BACK: &str = "the guard changes nothing that it could not put back";

/// Runs until SIGTERM or SIGINT.
pub fn run(args: &RunArgs) -> Result<(), Failure> {
    report::log::start(args.log_format, args.verbose);
    let root = Path::new("/");
    let (policy, mode) = policy(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let done = runtime.block_on(async {
        // Before anything is changed: a signal from here on is a stop and not a death.
        let mut stop = Stop::listen()?;
        while let Some(access) = waiting::access(root, report::socket(), &mut stop).await? {
            // Its parts are large, and lie in it from end to end.
            match Box::pin(guard(args, root, &policy, mode, &mut stop)).await? {
                Ended::Stopped => break,
                Ended::TableGone => warn!("nf_conntrack was unloaded, and its settings with it"),
            }
            drop(access);
        }
        Ok(())
    });
    // Not to wait for a write that the kernel never finishes.
    runtime.shutdown_background();
    done
}

/// Guards the table that is there now. The caller holds the right to.
async fn guard(args: &RunArgs, root: &Path, policy: &Policy, mode: Mode, stop: &mut Stop) -> Result<Ended, Failure> {
    let found = Observer::new(root, None).sample().context("cannot read the table")?;
    let inherited = inherited(mode, root, &args.state_dir)?;
    let host = host(&found, &inherited);
    let limits = Limits::new(policy, &host).map_err(Failure::invalid)?;
    let recorder = recorder(args, root, host)?;
    let server = Server::bind(report::socket()).context("the guard cannot answer `conntrack-guard status`")?;
    let actuator = actuator(mode, root, &args.state_dir, policy)?;
    let hooks = Hooks::attach(kernel::Options { back_end: args.backend, walk: args.walk, log: args.verbose });
    let told = hooks.as_ref().map(Hooks::signals).map_err(ToString::to_string);
    let start = Start { mode, limits: &limits, horizon: policy.table.horizon, found: &found, hooks: told };
    let reporter = Reporter::new(&start);
    let brake = Brake::default();
    let server = tokio::spawn(server.run(Guarding { status: reporter.status(), brake: brake.clone() }));
    let observer = Observer::new(root, hooks.ok());
    let mut control = Control::new(root.into(), observer, policy.clone(), limits, actuator, reporter, brake);
    control.record(recorder);
    let ended = until_stopped(&mut control, stop, &args.state_dir, WRITE_LIMIT).await;
    // Takes the socket away.
    server.abort();
    let _ = server.await;
    drop(control);
    if mode == Mode::Enforce && matches!(ended, Ok(Ended::TableGone)) {
        // The same values in the next table would pass for this guard's.
        Journal::remove(&args.state_dir).context("the journal of a table that is gone is of no use any more")?;
    }
    ended
}

/// What keeps the last hour of samples, and all of them where the operator wants it so. Without a state directory that can
/// be written there is no last hour, and that is all that is lost.
fn recorder(args: &RunArgs, root: &Path, host: Host) -> Result<Recorder, Failure> {
    let boot_id = Settings::new(root).boot_id().context("cannot tell this boot from another")?;
    let header = Header::now(boot_id, host);
    let hour = Hour::keep(&args.state_dir.join(recording::FOLDER), header.clone());
    let hour = hour.inspect_err(|error| warn!("the last hour is not recorded: {error}")).ok();
    let file = args.record.as_ref().map(|file| Writer::create(file, &header)).transpose();
    Ok(Recorder::start(hour, file.context("--record: name a file in a folder that can be written")?))
}

/// Why the guard no longer guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// A signal came.
    Stopped,
    /// The module was unloaded.
    TableGone,
}

/// The policy in force, and what becomes of its plans.
fn policy(args: &RunArgs) -> Result<(Policy, Mode), Failure> {
    let mut policy = match &args.config {
        Some(file) => config::load(file)?,
        None => Policy::default(),
    };
    for warning in config::warnings(&policy) {
        warn!("{warning}");
    }
    let mode = match policy.mode {
        _ if args.dry_run => Mode::DryRun,
        config::Mode::Advise | config::Mode::Off => Mode::Advise,
        config::Mode::Enforce => Mode::Enforce,
    };
    if mode != Mode::Enforce {
        policy.mode = config::Mode::Advise;
    }
    Ok((policy, mode))
}

/// What an earlier guard left. A dry run goes without, where it cannot be read.
fn inherited(mode: Mode, root: &Path, state_dir: &Path) -> Result<Inherited, Failure> {
    let inherited = match Inherited::read(&Settings::new(root), state_dir) {
        Err(error) if mode != Mode::Enforce => {
            warn!("what an earlier guard changed is taken for what was there before: {error}");
            Inherited::default()
        }
        read => read.context(NO_WAY_BACK)?,
    };
    if inherited.earlier_boot {
        info!("there is a journal of an earlier boot: its settings went with it");
    }
    for (setting, original) in &inherited.taken_over {
        info!(original, "an earlier guard changed {}; a stop puts the original back", setting.sysctl());
    }
    for (setting, current) in &inherited.overwritten {
        info!(current, "{} was set by another program since an earlier guard changed it: it stays", setting.sysctl());
    }
    Ok(inherited)
}

/// The host as the operator left it: what an earlier guard changed is no value to hold bounds or calm against.
fn host(found: &Sample, inherited: &Inherited) -> Host {
    let mut host = Host {
        table: found.table,
        memory_total: found.memory.total,
        entry_bytes: found.entry_bytes,
        page_bytes: memory::page_bytes(),
        timeouts: found.timeouts.clone(),
    };
    for &(setting, original) in &inherited.taken_over {
        match setting {
            Setting::Max => host.table.max = original,
            Setting::Buckets => host.table.buckets = original,
            Setting::Timeout(timeout) => {
                host.timeouts.insert(timeout, original);
            }
        }
    }
    host
}

fn actuator(mode: Mode, root: &Path, state_dir: &Path, policy: &Policy) -> Result<Box<dyn Actuator>, Failure> {
    if mode != Mode::Enforce {
        return Ok(Box::new(DryRun));
    }
    let live = Live::start(Settings::new(root), state_dir, policy.hash.max_stall).context(NO_WAY_BACK)?;
    Ok(Box::new(live))
}

/// Ticks; on a signal waits for the tick to end, then restores. There is nothing to restore where the table is gone.
async fn until_stopped(
    control: &mut Control,
    stop: &mut Stop,
    state_dir: &Path,
    write_limit: Duration,
) -> Result<Ended, Failure> {
    loop {
        let pause = {
            let mut tick = std::pin::pin!(control.tick());
            tokio::select! {
                pause = &mut tick => Some(pause),
                () = stop.received() => {
                    // Its outcome still belongs into the log; restoring waits for its write anyway.
                    if timeout(write_limit, tick).await.is_err() {
                        return Err(stuck(state_dir, write_limit));
                    }
                    None
                }
            }
        };
        let Some(pause) = pause else { break };
        if control.table_is_gone() {
            return Ok(Ended::TableGone);
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.received() => break,
        }
    }
    info!("stopping");
    let all = timeout(write_limit, control.restore()).await.map_err(|_| stuck(state_dir, write_limit))?;
    report::log_restored(&all);
    report::all_back(&all, state_dir)?;
    Ok(Ended::Stopped)
}

fn stuck(state_dir: &Path, write_limit: Duration) -> Failure {
    Failure::failed(anyhow::anyhow!(
        "the kernel has not finished a write after {}, so nothing more is put back now; {}",
        time(write_limit),
        report::finish_later(state_dir)
    ))
}

/// SIGTERM and SIGINT.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn listen() -> anyhow::Result<Self> {
        // Whoever started the guard may have had them blocked, and a blocked signal never ends it.
        let both = SigSet::from_iter([Number::SIGTERM, Number::SIGINT]);
        both.thread_unblock().context("cannot unblock SIGTERM and SIGINT")?;
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use nix::sys::signal::raise;

    use super::*;
    use crate::actuate::testing::FakeKernel;
    use crate::control::tests::{Slow, block_on, control, live};
    use crate::observe::Timeout;

    const LIMIT: Duration = Duration::from_millis(300);

    #[test]
    fn bounds_and_calm_are_held_against_what_was_there_before_any_guard() {
        let kernel = FakeKernel::with_timeouts(262_144, 65536, 10);
        let found = Observer::new(kernel.root(), None).sample().unwrap();
        let udp = Setting::Timeout(Timeout::Udp);
        let taken_over = vec![(Setting::Max, 65536), (Setting::Buckets, 16384), (udp, 180)];
        let host = host(&found, &Inherited { taken_over, ..Inherited::default() });
        assert_eq!((host.table.max, host.table.buckets, host.table.count), (65536, 16384, 10));
        assert_eq!((host.timeouts[&Timeout::Udp], host.timeouts[&Timeout::TcpTimeWait]), (180, 120));
        let limits = Limits::new(&Policy::default(), &host).unwrap();
        assert_eq!((limits.found_max, limits.timeouts[&Timeout::Udp].ceiling), (65536, 180));
    }

    /// One test for all: a signal reaches every listener of the process.
    #[test]
    fn a_signal_restores_or_says_why_it_cannot() {
        for number in [Number::SIGTERM, Number::SIGINT] {
            let kernel = FakeKernel::new(65536, 16384, 65536);
            block_on(async {
                let mut stop = Stop::listen().unwrap();
                let mut control = control(&kernel, config::Mode::Enforce, live(&kernel));
                let ends = until_stopped(&mut control, &mut stop, Path::new("/state"), LIMIT);
                let signal = async {
                    sleep(LIMIT).await;
                    assert!(kernel.get("nf_conntrack_max") > 65536);
                    kernel.set("nf_conntrack_count", 10);
                    raise(number).unwrap();
                };
                let (ended, ()) = tokio::join!(ends, signal);
                ended.unwrap();
            });
            assert_eq!((kernel.get("nf_conntrack_max"), kernel.get("nf_conntrack_buckets")), (65536, 16384));
        }
        what_has_to_wait_is_no_success();
        a_write_that_hangs_is_not_waited_for();
    }

    fn what_has_to_wait_is_no_success() {
        let kernel = FakeKernel::new(65536, 65536, 65536);
        let failure = block_on(async {
            let mut stop = Stop::listen().unwrap();
            let mut control = control(&kernel, config::Mode::Enforce, live(&kernel));
            let ends = until_stopped(&mut control, &mut stop, Path::new("/state"), LIMIT);
            let signal = async {
                sleep(Duration::from_millis(50)).await;
                assert!(kernel.get("nf_conntrack_max") > 65536);
                raise(Number::SIGTERM).unwrap();
            };
            tokio::join!(ends, signal).0.unwrap_err()
        });
        assert!(kernel.get("nf_conntrack_max") > 65536, "with 65,536 entries in use");
        let text = failure.text();
        assert!(text.contains("not everything is put back: nf_conntrack_max;") && text.contains("/state"), "{text}");
    }

    fn a_write_that_hangs_is_not_waited_for() {
        let kernel = FakeKernel::new(65536, 16384, 65536);
        let (_finish, slow) = channel();
        let failure = block_on(async {
            let mut stop = Stop::listen().unwrap();
            let mut control = control(&kernel, config::Mode::Enforce, Box::new(Slow(slow)));
            let ends = until_stopped(&mut control, &mut stop, Path::new("/state"), LIMIT);
            let signal = async {
                sleep(Duration::from_millis(50)).await;
                raise(Number::SIGTERM).unwrap();
            };
            tokio::join!(ends, signal).0.unwrap_err()
        });
        let text = failure.text();
        assert!(text.contains("has not finished a write") && text.contains("/state"), "{text}");
    }
}
