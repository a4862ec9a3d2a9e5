//! What a reload changes, what it leaves, and what a start does with an invalid policy.

use std::fs;
use std::time::Duration;

use clap::Parser as _;

use super::*;
use crate::actuate::DryRun;
use crate::actuate::testing::FakeKernel;
use crate::cli::{Cli, Command, Failure, RunArgs};
use crate::control::tests::block_on;
use crate::daemon::found;
use crate::daemon::policies::Keep;
use crate::observe::Observer;
use crate::report::{Brake, Mode as Does, Reporter, Source, Start, Status};

const MAX: &str = "nf_conntrack_max";
const FULL: &str = "[hash]\nbuckets.ceiling = 16384\n";

/// A guard as the daemon puts it together, without hooks, server and a loop.
struct Guard {
    control: Control,
    reload: Reload,
    ground: Ground,
    reporter: Arc<std::sync::Mutex<Status>>,
}

fn args(kernel: &FakeKernel, flags: &[&str]) -> RunArgs {
    let config = kernel.path("policy.toml");
    let mut line = vec!["conntrack-guard", "run", "--config", config.to_str().unwrap()];
    let state_dir = kernel.state_dir();
    line.extend(["--state-dir", state_dir.to_str().unwrap()]);
    line.extend(flags);
    match Cli::try_parse_from(line).unwrap().command {
        Command::Run(args) => args,
        other => panic!("{other:?}"),
    }
}

impl Guard {
    fn start(kernel: &FakeKernel, policy: &str) -> Result<Self, Failure> {
        fs::write(kernel.path("policy.toml"), policy).unwrap();
        Self::start_as(kernel, &[])
    }

    fn start_as(kernel: &FakeKernel, flags: &[&str]) -> Result<Self, Failure> {
        let root = kernel.root();
        let mut policies = Policies::start(&args(kernel, flags))?;
        let mut observer = Observer::new(root, None);
        let found = observer.sample().unwrap();
        let host = found::host(&found, &found::inherited(false, root, &kernel.state_dir())?);
        let limits = policies.limits(&host)?;
        let (policy, mode) = (policies.policy().clone(), policies.mode());
        let writes = mode == Does::Enforce;
        let actuator = if writes { start(root, &kernel.state_dir(), &policy)? } else { Box::new(DryRun) };
        policies.to_keep().inspect(Keep::write);
        let (horizon, hooks) = (policy.table.horizon, Err(String::new()));
        let begin = Start {
            mode,
            limits: &limits,
            horizon,
            policy: policies.now(),
            found: &found,
            buckets_before: None,
            hooks,
        };
        let reporter = Reporter::new(&begin);
        let status = reporter.status();
        let brake = Brake::default();
        let control = Control::new(root.into(), observer, policy, limits, actuator, reporter, brake);
        let ground = Ground { root: root.into(), host, writes };
        Ok(Self { control, reload: Reload::new(policies)?, ground, reporter: status })
    }

    async fn reload(&mut self, kernel: &FakeKernel, policy: &str) -> Status {
        fs::write(kernel.path("policy.toml"), policy).unwrap();
        self.reload.carry_out(Why::Changed, &mut self.control, &mut self.ground).await;
        self.reload.kept().await;
        self.status()
    }

    fn status(&self) -> Status {
        self.reporter.lock().unwrap().clone()
    }

    async fn tick(&mut self) {
        self.control.tick().await;
    }
}

/// A full table of 65,536.
fn full() -> FakeKernel {
    FakeKernel::new(65536, 16384, 65536)
}

#[test]
fn a_valid_policy_is_in_force_at_once_and_its_limits_are_reckoned_from_what_was_found() {
    let kernel = full();
    block_on(async {
        let mut guard = Guard::start(&kernel, FULL).unwrap();
        guard.tick().await;
        let raised = kernel.get(MAX);
        assert!(raised > 65536);
        let text = "table.max.ceiling = 80000\ntable.horizon = \"30s\"\nhash.buckets.ceiling = 16384\n";
        let status = guard.reload(&kernel, text).await;
        assert_eq!((status.bounds.max.floor, status.bounds.max.ceiling), (65536, 80000), "not from {raised}");
        assert_eq!((status.forecast.horizon_ms, status.policy.source), (30_000, Source::File));
        assert_eq!(kernel.get(MAX), raised, "above the new ceiling, and left so");
    });
}

