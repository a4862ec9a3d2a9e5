//! Nothing half-written: a folder is filled beside its final place and renamed into it when it is complete.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A folder that is still being filled; dropped without [`Staging::commit`], it is removed again.
pub struct Staging {
    dir: PathBuf,
    place: PathBuf,
}

impl Staging {
    /// Starts an empty folder `<place>.partial`. What an interrupted run left there goes first; the caller holds the
    /// set-up lock, so nobody else is filling it.
    pub fn beside(place: &Path) -> Result<Self> {
        let mut name = place.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let dir = place.with_file_name(name);
        remove(&dir)?;
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self { dir, place: place.to_owned() })
    }

    /// The folder to fill.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Puts `part`, a path inside the folder, in the final place (all of it for an empty path), over what was there.
    pub fn commit(self, part: &Path) -> Result<()> {
        remove(&self.place)?;
        let complete = if part.as_os_str().is_empty() { self.dir.clone() } else { self.dir.join(part) };
        fs::rename(&complete, &self.place)
            .with_context(|| format!("cannot rename {} to {}", complete.display(), self.place.display()))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Best effort: what stays behind is removed by the next `beside`.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Removes a folder with all that is in it; none there is no error.
pub fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_staging_leaves_nothing_and_keeps_what_was_there() {
        let home = tempfile::tempdir().unwrap();
        let place = home.path().join("kernel");
        fs::create_dir(&place).unwrap();
        fs::write(place.join("old"), "old").unwrap();
        let staging = Staging::beside(&place).unwrap();
        fs::write(staging.dir().join("new"), "half").unwrap();
        drop(staging);
        let left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["kernel"]);
        assert_eq!(fs::read_to_string(place.join("old")).unwrap(), "old");
    }

    #[test]
    fn commit_replaces_the_place_with_the_part_and_clears_stale_leftovers() {
        let home = tempfile::tempdir().unwrap();
        let place = home.path().join("src");
        fs::create_dir_all(home.path().join("src.partial/stale")).unwrap();
        fs::create_dir(&place).unwrap();
        fs::write(place.join("old"), "").unwrap();
        let staging = Staging::beside(&place).unwrap();
        assert!(!staging.dir().join("stale").exists());
        fs::create_dir_all(staging.dir().join("usr/src")).unwrap();
        fs::write(staging.dir().join("usr/src/lib.rs"), "x").unwrap();
        staging.commit(Path::new("usr/src")).unwrap();
        assert_eq!(fs::read_to_string(place.join("lib.rs")).unwrap(), "x");
        assert!(!place.join("old").exists());
        assert!(!home.path().join("src.partial").exists());
    }
}
