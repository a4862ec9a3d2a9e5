//! Builds the kernel half and puts the object where `kernel::hooks` includes it.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use aya_build::{Package, Toolchain};

fn main() -> Result<()> {
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let root = manifest.parent().context("guard is not inside the workspace")?;
    let tools = root.join("target/tools/bin");
    let library = library_sources(root)?;
    let path = env::join_paths([tools].into_iter().chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())))?;
    // SAFETY: a build script has one thread at this point. `core` is not shipped for the BPF target; these have cargo
    // build it from the library's sources.
    unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    // SAFETY: as above.
    unsafe { env::set_var("__CARGO_TESTS_ONLY_SRC_ROOT", library) };
    // SAFETY: as above.
    unsafe { env::set_var("PATH", path) };
    let toolchain = env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| "1.95.0".to_owned());
    let ebpf = root.join("guard-ebpf");
    let root_dir = ebpf.to_str().context("the path of the workspace is not UTF-8")?;
    aya_build::build_ebpf(
        [Package { name: "guard-ebpf", root_dir, ..Package::default() }],
        Toolchain::Custom(&toolchain),
    )
}

/// The standard library's sources: the toolchain's own, or those that `cargo xtask setup` unpacked.
fn library_sources(root: &Path) -> Result<PathBuf> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot =
        std::process::Command::new(rustc).args(["--print", "sysroot"]).output().context("rustc --print sysroot")?;
    let sysroot = PathBuf::from(String::from_utf8(sysroot.stdout)?.trim());
    [sysroot.join("lib/rustlib/src/rust/library"), root.join("target/rust-src/library")]
        .into_iter()
        .find(|library| library.join("core/src/lib.rs").exists())
        .ok_or_else(|| anyhow!("the eBPF programs need Rust's library sources; run `cargo xtask setup` once"))
}
