//! The sum of all checks.

use std::fmt;

/// What passed, what failed, what was skipped and why.
#[derive(Debug, Default)]
pub struct Tally {
    passed: usize,
    failures: Vec<String>,
    skips: Vec<(String, String)>,
}

impl Tally {
    /// A check of our own that held; said at once.
    pub fn pass(&mut self, name: &str) {
        println!("{name} ... ok");
        self.passed += 1;
    }

    /// A check of our own that did not hold; said at once, and again by name in the sum.
    pub fn fail(&mut self, name: &str, why: &str) {
        println!("{name} ... FAILED\n{why}");
        self.failures.push(name.to_owned());
    }

    /// A check that could not be made here; the reason is part of the sum.
    pub fn skip(&mut self, name: &str, why: &str) {
        println!("{name} ... skipped: {why}");
        self.skips.push((name.to_owned(), why.to_owned()));
    }

    /// Tests that another program has already reported.
    pub fn add(&mut self, passed: usize, failures: Vec<String>, skips: Vec<(String, String)>) {
        self.passed += passed;
        self.failures.extend(failures);
        self.skips.extend(skips);
    }

    /// How many failed.
    pub fn failed(&self) -> usize {
        self.failures.len()
    }
}

/// The reasons, then the sum as the last line.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, why) in &self.skips {
            writeln!(f, "skipped: {name}: {why}")?;
        }
        for name in &self.failures {
            writeln!(f, "FAILED: {name}")?;
        }
        write!(f, "{} passed, {} failed", self.passed, self.failures.len())?;
        if !self.skips.is_empty() {
            write!(f, ", {} skipped", self.skips.len())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_the_last_line_and_reasons_stand_above() {
        let mut tally = Tally::default();
        tally.pass("formatting");
        assert_eq!(tally.to_string(), "1 passed, 0 failed");
        tally.skip("advisories", "no network");
        tally.add(3, vec!["model::rate".to_owned()], Vec::new());
        let text = tally.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines, ["skipped: advisories: no network", "FAILED: model::rate", "4 passed, 1 failed, 1 skipped"]);
        assert_eq!(tally.failed(), 1);
    }
}
