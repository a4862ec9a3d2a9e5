//! The image: one file, which runs where there is nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Outcome, outcome, refused, run};
use crate::image;

pub(super) fn check(binary: &Path) -> Vec<Outcome> {
    vec![
        outcome(
            "the image holds the daemon alone, and it runs there",
            image::build(binary).and_then(|image| runs_alone(&image.archive)),
        ),
        outcome("a program that needs a loader does not pass as static", control(Path::new("/bin/sh"))),
    ]
}

fn runs_alone(archive: &Path) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let root = unpack(archive, scratch.path())?;
    let files = files_below(&root)?;
    ensure!(
        files == BTreeSet::from([PathBuf::from("conntrack-guard")]),
        "{} should hold /conntrack-guard and nothing else, but holds {files:?}",
        archive.display()
    );
    starts_in(&root, "conntrack-guard")
}

fn control(dynamic: &Path) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    fs::copy(dynamic, scratch.path().join("dynamic")).with_context(|| format!("cannot copy {}", dynamic.display()))?;
    // The kernel's answer for a missing loader is the same as for a missing file.
    refused(starts_in(scratch.path(), "dynamic"), "No such file or directory")
}

/// Runs `/program --version` with `root` as the root directory.
fn starts_in(root: &Path, program: &str) -> Result<()> {
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    run(command.arg("--root").arg(root).arg(format!("/{program}")).arg("--version")).map(drop)
}

/// Lays out the one image of an OCI archive under `scratch` and returns its root file system.
fn unpack(archive: &Path, scratch: &Path) -> Result<PathBuf> {
    let layout = scratch.join("layout");
    let root = scratch.join("root");
    for dir in [&layout, &root] {
        fs::create_dir(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    run(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&layout))?;
    let index = json(&layout.join("index.json"))?;
    let manifest = json(&blob(&layout, &index["manifests"][0])?)?;
    let layers = manifest["layers"].as_array().context("the image's manifest has no layers")?;
    for layer in layers {
        run(Command::new("tar").arg("-xzf").arg(blob(&layout, layer)?).arg("-C").arg(&root))?;
    }
    Ok(root)
}

/// Where an OCI layout keeps what a descriptor names.
fn blob(layout: &Path, descriptor: &Value) -> Result<PathBuf> {
    let digest = descriptor["digest"].as_str().context("a descriptor in the image has no digest")?;
    Ok(layout.join("blobs").join(digest.replacen(':', "/", 1)))
}

fn json(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))
}

/// All files below `root`, relative to it; empty folders do not count.
fn files_below(root: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else {
                found.insert(entry.path().strip_prefix(root)?.to_path_buf());
            }
        }
    }
    Ok(found)
}
