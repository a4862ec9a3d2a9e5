//! `cargo xtask image`: the static binary, and the container image that holds it, as an OCI archive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{process, setup, staging, tree};

/// The name the image carries; deploy/kubernetes/kustomization.yaml names the same.
pub const NAME: &str = "localhost/conntrack-guard";
/// The image's tag.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What `build` made.
#[derive(Debug)]
pub struct Image {
    /// Name and tag.
    pub name: String,
    /// The OCI archive.
    pub archive: PathBuf,
}

/// `cargo xtask image`
pub fn run() -> Result<()> {
    let mut pieces = setup::for_build();
    pieces.extend(setup::for_image());
    setup::ensure(&pieces, setup::Say::Fetched)?;
    let binary = static_binary()?;
    let image = build(&binary)?;
    println!("binary  {}  {}", binary.display(), size(&binary)?);
    println!("image   {}  {}  {}", image.archive.display(), size(&image.archive)?, image.name);
    Ok(())
}

/// Builds the daemon as one file that needs no other: the C library linked in, no loader. Returns where it is.
pub fn static_binary() -> Result<PathBuf> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut cargo = process::cargo();
    // With --target the flags reach the daemon but not the build scripts and macros, which must stay dynamic.
    cargo
        .args(["build", "--release", "--package", "conntrack-guard", "--bin", "conntrack-guard", "--target", &triple])
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    process::run_logged(&mut cargo, &log("static-binary"))?;
    Ok(tree::built().join(triple).join("release/conntrack-guard"))
}

/// Builds the image from deploy/container/Containerfile around `binary`. No engine and no registry takes part: buildah
/// keeps its storage here, starts from scratch and runs nothing.
pub fn build(binary: &Path) -> Result<Image> {
    let name = format!("{NAME}:{VERSION}");
    let context = folder().join("context");
    fs::create_dir_all(&context).with_context(|| format!("cannot create {}", context.display()))?;
    let inside = context.join("conntrack-guard");
    fs::copy(binary, &inside).with_context(|| format!("cannot copy {} to {}", binary.display(), inside.display()))?;
    // Nothing is kept from one build to the next: the image is one file, and old ones would pile up.
    let storage = folder().join("storage");
    staging::remove(&storage)?;
    // The machine's own container settings must not matter, nor be missed. Nothing is pulled, so nothing needs trust.
    let trust = folder().join("trust.json");
    let nothing = folder().join("nothing.conf");
    for (file, text) in [(&trust, r#"{"default":[{"type":"reject"}]}"#), (&nothing, "")] {
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let buildah = |verb: &str| {
        let mut command = Command::new("buildah");
        command
            .env("CONTAINERS_CONF", &nothing)
            .env("CONTAINERS_REGISTRIES_CONF", &nothing)
            .env("BUILDAH_ISOLATION", "chroot")
            .args(["--storage-driver", "vfs", "--root"])
            .arg(&storage)
            .arg("--runroot")
            .arg(folder().join("run"))
            .args([verb, "--quiet", "--signature-policy"])
            .arg(&trust);
        command
    };

    let mut bud = buildah("bud");
    // A fixed time makes the same binary give the same image.
    bud.args(["--format", "oci", "--timestamp", "0", "--layers=false", "--build-arg"])
        .arg(format!("VERSION={VERSION}"))
        .arg("--file")
        .arg(tree::root().join("deploy/container/Containerfile"))
        .args(["--tag", &name])
        .arg(&context);
    process::run_logged(&mut bud, &log("bud"))?;

    let archive = folder().join(format!("conntrack-guard-{VERSION}.oci.tar"));
    // buildah adds to an archive that is there instead of replacing it.
    if archive.exists() {
        fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))?;
    }
    let mut push = buildah("push");
    push.arg(&name).arg(format!("oci-archive:{}:{name}", archive.display()));
    process::run_logged(&mut push, &log("push"))?;
    Ok(Image { name, archive })
}

fn folder() -> PathBuf {
    tree::built().join("image")
}

fn log(step: &str) -> PathBuf {
    folder().join("logs").join(format!("{step}.log"))
}

fn size(file: &Path) -> Result<String> {
    let bytes = fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?.len();
    Ok(format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)))
}