#[test]
fn an_invalid_policy_changes_nothing_and_is_told_until_it_is_mended() {
    let kernel = full();
    block_on(async {
        let mut guard = Guard::start(&kernel, "mode = \"advise\"\n").unwrap();
        let before = guard.status();
        let status = guard.reload(&kernel, "mode = \"enforce\"\ntable.max.ceilin = 5\nhash = 1\n").await;
        let place = kernel.path("policy.toml");
        assert_eq!(
            status.policy.refused,
            [
                format!("{}:2:11: table.max.ceilin: unknown key; did you mean `ceiling`?", place.display()),
                format!("{}:3:8: hash: give a table, such as [hash] with its keys below it; found 1", place.display()),
            ]
        );
        assert_eq!((&status.mode, &status.bounds, status.ready), (&before.mode, &before.bounds, true));
        guard.tick().await;
        assert_eq!(kernel.get(MAX), 65536, "the advice of before");
        fs::remove_file(&place).unwrap();
        guard.reload.carry_out(Why::Hangup, &mut guard.control, &mut guard.ground).await;
        assert!(guard.status().policy.refused[0].contains("cannot be read"));
        assert_eq!(guard.reload(&kernel, "mode = \"advise\"\n").await.policy, before.policy);
    });
}

#[test]
fn a_memory_limit_below_what_is_in_use_now_is_refused_with_the_reason() {
    let kernel = FakeKernel::new(65536, 16384, 10);
    block_on(async {
        let mut guard = Guard::start(&kernel, "").unwrap();
        kernel.set("nf_conntrack_count", 60_000);
        let status = guard.reload(&kernel, "mode = \"off\"\ntable.memory-limit = \"8MiB\"\n").await;
        let [why] = &status.policy.refused[..] else { panic!("{:?}", status.policy) };
        assert!(why.starts_with("table.memory-limit is 8.0 MiB here, but 60,000 entries"), "{why}");
        assert_eq!(status.mode, "enforce");
        // What was in use at the start is no matter any more.
        kernel.set("nf_conntrack_count", 100);
        assert_eq!(guard.reload(&kernel, "mode = \"off\"\ntable.memory-limit = \"8MiB\"").await.mode, "off");
    });
}

#[test]
fn out_of_enforce_what_was_changed_stays_until_the_stop_and_nothing_more_is_changed() {
    for mode in ["advise", "off"] {
        let kernel = full();
        block_on(async {
            let mut guard = Guard::start(&kernel, FULL).unwrap();
            guard.tick().await;
            let raised = kernel.get(MAX);
            assert!(raised > 65536);
            let status = guard.reload(&kernel, &format!("mode = \"{mode}\"\n{FULL}")).await;
            assert_eq!(status.mode, mode);
            kernel.set("nf_conntrack_count", raised);
            for _ in 0..3 {
                guard.tick().await;
            }
            assert_eq!(kernel.get(MAX), raised, "{mode}");
            kernel.set("nf_conntrack_count", 10);
            guard.control.restore().await;
            assert_eq!(kernel.get(MAX), 65536);
        });
    }
}

#[test]
fn into_enforce_the_journal_comes_first_or_nothing_does() {
    let kernel = full();
    block_on(async {
        let mut guard = Guard::start(&kernel, &format!("mode = \"off\"\n{FULL}")).unwrap();
        guard.tick().await;
        assert_eq!((kernel.get(MAX), guard.status().changes_made), (65536, 0));
        assert!(!kernel.state_dir().join("journal.json").exists());
        fs::create_dir_all(kernel.state_dir().join("journal.json.new")).unwrap();
        let refused = guard.reload(&kernel, FULL).await;
        assert!(refused.policy.refused[0].contains("could not put back"), "{:?}", refused.policy);
        assert_eq!(refused.mode, "off");
        guard.tick().await;
        assert_eq!(kernel.get(MAX), 65536);

        fs::remove_dir(kernel.state_dir().join("journal.json.new")).unwrap();
        let status = guard.reload(&kernel, &format!("{FULL}# again\n")).await;
        assert_eq!((status.mode.as_str(), status.policy.refused.len()), ("enforce", 0));
        guard.tick().await;
        assert!(kernel.get(MAX) > 65536 && kernel.state_dir().join("journal.json").exists());
        kernel.set("nf_conntrack_count", 10);
        guard.control.restore().await;
        assert_eq!(kernel.get(MAX), 65536);
    });
}

