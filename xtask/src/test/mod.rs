//! `cargo xtask test`: every check there is, one after the other, and one sum of all. With `--all` the tests of the
//! kernel half run whole on every kernel.

use std::io;

use anyhow::Result;

use crate::deploy::{self, Verdict};
use crate::{process, setup};

mod counted;
mod guest;
mod histories;
mod kernels;
mod libtest;
mod lints;
mod matrix;
mod tally;

pub use histories::run as histories;
pub use kernels::Scope;
use tally::Tally;

/// Exit code 0 if nothing failed, else 1.
pub fn run(scope: Scope) -> Result<u8> {
    let mut pieces = setup::for_build();
    pieces.extend(setup::for_guests(setup::Series::all()));
    pieces.extend(setup::for_guest_programs());
    pieces.extend(setup::for_balancers());
    pieces.extend(setup::for_image());
    pieces.extend(setup::for_deploy());
    pieces.extend(setup::for_deny());
    setup::ensure(&pieces, setup::Say::All)?;

    let mut tally = Tally::default();
    lints::run(&mut tally);
    host_tests(&mut tally);
    deployment(&mut tally);
    counted::run(&mut tally);
    let matrix = guest::run(&mut tally, scope);
    if scope == Scope::All {
        heading("kernels, back ends, tests");
        print!("{matrix}");
    }
    println!("\n{tally}");
    Ok(u8::from(tally.failed() > 0))
}

/// Unit, property and documentation tests of all crates, on this machine.
fn host_tests(tally: &mut Tally) {
    heading("host tests");
    let mut cargo = process::cargo();
    // One crate's failure must not hide the next crate's.
    cargo.args(["test", "--workspace", "--no-fail-fast"]);
    match libtest::follow(&mut cargo, io::stdout()) {
        Ok((summary, success)) => {
            if !success && summary.failed() == 0 {
                tally.fail("host tests", "cargo ended with an error although no test failed: see above");
            }
            summary.add_to(tally, "host tests");
        }
        Err(error) => tally.fail("host tests", &format!("{error:#}")),
    }
}

/// The checks of `deploy/`.
fn deployment(tally: &mut Tally) {
    heading("deploy/");
    match deploy::check() {
        Ok(outcomes) => {
            for outcome in outcomes {
                match outcome.verdict {
                    Verdict::Passed => tally.pass(&outcome.name),
                    Verdict::Failed(why) => tally.fail(&outcome.name, &why),
                    Verdict::Skipped(why) => tally.skip(&outcome.name, &why),
                }
            }
        }
        Err(error) => tally.fail("deploy/", &format!("{error:#}")),
    }
}

fn heading(text: &str) {
    println!("\n== {text}");
}
