//! Answers every connection to a unix socket, then closes it: with the status, or what it waits for, or what came of an
//! order. Whoever connects says what it wants and closes its side; nothing said asks for the status.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::brake::{Brake, Order, Reply};
use super::status::Status;
use super::waiting::Waiting;

/// Whoever takes no more than this long from the first word to the last gets an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Whoever has not said by then what it wants is hung up on: to ask for the status takes no word, only a closed side. On a host
/// that is busy with a flood, where one asks most of all, that may take its time.
const HEARING: Duration = Duration::from_secs(5);
/// Until there may be file descriptors again.
const RETRY: Duration = Duration::from_millis(500);
/// Connections at once. For one more the oldest is given up: it is the likeliest to want nothing.
const AT_ONCE: usize = 32;
/// What each connection gets whatever comes after it. So 32 connections a grace are dealt with, and no more are needed to
/// see to hundreds of idle ones before the next asker has lost its patience.
const GRACE: Duration = Duration::from_millis(50);
/// An order with every setting takes a tenth of it.
const LONGEST_ORDER: u64 = 8192;

/// The socket cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {path}: {source}; the guard's status needs a writable /run")]
pub struct Error {
    verb: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// What a server knows to answer.
pub trait Answers: Send + Sync + 'static {
    /// The status as it is now.
    fn status(&self) -> impl Serialize;

    /// Carries out an order of user `uid`.
    fn order(&self, order: Order, uid: u32) -> Reply;
}

/// A guard that guards.
#[derive(Debug)]
pub struct Guarding {
    /// As of the last tick.
    pub status: Arc<Mutex<Status>>,
    /// What pauses and resumes.
    pub brake: Brake,
}

impl Answers for Guarding {
    fn status(&self) -> impl Serialize {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Status { paused: self.brake.told(), ..status }
    }

    fn order(&self, order: Order, uid: u32) -> Reply {
        self.brake.obey(order, uid)
    }
}

impl Answers for Waiting {
    fn status(&self) -> impl Serialize {
        self.clone()
    }

    fn order(&self, _: Order, _: u32) -> Reply {
        Reply::Refused("the guard waits for nf_conntrack and changes nothing yet: there is nothing to pause".to_owned())
    }
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
    pub async fn run(self, answers: impl Answers) {
        let answers = Arc::new(answers);
        let mut open = VecDeque::new();
        loop {
            make_room(&mut open).await;
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let answers = Arc::clone(&answers);
                    let answering = tokio::spawn(async move {
                        // Whoever does not read or goes away gets no answer; nothing else is lost.
                        let _ = timeout(PATIENCE, answer(stream, &*answers)).await;
                    });
                    open.push_back((Instant::now(), answering.abort_handle()));
                }
                // Out of file descriptors: they come back when connections end.
                Err(_) => sleep(RETRY).await,
            }
        }
    }
}

/// Lets the oldest connections go, once they have had their grace, until there is room for another one.
async fn make_room(open: &mut VecDeque<(Instant, AbortHandle)>) {
    open.retain(|(_, answering)| !answering.is_finished());
    while open.len() >= AT_ONCE
        && let Some((since, oldest)) = open.pop_front()
    {
        sleep_until(since + GRACE).await;
        oldest.abort();
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

async fn answer(mut stream: UnixStream, answers: &impl Answers) -> io::Result<()> {
    let mut said = Vec::new();
    timeout(HEARING, (&mut stream).take(LONGEST_ORDER).read_to_end(&mut said)).await??;
    let text = if said.is_empty() {
        serde_json::to_vec(&answers.status())
    } else {
        // Only root can connect; who of them it was is for the log.
        let uid = stream.peer_cred()?.uid();
        serde_json::to_vec(&match serde_json::from_slice(&said) {
            Ok(order) => answers.order(order, uid),
            Err(error) => Reply::Refused(format!("the running guard does not know this order ({error})")),
        })
    };
    let mut text = text.unwrap_or_default();
    text.push(b'\n');
    stream.write_all(&text).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Setting;
    use crate::report::tests::status;
    use crate::report::{Answer, ask, order};

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_question_is_answered_and_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/status.sock");
        runtime().block_on(async {
            let server = tokio::spawn(Server::bind(&path).unwrap().run(guarding(status())));
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            let asked = path.clone();
            let answer = tokio::task::spawn_blocking(move || ask(&asked)).await.unwrap().unwrap();
            assert_eq!(answer, Answer::Status(Box::new(status())));
            server.abort();
            assert!(server.await.unwrap_err().is_cancelled());
        });
        assert!(!directory.path().join("run").exists());
    }

    fn guarding(status: Status) -> Guarding {
        Guarding { status: Arc::new(Mutex::new(status)), brake: Brake::default() }
    }

    /// Somebody asks at the socket of a server with these answers.
    fn asking(answers: impl Answers, ask: impl FnOnce(&Path) + Send + 'static) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/status.sock");
        runtime().block_on(async {
            let server = tokio::spawn(Server::bind(&path).unwrap().run(answers));
            tokio::task::spawn_blocking(move || ask(&path)).await.unwrap();
            server.abort();
        });
    }

    #[test]
    fn an_order_is_carried_out_and_shows_in_the_status_at_once() {
        asking(guarding(status()), |path| {
            let pause = Order::Pause { settings: vec![Setting::Max], for_ms: 60_000, by: None };
            let said = order(path, &pause).unwrap();
            assert!(said.starts_with("paused for 1 min, until 20"), "{said}");
            let Answer::Status(status) = ask(path).unwrap() else { panic!("it does not wait") };
            assert_eq!(status.paused[0].settings, [Setting::Max]);
            let none = Order::Pause { settings: Vec::new(), for_ms: 1, by: None };
            let refused = order(path, &none).unwrap_err().to_string();
            assert!(refused.contains("at least one setting"), "{refused}");
            let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
            io::Write::write_all(&mut stream, b"{\"order\": \"dance\"}").unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let text = io::read_to_string(stream).unwrap();
            assert!(text.contains("does not know this order"), "{text}");
        });
    }

    #[test]
    fn a_guard_that_waits_takes_no_orders() {
        asking(Waiting::new("no module".into()), |path| {
            let answer = order(path, &Order::Resume { settings: vec![Setting::Max] });
            assert!(answer.unwrap_err().to_string().contains("waits for nf_conntrack"));
        });
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
    fn hundreds_who_say_nothing_do_not_hide_the_guard_and_are_hung_up_on() {
        asking(guarding(status()), |path| {
            let connect = |_| std::os::unix::net::UnixStream::connect(path).unwrap();
            let idle: Vec<_> = (0..300).map(connect).collect();
            let answer = ask(path);
            assert!(matches!(answer, Ok(Answer::Status(_))), "{answer:?}");
            for stream in idle {
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                assert_eq!(io::read_to_string(stream).unwrap(), "", "nothing asked, nothing answered");
            }
        });
    }

    #[test]
    fn those_who_never_read_do_not_keep_others_waiting_for_long() {
        let mut large = status();
        large.trouble = Some("x".repeat(1 << 20));
        asking(guarding(large), |path| {
            let connect = |_| {
                let stream = std::os::unix::net::UnixStream::connect(path).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                stream
            };
            let _deaf: Vec<_> = (0..AT_ONCE).map(connect).collect();
            let answer = ask(path);
            assert!(answer.is_ok(), "{answer:?}");
        });
    }
}
