//! Everything that is wrong with a scenario file, at once.

use std::fmt;

use toml::de::{DeTable, DeValue};

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

    /// A problem with the value of one key, which the file may have, for what is to be done with it. `text`: of the file, where
    /// it can be had.
    pub(super) fn of_key(file: &str, text: Option<&str>, key: &str, message: String) -> Self {
        let position = text.and_then(|text| Some(position(text, place(text, key)?)));
        Self(vec![Problem { file: file.to_owned(), position, key: key.to_owned(), message }])
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

/// Where the value of a key stands that is in no list of tables.
fn place(text: &str, key: &str) -> Option<usize> {
    let mut table = DeTable::parse(text).ok()?.into_inner();
    let mut at = None;
    for name in key.split('.') {
        let value = table.remove(name)?;
        at = Some(value.span().start);
        table = match value.into_inner() {
            DeValue::Table(inner) => inner,
            _ => DeTable::new(),
        };
    }
    at
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
    fn a_key_is_found_however_it_is_written() {
        let told =
            |text: Option<&str>| Errors::of_key("a.toml", text, "table.entries", "too many".to_owned()).to_string();
        for (text, at) in [
            ("# first\n[table]\nentries = 5\n", "3:11:"),
            ("seed = 1\ntable.entries = 5\n", "2:17:"),
            ("table = { entries = 5 }\n", "1:21:"),
        ] {
            assert_eq!(told(Some(text)), format!("a.toml:{at} table.entries: too many"));
        }
        // What was a pipe cannot be read twice.
        for text in [None, Some(""), Some("table = 5")] {
            assert_eq!(told(text), "a.toml: table.entries: too many");
        }
    }

    #[test]
    fn a_position_counts_lines_and_characters_from_one() {
        let text = "a = 1\n# größe\nb = 2\n";
        assert_eq!(position(text, 0), (1, 1));
        assert_eq!(position(text, text.find("e\nb").unwrap()), (2, 7));
        assert_eq!(position(text, 10_000), (4, 1));
    }
}
