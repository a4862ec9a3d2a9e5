//! `cargo xtask setup`: everything the other verbs need, each piece looked for first, else fetched once. What need not
//! be installed is kept under the tree's `target/`. Each verb asks only for the pieces it uses.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::statvfs::statvfs;

use crate::tree;

mod apt;
mod bpftune;
mod busybox;
mod host;
pub mod kernel;
mod manifests;
mod rust_src;
mod sources;
mod tools;

pub use bpftune::root as bpftune_root;
pub use busybox::path as busybox;
pub use host::{BALANCERS, BENCH_TOOLS, DEPLOY_TOOLS, GUEST_TOOLS, IMAGE_TOOLS, QEMU};
pub use kernel::Series;
pub use manifests::validator as manifest_validator;
pub use rust_src::library as rust_library;
pub use tools::cargo_deny;

/// Something cannot be done on this machine or by this user; the text holds the commands that would. Exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotPossible(pub String);

/// One thing that verbs need.
pub trait Piece {
    /// What it is, with the version where one is required.
    fn name(&self) -> String;
    /// What is there already; `None` if it has to be fetched. Touches no network and takes milliseconds.
    fn found(&self) -> Option<String>;
    /// Debian packages it still needs on the machine itself.
    fn packages(&self) -> Vec<&'static str> {
        Vec::new()
    }
    /// What fetching it means, with the time where it is long.
    fn work(&self) -> &'static str;
    /// Fetches it; the answer says what came.
    fn get(&self) -> Result<String>;
}

/// Bytes to be free before a step: more than the largest, building cargo-deny, takes for a time. Compilers that meet a
/// full disk say little, and linkers die of a bus error.
const ROOM: u64 = 2 << 30;

/// How much of the look-around is said.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Say {
    /// A line for each piece.
    All,
    /// A line for each piece that has to be fetched.
    Fetched,
}

/// The library sources and the linker that guard's build script needs.
pub fn for_build() -> Vec<Box<dyn Piece>> {
    vec![Box::new(rust_src::RustSources), Box::new(tools::BPF_LINKER)]
}

/// What boots a guest of this kernel.
pub fn for_guest(series: Series) -> Vec<Box<dyn Piece>> {
    for_guests(&[series])
}

/// What boots guests of these kernels.
pub fn for_guests(all: &[Series]) -> Vec<Box<dyn Piece>> {
    let mut pieces: Vec<Box<dyn Piece>> = vec![Box::new(QEMU), Box::new(busybox::Busybox)];
    pieces.extend(all.iter().map(|series| Box::new(kernel::Kernel(*series)) as Box<dyn Piece>));
    pieces
}

/// What the programs that run in guests call: namespaces, rules, table dumps.
pub fn for_guest_programs() -> Vec<Box<dyn Piece>> {
    vec![Box::new(GUEST_TOOLS)]
}

/// What scenarios of some kinds run through, and are loaded with. Not part of `setup`.
pub fn for_balancers() -> Vec<Box<dyn Piece>> {
    vec![Box::new(BALANCERS)]
}

/// What `cargo xtask bench` compares the guard with. Not part of `setup`: it is large, and no other verb calls it.
pub fn for_bench() -> Vec<Box<dyn Piece>> {
    vec![Box::new(BENCH_TOOLS)]
}

/// Another tuner, for `cargo xtask bench churn`. Not part of `setup` either.
pub fn for_bpftune() -> Vec<Box<dyn Piece>> {
    vec![Box::new(bpftune::Bpftune)]
}

/// What builds the container image.
pub fn for_image() -> Vec<Box<dyn Piece>> {
    vec![Box::new(IMAGE_TOOLS)]
}

/// What holds the manifests against the Kubernetes schemas, and the unit against systemd.
pub fn for_deploy() -> Vec<Box<dyn Piece>> {
    vec![Box::new(DEPLOY_TOOLS), Box::new(manifests::Validator)]
}

/// Licences, bans and advisories of the dependencies.
pub fn for_deny() -> Vec<Box<dyn Piece>> {
    vec![Box::new(tools::CARGO_DENY)]
}

/// `cargo xtask setup`.
pub fn run() -> Result<()> {
    let mut pieces = for_build();
    pieces.extend(for_guests(Series::all()));
    pieces.extend(for_guest_programs());
    pieces.extend(for_image());
    pieces.extend(for_deploy());
    pieces.extend(for_deny());
    ensure(&pieces, Say::All)
}

/// Sees that every piece is there. One set-up fetches at a time; others wait for it and then find its work.
pub fn ensure(pieces: &[Box<dyn Piece>], say: Say) -> Result<()> {
    let mut lock = None;
    if !missing_packages(pieces).is_empty() {
        lock = Some(exclusive()?);
        // First, and in one step: who may not install packages learns it at once, with one command for all of them.
        let packages = missing_packages(pieces);
        if !packages.is_empty() {
            let what = packages.join(", ");
            step(&format!("Debian packages {what}"), "installing", || host::install(&packages))?;
        }
    }
    for piece in pieces {
        let mut found = piece.found();
        if found.is_none() && lock.is_none() {
            lock = Some(exclusive()?);
            found = piece.found();
        }
        match found {
            Some(found) if say == Say::All => eprintln!("{} … found: {found}", piece.name()),
            Some(_) => {}
            None => {
                check_room(&tree::kept(), ROOM)?;
                step(&piece.name(), piece.work(), || piece.get())?;
            }
        }
    }
    Ok(())
}

fn missing_packages(pieces: &[Box<dyn Piece>]) -> Vec<&'static str> {
    let mut packages: Vec<&str> = Vec::new();
    for package in pieces.iter().flat_map(|piece| piece.packages()) {
        if !packages.contains(&package) {
            packages.push(package);
        }
    }
    packages
}

fn check_room(dir: &Path, needed: u64) -> Result<()> {
    let disk = statvfs(dir).with_context(|| format!("cannot look at the disk of {}", dir.display()))?;
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    let mib = |bytes: u64| bytes >> 20;
    ensure!(
        free >= needed,
        "only {} MiB are free on the disk of {}, and set-up may need {} MiB: make room there, then run it again",
        mib(free),
        dir.display(),
        mib(needed)
    );
    Ok(())
}

/// One thing to do, with its progress line.
fn step(name: &str, work: &str, act: impl FnOnce() -> Result<String>) -> Result<()> {
    eprint!("{name} … {work}");
    // Progress only: a closed stderr must not stop the work.
    let _ = io::stderr().flush();
    let start = Instant::now();
    match act() {
        Ok(what) => {
            eprintln!(" … done in {} s: {what}", start.elapsed().as_secs());
            Ok(())
        }
        Err(error) => {
            eprintln!(" … failed");
            Err(error.context(format!("set-up of {name} failed")))
        }
    }
}

/// Held until the file is dropped, also when the process dies.
fn exclusive() -> Result<File> {
    let path = tree::kept().join("setup.lock");
    fs::create_dir_all(tree::kept()).with_context(|| format!("cannot create {}", tree::kept().display()))?;
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    if file.try_lock().is_err() {
        eprintln!("another set-up is running in this tree; waiting for it");
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

/// The log file of one step.
fn logs(step: &str) -> PathBuf {
    tree::kept().join("setup-logs").join(format!("{step}.log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_before_anything_is_fetched() {
        let home = tempfile::tempdir().unwrap();
        check_room(home.path(), 0).unwrap();
        let text = check_room(home.path(), u64::MAX).unwrap_err().to_string();
        assert!(text.contains(&home.path().display().to_string()) && text.contains("make room"), "{text}");
    }
}
