//! The binary that ships: does it start and stay as lean as is promised?

use anyhow::Result;

use super::heading;
use super::tally::Tally;
use crate::{bench, vm};

/// The figures are the bench's, and so are the limits.
pub fn run(tally: &mut Tally) {
    let name = "the static binary starts within 1 s of guest time, and 8 MiB are resident then";
    heading("start");
    match measure() {
        Ok(0) => tally.pass(name),
        Ok(code) => tally.fail(name, &format!("the measurement ended with {code}: see above")),
        Err(error) => tally.fail(name, &format!("{error:#}")),
    }
}

fn measure() -> Result<u8> {
    let rounds = 3;
    let mut command = bench::start()?;
    command.extend(["--rounds".into(), rounds.to_string().into()]);
    vm::run(&vm::Guest { command, ..bench::guest(rounds) })
}
