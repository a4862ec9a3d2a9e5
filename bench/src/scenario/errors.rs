//! Everything that is wrong with a scenario file, at once.

use std::fmt;

/// All that is wrong with a scenario: one or more problems, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(Vec<Problem>);

impl Errors {
    /// Sorts the problems by their place in the file.
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.position);
        Self(problems)
    }

    /// A problem with the file as a whole.
    pub(super) fn whole_file(file: &str, message: String) -> Self {
        Self(vec![Problem { file: file.to_owned(), position: None, key: String::new(), message }])
    }

    /// Each problem; never empty.
    pub fn all(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            write!(out, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// One thing that is wrong, shown as `FILE:LINE:COLUMN: key: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file's name as the user gave it.
    pub file: String,
    /// Line and column, both counted from 1, columns in characters; `None` when the file as a whole is the problem.
    pub position: Option<(usize, usize)>,
    /// The key with the tables it stands in, such as `load[2].rate.peak`; empty for a syntax error.
    pub key: String,
    /// What is wrong and the way out, on one line.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:", self.file)?;
        if let Some((line, column)) = self.position {
            write!(out, "{line}:{column}:")?;
        }
        if !self.key.is_empty() {
            write!(out, " {}:", self.key)?;
        }
        write!(out, " {}", self.message)
    }
}

/// Line and column of the byte at `offset`; past the end means the end.
pub(super) fn position(text: &str, offset: usize) -> (usize, usize) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_lines_and_characters_from_one() {
        let text = "a = 1\n# größe\nb = 2\n";
        assert_eq!(position(text, 0), (1, 1));
        assert_eq!(position(text, text.find("e\nb").unwrap()), (2, 7));
        assert_eq!(position(text, 10_000), (4, 1));
    }
}
