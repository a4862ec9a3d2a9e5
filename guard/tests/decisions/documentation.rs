//! docs/configuration.md, and the README's example, say what the parser does.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use conntrack_guard::config::{KEYS, Policy, parse, warnings};

fn document() -> String {
    read("docs/configuration.md")
}

fn read(name: &str) -> String {
    fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(name)).unwrap()
}

/// Key and default of each row of the table of keys.
fn rows(document: &str) -> Vec<(&str, &str)> {
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.split(" | ").collect();
        assert_eq!(cells.len(), 5, "key, type, default, range, meaning: {row}");
        (cells[0].trim_end_matches('`'), cells[2])
    })
    .collect()
}

#[test]
fn it_lists_exactly_the_keys_of_the_parser() {
    let document = document();
    let rows = rows(&document);
    let documented: BTreeSet<_> = rows.iter().map(|(key, _)| *key).collect();
    assert_eq!(documented, KEYS.iter().copied().collect());
    assert_eq!(rows.len(), KEYS.len(), "each key once");
}

#[test]
fn its_defaults_are_the_defaults() {
    let document = document();
    let mut compared = 0;
    for (key, default) in rows(&document) {
        if let Some(literal) = default.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) {
            assert_eq!(parse("default", &format!("{key} = {literal}")), Ok(Policy::default()), "{key}");
            compared += 1;
        }
    }
    assert!(compared >= 5, "only {compared} defaults are literals");
}

#[test]
fn the_examples_are_valid() {
    for name in ["docs/configuration.md", "README.md"] {
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
