//! The tests that need a kernel of their own, in a guest.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::heading;
use super::libtest::Reader;
use super::tally::Tally;
use crate::setup::Series;
use crate::vm::{Ended, Guest};
use crate::{process, tree};

/// The kernel they run on.
pub const KERNEL: Series = Series::V6_12;

/// For one program; a test that hangs must not hang the caller.
const TIMEOUT: Duration = Duration::from_mins(20);

/// The test programs, by package and name. `test = false` keeps them from running here.
const PROGRAMS: [(&str, &str); 2] = [("conntrack-guard", "guest"), ("conntrack-guard-bench", "namespaces")];

/// Builds the test programs here and runs them there, each in a guest of its own: what one leaves behind is not the
/// next one's matter.
pub fn run(tally: &mut Tally) {
    for (package, name) in PROGRAMS {
        let what = format!("{name} tests of {package} on {}", KERNEL.name());
        heading(&what);
        let mut reader = Reader::new(io::stdout());
        let ended = build(package, name).and_then(|program| boot(program, &mut reader));
        let summary = reader.finish();
        let (ran, failed) = (summary.ran(), summary.failed());
        summary.add_to(tally, &what);
        match ended {
            Ok(Ended::Exit(0)) if ran == 0 => tally.fail(&what, "no test ran"),
            Ok(Ended::Exit(0)) => {}
            // libtest's exit code when a test failed, which is counted already.
            Ok(Ended::Exit(101)) if failed > 0 => {}
            Ok(Ended::Exit(code)) => tally.fail(&what, &format!("the test program ended with {code}")),
            Ok(Ended::TimedOut) => tally.fail(&what, &format!("killed after {} s", TIMEOUT.as_secs())),
            Err(error) => tally.fail(&what, &format!("{error:#}")),
        }
    }
}

/// What selects the test programs that plain `--all-targets` passes over, for cargo.
pub fn targets() -> impl Iterator<Item = &'static str> {
    PROGRAMS.into_iter().flat_map(|(_, name)| ["--test", name])
}

fn build(package: &str, name: &str) -> Result<PathBuf> {
    let mut cargo = process::cargo();
    cargo.args(["test", "--package", package, "--test", name, "--no-run"]);
    cargo.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit()).stdin(Stdio::null());
    let output = cargo.output().context("cannot start cargo")?;
    ensure!(output.status.success(), "the test program does not build");
    test_program(&String::from_utf8_lossy(&output.stdout), name).context("cargo named no test program")
}

/// The test program among cargo's messages, one JSON object a line.
fn test_program(messages: &str, name: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs = messages.filter(|message| message["target"]["name"] == name);
    programs.find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

fn boot(program: PathBuf, reader: &mut (dyn Write + Send)) -> Result<Ended> {
    let guest = Guest {
        kernel: KERNEL,
        cpus: 2,
        mem_mib: 2048,
        count_instructions: false,
        timeout: TIMEOUT,
        out: tree::kept().join("vm/test"),
        // One at a time: the conntrack table and its settings are one for the whole kernel.
        command: vec![program.into(), "--test-threads=1".into()],
    };
    guest.run(reader, &mut io::stderr())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_program_is_found_among_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/t/other"}
not json
{"reason":"compiler-artifact","target":{"name":"guest"},"executable":"/t/deps/guest-1"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(test_program(messages, "guest"), Some(PathBuf::from("/t/deps/guest-1")));
        assert_eq!(test_program(messages, "namespaces"), None);
    }
}
