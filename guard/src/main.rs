//! Parse, log, run, exit code.

use std::process::ExitCode;

use clap::Parser as _;
use conntrack_guard::cli::{Cli, Command};
use conntrack_guard::{commands, daemon};

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => daemon::run(&args),
        Command::Status(args) => commands::status(&args),
        Command::Pause(args) => commands::pause(&args),
        Command::Resume(args) => commands::resume(&args),
        Command::Check(args) => commands::check(&args),
        Command::Support(args) => commands::support(&args),
        Command::Advise(args) => commands::advise(&args),
        Command::Replay(args) => commands::replay(&args),
        Command::Restore(args) => commands::restore_settings(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}
