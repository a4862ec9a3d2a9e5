//! One table of a policy file: gives out its values with their types, and refuses what is left.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::errors::{Errors, Position, Problem};
use super::keys;
use super::policy::{Bounds, MemoryLimit};

/// A value and the byte at which it stands.
type Value<'i> = Spanned<DeValue<'i>>;

/// The file being read, and what was wrong so far.
pub(super) struct Reader<'t> {
    name: &'t str,
    text: &'t str,
    problems: Vec<Problem>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(name: &'t str, text: &'t str) -> Self {
        Self { name, text, problems: Vec::new() }
    }

    /// Notes a problem; `key` is empty for a syntax error.
    pub(super) fn refuse(&mut self, key: &str, offset: usize, message: String) {
        self.problems.push(Problem {
            file: self.name.to_owned(),
            position: Some(Position::of(self.text, offset)),
            key: (!key.is_empty()).then(|| key.to_owned()),
            message,
        });
    }

    /// `value` if nothing was refused.
    pub(super) fn finish<T>(self, value: T) -> Result<T, Errors> {
        if self.problems.is_empty() { Ok(value) } else { Err(Errors::new(self.problems)) }
    }
}

/// What is left of one table.
pub(super) struct Section<'i> {
    /// "" at the top.
    path: String,
    entries: Vec<(Spanned<DeString<'i>>, Value<'i>)>,
}

impl<'i> Section<'i> {
    /// The table of the whole file.
    pub(super) fn top(table: DeTable<'i>) -> Self {
        Self { path: String::new(), entries: table.into_iter().collect() }
    }

    /// The key with the tables it stands in.
    fn key(&self, leaf: &str) -> String {
        if self.path.is_empty() { leaf.to_owned() } else { format!("{}.{leaf}", self.path) }
    }

