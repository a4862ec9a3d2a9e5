//! The tests that need a kernel of their own, in guests.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, str};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::heading;
use super::kernels::{self, CONTEST, GUARD, Lack, NAMESPACES, Program, Run, Scope};
use super::libtest::{Reader, Summary};
use super::matrix::{Matrix, Outcome, Row};
use super::tally::Tally;
use crate::vm::{Ended, Guest};
use crate::{process, tree};

/// Tells the leak test how many rounds are wanted.
const ROUNDS: &str = "CONNTRACK_GUARD_ROUNDS";

/// Asks the guard what it offers of one back end, then becomes the test program.
const ASK_FIRST: &str = r#"answer=$1 guard=$2 back_end=$3; shift 3
"$guard" support --json --backend "$back_end" >"$answer" || exit
exec "$@""#;

/// Where the answer goes, below the guest's writable folder.
const ANSWER: &str = "support.json";

/// Builds the test programs here and runs them there, each in a guest of its own: what one leaves behind is not the
/// next one's matter. The answer has a line for each test.
pub fn run(tally: &mut Tally, scope: Scope) -> Matrix {
    let mut matrix = Matrix::default();
    let built = [GUARD, NAMESPACES, CONTEST].map(|program| {
        let built = Built::new(program);
        if let Err(error) = &built {
            heading(&format!("{} tests of {}", program.name, program.package));
            tally.fail(&format!("{} tests of {}", program.name, program.package), &format!("{error:#}"));
        }
        built.ok()
    });
    for run in kernels::runs(scope) {
        let built = built.iter().flatten().find(|built| built.program == run.program);
        if let Some(built) = built {
            boot_and_judge(built, &run, tally, &mut matrix);
        }
    }
    if scope == Scope::Subset {
        let all = built.iter().flatten().flat_map(|built| &built.tests);
        for test in all.filter(|test| kernels::LONG.iter().any(|long| test.starts_with(long))) {
            tally.skip(test, "takes minutes; `cargo xtask test --all` has it");
        }
    }
    matrix
}

/// What selects the test programs that plain `--all-targets` passes over, for cargo.
pub fn targets() -> impl Iterator<Item = &'static str> {
    [GUARD, NAMESPACES, CONTEST].into_iter().flat_map(|program| ["--test", program.name])
}

/// A test program, built.
struct Built {
    program: Program,
    file: PathBuf,
    /// The daemon that was built with it, where its package has one.
    guard: Option<PathBuf>,
    /// All its tests.
    tests: Vec<String>,
}

impl Built {
    fn new(program: Program) -> Result<Self> {
        let mut cargo = process::cargo();
        cargo.args(["test", "--package", program.package, "--test", program.name, "--no-run"]);
        cargo.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit()).stdin(Stdio::null());
        let output = cargo.output().context("cannot start cargo")?;
        ensure!(output.status.success(), "the test program does not build");
        let messages = str::from_utf8(&output.stdout).context("cargo's messages are no text")?;
        let file = executable(messages, program.name).context("cargo named no test program")?;
        let guard = executable(messages, "conntrack-guard");
        // Only names are printed: nothing is tested on this machine.
        let names = process::output(Command::new(&file).arg("--list"))?;
        let tests: Vec<String> =
            names.lines().filter_map(|line| Some(line.strip_suffix(": test")?.to_owned())).collect();
        ensure!(!tests.is_empty(), "{} lists no tests", file.display());
        Ok(Self { program, file, guard, tests })
    }
}

/// A program among cargo's messages, one JSON object a line.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs = messages.filter(|message| message["target"]["name"] == name);
    programs.find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

fn boot_and_judge(built: &Built, run: &Run, tally: &mut Tally, matrix: &mut Matrix) {
    let what = run.name();
    heading(&what);
    let (there, lacking) = run.split(&built.tests);
    let lack = if lacking.is_empty() { None } else { kernels::lack(run.kernel) };
    let mut reader = Reader::new(io::stdout());
    let ended = boot(built, run, lack, &mut reader);
    let summary = reader.finish();
    judge_program(&what, run, &ended, &summary, tally);
    let mut row = |test: &str, result| {
        let test = if test.contains("::") { test.to_owned() } else { format!("{}::{test}", run.program.name) };
        matrix.0.push(Row { kernel: run.kernel, test, result });
    };
    for test in there {
        row(test, summary.verdict(test).map_or(Outcome::NoResult, |verdict| Outcome::Ended(verdict.clone())));
    }
    summary.add_to(tally, &what);
    let Some(lack) = lack else { return };
    let name = format!("{} is not there on {}", lack.shown, run.kernel.name());
    match reason(&answer(), lack) {
        Ok(reason) => {
            tally.pass(&format!("{name}: {reason}"));
            for test in lacking {
                row(test, Outcome::NotThere(reason.clone()));
            }
        }
        Err(error) => {
            tally.fail(&name, &format!("{error:#}"));
            for test in lacking {
                row(test, Outcome::NoResult);
            }
        }
    }
}

