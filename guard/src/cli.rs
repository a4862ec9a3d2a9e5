//! What the user typed, and what the exit code says.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};

use crate::actuate::{AccessError, STATE_DIR};
use crate::advise::Emit;
use crate::config;
use crate::kernel::{BackEnd, Walk};
use crate::policy::Setting;
use crate::report::LONGEST_PAUSE;
use crate::report::log::Format;

/// Keeps nf_conntrack's table right by itself: within bounds, with reasons, and with a way back
#[derive(Debug, Parser)]
#[command(
    version,
    disable_help_subcommand = true,
    after_long_help = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage, or an invalid policy
  3  not permitted or not supported here

Examples:
  conntrack-guard run --dry-run                     say what would be changed, change nothing
  conntrack-guard check policy.toml                 is this policy valid?
  conntrack-guard run --config policy.toml          guard the table until SIGTERM or Ctrl-C
  conntrack-guard status                            what it sees, what it did and why
  conntrack-guard pause max --for 1h                leave nf_conntrack_max alone for an hour
  conntrack-guard restore                           after kill -9: put back what was there before"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch the table and keep it open, until SIGTERM or SIGINT
    ///
    /// Raises nf_conntrack_max ahead of the forecast, sizes the hash table while it is small, and shortens timeouts where
    /// max may rise no further, within the policy's bounds and memory limit; when calm returns it takes that back. Each
    /// change is logged with its reason. On a stop it puts back what it found, as far as that drops no flow and stalls no
    /// packet; it exits with 1 if something is left to do. Needs root and the host's network namespace. Waits for
    /// nf_conntrack where that is not loaded yet.
    Run(RunArgs),

    /// Show what the running guard sees, has decided and why
    ///
    /// Exits with 1 when no guard is running; the table is shown all the same.
    Status(StatusArgs),

    /// Leave settings as they are for a time: the brake
    ///
    /// Acts at once on the running guard, which goes on measuring and says what it would have changed. The pause ends by
    /// itself, by `resume`, and by a restart of the guard; a reload of the policy leaves it. A stop puts back what was
    /// changed before, paused or not.
    Pause(PauseArgs),

    /// Let paused settings change again
    Resume(ResumeArgs),

    /// Check a policy file; every error with line and key
    ///
    /// Warns of what is valid but does harm. With --print-defaults it prints a policy file instead: every key with its
    /// meaning, its range and its default.
    Check(CheckArgs),

    /// Say what can be measured and changed on this host, and what each missing piece needs
    Support(SupportArgs),

    /// Say which settings to keep, from what this host does or from a recording
    ///
    /// The policy runs over what is observed and changes nothing; the furthest it would have gone is the advice. Without
    /// --recording this host is observed for a while, by eBPF programs where they can be attached.
    Advise(AdviseArgs),

    /// Run a policy over recorded samples: what it would have decided
    ///
    /// A running guard keeps the last hour in STATE-DIR/recording; `run --record FILE` keeps more. The entries are those of
    /// the recording, the settings start as that host was found and follow the decisions of this policy.
    Replay(ReplayArgs),

    /// Put back the settings that a guard changed and could not put back itself
    ///
    /// For after kill -9, or for what a stop had to leave because the table was in use: nf_conntrack_max never goes
    /// below what is in use and some more, and a resize that would stall packets for longer than the policy allowed
    /// waits. What another program has set since stays. Exits with 1 as long as something is left to do.
    Restore(RestoreArgs),
}

/// `run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Policy (TOML); without one, the defaults hold
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Log what would be changed; change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Where the settings found are kept, to put them back
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    pub state_dir: PathBuf,

    /// Take only this way of measuring; by default each signal takes the best that works here
    #[arg(long, value_name = "BACK_END", value_enum)]
    pub backend: Option<BackEnd>,

    /// Which inserts have their hash chains measured; every insert costs more on the path of new connections
    #[arg(long, value_name = "WHICH", value_enum, default_value_t)]
    pub walk: Walk,

    /// Record all samples into this file too; the last hour is always kept in the state directory
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,

    /// Log debug lines too, those of the kernel half among them
    #[arg(long)]
    pub verbose: bool,

    /// How to log, on standard error
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: Format,
}

