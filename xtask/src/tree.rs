//! Where things lie: the tree this program was built from, and what set-up keeps under its `target/`.

use std::env;
use std::path::{Path, PathBuf};

/// The root of the tree: the folder of the workspace's `Cargo.toml`.
pub fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Where set-up keeps what it fetched: always the tree's own `target/`, so that one set-up serves every build folder.
pub fn kept() -> PathBuf {
    root().join("target")
}

/// Where cargo puts what it builds: `CARGO_TARGET_DIR` if the caller set it, else the tree's `target/`.
pub fn built() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(kept, |dir| root().join(dir))
}
