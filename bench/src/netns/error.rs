//! Why a topology could not be made or removed.

use std::io;
use std::path::PathBuf;

/// Why a topology could not be made, entered or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refuses: not root, a capability is missing, or /proc/sys is read-only.
    #[error(
        "{what}: not permitted here; it needs root with CAP_NET_ADMIN and CAP_SYS_ADMIN, as in a guest: `cargo xtask vm -- COMMAND`"
    )]
    NotPermitted {
        /// What was tried.
        what: String,
    },
    /// A program that the set-up needs is not installed.
    #[error("`{program}` is not here: install the package {package}")]
    NoTool {
        /// The program that was not found.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A program that was asked to set something up refused.
    #[error("`{command}` failed: {output}")]
    Tool {
        /// The command line.
        command: String,
        /// What it wrote to its standard error.
        output: String,
    },
    /// Another run has its topology in this network namespace, and both would use the same addresses.
    #[error("{owner} has its topology in this network namespace: wait for its end")]
    Busy {
        /// The other run's name.
        owner: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A thread could not enter a namespace.
    #[error("network namespace {name}: cannot enter: {source}")]
    Enter {
        /// The namespace.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    /// An error about a file: one of permission where the kernel says so.
    pub(super) fn file(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::NotPermitted { what: format!("{}: {source}", path.display()) }
            }
            _ => Self::File { path, source },
        }
    }
}
