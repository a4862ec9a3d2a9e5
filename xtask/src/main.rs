//! `cargo xtask`: every chore of conntrack-guard. Each verb is a module of its own; see `cargo xtask help`.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use nix::sys::signal::{self, SigHandler, Signal};

mod bench;
mod build;
mod demo;
mod deploy;
mod image;
mod process;
mod setup;
mod staging;
mod test;
mod tree;
mod units;
mod vm;

/// Chores of conntrack-guard.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not possible on this machine or for this user. `vm` gives the exit
/// code of its command.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Look for everything the other verbs need and fetch what is missing, once
    ///
    /// Rust library sources, bpf-linker, QEMU, busybox, four Debian kernels, network tools, what the deployment checks
    /// call, cargo-deny. What need not be installed is kept under target/. The other verbs do this for themselves.
    Setup,
    /// Build the daemon and the load generator in release form
    ///
    /// target/release/conntrack-guard and target/release/conntrack-guard-bench.
    Build {
        /// Build the daemon alone, as one file that needs no C library: for containers
        #[arg(long = "static")]
        fixed: bool,
    },
    /// Show the guard at its main job: the same connections against a stock kernel and against one with the guard
    ///
    /// Sets up what is missing, builds, boots a guest with two emulated CPUs and prints both results side by side, in
    /// about two minutes. Fails where the guard dropped a flow or left its bounds, and where stock dropped nothing.
    Demo,
    /// Measure something on a real kernel, in a guest
    #[command(subcommand)]
    Bench(bench::What),
    /// Check everything: formatting, lints, licences, host tests, deploy/, and the tests on real kernels in guests
    ///
    /// Sets up what is missing, runs every stage even when an earlier one failed, and ends with a line of its own:
    /// "N passed, N failed", and the number skipped if any. Each reason for a skip stands above it. All guest tests run
    /// on 6.12; on 5.10, 6.1 and 7.2 every signal attaches and counts.
    Test {
        /// Run the tests of the kernel half whole on every kernel, and print a line for each kernel, back end and test
        #[arg(long)]
        all: bool,
        /// Instead of all that, judge so many simulated histories by what must hold in any of them
        ///
        /// Uses all CPUs that it may (see taskset), prints how far it is and the number of each history that goes wrong,
        /// with the command that shows that one alone. A million take about 70 minutes of one CPU.
        #[arg(long, value_name = "N", conflicts_with = "all", value_parser = clap::value_parser!(u64).range(1..))]
        histories: Option<u64>,
        /// Begin with the history of this number: to go on with a run that was cut short, or with others than the last time
        #[arg(long, value_name = "NUMBER", requires = "histories")]
        from: Option<u64>,
    },
    /// Build the daemon as one static file, and the container image that holds it
    ///
    /// The image is an OCI archive under target/; no container engine and no registry takes part.
    Image,
    /// Run a command as root in a guest that boots a stock Debian kernel
    ///
    /// The guest sees this tree and this machine's files; what it writes to them stays in its memory and is lost. Its
    /// folder /out (in the environment: CONNTRACK_GUARD_OUT) is this tree's target/vm/out and stays. The command starts
    /// in the tree's root with nf_conntrack loaded, no terminal and no input; its output and its exit code are passed
    /// through. A kernel that is not there yet is fetched.
    Vm(VmArguments),
}

#[derive(clap::Args)]
struct VmArguments {
    /// Kernel to boot
    #[arg(long, value_enum, default_value = "6.12", value_name = "SERIES")]
    kernel: setup::Series,
    /// Emulated CPUs [default: 2, or 1 with --count-instructions]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: Option<u32>,
    /// Memory, as in 512M or 2G
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = units::size_mib)]
    mem: u32,
    /// Let the guest's clock count instructions, one a nanosecond, so that times repeat on any machine (one CPU)
    #[arg(long)]
    count_instructions: bool,
    /// Kill the guest after this time and exit with 124, as in 90s or 10m
    #[arg(long, value_name = "T", default_value = "30m", value_parser = units::duration)]
    timeout: Duration,
    /// Program and arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl VmArguments {
    /// What the user asked for; refuses what makes no sense together.
    fn guest(self) -> Result<vm::Guest, clap::Error> {
        let cpus = self.cpus.unwrap_or(if self.count_instructions { 1 } else { 2 });
        if self.count_instructions && cpus != 1 {
            let message = format!(
                "--count-instructions needs a guest with one CPU: {cpus} would not run in a fixed order. Use --cpus 1"
            );
            return Err(Cli::command().error(ErrorKind::ArgumentConflict, message));
        }
        Ok(vm::Guest {
            kernel: self.kernel,
            cpus,
            mem_mib: self.mem,
            count_instructions: self.count_instructions,
            timeout: self.timeout,
            out: tree::kept().join("vm/out"),
            command: self.command,
        })
    }
}

fn main() -> ExitCode {
    listen_to_interrupts();
    let result = match Cli::parse().verb {
        Verb::Setup => setup::run().map(|()| 0),
        Verb::Build { fixed } => build::run(fixed).map(|()| 0),
        Verb::Demo => demo::run(),
        Verb::Bench(what) => bench::run(&what),
        Verb::Test { histories: Some(count), from, .. } => test::histories(count, from),
        Verb::Test { all, .. } => test::run(if all { test::Scope::All } else { test::Scope::Subset }),
        Verb::Image => image::run().map(|()| 0),
        Verb::Vm(arguments) => match arguments.guest() {
            Ok(guest) => vm::run(&guest),
            Err(refusal) => refusal.exit(),
        },
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(if error.is::<setup::NotPossible>() { 3 } else { 1 })
        }
    }
}

/// A shell starts its background jobs with SIGINT ignored, and children inherit that. Here an interrupt must end what
/// runs, a guest above all: whoever sends one means it.
fn listen_to_interrupts() {
    // SAFETY: no handler is installed, and this is the first thing the only thread does.
    let reset = unsafe { signal::signal(Signal::SIGINT, SigHandler::SigDfl) };
    if let Err(error) = reset {
        eprintln!("xtask: interrupts stay as the caller set them: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(words: &[&str]) -> Result<vm::Guest, clap::Error> {
        let all = ["xtask", "vm"].iter().chain(words);
        match Cli::try_parse_from(all)?.verb {
            Verb::Vm(arguments) => arguments.guest(),
            _ => unreachable!("the words start with vm"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults() {
        let guest = guest(&["--", "uname", "-a"]).unwrap();
        assert_eq!((guest.kernel, guest.cpus, guest.mem_mib), (setup::Series::V6_12, 2, 1024));
        assert_eq!(guest.command, ["uname", "-a"]);
    }

    #[test]
    fn counting_takes_one_cpu() {
        assert_eq!(guest(&["--count-instructions", "--", "true"]).unwrap().cpus, 1);
        let refused = guest(&["--count-instructions", "--cpus", "2", "--", "true"]).unwrap_err();
        assert_eq!(refused.exit_code(), 2);
        assert!(refused.to_string().contains("--cpus 1"));
    }

    #[test]
    fn nonsense_is_wrong_usage() {
        for words in [
            &["--cpus", "0", "--", "true"][..],
            &["--mem", "12", "--", "true"],
            &["--mem", "1M", "--", "true"],
            &["--timeout", "soon", "--", "true"],
            &["--timeout", "0s", "--", "true"],
            &["--kernel", "4.19", "--", "true"],
            &["--"],
            &[],
            &["true"],
        ] {
            assert_eq!(guest(words).unwrap_err().exit_code(), 2, "{words:?}");
        }
    }
}
