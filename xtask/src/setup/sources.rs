//! The machine's own apt configuration, read for the mirror and the keys that serve it; see sources.list(5).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// One entry of a sources file, in either of the two formats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    pub uris: Vec<String>,
    pub suites: Vec<String>,
    pub components: Vec<String>,
    /// The `Signed-By` value as written: paths, fingerprints, or a whole key with its line breaks.
    pub signed_by: Option<String>,
}

/// A place that carries Debian's main archive, with the keys the machine trusts for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    pub uri: String,
    pub signed_by: Option<String>,
}

/// Every enabled `deb` entry below `etc` (normally `/etc/apt`).
pub fn read(etc: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let single = etc.join("sources.list");
    if single.is_file() {
        sources.extend(parse_one_line(&text(&single)?));
    }
    let folder = etc.join("sources.list.d");
    if folder.is_dir() {
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let mut files = entries.map(|entry| entry.map(|e| e.path())).collect::<Result<Vec<_>, _>>()?;
        files.sort();
        for file in files {
            match file.extension().and_then(|e| e.to_str()) {
                Some("list") => sources.extend(parse_one_line(&text(&file)?)),
                Some("sources") => sources.extend(parse_deb822(&text(&file)?)),
                _ => {}
            }
        }
    }
    Ok(sources)
}

fn text(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// `deb [signed-by=/key.gpg arch=amd64] URI SUITE COMPONENT...`, one entry a line.
pub fn parse_one_line(text: &str) -> Vec<Source> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter_map(one_line).collect()
}

fn one_line(line: &str) -> Option<Source> {
    let rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(inside) => inside.split_once(']')?,
        None => ("", rest),
    };
    let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source {
        uris: vec![words.next()?],
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by: signed_by.map(|keys| keys.replace(',', " ")),
    })
}

/// Stanzas of `Field: value` lines, continued by lines that start with a blank, separated by empty lines.
pub fn parse_deb822(text: &str) -> Vec<Source> {
    let mut stanzas: Vec<Vec<(String, String)>> = vec![Vec::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let stanza = stanzas.last_mut();
        if line.trim().is_empty() {
            stanzas.push(Vec::new());
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = stanza.and_then(|s| s.last_mut()) {
                value.push('\n');
                value.push_str(line);
            }
        } else if let (Some(stanza), Some((field, value))) = (stanza, line.split_once(':')) {
            stanza.push((field.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    stanzas.iter().filter_map(|stanza| deb822(stanza)).collect()
}

fn deb822(stanza: &[(String, String)]) -> Option<Source> {
    let field = |name: &str| stanza.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
    let words =
        |name: &str| -> Vec<String> { field(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect() };
    let off = field("enabled").is_some_and(|value| ["no", "false", "0", "off"].contains(&value));
    if off || !words("types").iter().any(|kind| kind == "deb") {
        return None;
    }
    Some(Source {
        uris: words("uris"),
        suites: words("suites"),
        components: words("components"),
        signed_by: field("signed-by").map(str::to_owned),
    })
}

/// Names a Debian release goes by in a sources file, beside the machine's own code name.
const RELEASES: [&str; 9] =
    ["bullseye", "bookworm", "trixie", "forky", "sid", "oldoldstable", "oldstable", "stable", "testing"];

/// The places that look like Debian's main archive, likeliest first: other vendors also publish a suite named after
/// the release with a component `main`, but not under a path that ends in `debian`.
pub fn debian_mirrors(sources: &[Source], codename: &str) -> Vec<Mirror> {
    let mut mirrors: Vec<Mirror> = Vec::new();
    for source in sources {
        let main = source.components.iter().any(|component| component == "main");
        let release = source.suites.iter().any(|suite| suite == codename || RELEASES.contains(&suite.as_str()));
        if main && release {
            let signed_by = source.signed_by.clone();
            mirrors.extend(source.uris.iter().map(|uri| Mirror { uri: uri.clone(), signed_by: signed_by.clone() }));
        }
    }
    // A stable sort keeps the machine's own order among equals.
    mirrors.sort_by_key(|mirror| !mirror.uri.trim_end_matches('/').ends_with("debian"));
    mirrors.dedup();
    mirrors
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "\
# comment
Types: deb deb-src
URIs: http://mirror.example/debian
# comment inside
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://src.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: https://vendor.example/repo
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINB
 -----END PGP PUBLIC KEY BLOCK-----
";

    #[test]
    fn deb822_stanzas() {
        let sources = parse_deb822(DEB822);
        assert_eq!(sources.len(), 3);
        assert_eq!(sources[0].suites, ["bookworm", "bookworm-updates"]);
        assert_eq!(sources[0].components, ["main", "contrib"]);
        assert_eq!(sources[0].signed_by.as_deref(), Some("/usr/share/keyrings/debian-archive-keyring.gpg"));
        assert_eq!(sources[1].signed_by, None);
        let key = sources[2].signed_by.as_deref().unwrap();
        assert!(key.starts_with("\n -----BEGIN") && key.ends_with("END PGP PUBLIC KEY BLOCK-----"), "{key}");
    }

    #[test]
    fn one_line_entries() {
        let sources = parse_one_line(
            "deb http://a.example/debian bookworm main contrib # note\n\
             # deb http://b.example/debian bookworm main\n\
             deb-src http://c.example/debian bookworm main\n\
             deb\t[ arch=amd64 signed-by=/k1.gpg,/k2.gpg ] http://d.example/debian trixie main\n\
             deb http://broken.example\n",
        );
        assert_eq!(sources.len(), 2);
        assert_eq!(sources[0].components, ["main", "contrib"]);
        assert_eq!(sources[0].signed_by, None);
        assert_eq!(sources[1].uris, ["http://d.example/debian"]);
        assert_eq!(sources[1].signed_by.as_deref(), Some("/k1.gpg /k2.gpg"));
    }

    #[test]
    fn the_archive_comes_before_other_vendors_and_security_is_none() {
        let mirrors = debian_mirrors(&parse_deb822(DEB822), "bookworm");
        let uris: Vec<&str> = mirrors.iter().map(|mirror| mirror.uri.as_str()).collect();
        assert_eq!(uris, ["http://mirror.example/debian", "https://vendor.example/repo"]);
        let reversed: Vec<Source> = parse_deb822(DEB822).into_iter().rev().collect();
        assert_eq!(debian_mirrors(&reversed, "bookworm")[0].uri, "http://mirror.example/debian");
    }

    #[test]
    fn both_formats_are_found_in_a_folder() {
        let etc = tempfile::tempdir().unwrap();
        fs::create_dir(etc.path().join("sources.list.d")).unwrap();
        fs::write(etc.path().join("sources.list"), "deb http://a.example/debian stable main\n").unwrap();
        fs::write(etc.path().join("sources.list.d/b.sources"), DEB822).unwrap();
        fs::write(etc.path().join("sources.list.d/c.sources.off"), DEB822).unwrap();
        let sources = read(etc.path()).unwrap();
        assert_eq!(sources.len(), 4);
        assert_eq!(debian_mirrors(&sources, "bookworm")[0].uri, "http://a.example/debian");
    }
}