    fn take(&mut self, leaf: &str) -> Option<Value<'i>> {
        let index = self.entries.iter().position(|(key, _)| key.get_ref() == leaf)?;
        Some(self.entries.swap_remove(index).1)
    }

    /// A table in this table; an empty one where there is none.
    pub(super) fn section(&mut self, reader: &mut Reader<'_>, leaf: &str, example: &str) -> Section<'i> {
        let path = self.key(leaf);
        let entries = match self.take(leaf).map(|value| (value.span(), value.into_inner())) {
            None => Vec::new(),
            Some((_, DeValue::Table(table))) => table.into_iter().collect(),
            Some((span, other)) => {
                reader.refuse(&path, span.start, format!("give a table, such as {example}; found {}", found(&other)));
                Vec::new()
            }
        };
        Section { path, entries }
    }

    /// Refuses every key that nobody asked for.
    pub(super) fn close(self, reader: &mut Reader<'_>) {
        for (key, _) in &self.entries {
            let message = keys::unknown(&self.path, key.get_ref());
            reader.refuse(&self.key(key.get_ref()), key.span().start, message);
        }
    }

    /// A key's value as `convert` reads it; `None` where the key is missing or was refused.
    fn read<T>(
        &mut self,
        reader: &mut Reader<'_>,
        leaf: &str,
        convert: impl FnOnce(&DeValue<'i>) -> Result<T, String>,
    ) -> Option<(T, usize)> {
        let value = self.take(leaf)?;
        match convert(value.get_ref()) {
            Ok(read) => Some((read, value.span().start)),
            Err(message) => {
                reader.refuse(&self.key(leaf), value.span().start, message);
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, reader: &mut Reader<'_>, leaf: &str, words: &[(&str, T)]) -> Option<T> {
        let known = words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ");
        let read = self.read(reader, leaf, |value| {
            let chosen = value.as_str().and_then(|text| words.iter().find(|(word, _)| *word == text));
            chosen.map(|(_, meaning)| *meaning).ok_or_else(|| format!("give {known}; found {}", found(value)))
        });
        read.map(|(word, _)| word)
    }

    /// An integer within `range`.
    pub(super) fn integer(
        &mut self,
        reader: &mut Reader<'_>,
        leaf: &str,
        range: &RangeInclusive<u64>,
    ) -> Option<(u64, usize)> {
        self.read(reader, leaf, |value| {
            as_integer(value).and_then(|number| u64::try_from(number).ok()).filter(|n| range.contains(n)).ok_or_else(
                || format!("give an integer from {} to {}; found {}", range.start(), range.end(), found(value)),
            )
        })
    }

    /// A number within `range`.
    pub(super) fn number(
        &mut self,
        reader: &mut Reader<'_>,
        leaf: &str,
        range: &RangeInclusive<f64>,
        example: &str,
    ) -> Option<f64> {
        let read = self.read(reader, leaf, |value| {
            as_number(value).filter(|number| range.contains(number)).ok_or_else(|| {
                format!(
                    "give a number from {} to {}, such as {example}; found {}",
                    range.start(),
                    range.end(),
                    found(value)
                )
            })
        });
        read.map(|(number, _)| number)
    }

    /// A duration within `range`.
    pub(super) fn duration(
        &mut self,
        reader: &mut Reader<'_>,
        leaf: &str,
        range: &RangeInclusive<Duration>,
        example: &str,
    ) -> Option<Duration> {
        let read = self.read(reader, leaf, |value| {
            let duration = value.as_str().and_then(|text| humantime::parse_duration(text).ok());
            duration.filter(|duration| range.contains(duration)).ok_or_else(|| {
                format!(
                    "give a time from {} to {} with its unit, such as \"{example}\"; found {}",
                    humantime::format_duration(*range.start()),
                    humantime::format_duration(*range.end()),
                    found(value)
                )
            })
        });
        read.map(|(duration, _)| duration)
    }

    /// `{ floor = …, ceiling = … }`, both within `range`, the floor no higher than the ceiling.
    pub(super) fn bounds(
        &mut self,
        reader: &mut Reader<'_>,
        leaf: &str,
        range: &RangeInclusive<u64>,
        example: &str,
    ) -> Bounds {
        let mut section = self.section(reader, leaf, example);
        let floor = section.integer(reader, "floor", range);
        let ceiling = section.integer(reader, "ceiling", range);
        if let (Some((low, offset)), Some((high, _))) = (floor, ceiling)
            && low > high
        {
            let message = format!("{low} is above the ceiling {high}; lower the floor or raise the ceiling");
            reader.refuse(&section.key("floor"), offset, message);
        }
        section.close(reader);
        Bounds { floor: floor.map(|(value, _)| value), ceiling: ceiling.map(|(value, _)| value) }
    }

    /// `"10%"`, `"1GiB"` or bytes.
    pub(super) fn memory_limit(
        &mut self,
        reader: &mut Reader<'_>,
        leaf: &str,
        percent: &RangeInclusive<f64>,
        bytes: &RangeInclusive<u64>,
    ) -> Option<MemoryLimit> {
        let read = self.read(reader, leaf, |value| {
            let limit = match value {
                DeValue::String(text) => match text.trim().strip_suffix('%') {
                    Some(share) => share.trim().parse().ok().map(MemoryLimit::Percent),
                    None => text.trim().parse::<bytesize::ByteSize>().ok().map(|size| MemoryLimit::Bytes(size.0)),
                },
                other => as_integer(other).and_then(|number| u64::try_from(number).ok()).map(MemoryLimit::Bytes),
            };
            let legal = limit.filter(|limit| match limit {
                MemoryLimit::Percent(share) => percent.contains(share),
                MemoryLimit::Bytes(size) => bytes.contains(size),
            });
            legal.ok_or_else(|| {
                format!(
                    "give a share of the host's memory from \"{}%\" to \"{}%\", or bytes from \"{}\" to \"{}\"; found {}",
                    percent.start(),
                    percent.end(),
                    bytesize::ByteSize::b(*bytes.start()),
                    bytesize::ByteSize::b(*bytes.end()),
                    found(value)
                )
            })
        });
        read.map(|(limit, _)| limit)
    }
}

fn as_integer(value: &DeValue<'_>) -> Option<i128> {
    let integer = value.as_integer()?;
    i128::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn as_number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(float) => float.as_str().parse().ok(),
        other => as_integer(other).map(|integer| integer as f64),
    }
}

/// The value as the operator wrote it, or its type where that would be long; one line whatever it holds.
fn found(value: &DeValue<'_>) -> String {
    const LONGEST: usize = 40;
    match value {
        DeValue::String(text) if text.chars().count() <= LONGEST => format!("{text:?}"),
        DeValue::String(_) => "a long string".to_owned(),
        DeValue::Integer(integer) if integer.as_str().len() <= LONGEST => integer.to_string(),
        DeValue::Float(float) if float.as_str().len() <= LONGEST => float.to_string(),
        DeValue::Integer(_) | DeValue::Float(_) => "a long number".to_owned(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
