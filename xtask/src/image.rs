//! `cargo xtask image`: the static binary, and the container image that holds it, as an OCI archive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// The name the image carries; deploy/kubernetes/kustomization.yaml names the same.
pub const NAME: &str = "localhost/conntrack-guard";

/// What `build` made.
#[derive(Debug)]
pub struct Image {
    /// Name and tag; the tag is the workspace's version.
    pub name: String,
    /// The OCI archive.
    pub archive: PathBuf,
    /// Bytes of the archive.
    pub size: u64,
}

/// Builds the daemon as one file that needs no other: glibc linked in, no loader. Returns where it is. `cargo` is the
/// prepared command, with whatever environment the build of the kernel half needs.
pub fn static_binary(mut cargo: Command, target: &Path) -> Result<PathBuf> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let dir = target.join("static");
    // With --target the flags reach the daemon but not the build scripts and macros, which must stay dynamic.
    cargo
        .args(["build", "--release", "--package", "conntrack-guard", "--bin", "conntrack-guard", "--target", &triple])
        .arg("--target-dir")
        .arg(&dir)
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    run(cargo)?;
    Ok(dir.join(triple).join("release/conntrack-guard"))
}

/// Builds the image from deploy/container/Containerfile around `binary`. No engine and no registry takes part: buildah
/// keeps its storage under `target`, starts from scratch and runs nothing.
pub fn build(root: &Path, target: &Path, buildah: &Path, binary: &Path) -> Result<Image> {
    let name = format!("{NAME}:{}", env!("CARGO_PKG_VERSION"));
    let work = target.join("image");
    let context = work.join("context");
    fs::create_dir_all(&context).with_context(|| format!("cannot create {}", context.display()))?;
    let inside = context.join("conntrack-guard");
    fs::copy(binary, &inside).with_context(|| format!("cannot copy {} to {}", binary.display(), inside.display()))?;

    // Nothing is kept from one build to the next: the image is one file, and old ones would pile up.
    let storage = work.join("storage");
    if storage.exists() {
        fs::remove_dir_all(&storage).with_context(|| format!("cannot remove {}", storage.display()))?;
    }
    // The machine's own container settings must not matter, nor be missed. Nothing is pulled, so nothing needs trust.
    let trust = work.join("trust.json");
    fs::write(&trust, r#"{"default":[{"type":"reject"}]}"#)
        .with_context(|| format!("cannot write {}", trust.display()))?;
    let nothing = work.join("nothing.conf");
    fs::write(&nothing, "").with_context(|| format!("cannot write {}", nothing.display()))?;
    let command = |verb: &str| {
        let mut command = Command::new(buildah);
        command
            .env("CONTAINERS_CONF", &nothing)
            .env("CONTAINERS_REGISTRIES_CONF", &nothing)
            .env("BUILDAH_ISOLATION", "chroot")
            .args(["--storage-driver", "vfs", "--root"])
            .arg(&storage)
            .arg("--runroot")
            .arg(work.join("run"))
            .args([verb, "--quiet", "--signature-policy"])
            .arg(&trust);
        command
    };

    let mut bud = command("bud");
    // A fixed time makes the same binary give the same image.
    bud.args(["--format", "oci", "--timestamp", "0", "--layers=false", "--build-arg"])
        .arg(format!("VERSION={}", env!("CARGO_PKG_VERSION")))
        .arg("--file")
        .arg(root.join("deploy/container/Containerfile"))
        .args(["--tag", &name])
        .arg(&context);
    run(bud)?;

    let archive = work.join(format!("conntrack-guard-{}.oci.tar", env!("CARGO_PKG_VERSION")));
    // buildah adds to an archive that is there instead of replacing it.
    if archive.exists() {
        fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))?;
    }
    let mut push = command("push");
    push.arg(&name).arg(format!("oci-archive:{}:{name}", archive.display()));
    run(push)?;
    let size = fs::metadata(&archive).with_context(|| format!("no {} after the build", archive.display()))?.len();
    Ok(Image { name, archive, size })
}

/// Runs a command; its output is shown only when it fails.
fn run(mut command: Command) -> Result<()> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        bail!(
            "{shown} failed ({}):\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
