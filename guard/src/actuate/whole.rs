//! Files that are there whole and on the disk, or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

#[cfg(test)]
use super::testing::{Moment, moment};

/// Writes `text` to a file beside `name` and to the disk, then puts it in that one's place. For root's eyes only; the
/// directory is made if it is missing. An error comes with the path that it is about.
pub fn replace(directory: &Path, name: &str, text: &[u8]) -> Result<(), (PathBuf, io::Error)> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| (directory.to_path_buf(), error))?;
    let fresh = fresh_of(directory, name);
    let written = write(&fresh, text).and_then(|()| {
        #[cfg(test)]
        moment(Moment::Saved)?;
        fs::rename(&fresh, directory.join(name))?;
        #[cfg(test)]
        moment(Moment::Saved)?;
        File::open(directory)?.sync_all()
    });
    written.map_err(|error| {
        // Best effort: a leftover does no harm, the next write replaces it.
        let _ = fs::remove_file(&fresh);
        (fresh, error)
    })
}

/// Where the file is made before it takes its place.
pub(super) fn fresh_of(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.new"))
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_leaves_what_was_there() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("state");
        replace(&directory, "file", b"old").unwrap();
        fs::create_dir(directory.join("file.new")).unwrap();
        let (path, _) = replace(&directory, "file", b"new").unwrap_err();
        assert_eq!(path, directory.join("file.new"));
        assert_eq!(fs::read(directory.join("file")).unwrap(), b"old");
        fs::remove_dir(directory.join("file.new")).unwrap();
        replace(&directory, "file", b"new").unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    }
}
