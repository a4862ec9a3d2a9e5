//! Answers every connection to a unix socket with the status, or with what it waits for, then closes it.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// A reader that takes no more than this long gets its answer; it cannot hold the guard up.
const PATIENCE: Duration = Duration::from_secs(2);
/// Answers in flight; further connections wait in the socket's own queue.
const AT_ONCE: usize = 8;

/// The socket cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {path}: {source}; the guard's status needs a writable /run")]
pub struct Error {
    verb: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The socket; removed when dropped, with its directory unless that holds something else.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    listener: UnixListener,
}

impl Server {
    /// Makes the directory and the socket, for root only. A socket that a killed guard left is replaced: the caller
    /// holds the lock, so nobody else listens.
    pub fn bind(path: &Path) -> Result<Self, Error> {
        let fail = |verb, path: &Path| {
            let path = path.to_path_buf();
            move |source| Error { verb, path, source }
        };
        if let Some(directory) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
            made.map_err(fail("make", directory))?;
        }
        if fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
            fs::remove_file(path).map_err(fail("replace", path))?;
        }
        let listener = UnixListener::bind(path).map_err(fail("listen on", path))?;
        let server = Self { path: path.into(), listener };
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(fail("protect", path))?;
        Ok(server)
    }

    /// Answers until it is dropped.
    pub async fn run(self, status: Arc<Mutex<impl Serialize>>) {
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let text = text(&status);
                    tokio::spawn(async move {
                        // Whoever does not read or goes away gets no answer; nothing else is lost.
                        let _ = timeout(PATIENCE, answer(stream, text)).await;
                        drop(slot);
                    });
                }
                // Out of file descriptors: they come back when connections end.
                Err(_) => tokio::time::sleep(PATIENCE).await,
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // They may be gone with /run already; the directory may be somebody's mount.
        let _ = fs::remove_file(&self.path);
        if let Some(directory) = self.path.parent() {
            let _ = fs::remove_dir(directory);
        }
    }
}

fn text(status: &Mutex<impl Serialize>) -> Vec<u8> {
    let status = status.lock().unwrap_or_else(PoisonError::into_inner);
    let mut text = serde_json::to_vec(&*status).unwrap_or_default();
    text.push(b'\n');
    text
}

async fn answer(mut stream: UnixStream, text: Vec<u8>) -> io::Result<()> {
    stream.write_all(&text).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::status;
    use crate::report::{Answer, ask};

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_question_is_answered_and_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/status.sock");
        runtime().block_on(async {
            let shared = Arc::new(Mutex::new(status()));
            let server = tokio::spawn(Server::bind(&path).unwrap().run(Arc::clone(&shared)));
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            let asked = path.clone();
            let answer = tokio::task::spawn_blocking(move || ask(&asked)).await.unwrap().unwrap();
            assert_eq!(answer, Answer::Status(Box::new(status())));
            server.abort();
            assert!(server.await.unwrap_err().is_cancelled());
        });
        assert!(!directory.path().join("run").exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_but_never_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/status.sock");
        fs::create_dir(directory.path().join("run")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        runtime().block_on(async {
            drop(Server::bind(&path).unwrap());
            fs::create_dir(directory.path().join("run")).unwrap();
            fs::write(&path, "precious").unwrap();
            assert!(Server::bind(&path).is_err());
        });
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn those_who_never_read_do_not_keep_others_waiting_for_long() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/status.sock");
        runtime().block_on(async {
            let mut large = status();
            large.trouble = Some("x".repeat(1 << 20));
            let server = tokio::spawn(Server::bind(&path).unwrap().run(Arc::new(Mutex::new(large))));
            let mut idle = Vec::new();
            for _ in 0..AT_ONCE {
                idle.push(UnixStream::connect(&path).await.unwrap());
            }
            let asked = path.clone();
            let answer = tokio::task::spawn_blocking(move || ask(&asked)).await.unwrap();
            assert!(answer.is_ok(), "{answer:?}");
            server.abort();
        });
    }
}
