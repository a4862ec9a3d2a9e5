//! What to say about a key that is none.

use super::keys::keys;

/// Likeness (Jaro-Winkler, 0 to 1) from which on a key is offered in place of an unknown one.
const NEAR: f64 = 0.85;

/// Tables that the format is meant to have, of parts that this version does not have yet: to take them would promise what does
/// not happen. With what happens instead.
const NOT_YET: [(&str, &str); 3] = [
    ("reap", "this version removes no entries: those that are there go when their timeouts end"),
    (
        "writers",
        "this version does not tell one writer from another: a value that another program set is reported and left, and changed \
         only where the load asks for it",
    ),
    ("report", "this version listens on no address: `conntrack-guard status --json` asks a running guard"),
];

/// The message for `leaf`, which `section` ("" at the top, else such as "table.max") does not have.
pub(super) fn unknown(section: &str, leaf: &str) -> String {
    if let Some((_, instead)) = NOT_YET.iter().find(|(name, _)| section.is_empty() && *name == leaf) {
        return format!("{instead}. Remove [{leaf}] and all in it");
    }
    let known = children(section);
    // Underscores for hyphens, and capitals, are the likeliest slips; compare without them.
    let plain = leaf.replace('_', "-").to_lowercase();
    let likeness = |candidate: &str| strsim::jaro_winkler(&plain, candidate);
    let nearest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    if let Some(nearest) = nearest.filter(|candidate| likeness(candidate) >= NEAR) {
        return format!("unknown key; did you mean `{nearest}`?");
    }
    let elsewhere = keys().iter().flat_map(|key| paths(&key.name)).find(|path| split(path).1 == plain);
    if let Some(path) = elsewhere {
        let (home, path_leaf) = split(path);
        let home = if home.is_empty() { "at the top, before any [table]".to_owned() } else { format!("in [{home}]") };
        return format!("unknown key here; `{path_leaf}` stands {home}");
    }
    let place = if section.is_empty() { "at the top of the file".to_owned() } else { format!("in [{section}]") };
    format!("unknown key; known {place}: {}. Remove it", known.join(", "))
}

/// The names that may stand directly in `section`; none where it is no table.
pub(super) fn children(section: &str) -> Vec<&'static str> {
    let mut names = Vec::new();
    for key in keys() {
        let rest = if section.is_empty() {
            Some(key.name.as_str())
        } else {
            key.name.strip_prefix(section).and_then(|rest| rest.strip_prefix('.'))
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
        assert_eq!(unknown("timeouts", "tcp_timewait"), "unknown key; did you mean `tcp-time-wait`?");
    }

    #[test]
    fn a_table_of_a_part_that_is_not_there_yet_is_refused_with_what_happens_instead() {
        let message = unknown("", "reap");
        assert!(message.starts_with("this version removes no entries: "), "{message}");
        assert!(message.ends_with(". Remove [reap] and all in it"), "{message}");
        assert!(unknown("", "writers").starts_with("this version does not tell one writer from another"));
        assert!(unknown("", "report").contains("`conntrack-guard status --json`"));
        // Further in it is a key like any other.
        assert!(unknown("table", "reap").starts_with("unknown key; known in [table]"));
    }

    #[test]
    fn a_key_in_the_wrong_table_is_sent_home() {
        assert_eq!(unknown("", "horizon"), "unknown key here; `horizon` stands in [table]");
        assert_eq!(unknown("table", "buckets"), "unknown key here; `buckets` stands in [hash]");
        assert_eq!(unknown("table", "mode"), "unknown key here; `mode` stands at the top, before any [table]");
        assert_eq!(unknown("", "tcp-time-wait"), "unknown key here; `tcp-time-wait` stands in [timeouts]");
    }

    #[test]
    fn a_strange_key_is_answered_with_what_is_known() {
        assert_eq!(
            unknown("hash", "zzz"),
            "unknown key; known in [hash]: buckets, max-stall, resize-window. Remove it"
        );
        assert!(unknown("", "").contains("version, mode, table, hash, timeouts, relax, flood, stop"));
    }
}
