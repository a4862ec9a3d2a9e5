//! Formatting, lints, and the rules for dependencies.

use std::env;
use std::process::Command;

use anyhow::{Context, Result};

use super::tally::Tally;
use super::{guest, heading};
use crate::{process, setup, tree};

/// All of them; each counts as one test.
pub fn run(tally: &mut Tally) {
    heading("formatting");
    component(tally, "formatting", "rustfmt", "fmt", process::cargo().args(["fmt", "--all", "--check"]));
    heading("lints");
    let warnings = ["--", "-D", "warnings"];
    let mut host = process::cargo();
    host.args(["clippy", "--workspace", "--all-targets", "--exclude", "guard-ebpf"]);
    host.args(["--features", "conntrack-guard-bench/png"]).args(guest::targets()).args(warnings);
    component(tally, "lints of the host's crates", "clippy", "clippy", &mut host);
    let mut shared = process::cargo();
    shared.args(["clippy", "--package", "guard-ebpf", "--lib", "--tests"]).args(warnings);
    component(tally, "lints of what both halves share", "clippy", "clippy", &mut shared);
    match kernel_half() {
        Ok(mut command) => {
            component(tally, "lints of the kernel half", "clippy", "clippy", command.args(warnings));
        }
        Err(error) => tally.fail("lints of the kernel half", &format!("{error:#}")),
    }
    heading("dependencies");
    dependencies(tally);
}

/// A stage that calls a part of the Rust toolchain that may not be installed.
fn component(tally: &mut Tally, name: &str, component: &str, subcommand: &str, command: &mut Command) {
    if process::output(process::cargo().args([subcommand, "--version"])).is_err() {
        let reason = format!("this toolchain has no {component}; with rustup: rustup component add {component}");
        return tally.skip(name, &reason);
    }
    stage(tally, name, process::show(command));
}

fn stage(tally: &mut Tally, name: &str, result: Result<()>) {
    match result {
        Ok(()) => tally.pass(name),
        Err(error) => tally.fail(name, &format!("{error:#}")),
    }
}

/// clippy for the BPF target, with `core` from the library's sources, as guard's build script builds it.
fn kernel_half() -> Result<Command> {
    let library = setup::rust_library()?.context("Rust's library sources are missing: run `cargo xtask setup`")?;
    let mut command = process::cargo();
    command
        .args(["clippy", "--package", "guard-ebpf", "--bin", "guard-ebpf", "--target", "bpfel-unknown-none"])
        .args(["-Z", "build-std=core", "--target-dir"])
        .arg(tree::built().join("bpf-lints"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("__CARGO_TESTS_ONLY_SRC_ROOT", library)
        .env("CARGO_ENCODED_RUSTFLAGS", format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH));
    Ok(command)
}

/// cargo-deny: licences, bans and sources from what is on disk; advisories where their database can be had.
fn dependencies(tally: &mut Tally) {
    let deny = |words: &[&str]| -> Result<Command> {
        let mut command = Command::new(setup::cargo_deny()?);
        command.current_dir(tree::root()).args(words);
        Ok(command)
    };
    let fixed = deny(&["check", "licenses", "bans", "sources"]);
    stage(tally, "licences, bans and sources", fixed.and_then(|mut command| process::show(&mut command)));
    let name = "advisories";
    match deny(&["fetch", "db"]).and_then(|mut command| process::output(&mut command)) {
        Ok(_) => {
            let check = deny(&["check", "--disable-fetch", "advisories"]);
            stage(tally, name, check.and_then(|mut command| process::show(&mut command)));
        }
        Err(_) => tally.skip(name, "the advisory database cannot be fetched from here"),
    }
}
