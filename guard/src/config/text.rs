//! Policies as text: a file with every key, and what differs between two.

use std::fmt::Write as _;

use super::keys::keys;
use super::policy::Policy;

/// Columns of a comment.
const WIDTH: usize = 100;

/// A key that two policies answer differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// With its tables.
    pub key: &'static str,
    /// Its old value as TOML, or what holds without one.
    pub old: String,
    /// Its new value.
    pub new: String,
}

/// What is not the same, in the order of a file.
pub fn differences(old: &Policy, new: &Policy) -> Vec<Difference> {
    let differing = keys().iter().filter_map(|key| {
        let value = |policy| key.value(policy).unwrap_or_else(|| key.open.to_owned());
        let (old, new) = (value(old), value(new));
        (old != new).then_some(Difference { key: &key.name, old, new })
    });
    differing.collect()
}

/// A policy file with every key at its value in `policy`, each with what it means. A key that the policy leaves open is
/// there as a comment.
pub fn example(policy: &Policy) -> String {
    let mut text = String::new();
    let mut section = "";
    for key in keys() {
        let (head, leaf) = key.name.split_once('.').unwrap_or(("", &key.name));
        if head != section {
            // Writing to a String cannot fail; this and the other results have nothing to tell.
            let _ = writeln!(text, "\n[{head}]");
            section = head;
        }
        let open = if key.open.is_empty() { String::new() } else { format!(" Not set: {}.", key.open) };
        text.push_str(&comment(&format!("{} Range: {}.{open}", key.meaning, key.range())));
        let _ = match key.value(policy) {
            Some(value) => writeln!(text, "{leaf} = {value}"),
            None => writeln!(text, "# {leaf} = {}", key.example()),
        };
    }
    text
}

/// Lines of at most [`WIDTH`] columns, each a comment.
fn comment(words: &str) -> String {
    let mut text = String::new();
    let mut column = WIDTH;
    for word in words.split_whitespace() {
        let length = word.chars().count() + 1;
        if column + length > WIDTH {
            text.push_str(if text.is_empty() { "#" } else { "\n#" });
            column = 1;
        }
        text.push(' ');
        text.push_str(word);
        column += length;
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::super::policy::{MemoryLimit, Mode};
    use super::*;
    use crate::observe::Timeout;

    #[test]
    fn what_differs_is_told_with_both_values() {
        let old = Policy::default();
        let mut new = Policy { mode: Mode::Off, ..Policy::default() };
        new.table.memory_limit = MemoryLimit::Bytes(1 << 30);
        new.table.max.ceiling = Some(1_000_000);
        new.timeouts.set_floor(Timeout::Udp, 20);
        let told: Vec<_> =
            differences(&old, &new).into_iter().map(|one| format!("{} {} -> {}", one.key, one.old, one.new)).collect();
        assert_eq!(
            told,
            [
                "mode \"enforce\" -> \"off\"",
                "table.max.ceiling 4194304, or the floor or the value found at start if larger -> 1000000",
                "table.memory-limit \"10%\" -> \"1024MiB\"",
                "timeouts.udp.floor \"15s\" -> \"20s\"",
            ]
        );
        assert_eq!(differences(&new, &new), []);
    }

    #[test]
    fn comments_are_wrapped_between_words() {
        let text = comment(&"word ".repeat(60));
        assert_eq!(text.matches("word").count(), 60);
        assert!(text.lines().all(|line| line.starts_with("# word") && line.len() <= WIDTH), "{text}");
    }
}
