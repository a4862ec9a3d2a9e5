//! The text of a policy file → [`Policy`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::errors::{Errors, Position, Problem};
use super::field::{Field, VERSION, found};
use super::keys::{find, keys};
use super::policy::{Bounds, Policy};
use super::unknown::{children, unknown};

/// No policy is longer; a device or an endless pipe given by mistake must not fill the memory.
const LONGEST_FILE: u64 = 1 << 20;

/// Reads and parses the policy file at `path`. A file that is missing or cannot be read is an error: a host without a file
/// uses [`Policy::default`].
pub fn load(path: &Path) -> Result<Policy, Errors> {
    parse(&path.display().to_string(), &read(path)?)
}

/// The text of the policy file at `path`.
pub fn read(path: &Path) -> Result<String, Errors> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST_FILE + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        let message = format!("cannot be read: {error}; give a file that exists and that this user may read");
        return Err(Errors::whole_file(&name, message));
    }
    if bytes.len() as u64 > LONGEST_FILE {
        let message = "is longer than 1 MiB and so no policy; give the policy's own file";
        return Err(Errors::whole_file(&name, message.to_owned()));
    }
    let valid = match String::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(error) => {
            let end = error.utf8_error().valid_up_to();
            String::from_utf8_lossy(&error.as_bytes()[..end]).into_owned()
        }
    };
    let mut reader = Reader::new(&name, &valid);
    reader.refuse("", valid.len(), "not UTF-8 text; save the file as UTF-8".to_owned());
    reader.finish(String::new())
}

/// Reads a policy from `text`; `name` stands for the file in messages. Keys that are not there keep their defaults.
pub fn parse(name: &str, text: &str) -> Result<Policy, Errors> {
    let mut reader = Reader::new(name, text);
    let (table, syntax_errors) = DeTable::parse_recoverable(text);
    if !syntax_errors.is_empty() {
        // What stands beside a syntax error may be misread: judge no values before the syntax is right.
        for error in syntax_errors {
            let offset = error.span().map_or(0, |span| span.start);
            let message = error.message().lines().collect::<Vec<_>>().join("; ");
            reader.refuse("", offset, format!("not TOML: {message}"));
        }
        return reader.finish(Policy::default());
    }
    let table = table.into_inner();
    if let Some(version) = table.get("version")
        && version.get_ref().as_integer().is_some()
        && Field::Version.accept(version.get_ref(), &mut Policy::default()).is_none()
    {
        // Another version's keys are not this one's: to call them unknown would mislead.
        let message = format!(
            "this program reads version {VERSION}, the file says {}; use the program it was written for, or write the \
             policy anew as version {VERSION}",
            found(version.get_ref())
        );
        reader.refuse("version", version.span().start, message);
        return reader.finish(Policy::default());
    }
    let mut policy = Policy::default();
    reader.table("", table, &mut policy);
    reader.floor_under_ceiling("table.max", policy.table.max);
    reader.floor_under_ceiling("hash.buckets", policy.hash.buckets);
    reader.finish(policy)
}

/// The file being read, and what was wrong so far.
struct Reader<'t> {
    name: &'t str,
    text: &'t str,
    problems: Vec<Problem>,
    /// Where the value of each key stands that was taken.
    places: BTreeMap<&'static str, usize>,
}

impl<'t> Reader<'t> {
    fn new(name: &'t str, text: &'t str) -> Self {
        Self { name, text, problems: Vec::new(), places: BTreeMap::new() }
    }

    /// Notes a problem; `key` is empty for a syntax error.
    fn refuse(&mut self, key: &str, offset: usize, message: String) {
        self.problems.push(Problem {
            file: self.name.to_owned(),
            position: Some(Position::of(self.text, offset)),
            key: (!key.is_empty()).then(|| key.to_owned()),
            message,
        });
    }

    /// `value` if nothing was refused.
    fn finish<T>(self, value: T) -> Result<T, Errors> {
        if self.problems.is_empty() { Ok(value) } else { Err(Errors::new(self.problems)) }
    }

    /// Takes every value of a table and the tables in it; `path` is its name, "" at the top.
    fn table(&mut self, path: &str, table: DeTable<'_>, policy: &mut Policy) {
        for (name, value) in table {
            let leaf = name.get_ref();
            let key = if path.is_empty() { leaf.to_string() } else { format!("{path}.{leaf}") };
            let offset = value.span().start;
            if let Some(known) = find(&key) {
                if known.field.accept(value.get_ref(), policy).is_some() {
                    self.places.insert(&known.name, offset);
                } else {
                    let wanted = known.field.wanted(&known.example());
                    self.refuse(&key, offset, format!("{wanted}; found {}", found(value.get_ref())));
                }
            } else if children(&key).is_empty() {
                self.refuse(&key, name.span().start, unknown(path, leaf));
            } else {
                match value.into_inner() {
                    DeValue::Table(inner) => self.table(&key, inner, policy),
                    other => {
                        let message = format!("give a table, such as {}; found {}", example_table(&key), found(&other));
                        self.refuse(&key, offset, message);
                    }
                }
            }
        }
    }

    fn floor_under_ceiling(&mut self, path: &str, bounds: Bounds) {
        let key = format!("{path}.floor");
        if let (Some(floor), Some(ceiling), Some(&offset)) = (bounds.floor, bounds.ceiling, self.places.get(&*key))
            && floor > ceiling
        {
            let message = format!("{floor} is above the ceiling {ceiling}; lower the floor or raise the ceiling");
            self.refuse(&key, offset, message);
        }
    }
}

/// `[table] with its keys below it`, or `{ floor = 131072, ceiling = 4194304 }` for one in another.
fn example_table(path: &str) -> String {
    if !path.contains('.') {
        return format!("[{path}] with its keys below it");
    }
    let prefix = format!("{path}.");
    let leaves =
        keys().iter().filter_map(|key| Some(format!("{} = {}", key.name.strip_prefix(&prefix)?, key.example())));
    format!("{{ {} }}", leaves.collect::<Vec<_>>().join(", "))
}
