//! A private apt root for each suite: own sources, lists and cache under `target/`, so that packages of other Debian
//! releases can be fetched and unpacked while the machine's own package state stays as it is. The mirror, the keys and
//! the proxy settings are the machine's; apt itself verifies signatures and sums.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use super::sources::{self, Mirror};
use super::{NotPossible, logs};
use crate::{process, tree};

/// Debian's own archive keys, where the package `debian-archive-keyring` puts them.
const KEYRING: &str = "usr/share/keyrings/debian-archive-keyring.gpg";

/// One suite of the Debian archive, ready to fetch from.
pub struct Suite {
    name: String,
    root: PathBuf,
}

impl Suite {
    /// Fetches the suite's index. Every likely mirror of the machine's configuration is tried; if the machine's keys
    /// are older than the suite, the newer keys come from the machine's own, verified suite.
    pub fn open(name: &str) -> Result<Self> {
        for program in ["apt-get", "apt-cache", "dpkg-deb"] {
            if process::find_program(program).is_none() {
                return Err(NotPossible(format!(
                    "{program} is not here: packages come through apt. Use a Debian machine or container, as in\n    \
                     apt-get install apt dpkg"
                ))
                .into());
            }
        }
        let codename = codename()?;
        let mirrors = sources::debian_mirrors(&sources::read(Path::new("/etc/apt"))?, &codename);
        if mirrors.is_empty() {
            return Err(NotPossible(format!(
                "no Debian mirror for {codename} in /etc/apt/sources.list or sources.list.d: add one, as in\n    \
                 Types: deb\n    URIs: (your mirror)/debian\n    Suites: {codename}\n    Components: main\n    \
                 Signed-By: /{KEYRING}"
            ))
            .into());
        }
        let mut failures = Vec::new();
        for mirror in &mirrors {
            match Self::update(name, mirror) {
                Ok(suite) => return Ok(suite),
                Err(error) => failures.push(error),
            }
            if name != codename
                && let Ok(keys) = newer_keys(&codename, mirror)
                && let Ok(suite) = Self::update(name, &Mirror { uri: mirror.uri.clone(), signed_by: Some(keys) })
            {
                return Ok(suite);
            }
        }
        let first = failures.into_iter().next().unwrap_or_else(|| anyhow!("no mirror answered"));
        Err(first.context(format!("cannot read the index of Debian's {name}")))
    }

    fn update(name: &str, mirror: &Mirror) -> Result<Self> {
        let root = tree::kept().join("apt").join(name);
        let suite = Self { name: name.to_owned(), root };
        for folder in ["lists/partial", "cache/archives/partial"] {
            let folder = suite.root.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        for (file, text) in [
            ("suite.sources", stanza(name, mirror)),
            ("apt.conf", configuration(&suite.root)),
            ("status", String::new()),
        ] {
            let file = suite.root.join(file);
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        process::run_logged(suite.apt("apt-get").arg("update"), &logs(&format!("apt-update-{name}")))?;
        Ok(suite)
    }

    /// The description of the newest version of `package` in this suite; `None` if the suite has no such package.
    pub fn show(&self, package: &str) -> Option<Package> {
        let text = process::output(self.apt("apt-cache").args(["show", "--no-all-versions", package])).ok()?;
        Package::parse(&text)
    }

    /// Every version of `package` in this suite, newest first.
    pub fn versions(&self, package: &str) -> Result<Vec<String>> {
        let text = process::output(self.apt("apt-cache").args(["madison", package]))?;
        Ok(text.lines().filter_map(|line| line.split('|').nth(1)).map(|version| version.trim().to_owned()).collect())
    }

    /// Downloads one version of a package into `folder` and unpacks it into `into`; nothing is installed.
    pub fn unpack(&self, package: &str, version: &str, folder: &Path, into: &Path) -> Result<()> {
        let debs = folder.join("debs");
        fs::create_dir_all(&debs).with_context(|| format!("cannot create {}", debs.display()))?;
        let log = logs(&format!("download-{package}"));
        process::run_logged(
            self.apt("apt-get").arg("download").arg(format!("{package}={version}")).current_dir(&debs),
            &log,
        )
        .with_context(|| format!("cannot download {package} {version} from Debian's {}", self.name))?;
        let deb = only_file(&debs)?;
        process::run_logged(
            Command::new("dpkg-deb").arg("-x").arg(&deb).arg(into),
            &logs(&format!("unpack-{package}")),
        )
        .with_context(|| format!("cannot unpack {}", deb.display()))?;
        fs::remove_dir_all(&debs).with_context(|| format!("cannot remove {}", debs.display()))
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").arg("-q").arg("-c").arg(self.root.join("apt.conf"));
        command
    }
}

/// What apt says of one package version.
#[derive(Debug, PartialEq, Eq)]
pub struct Package {
    pub name: String,
    pub version: String,
    /// Names only, without versions; of alternatives the first.
    pub depends: Vec<String>,
}

impl Package {
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let mut values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            values.next().map(str::trim)
        };
        let names = field("Depends").unwrap_or_default().split(',').filter_map(|part| part.split_whitespace().next());
        Some(Self {
            name: field("Package")?.to_owned(),
            version: field("Version")?.to_owned(),
            depends: names.map(str::to_owned).collect(),
        })
    }
}

