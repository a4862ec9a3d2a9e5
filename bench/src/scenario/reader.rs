//! Reads values out of TOML by the table of keys, and notes what is wrong on the way.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::errors::{Errors, Problem, position};
use super::keys::{KEYS, Key, Value, find};
use crate::load::Point;

/// Likeness (Jaro-Winkler, 0 to 1) from which on a key is offered in place of an unknown one.
const NEAR: f64 = 0.85;

/// The file being read, and what was wrong so far.
pub(super) struct Reader<'t> {
    file: &'t str,
    text: &'t str,
    problems: Vec<Problem>,
}

/// A table of the file: the keys in it that were not read yet.
pub(super) struct Section<'t> {
    /// Its name in the table of keys: "", `load`, `load.rate`.
    path: &'static str,
    /// Its name for people: "", `load[2]`, `load[2].rate`.
    shown: String,
    /// Where it stands.
    at: usize,
    values: BTreeMap<String, (Range<usize>, Spanned<DeValue<'t>>)>,
}

impl<'t> Section<'t> {
    pub fn new(path: &'static str, shown: String, at: usize, table: DeTable<'t>) -> Self {
        let values = table.into_iter().map(|(key, value)| (key.get_ref().to_string(), (key.span(), value))).collect();
        Self { path, shown, at, values }
    }

    /// Whether this key is there and not read yet.
    pub fn has(&self, leaf: &str) -> bool {
        self.values.contains_key(leaf)
    }

    /// Takes a value as it is.
    pub fn take(&mut self, leaf: &str) -> Option<Spanned<DeValue<'t>>> {
        self.values.remove(leaf).map(|(_, value)| value)
    }

    /// The key's full name for people.
    pub fn name(&self, leaf: &str) -> String {
        join(&self.shown, leaf)
    }

    /// Its name for people.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Where it stands.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Where the value of a key stands that is not read yet; the section's own place where it is not there.
    pub fn place(&self, leaf: &str) -> usize {
        self.values.get(leaf).map_or(self.at, |(_, value)| value.span().start)
    }

    fn key(&self, leaf: &str) -> Option<&'static Key> {
        find(&join(self.path, leaf))
    }
}

fn join(path: &str, leaf: &str) -> String {
    if path.is_empty() { leaf.to_owned() } else { format!("{path}.{leaf}") }
}

impl<'t> Reader<'t> {
    pub fn new(file: &'t str, text: &'t str) -> Self {
        Self { file, text, problems: Vec::new() }
    }

    /// Notes a problem; `key` is empty for a syntax error.
    pub fn refuse(&mut self, key: String, offset: usize, message: String) {
        let position = Some(position(self.text, offset));
        self.problems.push(Problem { file: self.file.to_owned(), position, key, message });
    }

