//! Asks the running guard for its status, and gives it orders.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::brake::{Order, Reply};
use super::status::FORMAT;
use super::waiting::Answer;

/// The guard answers from memory; longer than this means that it is stuck.
const PATIENCE: Duration = Duration::from_secs(5);
/// Many times what a status can take.
const LONGEST: u64 = 4 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens.
    #[error("no conntrack-guard is running on this host: start one with `conntrack-guard run`")]
    NotRunning,
    /// The socket is root's.
    #[error("only root may talk to the guard: run it with sudo")]
    NotPermitted,
    /// Connecting or reading failed.
    #[error("cannot ask the guard at {path}: {source}; look at its log, or restart it")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// The answer is no status of this format.
    #[error("the running guard answers in another format ({0}): ask with the conntrack-guard of its version")]
    Format(String),
    /// The guard does not do what it was told.
    #[error("{0}")]
    Refused(String),
}

/// What the guard behind a socket answers.
pub fn ask(socket: &Path) -> Result<Answer, Error> {
    let answer: Answer = talk(socket, &[])?;
    if answer.version() != FORMAT {
        return Err(Error::Format(format!("version {}, not {FORMAT}", answer.version())));
    }
    Ok(answer)
}

/// Has the guard behind a socket carry out an order; what it says to it, for people.
pub fn order(socket: &Path, order: &Order) -> Result<String, Error> {
    let said = serde_json::to_vec(order).map_err(|error| Error::Format(error.to_string()))?;
    match talk(socket, &said)? {
        Reply::Done(text) => Ok(text),
        Reply::Refused(why) => Err(Error::Refused(why)),
    }
}

fn talk<T: DeserializeOwned>(socket: &Path, said: &[u8]) -> Result<T, Error> {
    let fail = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::NotRunning,
        io::ErrorKind::PermissionDenied => Error::NotPermitted,
        _ => Error::Io { path: socket.into(), source },
    };
    let mut stream = UnixStream::connect(socket).map_err(fail)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(fail)?;
    stream.write_all(said).and_then(|()| stream.shutdown(Shutdown::Write)).map_err(fail)?;
    let mut text = String::new();
    stream.take(LONGEST).read_to_string(&mut text).map_err(fail)?;
    if text.is_empty() {
        return Err(fail(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up without an answer")));
    }
    serde_json::from_str(&text).map_err(|error| Error::Format(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn nobody_there_and_a_stale_socket_read_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("status.sock");
        assert!(matches!(ask(&socket), Err(Error::NotRunning)));
        drop(UnixListener::bind(&socket).unwrap());
        assert!(socket.exists());
        assert!(matches!(ask(&socket), Err(Error::NotRunning)));
    }

    #[test]
    fn no_answer_is_not_taken_for_another_format() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("status.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || drop(listener.accept().unwrap()));
        let error = ask(&socket).unwrap_err();
        server.join().unwrap();
        assert!(error.to_string().contains("hung up without an answer"), "{error}");
    }

    #[test]
    fn an_answer_of_another_shape_is_no_panic() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("status.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"{\"version\": 9}").unwrap());
        let error = ask(&socket).unwrap_err();
        server.join().unwrap();
        assert!(matches!(error, Error::Format(_)), "{error}");
    }
}
