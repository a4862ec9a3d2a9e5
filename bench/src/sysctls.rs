//! Every setting of the network, as found, so that what one run sets does not reach the next.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// All of it, because an alternative may tune more than conntrack.
const ROOT: &str = "/proc/sys/net";

/// The files below /proc/sys/net that can be read and written, with their content, in the network namespace of the
/// calling thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sysctls(BTreeMap<PathBuf, String>);

impl Sysctls {
    /// Reads them.
    pub fn read() -> Result<Self> {
        Self::below(Path::new(ROOT))
    }

    fn below(root: &Path) -> Result<Self> {
        let (mut found, mut folders) = (BTreeMap::new(), vec![root.to_path_buf()]);
        while let Some(folder) = folders.pop() {
            // An interface and its folder may go at any time.
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries {
                let entry = entry.with_context(|| folder.display().to_string())?;
                let Ok(metadata) = entry.metadata() else { continue };
                if metadata.is_dir() {
                    folders.push(entry.path());
                } else if metadata.permissions().mode() & 0o600 == 0o600
                    && let Ok(content) = fs::read_to_string(entry.path())
                {
                    found.insert(entry.path(), content);
                }
            }
        }
        anyhow::ensure!(!found.is_empty(), "{}: no setting can be read and written: it needs root", root.display());
        Ok(Self(found))
    }

    /// Files that are not as they were then.
    pub fn changed(&self) -> Result<Vec<PathBuf>> {
        let mut changed = Vec::new();
        for (path, content) in &self.0 {
            let now = match fs::read_to_string(path) {
                // Its interface is gone.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                read => read.with_context(|| path.display().to_string())?,
            };
            if now != *content {
                changed.push(path.clone());
            }
        }
        Ok(changed)
    }

    /// Writes what is not as it was then.
    pub fn put_back(&self) -> Result<()> {
        let changed = self.changed()?;
        for path in &changed {
            let content = &self.0[path];
            fs::write(path, content)
                .with_context(|| format!("{}: cannot put back {}", path.display(), content.trim()))?;
        }
        // Some are one value with two names, or set one another: only now all of them must be right.
        for path in &changed {
            let now = fs::read_to_string(path).with_context(|| path.display().to_string())?;
            let content = &self.0[path];
            anyhow::ensure!(
                now == *content,
                "{}: put back {}, but it reads {}",
                path.display(),
                content.trim(),
                now.trim()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_comes_back_and_what_is_gone_stays_gone() {
        let root = tempfile::tempdir().unwrap();
        let file = |name: &str| root.path().join(name);
        fs::create_dir(file("netfilter")).unwrap();
        for (name, content) in [("netfilter/max", "8192\n"), ("gone", "1\n"), ("same", "2\n"), ("count", "3\n")] {
            fs::write(file(name), content).unwrap();
        }
        fs::set_permissions(file("count"), fs::Permissions::from_mode(0o444)).unwrap();
        let found = Sysctls::below(root.path()).unwrap();
        fs::write(file("netfilter/max"), "16384\n").unwrap();
        fs::remove_file(file("gone")).unwrap();
        assert_eq!(found.changed().unwrap(), [file("netfilter/max")]);
        found.put_back().unwrap();
        assert_eq!(fs::read_to_string(file("netfilter/max")).unwrap(), "8192\n");
        assert!(!file("gone").exists() && !found.0.contains_key(&file("count")));
        assert_eq!(found.changed().unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn nothing_to_read_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        assert!(Sysctls::below(root.path()).unwrap_err().to_string().contains("root"));
    }
}
