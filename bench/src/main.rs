//! Connection churn through network namespaces that the program makes itself, and the demo that is built on it.

mod churn_command;
mod demo;
mod figures;
mod signals;
mod table;
mod watch;

use std::process::ExitCode;

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
    /// The stock kernel and the guard under the same load, side by side; for a guest: `cargo xtask demo`
    Demo(demo::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = signals::catch().and_then(|stop| match arguments.command {
        Command::Churn(arguments) => churn_command::run(&arguments, stop),
        Command::Demo(arguments) => demo::run(&arguments, stop),
    });
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        let refused =
            error.chain().any(|cause| matches!(cause.downcast_ref(), Some(bench::netns::Error::NotPermitted { .. })));
        ExitCode::from(if refused { 3 } else { 1 })
    })
}
