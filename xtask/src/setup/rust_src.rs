//! The sources of Rust's `core`, which has to be built for the BPF target: stable Rust ships no library for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Piece;
use super::apt::Suite;
use crate::staging::Staging;
use crate::{process, tree};

/// How long rustup may try: where it cannot download it may also hang.
const RUSTUP_PATIENCE: Duration = Duration::from_mins(1);

/// Where Debian packages the sources of a current Rust.
const SUITES: [&str; 2] = ["trixie-backports", "trixie"];

/// The set-up piece.
pub struct RustSources;

/// Where this compiler's sources are: in its sysroot, else `target/rust-src/library`.
pub fn library() -> Result<Option<PathBuf>> {
    let sysroot = PathBuf::from(process::output(Command::new("rustc").args(["--print", "sysroot"]))?.trim());
    let installed = sysroot.join("lib/rustlib/src/rust/library");
    if is_library(&installed) {
        return Ok(Some(installed));
    }
    let kept = place().join("library");
    // The sources of another version do not compile: what was kept counts only for the compiler it was fetched for.
    let same =
        fs::read_to_string(place().join(VERSION)).is_ok_and(|text| version().is_ok_and(|now| now == text.trim()));
    Ok((same && is_library(&kept)).then_some(kept))
}

fn is_library(folder: &Path) -> bool {
    folder.join("core/src/lib.rs").is_file()
}

fn place() -> PathBuf {
    tree::kept().join("rust-src")
}

/// Beside the kept sources: the version of the compiler they belong to.
const VERSION: &str = "for-rustc";

/// As in `rustc 1.95.0 (59807616e 2026-04-14)`.
fn version() -> Result<String> {
    let text = process::output(Command::new("rustc").arg("--version"))?;
    text.split_whitespace().nth(1).map(str::to_owned).with_context(|| format!("no version in {text:?}"))
}

impl Piece for RustSources {
    fn name(&self) -> String {
        version()
            .map_or_else(|_| "Rust library sources".to_owned(), |version| format!("Rust library sources {version}"))
    }

    fn found(&self) -> Option<String> {
        library().ok().flatten().map(|path| path.display().to_string())
    }

    fn work(&self) -> &'static str {
        "fetching"
    }

    fn get(&self) -> Result<String> {
        let version = version()?;
        if rustup() && library()?.is_some() {
            return Ok("by rustup".to_owned());
        }
        for suite in SUITES {
            let suite = Suite::open(suite)?;
            let wanted = format!("{version}+dfsg");
            let newest = suite.versions("rust-src")?.into_iter().find(|candidate| candidate.starts_with(&wanted));
            if let Some(package) = newest {
                let staging = Staging::beside(&place())?;
                suite.unpack("rust-src", &package, staging.dir(), staging.dir())?;
                let sources = Path::new("usr/src").join(format!("rustc-{version}"));
                let note = staging.dir().join(&sources).join(VERSION);
                fs::write(&note, &version).with_context(|| format!("cannot write {}", note.display()))?;
                staging.commit(&sources)?;
                return Ok(format!("Debian's rust-src {package}"));
            }
        }
        bail!(
            "Debian's {} carry no rust-src {version}; install your compiler's (with rustup: `rustup component add \
             rust-src`) or use Rust 1.95.0",
            SUITES.join(" and ")
        )
    }
}

/// Asks rustup, where there is one; says nothing when it cannot, because Debian's package comes next.
fn rustup() -> bool {
    let mut command = Command::new("rustup");
    command.args(["component", "add", "rust-src"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return false };
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if start.elapsed() < RUSTUP_PATIENCE => thread::sleep(Duration::from_millis(50)),
            _ => {
                // It may have ended by itself just now; either way it is gone after the wait.
                let _ = child.kill();
                let _ = child.wait();
                return false;
            }
        }
    }
}
