//! Which kernel modules must be loaded before others, from depmod's index.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

/// What a guest needs before it has a root: the bus, the ports that carry output, the two file systems.
pub const BOOT: &[&str] = &["virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"];

/// The name modprobe knows a module by: its file's name up to `.ko`, with underscores.
pub fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

/// The files of `wanted` and of all they depend on, each after its dependencies; what is built in needs no file.
pub fn load_order(dep: &str, builtin: &str, wanted: &[&str]) -> Result<Vec<String>> {
    let mut index = BTreeMap::new();
    for (file, needs) in dep.lines().filter_map(|line| line.split_once(':')) {
        index.insert(name(file), (file, needs.split_whitespace().collect::<Vec<_>>()));
    }
    let mut order: Vec<String> = Vec::new();
    for module in wanted {
        if let Some((file, needs)) = index.get(*module) {
            // depmod lists all dependencies of a file, the one to load first at the end.
            for path in needs.iter().rev().chain([file]) {
                if !order.iter().any(|known| known == path) {
                    order.push((*path).to_owned());
                }
            }
        } else if !builtin.lines().any(|line| name(line) == *module) {
            bail!("this kernel has no module {module}");
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/net/9p/9pnet.ko.xz: kernel/fs/netfs/netfs.ko.xz\n\
        kernel/fs/netfs/netfs.ko.xz:\n\
        kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz\n\
        kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz\n\
        kernel/lib/crc-ccitt.ko:\n";
    const BUILTIN: &str = "kernel/drivers/virtio/virtio_pci.ko\n";

    #[test]
    fn dependencies_come_first_and_once() {
        let order = load_order(DEP, BUILTIN, &["virtio_pci", "9pnet_virtio", "9p"]).unwrap();
        assert_eq!(order.iter().map(|path| name(path)).collect::<Vec<_>>(), ["netfs", "9pnet", "9pnet_virtio", "9p"]);
    }

    #[test]
    fn names_have_underscores_whatever_the_compression() {
        assert_eq!(name("kernel/lib/crc-ccitt.ko"), "crc_ccitt");
        assert_eq!(name("kernel/fs/9p/9p.ko.zst"), "9p");
    }

    #[test]
    fn a_module_that_is_nowhere_is_named() {
        assert!(load_order(DEP, BUILTIN, &["overlay"]).unwrap_err().to_string().contains("overlay"));
    }
}
