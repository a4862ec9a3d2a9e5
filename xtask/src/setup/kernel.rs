//! Stock Debian kernels, unpacked under `target/kernels/`, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::apt::{Package, Suite};
use super::{Piece, busybox, logs};
use crate::staging::Staging;
use crate::vm::modules;
use crate::{process, tree};

/// A kernel series that Debian ships, by the suite it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Series {
    /// Debian 11, bullseye
    #[value(name = "5.10")]
    V5_10,
    /// Debian 12, bookworm
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13, trixie
    #[value(name = "6.12")]
    V6_12,
    /// Debian 13's backports
    #[value(name = "7.2")]
    V7_2,
}

impl Series {
    /// Every one, the oldest first.
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V7_2 => "7.2",
        }
    }

    fn suite(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye",
            Self::V6_1 => "bookworm",
            Self::V6_12 => "trixie",
            Self::V7_2 => "trixie-backports",
        }
    }

    fn folder(self) -> PathBuf {
        tree::kept().join("kernels").join(self.name())
    }
}

/// An unpacked kernel.
pub struct Unpacked {
    /// As `uname -r` says in the guest.
    pub release: String,
    /// The bootable image.
    pub image: PathBuf,
    /// What belongs at `/lib/modules/<release>`, with depmod's indexes.
    pub modules: PathBuf,
    /// Modules a guest needs before it has a root, uncompressed, in the order to load them.
    pub boot_modules: Vec<PathBuf>,
}

impl Unpacked {
    /// Finds the kernel that set-up unpacked.
    pub fn open(series: Series) -> Result<Self> {
        let folder = series.folder();
        let read = |name: &str| {
            let file = folder.join(name);
            fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}: run `cargo xtask setup`", file.display()))
        };
        Ok(Self {
            release: read("release")?.trim().to_owned(),
            image: folder.join("vmlinuz"),
            modules: folder.join("modules"),
            boot_modules: read("boot/order")?.lines().map(|name| folder.join("boot").join(name)).collect(),
        })
    }
}

/// The set-up piece for one series.
pub struct Kernel(pub Series);

impl Piece for Kernel {
    fn name(&self) -> String {
        format!("kernel {}", self.0.name())
    }

    fn found(&self) -> Option<String> {
        Unpacked::open(self.0).ok().map(|kernel| kernel.release)
    }

    fn work(&self) -> &'static str {
        "fetching (about 100 MB)"
    }

    fn get(&self) -> Result<String> {
        let suite = Suite::open(self.0.suite())?;
        let packages = packages(&suite)?;
        let staging = Staging::beside(&self.0.folder())?;
        let unpacked = staging.dir().join("unpacked");
        for package in &packages {
            suite.unpack(&package.name, &package.version, staging.dir(), &unpacked)?;
        }
        let release = arrange(&unpacked, staging.dir())?;
        staging.commit(Path::new(""))?;
        let version = packages.first().map(|package| package.version.as_str()).unwrap_or_default();
        if release.starts_with(self.0.name()) {
            Ok(format!("{release} (Debian {version})"))
        } else {
            Ok(format!("{release} (Debian {version}; {} has moved on from {})", self.0.suite(), self.0.name()))
        }
    }
}

/// The packages that hold the image and the modules. `linux-image-amd64` names the newest; since 7.x that one in turn
/// names three that hold the files.
fn packages(suite: &Suite) -> Result<Vec<Package>> {
    let meta = suite.show("linux-image-amd64").context("the suite has no linux-image-amd64")?;
    let mut wanted = meta.depends;
    let mut packages: Vec<Package> = Vec::new();
    while let Some(name) = wanted.pop() {
        let kinds = ["linux-image-", "linux-base-", "linux-binary-", "linux-modules-"];
        let holds_files = kinds.iter().any(|kind| name.starts_with(kind));
        if holds_files && !packages.iter().any(|package| package.name == name) {
            let package = suite.show(&name).with_context(|| format!("the suite has no {name}"))?;
            wanted.extend(package.depends.iter().cloned());
            packages.push(package);
        }
    }
    if packages.is_empty() {
        bail!("linux-image-amd64 {} names no image package", meta.version);
    }
    Ok(packages)
}

/// From the packages' layout to ours: `vmlinuz`, `modules/`, `boot/`, `release`; the answer is the release.
fn arrange(unpacked: &Path, folder: &Path) -> Result<String> {
    // Newer packages use usr/lib, and since 7.x the image lies among the modules.
    let lib = ["usr/lib/modules", "lib/modules"].map(|path| unpacked.join(path));
    let lib = lib.iter().find(|path| path.is_dir()).context("the kernel's packages hold no modules")?;
    let packaged = only_child(lib)?;
    let release = packaged.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let images = [unpacked.join("boot").join(format!("vmlinuz-{release}")), packaged.join("vmlinuz")];
    let image = images.iter().find(|path| path.is_file()).with_context(|| format!("no image for {release}"))?;
    rename(image, &folder.join("vmlinuz"))?;
    // depmod works below a root that has lib/modules/<release>.
    let root = folder.join("depmod");
    let modules = root.join("lib/modules").join(&release);
    fs::create_dir_all(root.join("lib/modules")).context("cannot create the modules folder")?;
    rename(&packaged, &modules)?;
    let depmod = process::find_program("depmod").context("depmod is missing")?;
    process::run_logged(Command::new(depmod).arg("-b").arg(&root).arg(&release), &logs("depmod"))?;
    boot_modules(&modules, &folder.join("boot"))?;
    rename(&modules, &folder.join("modules"))?;
    write(&folder.join("release"), &release)?;
    for done in [root.as_path(), unpacked] {
        fs::remove_dir_all(done).with_context(|| format!("cannot remove {}", done.display()))?;
    }
    Ok(release)
}

/// Copies what a guest loads before it has a root, uncompressed: its busybox has no time to lose on xz.
fn boot_modules(modules: &Path, boot: &Path) -> Result<()> {
    let read = |name: &str| {
        let file = modules.join(name);
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    };
    let order = modules::load_order(&read("modules.dep")?, &read("modules.builtin")?, modules::BOOT)?;
    fs::create_dir_all(boot).with_context(|| format!("cannot create {}", boot.display()))?;
    let mut names: Vec<String> = Vec::new();
    for path in order {
        let from = modules.join(&path);
        let name = modules::name(&path);
        let plain = boot.join(format!("{name}.ko"));
        match from.extension().and_then(|e| e.to_str()) {
            Some("ko") => {
                fs::copy(&from, &plain).with_context(|| format!("cannot copy {}", from.display()))?;
            }
            Some("xz") => {
                let copy = boot.join(format!("{name}.ko.xz"));
                fs::copy(&from, &copy).with_context(|| format!("cannot copy {}", from.display()))?;
                process::output(Command::new(busybox()?).arg("unxz").arg(&copy))?;
            }
            _ => bail!("{} is compressed in a way that busybox cannot read", from.display()),
        }
        names.push(format!("{name}.ko"));
    }
    write(&boot.join("order"), &names.join("\n"))
}

/// The one folder in a folder.
fn only_child(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    match (paths.pop(), paths.is_empty()) {
        (Some(path), true) => Ok(path),
        _ => bail!("{} does not hold exactly one kernel", folder.display()),
    }
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