/// Whether the program as a whole came to its end.
fn judge_program(what: &str, run: &Run, ended: &Result<Ended>, summary: &Summary, tally: &mut Tally) {
    match ended {
        Ok(Ended::Exit(0)) if summary.ran() == 0 => tally.fail(what, "no test ran"),
        Ok(Ended::Exit(0)) => {}
        // libtest's exit code when a test failed, which is counted already.
        Ok(Ended::Exit(101)) if summary.failed() > 0 => {}
        Ok(Ended::Exit(code)) => tally.fail(what, &format!("the test program ended with {code}")),
        Ok(Ended::TimedOut) => tally.fail(what, &format!("killed after {} s", run.timeout().as_secs())),
        Err(error) => tally.fail(what, &format!("{error:#}")),
    }
}

fn boot(built: &Built, run: &Run, lack: Option<&Lack>, reader: &mut (dyn Write + Send)) -> Result<Ended> {
    let mut command: Vec<OsString> = Vec::new();
    if let Some(Lack { back_end, .. }) = lack {
        let guard = built.guard.as_ref().context("cargo named no conntrack-guard")?;
        // An answer of an earlier run must not be taken for this one's.
        match fs::remove_file(answer()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                bail!("cannot remove {}: {error}", answer().display())
            }
            _ => {}
        }
        let inside = Path::new(crate::vm::OUT).join(ANSWER);
        let words = ["sh", "-c", ASK_FIRST, "sh"].map(OsString::from);
        command.extend(words.into_iter().chain([inside.into(), guard.into(), back_end.into()]));
    }
    if let Some(rounds) = run.rounds {
        command.extend(["env".into(), format!("{ROUNDS}={rounds}").into()]);
    }
    // One at a time: the conntrack table and its settings are one for the whole kernel.
    command.extend([built.file.clone().into(), "--test-threads=1".into()]);
    command.extend(run.only.iter().map(OsString::from));
    for skipped in run.skip().chain(lack.iter().flat_map(|lack| lack.tests).copied()) {
        command.extend(["--skip".into(), skipped.into()]);
    }
    let guest = Guest {
        kernel: run.kernel,
        cpus: if run.counts() { 1 } else { 2 },
        mem_mib: 2048,
        count_instructions: run.counts(),
        timeout: run.timeout(),
        out: out(),
        command,
    };
    guest.run(reader, &mut io::stderr())
}

fn out() -> PathBuf {
    tree::kept().join("vm/test")
}

fn answer() -> PathBuf {
    out().join(ANSWER)
}

/// Why the back end is not there, in the guard's own words. An error where it is there after all.
fn reason(answer: &Path, lack: &Lack) -> Result<String> {
    let text = fs::read_to_string(answer).with_context(|| format!("cannot read {}", answer.display()))?;
    let answer: Value = serde_json::from_str(&text).context("`conntrack-guard support --json` is no JSON")?;
    let signals = answer["signals"].as_array().context("`conntrack-guard support --json` names no signals")?;
    if let Some(signal) = signals.iter().find(|signal| signal["back_end"] == lack.shown) {
        bail!("{} has it after all: the tests that are left out here belong in", signal["name"]);
    }
    let why = signals.iter().find_map(|signal| signal["why"].as_str()).context("no signal says why it is off")?;
    let prefix = format!("{}: ", lack.shown);
    Ok(why.strip_prefix(&prefix).unwrap_or(why).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::Series;

    #[test]
    fn programs_are_found_among_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/t/other"}
not json
{"reason":"compiler-artifact","target":{"name":"conntrack-guard"},"executable":"/t/conntrack-guard"}
{"reason":"compiler-artifact","target":{"name":"guest"},"executable":"/t/deps/guest-1"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "guest"), Some(PathBuf::from("/t/deps/guest-1")));
        assert_eq!(executable(messages, "conntrack-guard"), Some(PathBuf::from("/t/conntrack-guard")));
        assert_eq!(executable(messages, "namespaces"), None);
    }

    #[test]
    fn the_reason_is_the_guards_and_a_back_end_that_is_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(ANSWER);
        let lack = kernels::lack(Series::V5_10).unwrap();
        let reason_of = |text: &str| {
            fs::write(&file, text).unwrap();
            reason(&file, lack).map_err(|error| error.to_string())
        };
        let off = r#"{"signals":[{"name":"inserts","back_end":null,"why":"fentry/fexit: no BTF"},
                                 {"name":"entries","back_end":"proc","why":null}]}"#;
        assert_eq!(reason_of(off), Ok("no BTF".to_owned()));
        let there = off.replace("null,\"why\":\"", "\"fentry/fexit\",\"why\":\"");
        assert!(reason_of(&there).unwrap_err().contains("after all"));
        for broken in ["", "{}", r#"{"signals":[]}"#] {
            reason_of(broken).unwrap_err();
        }
    }

    #[test]
    fn asking_first_passes_on_the_tests_own_words_and_exit_code() {
        let folder = tempfile::tempdir().unwrap();
        let answer = folder.path().join(ANSWER);
        let run = |guard: &str| {
            let mut sh = Command::new("sh");
            sh.args(["-c", ASK_FIRST, "sh"]).arg(&answer).args([guard, "tracing", "sh", "-c", "exit $1", "sh", "7"]);
            sh.status().unwrap().code()
        };
        assert_eq!(run("echo"), Some(7));
        assert_eq!(fs::read_to_string(&answer).unwrap(), "support --json --backend tracing\n");
        assert_eq!(run("false"), Some(1), "without an answer there is no test");
    }
}
