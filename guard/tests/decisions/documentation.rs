//! docs/configuration.md, and the README's example, say what the parser does. `GOLDEN=write` writes the generated part of
//! docs/configuration.md anew.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use conntrack_guard::config::{Key, Policy, example, keys, parse, warnings};

const DOCUMENT: &str = "docs/configuration.md";
const BEGIN: &str =
    "<!-- Generated from guard/src/config/keys.rs by `GOLDEN=write cargo test -p conntrack-guard`. -->\n";
const END: &str = "<!-- End of the generated part. -->\n";

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

/// A table for each table of the file.
fn reference() -> String {
    let mut text = String::new();
    let mut section = None;
    for key in keys() {
        let Key { name, meaning, open, .. } = key;
        let head = name.split_once('.').map(|(head, _)| head);
        if text.is_empty() || head != section {
            let title = head.map_or("At the top".to_owned(), |head| format!("`[{head}]`"));
            writeln!(text, "\n### {title}\n\n| Key | Type | Default | Range | Meaning |\n|---|---|---|---|---|")
                .unwrap();
            section = head;
        }
        let default = key.value(&Policy::default()).map_or((*open).to_owned(), |value| format!("`{value}`"));
        writeln!(text, "| `{name}` | {} | {default} | {} | {meaning} |", key.kind(), key.range()).unwrap();
    }
    text + "\n"
}

#[test]
fn the_keys_are_those_of_the_code() {
    let document = read(DOCUMENT);
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (generated, after) = rest.split_once(END).unwrap();
    let reference = reference();
    if std::env::var_os("GOLDEN").is_some_and(|value| value == "write") {
        fs::write(path(DOCUMENT), [before, BEGIN, &reference, END, after].concat()).unwrap();
        return;
    }
    assert!(generated == reference, "{DOCUMENT} differs from the code; GOLDEN=write makes it:\n{reference}");
}

#[test]
fn every_default_is_the_default() {
    for key in keys() {
        let Some(value) = key.value(&Policy::default()) else { continue };
        assert_eq!(parse("default", &format!("{} = {value}", key.name)), Ok(Policy::default()), "{}", key.name);
    }
}

#[test]
fn the_file_of_all_defaults_is_the_default_policy_and_has_every_key() {
    let text = example(&Policy::default());
    assert_eq!(parse("example", &text), Ok(Policy::default()), "{text}");
    // With what it leaves open set too, each key is taken once.
    let set: String = text
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|line| is_value(line)).unwrap_or(line))
        .fold(String::new(), |text, line| text + line + "\n");
    let policy = parse("example", &set).unwrap_or_else(|errors| panic!("{errors}\nin:\n{set}"));
    assert_eq!(set.lines().filter(|line| is_value(line)).count(), keys().len(), "{set}");
    assert!(keys().iter().all(|key| key.value(&policy).is_some()));
}

/// `leaf = value`
fn is_value(line: &str) -> bool {
    line.split_once(" = ").is_some_and(|(leaf, _)| !leaf.contains([' ', '#', '`']))
}

#[test]
fn the_examples_are_valid() {
    for name in [DOCUMENT, "README.md"] {
        let document = read(name);
        let examples: Vec<_> =
            document.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect();
        assert!(!examples.is_empty(), "{name} has no example");
        for example in examples {
            let policy = parse(name, example).unwrap_or_else(|errors| panic!("{errors}\nin:\n{example}"));
            assert_eq!(warnings(&policy), Vec::<String>::new(), "{example}");
        }
    }
}
