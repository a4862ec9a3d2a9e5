//! What Rust's test programs print, read line by line while it passes through.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::tally::Tally;
use crate::process;

/// How one test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should.
    Passed,
    /// With a panic.
    Failed,
    /// It was not run, for this reason.
    Ignored(String),
}

/// The sum over all test programs seen.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    passed: usize,
    failed: usize,
    /// Each test of the programs that came to their end.
    verdicts: Vec<(String, Verdict)>,
    /// Tests that the present program has begun.
    begun: Vec<(String, Option<Verdict>)>,
    /// The present program's list of failed tests, as far as it has been read.
    listed: Vec<String>,
}

impl Summary {
    /// Takes in one line. The numbers, and which tests failed, come from the end of each program's output: a test's
    /// own words may stand between its name and its result.
    pub fn read(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
            let listed = std::mem::take(&mut self.listed);
            for (name, said) in self.begun.drain(..) {
                let verdict = match said {
                    Some(verdict) => verdict,
                    None if listed.contains(&name) => Verdict::Failed,
                    None => Verdict::Passed,
                };
                self.verdicts.push((name, verdict));
            }
        } else if let Some((name, result)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            let name = name.trim_end_matches(" - should panic").to_owned();
            let verdict = match result.strip_prefix("ignored") {
                Some(reason) => {
                    let reason = reason.trim_start_matches([',', ' ']);
                    let reason = if reason.is_empty() { "ignored without a reason" } else { reason };
                    Some(Verdict::Ignored(reason.to_owned()))
                }
                None => result.ends_with("FAILED").then_some(Verdict::Failed),
            };
            self.begun.push((name, verdict));
        } else if line.starts_with("running ") && line.trim_end_matches('s').ends_with(" test") {
            // What an earlier program began and did not finish has no verdict.
            self.begun.clear();
        } else if line == "failures:" {
            // Once before what the failed tests said, and once before their names: the last one counts.
            self.listed.clear();
        } else if let Some(name) = line.strip_prefix("    ") {
            self.listed.push(name.to_owned());
        }
    }

    /// How many tests ran to a result.
    pub fn ran(&self) -> usize {
        self.passed + self.failed
    }

    /// How many of them failed.
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// How this test ended; `None` where its program did not come to its end, or has no such test.
    pub fn verdict(&self, name: &str) -> Option<&Verdict> {
        self.verdicts.iter().find(|(other, _)| other == name).map(|(_, verdict)| verdict)
    }

    /// Adds to the sum of all checks; `what` stands for failed tests whose name was lost among their own words.
    pub fn add_to(self, tally: &mut Tally, what: &str) {
        let (mut failures, mut ignored) = (Vec::new(), Vec::new());
        for (name, verdict) in self.verdicts {
            match verdict {
                Verdict::Passed => {}
                Verdict::Failed => failures.push(name),
                Verdict::Ignored(reason) => ignored.push((name, reason)),
            }
        }
        failures.resize(self.failed, what.to_owned());
        tally.add(self.passed, failures, ignored);
    }
}

/// The number before a word, as in `ok. 12 passed; 0 failed;`.
fn count(counts: &str, word: &str) -> usize {
    let words: Vec<&str> = counts.split([' ', ';']).collect();
    let at = words.iter().position(|candidate| *candidate == word);
    at.and_then(|at| words.get(at.checked_sub(1)?)?.parse().ok()).unwrap_or(0)
}

/// Passes what is written to it on and reads the results in it.
#[derive(Debug)]
pub struct Reader<W> {
    to: W,
    line: Vec<u8>,
    summary: Summary,
}

impl<W> Reader<W> {
    /// Passes on to `to`.
    pub fn new(to: W) -> Self {
        Self { to, line: Vec::new(), summary: Summary::default() }
    }

    /// What was read; an unfinished last line counts.
    pub fn finish(mut self) -> Summary {
        self.summary.read(&String::from_utf8_lossy(&self.line));
        self.summary
    }
}

impl<W: Write> Write for Reader<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write_all(bytes)?;
        self.line.extend_from_slice(bytes);
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            self.summary.read(String::from_utf8_lossy(&line).trim_end());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Runs a command that runs test programs, its output passed on; the answer also says whether it succeeded.
pub fn follow(command: &mut Command, to: impl Write) -> Result<(Summary, bool)> {
    let cannot = |command: &Command| format!("cannot run {}", process::line(command));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().with_context(|| cannot(command))?;
    let mut reader = Reader::new(to);
    if let Some(mut stdout) = child.stdout.take() {
        io::copy(&mut stdout, &mut reader).with_context(|| cannot(command))?;
    }
    let status = child.wait().with_context(|| cannot(command))?;
    Ok((reader.finish(), status.success()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
running 6 tests
test bounds::floor_holds ... ok
test bounds::panics - should panic ... ok
test model::rate ... FAILED
test noisy::one ... some words of its own
FAILED
test kernel::attach ... ignored, needs a guest
test slow ... ignored

failures:

---- model::rate stdout ----
test of words that are no result
    noisy words
failures:
    model::rate
    noisy::one

test result: FAILED. 2 passed; 2 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s

   Doc-tests guard
running 1 test
test guard/src/lib.rs - plan (line 3) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.2s
";

    #[test]
    fn results_are_summed_over_programs_however_the_output_is_cut() {
        for size in [1, 7, OUTPUT.len()] {
            let mut reader = Reader::new(io::sink());
            for chunk in OUTPUT.as_bytes().chunks(size) {
                reader.write_all(chunk).unwrap();
            }
            let summary = reader.finish();
            assert_eq!(summary.passed, 3, "{summary:?}");
            assert_eq!((summary.ran(), summary.failed()), (5, 2));
            assert_eq!(summary.verdict("bounds::panics"), Some(&Verdict::Passed));
            assert_eq!(summary.verdict("model::rate"), Some(&Verdict::Failed));
            assert_eq!(summary.verdict("noisy::one"), Some(&Verdict::Failed), "its result stands on a line of its own");
            assert_eq!(summary.verdict("kernel::attach"), Some(&Verdict::Ignored("needs a guest".to_owned())));
            assert_eq!(summary.verdict("slow"), Some(&Verdict::Ignored("ignored without a reason".to_owned())));
            assert_eq!(summary.verdict("words"), None);
        }
    }

    #[test]
    fn a_program_that_dies_has_no_verdicts() {
        let mut summary = Summary::default();
        for line in ["running 2 tests", "test a ... ok", "test b ... "] {
            summary.read(line);
        }
        for line in ["running 1 test", "test c ... ok", "test result: ok. 1 passed; 0 failed"] {
            summary.read(line);
        }
        assert_eq!(summary.verdict("c"), Some(&Verdict::Passed));
        assert_eq!((summary.verdict("a"), summary.verdict("b")), (None, None));
    }

    #[test]
    fn a_failed_test_without_a_name_still_counts() {
        let mut tally = Tally::default();
        let verdicts = vec![("a".to_owned(), Verdict::Failed)];
        let summary = Summary { passed: 2, failed: 2, verdicts, ..Summary::default() };
        summary.add_to(&mut tally, "host tests");
        assert_eq!(tally.to_string(), "FAILED: a\nFAILED: host tests\n2 passed, 2 failed");
    }

    #[test]
    fn the_exit_of_a_command_is_told() {
        let (summary, success) =
            follow(Command::new("sh").args(["-c", "echo 'test result: ok. 1 passed; 0 failed'; exit 101"]), io::sink())
                .unwrap();
        assert_eq!((summary.passed, success), (1, false));
    }
}
