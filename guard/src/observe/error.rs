//! A reading that failed.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Names the file and, where it was the content, the item.
#[derive(Debug, Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the read answered.
        source: io::Error,
    },
    /// The file says something else than the kernel's documentation.
    #[error("{}: {item}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        item: String,
    },
}
