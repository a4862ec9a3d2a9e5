//! What Rust's test programs print, read line by line while it passes through.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::tally::Tally;
use crate::process;

/// The sum over all test programs seen.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    passed: usize,
    failed: usize,
    /// Failed tests by name.
    failures: Vec<String>,
    /// Ignored tests with their reason.
    ignored: Vec<(String, String)>,
}

impl Summary {
    /// Takes in one line. The numbers come from each program's last line: a test's own words may stand between its
    /// name and its result.
    pub fn read(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
        } else if let Some((name, result)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            let name = name.trim_end_matches(" - should panic").to_owned();
            if result.ends_with("FAILED") {
                self.failures.push(name);
            } else if let Some(reason) = result.strip_prefix("ignored") {
                let reason = reason.trim_start_matches([',', ' ']);
                let reason = if reason.is_empty() { "ignored without a reason" } else { reason };
                self.ignored.push((name, reason.to_owned()));
            }
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

    /// Adds to the sum of all checks; `what` stands for failed tests whose name was lost among their own words.
    pub fn add_to(mut self, tally: &mut Tally, what: &str) {
        self.failures.truncate(self.failed);
        self.failures.resize(self.failed, what.to_owned());
        tally.add(self.passed, self.failures, self.ignored);
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
running 4 tests
test bounds::floor_holds ... ok
test bounds::panics - should panic ... ok
test model::rate ... FAILED
test kernel::attach ... ignored, needs a guest
test slow ... ignored

failures:

---- model::rate stdout ----
test of words that are no result
failures:
    model::rate

test noisy::one ... some words of its own
FAILED
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
            assert_eq!(summary.failures, ["model::rate"]);
            assert_eq!(
                summary.ignored,
                [
                    ("kernel::attach".to_owned(), "needs a guest".to_owned()),
                    ("slow".to_owned(), "ignored without a reason".to_owned())
                ]
            );
            assert_eq!((summary.ran(), summary.failed()), (5, 2));
        }
    }

    #[test]
    fn a_failed_test_without_a_name_still_counts() {
        let mut tally = Tally::default();
        let summary = Summary { passed: 2, failed: 2, failures: vec!["a".to_owned()], ignored: Vec::new() };
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