/// `status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print the status as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `pause`
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// The setting; without one, every setting
    #[arg(value_name = "KEY", value_parser = setting())]
    pub setting: Option<Setting>,

    /// For how long, such as 30m or 1h; 7 days at most
    #[arg(long = "for", value_name = "TIME", value_parser = pause)]
    pub length: Duration,
}

/// `resume`
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// The setting; without one, every setting
    #[arg(value_name = "KEY", value_parser = setting())]
    pub setting: Option<Setting>,
}

/// `max`, `buckets` or a timeout's name.
fn setting() -> impl TypedValueParser<Value = Setting> {
    PossibleValuesParser::new(Setting::all().map(Setting::name)).try_map(Setting::try_from)
}

fn pause(text: &str) -> Result<Duration, String> {
    let length = humantime::parse_duration(text).ok().filter(|length| !length.is_zero() && *length <= LONGEST_PAUSE);
    length.ok_or_else(|| "give a time up to 7 days with its unit, such as 30m or 1h".to_owned())
}

fn observation(text: &str) -> Result<Duration, String> {
    let length = humantime::parse_duration(text).ok().filter(|length| (1..=86_400).contains(&length.as_secs()));
    length.ok_or_else(|| "give a time from 1s to 1day with its unit, such as 5m".to_owned())
}

/// `check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Policy (TOML)
    #[arg(required_unless_present = "print_defaults", conflicts_with = "print_defaults")]
    pub file: Option<PathBuf>,

    /// Print a policy file with every key at its default, and check nothing
    #[arg(long)]
    pub print_defaults: bool,
}

/// `support`
#[derive(Debug, Args)]
pub struct SupportArgs {
    /// Print the answer as one JSON object
    #[arg(long)]
    pub json: bool,

    /// Try only this way of measuring
    #[arg(long, value_name = "BACK_END", value_enum)]
    pub backend: Option<BackEnd>,
}

/// `advise`
#[derive(Debug, Args)]
pub struct AdviseArgs {
    /// How long to observe this host
    #[arg(long = "for", value_name = "DURATION", default_value = "1m", value_parser = observation)]
    pub length: Duration,

    /// Go by a recording, or a folder of them such as /var/lib/conntrack-guard/recording
    #[arg(long, value_name = "PATH", conflicts_with = "length")]
    pub recording: Option<PathBuf>,

    /// Policy (TOML); without one, the defaults hold
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Print a file to keep instead
    #[arg(long, value_name = "FOR", value_enum, conflicts_with = "json")]
    pub emit: Option<Emit>,

    /// Print the advice as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `replay`
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// A recording, or a folder of them such as /var/lib/conntrack-guard/recording
    pub recording: PathBuf,

    /// Policy (TOML); without one, the defaults hold
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Draw entries, max and decisions over time (SVG)
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,

    /// Print one JSON object for each sample
    #[arg(long)]
    pub json: bool,
}

/// `restore`
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// Where the guard kept the settings found
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    pub state_dir: PathBuf,
}

/// A command that did not succeed: the reason, and the exit code that goes with it.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    reason: anyhow::Error,
}

impl Failure {
    /// Exit code 1.
    pub fn failed(reason: impl Into<anyhow::Error>) -> Self {
        Self { code: 1, reason: reason.into() }
    }

    /// Exit code 2: the policy is invalid, here or everywhere.
    pub fn invalid(reason: impl Into<anyhow::Error>) -> Self {
        Self { code: 2, reason: reason.into() }
    }

