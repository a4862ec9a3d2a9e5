//! `conntrack-guard run`: starts the parts in the order in which nothing is changed before everything is checked, ticks,
//! and on a signal puts everything back.

mod alarm;
pub(crate) mod found;
mod policies;
mod reload;
mod signals;
mod waiting;
mod watch;

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::timeout;
use tracing::{info, warn};

use self::alarm::Alarm;
use self::policies::{Keep, Policies};
use self::reload::{Ground, Reload};
use self::signals::Stop;
use crate::actuate::{DryRun, Journal, Settings};
use crate::cli::{Failure, RunArgs};
use crate::control::Control;
use crate::figures::time;
use crate::kernel::{self, Hooks};
use crate::observe::Observer;
use crate::policy::{Host, Setting};
use crate::priority;
use crate::recording::{self, Header, Hour, Recorder, Writer};
use crate::report::{self, Brake, Guarding, Mode, Reporter, Server, Start};

/// How long a stop waits for a write that the kernel has not finished: a resize takes 1 s with 1,000,000 entries.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

const NO_WAY_BACK: &str = "the guard changes nothing that it could not put back";

/// Runs until SIGTERM or SIGINT.
pub fn run(args: &RunArgs) -> Result<(), Failure> {
    report::log::start(args.log_format, args.verbose);
    let root = Path::new("/");
    let policies = Policies::start(args)?;
    if let Err(error) = priority::urgent() {
        info!(
            "a surge on a busy host is answered later than it could be, because no priority of -20 is to be had: {error}"
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let done = runtime.block_on(async {
        // Before anything is changed: a signal from here on is a stop or a reload and not a death.
        let mut stop = Stop::listen()?;
        let mut reload = Reload::new(policies)?;
        // Outlives the table.
        let brake = Brake::default();
        while let Some(access) = waiting::access(root, report::socket(), &mut stop).await? {
            // Its parts are large, and lie in it from end to end.
            match Box::pin(guard(args, root, &mut reload, &mut stop, brake.clone())).await? {
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
async fn guard(
    args: &RunArgs,
    root: &Path,
    reload: &mut Reload,
    stop: &mut Stop,
    brake: Brake,
) -> Result<Ended, Failure> {
    let policies = &mut reload.policies;
    let found = Observer::new(root, None).sample().context("cannot read the table")?;
    let inherited = found::inherited(policies.mode() == Mode::Enforce, root, &args.state_dir)?;
    let host = found::host(&found, &inherited);
    let limits = policies.limits(&host)?;
    for line in found::below_floors(policies.policy(), &host) {
        info!("{line}");
    }
    let (policy, mode) = (policies.policy().clone(), policies.mode());
    let writes = mode == Mode::Enforce;
    let recorder = recorder(args, root, host.clone())?;
    let server = Server::bind(report::socket()).context("the guard cannot answer `conntrack-guard status`")?;
    let actuator = if writes { reload::start(root, &args.state_dir, &policy)? } else { Box::new(DryRun) };
    policies.to_keep().inspect(Keep::write);
    let hooks = Hooks::attach(kernel::Options { back_end: args.backend, walk: args.walk, log: args.verbose });
    let told = hooks.as_ref().map(Hooks::signals).map_err(ToString::to_string);
    let horizon = policy.table.horizon;
    let start = Start {
        mode,
        limits: &limits,
        horizon,
        policy: policies.now(),
        found: &found,
        buckets_before: inherited.original(Setting::Buckets),
        hooks: told,
    };
    let reporter = Reporter::new(&start);
    let server = tokio::spawn(server.run(Guarding { status: reporter.status(), brake: brake.clone() }));
    let observer = Observer::new(root, hooks.ok());
    let mut control = Control::new(root.into(), observer, policy, limits, actuator, reporter, brake);
    control.record(recorder);
    let mut ground = Ground { root: root.into(), host, writes };
    let ended = until_stopped(&mut control, stop, reload, &mut ground, WRITE_LIMIT).await;
    // Takes the socket away.
    server.abort();
    let _ = server.await;
    drop(control);
    if ground.writes && matches!(ended, Ok(Ended::TableGone)) {
        // The same values in the next table would pass for this guard's.
        Journal::remove(&args.state_dir).context("the journal of a table that is gone is of no use any more")?;
    }
    ended
}

/// What keeps the last hour of samples, and all of them where the operator wants it so. Without a state directory that can
/// be written there is no last hour, and that is all that is lost. A dry run leaves nothing behind but the file it was told to.
fn recorder(args: &RunArgs, root: &Path, host: Host) -> Result<Recorder, Failure> {
    let boot_id = Settings::new(root).boot_id().context("cannot tell this boot from another")?;
    let header = Header::now(boot_id, host);
    let keep = || Hour::keep(&args.state_dir.join(recording::FOLDER), header.clone());
    let hour = (!args.dry_run).then(keep).transpose();
    let hour = hour.inspect_err(|error| warn!("the last hour is not recorded: {error}")).ok().flatten();
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

/// Ticks, and between two ticks takes a new policy; on a signal waits for the tick to end, then restores. There is nothing
/// to restore where the table is gone.
async fn until_stopped(
    control: &mut Control,
    stop: &mut Stop,
    reload: &mut Reload,
    ground: &mut Ground,
    write_limit: Duration,
) -> Result<Ended, Failure> {
    let state_dir = reload.policies.state_dir().to_path_buf();
    let mut alarm = Alarm::new().context("no timer for the next look at the table")?;
    loop {
        // Before it acts: what it set in another table would be forgotten with the journal of this one.
        if control.table_is_gone() {
            return Ok(Ended::TableGone);
        }
        let pause = {
            let mut tick = std::pin::pin!(control.tick());
            tokio::select! {
                pause = &mut tick => Some(pause),
                () = stop.received() => {
                    // Its outcome still belongs into the log; restoring waits for its write anyway.
                    if timeout(write_limit, tick).await.is_err() {
                        return Err(stuck(&state_dir, write_limit));
                    }
                    None
                }
            }
        };
        let Some(pause) = pause else { break };
        tokio::select! {
            rung = alarm.after(pause) => rung.context("the timer for the next look at the table")?,
            () = control.credit_spent() => {}
            why = reload.wanted() => reload.carry_out(why, control, ground).await,
            () = stop.received() => break,
        }
    }
    info!("stopping");
    let all = timeout(write_limit, control.restore()).await.map_err(|_| stuck(&state_dir, write_limit))?;
    report::log_restored(&all);
    report::all_back(&all, &state_dir)?;
    Ok(Ended::Stopped)
}

fn stuck(state_dir: &Path, write_limit: Duration) -> Failure {
    Failure::failed(anyhow::anyhow!(
        "the kernel has not finished a write after {}, so nothing more is put back now; {}",
        time(write_limit),
        report::finish_later(state_dir)
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use clap::Parser as _;
    use nix::sys::signal::{Signal as Number, raise};
    use tokio::time::sleep;

    use super::*;
    use crate::actuate::Inherited;
    use crate::actuate::testing::FakeKernel;
    use crate::cli::{Cli, Command};
    use crate::config;
    use crate::control::tests::{Slow, block_on, changes_made, control, live};

    /// For what comes by itself, on a disk and a machine that others use as well.
    const PATIENCE: Duration = Duration::from_mins(1);

    /// Waits until the guard has carried out a change, then has the process told to stop.
    async fn stop_after_a_change(changes_made: impl Fn() -> u64, number: Number, before: impl FnOnce()) {
        let a_change = async {
            while changes_made() == 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, a_change).await.unwrap();
        before();
        raise(number).unwrap();
    }

    /// Without a policy file.
    fn no_file(kernel: &FakeKernel) -> (Reload, Ground) {
        let state_dir = kernel.state_dir();
        let line = ["conntrack-guard", "run", "--state-dir", state_dir.to_str().unwrap()];
        let Command::Run(args) = Cli::try_parse_from(line).unwrap().command else { panic!("run is another command") };
        let found = Observer::new(kernel.root(), None).sample().unwrap();
        let host = found::host(&found, &Inherited::default());
        let ground = Ground { root: kernel.root().into(), host, writes: true };
        (Reload::new(Policies::start(&args).unwrap()).unwrap(), ground)
    }

    /// One test for all: a signal reaches every listener of the process.
    #[test]
    fn a_signal_restores_or_says_why_it_cannot() {
        for number in [Number::SIGTERM, Number::SIGINT] {
            let kernel = FakeKernel::new(65536, 16384, 65536);
            block_on(async {
                let mut stop = Stop::listen().unwrap();
                let mut control = control(&kernel, config::Mode::Enforce, live(&kernel));
                let (mut reload, mut ground) = no_file(&kernel);
                let signal = stop_after_a_change(changes_made(&control), number, || {
                    assert!(kernel.get("nf_conntrack_max") > 65536);
                    kernel.set("nf_conntrack_count", 10);
                });
                let ends = until_stopped(&mut control, &mut stop, &mut reload, &mut ground, PATIENCE);
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
            let (mut reload, mut ground) = no_file(&kernel);
            let signal = stop_after_a_change(changes_made(&control), Number::SIGTERM, || {
                assert!(kernel.get("nf_conntrack_max") > 65536);
            });
            let ends = until_stopped(&mut control, &mut stop, &mut reload, &mut ground, PATIENCE);
            tokio::join!(ends, signal).0.unwrap_err()
        });
        assert!(kernel.get("nf_conntrack_max") > 65536, "with 65,536 entries in use");
        let text = failure.text();
        assert!(text.contains("not everything is put back: nf_conntrack_max;") && text.contains("/state:"), "{text}");
    }

    fn a_write_that_hangs_is_not_waited_for() {
        let kernel = FakeKernel::new(65536, 16384, 65536);
        let (begun, begins) = channel();
        let (_finish, finish) = channel();
        let failure = block_on(async {
            let mut stop = Stop::listen().unwrap();
            let mut control = control(&kernel, config::Mode::Enforce, Box::new(Slow { begun, finish }));
            let (mut reload, mut ground) = no_file(&kernel);
            let limit = Duration::from_millis(300);
            let ends = until_stopped(&mut control, &mut stop, &mut reload, &mut ground, limit);
            let signal = async {
                // The first tick is as far as it comes without the kernel.
                begins.recv_timeout(PATIENCE).unwrap();
                raise(Number::SIGTERM).unwrap();
            };
            tokio::join!(ends, signal).0.unwrap_err()
        });
        let text = failure.text();
        assert!(text.contains("has not finished a write") && text.contains("/state:"), "{text}");
    }
}