#[test]
fn a_start_with_an_invalid_policy_takes_the_last_good_one_and_is_not_ready_until_it_is_mended() {
    let kernel = full();
    block_on(async {
        let good = "mode = \"advise\"\ntable.max.ceiling = 100000\n";
        drop(Guard::start(&kernel, good).unwrap());
        let mut guard = Guard::start(&kernel, "mode = \"enforce\"\ntable.max.ceiling = -1\n").unwrap();
        let status = guard.status();
        assert_eq!((status.ready, status.policy.source, status.mode.as_str()), (false, Source::LastGood, "advise"));
        assert_eq!(status.bounds.max.ceiling, 100_000);
        assert!(status.not_ready.unwrap().contains("policy.toml:2:21: table.max.ceiling: give an integer"));

        let status = guard.reload(&kernel, "mode = 7").await;
        assert!(!status.ready && status.policy.refused[0].contains(":1:8: mode: "), "still invalid: {status:?}");
        // The same text as the last good one is the file's all the same.
        let status = guard.reload(&kernel, good).await;
        assert_eq!((status.ready, status.not_ready, status.policy.source), (true, None, Source::File));
        assert_eq!(status.policy.refused, Vec::<String>::new());
    });
}

#[test]
fn a_policy_that_cannot_be_kept_on_this_host_is_no_good_one_and_falls_back_as_well() {
    let kernel = full();
    block_on(async {
        let error = Guard::start(&kernel, "table.memory-limit = \"2MiB\"").err().unwrap();
        assert!(error.text().contains("table.memory-limit is 2.0 MiB here"), "{}", error.text());
        drop(Guard::start(&kernel, "mode = \"off\"").unwrap());
        let guard = Guard::start(&kernel, "table.memory-limit = \"2MiB\"").unwrap();
        let status = guard.status();
        assert_eq!((status.ready, status.mode.as_str()), (false, "off"));
        assert!(status.not_ready.unwrap().contains("table.memory-limit is 2.0 MiB here"));
    });
}

#[test]
fn without_a_last_good_policy_and_in_a_dry_run_an_invalid_one_is_the_end() {
    let kernel = full();
    block_on(async {
        let text = |failure: Option<Failure>| failure.unwrap().text();
        assert!(text(Guard::start(&kernel, "mode = 1").err()).contains("policy.toml:1:8: mode: give"));
        fs::write(kernel.path("policy.toml"), "mode = \"enforce\"").unwrap();
        let dry = Guard::start_as(&kernel, &["--dry-run"]).unwrap();
        assert_eq!(dry.status().mode, "dry-run");
        assert!(!kernel.state_dir().exists(), "a dry run keeps nothing");
        drop(Guard::start(&kernel, "mode = \"advise\"").unwrap());
        fs::write(kernel.path("policy.toml"), "mode = 1").unwrap();
        assert!(text(Guard::start_as(&kernel, &["--dry-run"]).err()).contains("mode: give"));
        fs::write(kernel.state_dir().join("policy.last-good.toml"), "mode = 2").unwrap();
        assert!(text(Guard::start(&kernel, "mode = 1").err()).contains("policy.toml:1:8: mode: give"));
    });
}

#[test]
fn the_file_kept_is_the_last_that_was_in_force() {
    let kernel = full();
    let kept = || fs::read_to_string(kernel.state_dir().join("policy.last-good.toml")).unwrap();
    block_on(async {
        let mut guard = Guard::start(&kernel, "mode = \"advise\" # first\n").unwrap();
        assert_eq!(kept(), "mode = \"advise\" # first\n");
        guard.reload(&kernel, "mode = 3").await;
        guard.reload(&kernel, "table.memory-limit = \"2MiB\"").await;
        assert_eq!(kept(), "mode = \"advise\" # first\n");
        guard.reload(&kernel, "mode = \"off\" # second\n").await;
        assert_eq!(kept(), "mode = \"off\" # second\n");
    });
}

#[test]
fn sighup_and_another_file_both_ask_for_a_reload() {
    let kernel = full();
    block_on(async {
        let mut guard = Guard::start(&kernel, "mode = \"advise\"").unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        fs::write(kernel.path("policy.toml"), "mode = \"off\"").unwrap();
        let why = tokio::time::timeout(Duration::from_secs(10), guard.reload.wanted()).await.unwrap();
        assert_eq!(why, Why::Changed);
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGHUP).unwrap();
        let why = tokio::time::timeout(Duration::from_secs(10), guard.reload.wanted()).await.unwrap();
        assert_eq!(why, Why::Hangup);
    });
}
