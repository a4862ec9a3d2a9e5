//! May this process change the table's settings, and is it the only guard that does?

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::settings::HASHSIZE;
use crate::observe::table::DIRECTORY;

/// Why no guard can work here. Nothing has been changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Only root may.
    #[error("only root may change nf_conntrack's settings: run it as root (`sudo conntrack-guard …`)")]
    NotRoot,
    /// The kernel tracks no connections.
    #[error(
        "this kernel has no nf_conntrack ({0} is missing): load it with `modprobe nf_conntrack`; if the guard runs in a \
         container, give it the host's network"
    )]
    NoConntrack(PathBuf),
    /// The table's size can be set in the host's namespace only.
    #[error(
        "this is not the host's network namespace ({0} is read-only here): start the guard there (Kubernetes: \
         hostNetwork: true; containers: --network host)"
    )]
    OtherNamespace(PathBuf),
    /// The file that serves as the lock cannot be opened.
    #[error(
        "cannot open {path}, by which guards on one host exclude each other: {source}; run it as the host's root, with \
         sysfs mounted on /sys"
    )]
    NoLock {
        /// The lock.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is one already.
    #[error(
        "another conntrack-guard runs on this host and holds the table: `conntrack-guard status` shows it; stop it \
         first (`systemctl stop conntrack-guard`, or delete its pod)"
    )]
    Taken,
}

/// The right to change the table: held until dropped, or until the process is gone, however it went.
#[derive(Debug)]
pub struct Access {
    _lock: Flock<File>,
}

impl Access {
    /// Checks that the kernel below `root` has a table that this process may change, and takes the lock on it.
    ///
    /// The lock is on the kernel's own file: every container in the host's network namespace sees the same inode, so
    /// two guards meet there whatever their state directories are, and only root can open it at all.
    pub fn take(root: &Path) -> Result<Self, Error> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        check(root)?;
        lock(root)
    }
}

/// Whether the table is there and is the host's.
fn check(root: &Path) -> Result<(), Error> {
    let directory = root.join(DIRECTORY);
    let max = directory.join("nf_conntrack_max");
    if !max.exists() {
        return Err(Error::NoConntrack(max));
    }
    // The kernel takes the write bits away in every other namespace (nf_conntrack_standalone_init_sysctl).
    for file in [directory.join("nf_conntrack_buckets"), max] {
        if fs::metadata(&file).is_ok_and(|meta| meta.permissions().mode() & 0o222 == 0) {
            return Err(Error::OtherNamespace(file));
        }
    }
    Ok(())
}

fn lock(root: &Path) -> Result<Access, Error> {
    let path = root.join(HASHSIZE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(source) => return Err(Error::NoLock { path, source }),
    };
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Access { _lock: lock }),
        Err((_, Errno::EWOULDBLOCK)) => Err(Error::Taken),
        Err((_, errno)) => Err(Error::NoLock { path, source: errno.into() }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;
    use crate::actuate::testing::FakeKernel;

    #[test]
    fn no_conntrack_names_modprobe() {
        let empty = tempfile::tempdir().unwrap();
        let error = check(empty.path()).unwrap_err();
        assert!(matches!(error, Error::NoConntrack(_)));
        assert!(error.to_string().contains("modprobe nf_conntrack"));
    }

    #[test]
    fn a_table_without_write_bits_is_another_namespace() {
        let kernel = FakeKernel::new(65536, 16384, 10);
        check(kernel.root()).unwrap();
        let buckets = kernel.path("proc/sys/net/netfilter/nf_conntrack_buckets");
        fs::set_permissions(&buckets, Permissions::from_mode(0o444)).unwrap();
        assert!(matches!(check(kernel.root()), Err(Error::OtherNamespace(path)) if path == buckets));
    }

    #[test]
    fn the_second_is_refused_until_the_first_is_gone() {
        let kernel = FakeKernel::new(65536, 16384, 10);
        let first = lock(kernel.root()).unwrap();
        assert!(matches!(lock(kernel.root()), Err(Error::Taken)));
        drop(first);
        lock(kernel.root()).unwrap();
    }
}
