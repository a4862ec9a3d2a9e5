//! The one program inside a guest before the machine's own root is mounted.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Piece;
use super::apt::Suite;
use crate::staging::Staging;
use crate::{process, tree};

/// Debian's static busybox: installed, or unpacked under `target/`.
pub struct Busybox;

/// Where it is.
pub fn path() -> Result<PathBuf> {
    find().context("busybox is missing: run `cargo xtask setup`")
}

/// An installed busybox is taken only where Debian's static one puts its documentation: a dynamic one cannot run in an
/// initramfs.
fn find() -> Option<PathBuf> {
    let kept = tree::kept().join("busybox/busybox");
    if kept.is_file() {
        return Some(kept);
    }
    Path::new("/usr/share/doc/busybox-static").is_dir().then(|| process::find_program("busybox")).flatten()
}

impl Piece for Busybox {
    fn name(&self) -> String {
        "busybox".to_owned()
    }

    fn found(&self) -> Option<String> {
        find().map(|path| path.display().to_string())
    }

    fn work(&self) -> &'static str {
        "fetching"
    }

    fn get(&self) -> Result<String> {
        let suite = Suite::open("trixie")?;
        let package = suite.show("busybox-static").context("Debian's trixie has no busybox-static")?;
        let staging = Staging::beside(&tree::kept().join("busybox"))?;
        suite.unpack(&package.name, &package.version, staging.dir(), staging.dir())?;
        // One folder on a merged /usr, two before.
        let bin = ["usr/bin", "bin"].into_iter().find(|bin| staging.dir().join(bin).join("busybox").is_file());
        staging.commit(Path::new(bin.context("the package busybox-static holds no busybox")?))?;
        Ok(package.version)
    }
}
