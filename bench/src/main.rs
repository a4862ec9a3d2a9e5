//! Connection churn through network namespaces that the program makes itself, and the demo that is built on it.

mod afresh;
mod churn_command;
mod compare;
mod contest;
mod ctnetlink;
mod demo;
mod figures;
mod guard;
mod hooks;
mod idle;
mod memory;
#[cfg(feature = "png")]
mod png;
mod prefill;
mod put_back;
mod reaction;
mod run_command;
mod scale;
mod signals;
mod start;
mod status;
mod sysctls;
mod table;
mod watch;

use std::process::ExitCode;

use bench::scenario;
use clap::{Parser, Subcommand};

/// Connection churn for conntrack tables. Makes its own network namespaces; needs root, best in a guest.
#[derive(Parser)]
#[command(name = "conntrack-guard-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Real TCP connections (connect, request, reply, close) through this kernel's table as it is
    Churn(churn_command::Arguments),
    /// A scenario, from a file or one that comes with the program, through this kernel's table as it is
    Run(run_command::Arguments),
    /// The same load against everything an operator would run, one after the other; for a guest: `cargo xtask bench churn`
    Contest(contest::Arguments),
    /// What became of the figures between two reports of `contest`
    Compare(compare::Arguments),
    /// SVG pictures as PNG beside them
    #[cfg(feature = "png")]
    Png(png::Arguments),
    /// The stock kernel and the guard under the same load, side by side; for a guest: `cargo xtask demo`
    Demo(demo::Arguments),
    /// What watching costs a new flow, in counted instructions; for a guest: `cargo xtask bench hooks`
    Hooks(hooks::Arguments),
    /// How fast a surge is answered; for a guest: `cargo xtask bench reaction`
    Reaction(reaction::Arguments),
    /// What the guard takes while nothing happens; for a guest: `cargo xtask bench idle`
    Idle(idle::Arguments),
    /// How long the guard takes to start, and what memory it holds; for a guest: `cargo xtask bench start`
    Start(start::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = signals::catch().and_then(|stop| match arguments.command {
        Command::Churn(arguments) => churn_command::run(&arguments, stop),
        Command::Run(arguments) => run_command::run(&arguments, stop),
        Command::Contest(arguments) => contest::run(&arguments, stop),
        Command::Compare(arguments) => compare::run(&arguments),
        #[cfg(feature = "png")]
        Command::Png(arguments) => png::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments, stop),
        Command::Hooks(arguments) => hooks::run(&arguments, stop),
        Command::Reaction(arguments) => reaction::run(&arguments, stop),
        Command::Idle(arguments) => idle::run(&arguments, stop),
        Command::Start(arguments) => start::run(&arguments, stop),
    });
    outcome.unwrap_or_else(|error| {
        if error.is::<scenario::Errors>() {
            // Each line names its file already.
            eprintln!("{error}");
        } else {
            eprintln!("error: {error:#}");
        }
        ExitCode::from(match &error {
            error if error.is::<scenario::Errors>() || error.is::<WrongUsage>() => 2,
            error if refused(error) => 3,
            _ => 1,
        })
    })
}

/// This kernel or this user cannot do it.
fn refused(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<NotHere>() || matches!(cause.downcast_ref(), Some(bench::netns::Error::NotPermitted { .. }))
    })
}

/// It must not be done on this machine; the text says where it can be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotHere(String);

/// Something is missing in the command line; the text says what.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct WrongUsage(String);

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn loads_out_of_range_are_wrong_usage() {
        let parse = |words: &[&str]| Arguments::try_parse_from([&["bench", "churn"], words].concat());
        assert!(parse(&["--rate", "600", "--for", "2.5", "--sources", "65534", "--seed", "7", "--json"]).is_ok());
        for words in [
            ["--rate", "0"],
            ["--rate", "50001"],
            ["--for", "0"],
            ["--for", "nan"],
            ["--for", "3601"],
            ["--sources", "65535"],
        ] {
            assert_eq!(parse(&words).err().map(|error| error.exit_code()), Some(2), "{words:?}");
        }
    }

    #[test]
    fn a_refusal_is_told_from_a_failure_through_any_context() {
        let not_here: anyhow::Result<()> = Err(NotHere("a host in use".to_owned()).into());
        assert!(refused(&not_here.context("the demo").unwrap_err()));
        let not_permitted = bench::netns::Error::NotPermitted { what: "it".to_owned() };
        assert!(refused(&not_permitted.into()));
        assert!(!refused(&anyhow::anyhow!("a bug")));
    }
}