    /// Exit code 3: this host or this user does not allow it.
    pub fn not_possible(reason: impl Into<anyhow::Error>) -> Self {
        Self { code: 3, reason: reason.into() }
    }

    /// Tells the user: in the log where there is one, else on standard error. Returns the exit code.
    pub fn tell(&self) -> ExitCode {
        let text = self.text();
        for line in text.lines() {
            if tracing::dispatcher::has_been_set() {
                tracing::error!("{line}");
            } else {
                // With standard error gone there is nobody left to tell.
                let _ = writeln!(io::stderr(), "conntrack-guard: {line}");
            }
        }
        self.code.into()
    }

    /// The reason and its causes; many errors name their cause themselves.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for cause in self.reason.chain().map(ToString::to_string) {
            if text.is_empty() {
                text = cause;
            } else if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        text
    }
}

impl From<anyhow::Error> for Failure {
    fn from(reason: anyhow::Error) -> Self {
        Self::failed(reason)
    }
}

impl From<config::Errors> for Failure {
    fn from(errors: config::Errors) -> Self {
        Self::invalid(errors)
    }
}

impl From<AccessError> for Failure {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Taken => Self::failed(error),
            _ => Self::not_possible(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_exit_code_follows_the_reason() {
        let code = |failure: Failure| failure.code;
        assert_eq!(code(AccessError::Taken.into()), 1);
        assert_eq!(code(AccessError::NotRoot.into()), 3);
        assert_eq!(code(AccessError::NoConntrack("/x".into()).into()), 3);
        assert_eq!(code(AccessError::OtherNamespace("/x".into()).into()), 3);
        assert_eq!(code(config::parse("p.toml", "mode = 1").unwrap_err().into()), 2);
        assert_eq!(code(anyhow::anyhow!("x").into()), 1);
    }

    #[test]
    fn a_cause_is_named_once() {
        let no_such_file = || io::Error::from_raw_os_error(libc::ENOENT);
        let error = AccessError::NoLock { path: "/x".into(), source: no_such_file() };
        let text = Failure::from(anyhow::Error::from(error).context("cannot start")).text();
        assert!(text.starts_with("cannot start: cannot open /x"), "{text}");
        assert_eq!(text.matches("No such file").count(), 1, "{text}");
        let text = Failure::failed(anyhow::Error::from(no_such_file()).context("cannot start")).text();
        assert_eq!(text, "cannot start: No such file or directory (os error 2)");
    }

    #[test]
    fn there_are_no_other_commands_and_no_other_flags() {
        let command = Cli::command();
        let flags = |verb: &clap::Command| {
            let longs: Vec<_> = verb.get_arguments().filter_map(clap::Arg::get_long).collect();
            format!("{} {}", verb.get_name(), longs.join(" "))
        };
        let all: Vec<_> = command.get_subcommands().map(flags).collect();
        assert_eq!(
            all,
            [
                "run config dry-run state-dir backend walk record verbose log-format",
                "status json",
                "pause for",
                "resume ",
                "check print-defaults",
                "support json backend",
                "advise for recording config emit json",
                "replay config plot json",
                "restore state-dir"
            ]
        );
        let code = |line: &str| Cli::try_parse_from(line.split(' ')).map_err(|error| error.exit_code()).unwrap_err();
        assert_eq!(code("conntrack-guard"), 2);
        assert_eq!(code("conntrack-guard run --force"), 2);
        assert_eq!(code("conntrack-guard pause"), 2, "a pause without an end");
        assert_eq!(code("conntrack-guard pause --for 8days"), 2);
        assert_eq!(code("conntrack-guard pause maximum --for 1h"), 2);
        assert_eq!(code("conntrack-guard --help"), 0);
        let unknown = Cli::try_parse_from(["conntrack-guard", "resume", "tcp-timewait"]).unwrap_err().to_string();
        assert!(unknown.contains("'tcp-time-wait'") && unknown.contains("max, buckets, tcp-syn-sent"), "{unknown}");
    }
}
