//! Everything that is wrong with a policy file, at once.

use std::fmt;

/// All that is wrong with a policy: one or more problems, in the order of the file.
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
        Self(vec![Problem { file: file.to_owned(), position: None, key: None, message }])
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
    /// The file's name as the operator gave it.
    pub file: String,
    /// Where in the file; `None` when the file as a whole is the problem.
    pub position: Option<Position>,
    /// The key with the tables it stands in, such as `table.max.floor`; `None` for a syntax error.
    pub key: Option<String>,
    /// What is wrong and the way out, on one line.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:", self.file)?;
        if let Some(Position { line, column }) = self.position {
            write!(out, "{line}:{column}:")?;
        }
        if let Some(key) = &self.key {
            write!(out, " {key}:")?;
        }
        write!(out, " {}", self.message)
    }
}

/// A place in a text file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Counted from 1.
    pub line: usize,
    /// Characters (not bytes) from the line's start, counted from 1.
    pub column: usize,
}

impl Position {
    /// The place of the byte at `offset`; past the end means the end.
    pub(super) fn of(text: &str, offset: usize) -> Self {
        let mut offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_lines_and_characters_from_one() {
        let text = "a = 1\n# größe\nb = 2\n";
        assert_eq!(Position::of(text, 0), Position { line: 1, column: 1 });
        assert_eq!(Position::of(text, 6), Position { line: 2, column: 1 });
        let after_umlauts = text.find("e\nb").unwrap();
        assert_eq!(Position::of(text, after_umlauts), Position { line: 2, column: 7 });
        assert_eq!(Position::of(text, 10_000), Position { line: 4, column: 1 });
        assert_eq!(Position::of("", 3), Position { line: 1, column: 1 });
    }

    #[test]
    fn each_problem_is_one_line() {
        let problem = |line, key: Option<&str>| Problem {
            file: "p.toml".into(),
            position: Some(Position { line, column: 2 }),
            key: key.map(str::to_owned),
            message: "is wrong".into(),
        };
        let errors = Errors::new(vec![problem(7, Some("hash.max-stall")), problem(3, None)]);
        assert_eq!(errors.to_string(), "p.toml:3:2: is wrong\np.toml:7:2: hash.max-stall: is wrong");
        assert_eq!(Errors::whole_file("p.toml", "is gone".into()).to_string(), "p.toml: is gone");
    }
}