/// The machine's release name, from `/etc/os-release`.
fn codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let value =
        |key: &str| text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('=')).map(|v| v.trim_matches('"'));
    // Debian's unstable names no code name.
    Ok(value("VERSION_CODENAME").unwrap_or("sid").to_owned())
}

/// The newer archive keys that the machine's own suite carries, unpacked; the answer is the path of the keyring.
fn newer_keys(codename: &str, mirror: &Mirror) -> Result<String> {
    let place = tree::kept().join("apt/keys");
    let keyring = place.join(KEYRING);
    if !keyring.is_file() {
        let suite = Suite::update(codename, mirror)?;
        let package = suite.show("debian-archive-keyring").context("no debian-archive-keyring")?;
        let staging = crate::staging::Staging::beside(&place)?;
        suite.unpack(&package.name, &package.version, staging.dir(), staging.dir())?;
        staging.commit(Path::new(""))?;
    }
    Ok(keyring.display().to_string())
}

fn stanza(suite: &str, mirror: &Mirror) -> String {
    let keys = mirror.signed_by.as_ref().map(|keys| format!("Signed-By: {keys}\n")).unwrap_or_default();
    format!(
        "Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\nArchitectures: amd64\nTargets: Packages\n{keys}",
        mirror.uri
    )
}

/// Read by apt after the machine's own configuration, so that proxies and credentials stay in force.
fn configuration(root: &Path) -> String {
    let root = root.display();
    format!(
        "Dir::State \"{root}\";\nDir::State::lists \"{root}/lists\";\nDir::State::status \"{root}/status\";\n\
         Dir::Cache \"{root}/cache\";\nDir::Cache::archives \"{root}/cache/archives\";\n\
         Dir::Etc::sourcelist \"{root}/suite.sources\";\nDir::Etc::sourceparts \"/dev/null\";\n\
         Dir::Etc::preferences \"/dev/null\";\nDir::Etc::preferencesparts \"/dev/null\";\n\
         Acquire::Languages \"none\";\nAcquire::Retries \"2\";\n\
         // An index that could not be fetched is an error, not a reason to go on without it.\n\
         APT::Update::Error-Mode \"any\";\n\
         // The folder may lie where apt's own user cannot reach.\nAPT::Sandbox::User \"root\";\n\
         // The machine's hooks are for the machine's package state.\n\
         #clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n"
    )
}

fn only_file(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let files = entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>()?;
    match <[PathBuf; 1]>::try_from(files) {
        Ok([file]) => Ok(file),
        Err(files) => bail!("{} holds {} files where one package was expected", folder.display(), files.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_descriptions() {
        let package = Package::parse(
            "Package: linux-image-amd64\nVersion: 7.2.12-1~bpo13+1\n\
             Depends: linux-base-amd64 (= 7.2.12-1~bpo13+1), linux-image-7.2.12+deb13-amd64 (= 7.2.12-1~bpo13+1)\n\n",
        )
        .unwrap();
        assert_eq!(package.version, "7.2.12-1~bpo13+1");
        assert_eq!(package.depends, ["linux-base-amd64", "linux-image-7.2.12+deb13-amd64"]);
        let alternatives =
            Package::parse("Package: a\nVersion: 1\nDepends: dracut | initramfs-tools (>= 0.120), kmod\n");
        assert_eq!(alternatives.unwrap().depends, ["dracut", "kmod"]);
        assert_eq!(Package::parse("E: No packages found\n"), None);
    }

    #[test]
    fn an_inline_key_survives_into_the_private_sources() {
        let mirror = Mirror { uri: "http://m.example/debian".into(), signed_by: Some("\n -----BEGIN\n .\n x".into()) };
        assert_eq!(sources::parse_deb822(&stanza("trixie", &mirror))[0].signed_by, mirror.signed_by);
    }

    #[test]
    fn nothing_weakens_verification() {
        let all = configuration(Path::new("/x")) + &stanza("s", &Mirror { uri: "u".into(), signed_by: None });
        for word in ["trusted", "Insecure", "insecure", "Unauthenticated", "Weak"] {
            assert!(!all.contains(word), "{word}");
        }
    }
}