    /// `value` if nothing was refused.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Errors> {
        match value {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => Err(Errors::new(self.problems)),
        }
    }

    /// The value of a key, or its default. `None` where there is neither; one that must be there is then refused.
    fn read<T>(
        &mut self,
        section: &mut Section<'t>,
        leaf: &str,
        read: impl Fn(&DeValue<'_>, &Value) -> Option<T>,
    ) -> Option<T> {
        let key = section.key(leaf)?;
        if let Some(value) = section.take(leaf) {
            let taken = read(value.get_ref(), &key.value);
            if taken.is_none() {
                let message = format!("{}; found {}", key.value.wanted(), found(value.get_ref()));
                self.refuse(section.name(leaf), value.span().start, message);
            }
            return taken;
        }
        if key.default.is_empty() {
            if key.open.is_empty() {
                self.refuse(section.name(leaf), section.at(), format!("is missing; {}", key.value.wanted()));
            }
            return None;
        }
        DeValue::parse(key.default).ok().and_then(|value| read(value.get_ref(), &key.value))
    }

    /// A table at the top; one that is not there is an empty one, all of whose keys have their defaults. `None` where it is
    /// none, which is refused.
    pub fn table(&mut self, top: &mut Section<'t>, name: &'static str) -> Option<Section<'t>> {
        let at = top.place(name);
        let table = match top.take(name).map(Spanned::into_inner) {
            Some(DeValue::Table(table)) => table,
            None => DeTable::default(),
            Some(_) => {
                self.refuse(name.to_owned(), at, format!("give a table: [{name}] with its keys below it"));
                return None;
            }
        };
        Some(Section::new(name, name.to_owned(), at, table))
    }

    pub fn text(&mut self, section: &mut Section<'t>, leaf: &str) -> Option<String> {
        self.read(section, leaf, |value, wanted| match (value, wanted) {
            (DeValue::String(text), Value::Text(longest)) if text.chars().count() <= *longest => Some(text.to_string()),
            _ => None,
        })
    }

    pub fn word(&mut self, section: &mut Section<'t>, leaf: &str) -> Option<&'static str> {
        self.read(section, leaf, |value, wanted| {
            let Value::Word(words) = wanted else { return None };
            words.iter().copied().find(|word| value.as_str() == Some(word))
        })
    }

    pub fn switch(&mut self, section: &mut Section<'t>, leaf: &str) -> Option<bool> {
        self.read(section, leaf, |value, wanted| value.as_bool().filter(|_| matches!(wanted, Value::Switch)))
    }

    pub fn integer(&mut self, section: &mut Section<'t>, leaf: &str) -> Option<u64> {
        self.read(section, leaf, |value, wanted| match wanted {
            Value::Integer(range) => integer(value).filter(|number| range.contains(number)),
            _ => None,
        })
    }

    pub fn number(&mut self, section: &mut Section<'t>, leaf: &str) -> Option<f64> {
        self.read(section, leaf, |value, wanted| match wanted {
            Value::Number(range) => number(value).filter(|number| range.contains(number)),
            _ => None,
        })
    }

    pub fn time(&mut self, section: &mut Section<'t>, leaf: &str) -> Option<Duration> {
        self.read(section, leaf, |value, wanted| match wanted {
            Value::Time(range) => time(value).filter(|time| range.contains(time)),
            _ => None,
        })
    }

    pub fn points(&mut self, section: &mut Section<'t>, leaf: &str) -> Option<Vec<Point>> {
        self.read(section, leaf, |value, wanted| {
            let (DeValue::Array(pairs), Value::Points(range)) = (value, wanted) else { return None };
            let pairs = pairs.iter().map(|pair| match pair.get_ref() {
                DeValue::Array(pair) if pair.len() == 2 => {
                    let (at, rate) = (time(pair[0].get_ref())?.as_secs_f64(), number(pair[1].get_ref())?);
                    (0.0..=super::keys::HIGHEST_RATE).contains(&rate).then_some(Point { at, rate })
                }
                _ => None,
            });
            pairs.collect::<Option<Vec<_>>>().filter(|points| range.contains(&points.len()))
        })
    }

    /// Refuses what nobody read: keys that are none, and those of other kinds of load.
    pub fn end(&mut self, section: &Section<'t>, kind: &str) {
        for (leaf, (span, _)) in &section.values {
            let message = match section.key(leaf) {
                Some(key) if !key.kinds.is_empty() && !key.kinds.contains(&kind) => {
                    let kinds = key.kinds.iter().map(|kind| format!("\"{kind}\"")).collect::<Vec<_>>().join(", ");
                    let what = if section.path == "topology" { "topologies" } else { "loads" };
                    format!("is for {what} of kind {kinds}, and this one is \"{kind}\"; remove it")
                }
                Some(_) => "does not go together with the other keys here; remove it".to_owned(),
                None => unknown(section.path, leaf),
            };
            self.refuse(section.name(leaf), span.start, message);
        }
    }
}

/// The message for a key that the section does not have.
fn unknown(section: &str, leaf: &str) -> String {
    let known: Vec<&str> = KEYS
        .iter()
        .filter_map(
            |key| if section.is_empty() { Some(key.name) } else { key.name.strip_prefix(section)?.strip_prefix('.') },
        )
        .filter_map(|rest| rest.split('.').next())
        .fold(Vec::new(), |mut names, name| {
            if !names.contains(&name) {
                names.push(name);
            }
            names
        });
    let plain = leaf.replace('_', "-").to_lowercase();
    let likeness = |candidate: &str| strsim::jaro_winkler(&plain, candidate);
    match known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|near| likeness(near) >= NEAR) {
        Some(nearest) => format!("unknown key; did you mean `{nearest}`?"),
        None => format!("unknown key; known here: {}. Remove it", known.join(", ")),
    }
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// A number of whichever type.
pub(super) fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(float) => float.as_str().parse().ok(),
        other => integer(other).map(|integer| integer as f64),
    }
}

fn time(value: &DeValue<'_>) -> Option<Duration> {
    humantime::parse_duration(value.as_str()?).ok()
}

/// The value as the user wrote it, or its type where that would be long; one line whatever it holds.
pub(super) fn found(value: &DeValue<'_>) -> String {
    const LONGEST: usize = 40;
    match value {
        DeValue::String(text) if text.chars().count() <= LONGEST => format!("{text:?}"),
        DeValue::String(_) => "a long text".to_owned(),
        DeValue::Integer(integer) if integer.as_str().len() <= LONGEST => integer.to_string(),
        DeValue::Float(float) if float.as_str().len() <= LONGEST => float.to_string(),
        DeValue::Integer(_) | DeValue::Float(_) => "a long number".to_owned(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
