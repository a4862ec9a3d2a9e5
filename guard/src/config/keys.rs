//! The keys of a policy file, and what to say about one that is none.

/// Every key that holds a value, with the tables it stands in. docs/configuration.md lists the same; a test compares.
pub const KEYS: &[&str] = &[
    "version",
    "mode",
    "table.max.floor",
    "table.max.ceiling",
    "table.memory-limit",
    "table.high-water",
    "table.horizon",
    "hash.buckets.floor",
    "hash.buckets.ceiling",
    "hash.max-stall",
];

/// Likeness (Jaro-Winkler, 0 to 1) from which on a key is offered in place of an unknown one.
const NEAR: f64 = 0.85;

/// The message for `leaf`, which `section` ("" at the top, else such as "table.max") does not have.
pub(super) fn unknown(section: &str, leaf: &str) -> String {
    let known = children(section);
    // Underscores for hyphens, and capitals, are the likeliest slips; compare without them.
    let plain = leaf.replace('_', "-").to_lowercase();
    let likeness = |candidate: &str| strsim::jaro_winkler(&plain, candidate);
    let nearest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    if let Some(nearest) = nearest.filter(|candidate| likeness(candidate) >= NEAR) {
        return format!("unknown key; did you mean `{nearest}`?");
    }
    let elsewhere = KEYS.iter().flat_map(|key| paths(key)).find(|path| {
        let (_, path_leaf) = split(path);
        path_leaf == plain
    });
    if let Some(path) = elsewhere {
        let (home, path_leaf) = split(path);
        let home = if home.is_empty() { "at the top, before any [table]".to_owned() } else { format!("in [{home}]") };
        return format!("unknown key here; `{path_leaf}` stands {home}");
    }
    let place = if section.is_empty() { "at the top of the file".to_owned() } else { format!("in [{section}]") };
    format!("unknown key; known {place}: {}. Remove it", known.join(", "))
}

/// The names that may stand directly in `section`.
fn children(section: &str) -> Vec<&'static str> {
    let mut names = Vec::new();
    for key in KEYS {
        let rest = if section.is_empty() {
            Some(*key)
        } else {
            key.strip_prefix(section).and_then(|rest| rest.strip_prefix('.'))
        };
        if let Some(name) = rest.and_then(|rest| rest.split('.').next())
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    names
}

/// A key and the tables above it: `table.max.floor`, `table.max`, `table`.
fn paths(key: &'static str) -> impl Iterator<Item = &'static str> {
    std::iter::successors(Some(key), |path| path.rfind('.').map(|dot| &path[..dot]))
}

/// `table.max.floor` → (`table.max`, `floor`).
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_answered_with_the_key_that_was_meant() {
        assert_eq!(unknown("table", "memory_limit"), "unknown key; did you mean `memory-limit`?");
        assert_eq!(unknown("table", "High-Water"), "unknown key; did you mean `high-water`?");
        assert_eq!(unknown("", "tabel"), "unknown key; did you mean `table`?");
        assert_eq!(unknown("hash.buckets", "cieling"), "unknown key; did you mean `ceiling`?");
    }

    #[test]
    fn a_key_in_the_wrong_table_is_sent_home() {
        assert_eq!(unknown("", "horizon"), "unknown key here; `horizon` stands in [table]");
        assert_eq!(unknown("table", "buckets"), "unknown key here; `buckets` stands in [hash]");
        assert_eq!(unknown("table", "mode"), "unknown key here; `mode` stands at the top, before any [table]");
    }

    #[test]
    fn a_strange_key_is_answered_with_what_is_known() {
        assert_eq!(unknown("hash", "zzz"), "unknown key; known in [hash]: buckets, max-stall. Remove it");
        assert!(unknown("", "").contains("version, mode, table, hash"));
    }
}
