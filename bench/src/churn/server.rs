//! Answers each connection, and closes it when the request says so.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::connections::Manner;
use super::{CONNECT_TIMEOUT, REPLY_BYTES, REQUEST_BYTES, REQUEST_TIMEOUT};
use crate::load::answer_http;
use crate::netns::{Error, Topology};

/// What is answered to those who connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Requests of this program's own clients.
    Churn,
    /// Requests of HTTP.
    Http,
}

/// The server on its own thread; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<Result<()>, Error>>,
}

impl Server {
    /// Starts the server and returns once it listens.
    pub fn start(topology: &Topology, port: u16, service: Service) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (listens, ready) = mpsc::channel();
        let address = topology.shape().listen(port);
        let thread = topology.servers().spawn("churn-server", move || serve(address, service, &listens, stopped))?;
        if ready.recv().is_err() {
            // Its end says why.
            join(thread)?;
            bail!("ended before it listened on {address}");
        }
        Ok(Self { stop, thread })
    }

    /// Ends the server; connections that it still has are closed.
    pub fn stop(self) -> Result<()> {
        drop(self.stop);
        join(self.thread)
    }
}

fn join(thread: JoinHandle<Result<Result<()>, Error>>) -> Result<()> {
    thread.join().map_err(|_| anyhow!("panicked"))??
}

fn serve(
    address: SocketAddr,
    service: Service,
    listens: &mpsc::Sender<()>,
    stopped: oneshot::Receiver<()>,
) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address).with_context(|| format!("cannot bind {address}"))?;
        // The kernel cuts this to somaxconn, 4096.
        let listener = socket.listen(4096).with_context(|| format!("cannot listen on {address}"))?;
        // Nobody waits for it only where the caller is gone.
        let _ = listens.send(());
        tokio::select! {
            outcome = accept(listener, service) => outcome,
            _ = stopped => Ok(()),
        }
    })
}

async fn accept(listener: TcpListener, service: Service) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await.context("cannot accept connections")?;
        tokio::task::spawn_local(async move {
            // Only the client's side of a connection is counted, and it sees every failure of this one.
            let _ = match service {
                Service::Churn => serve_one(stream).await,
                Service::Http => answer_http(stream).await,
            };
        });
    }
}

/// `None` where the client went away or asked for nothing.
async fn serve_one(mut stream: TcpStream) -> Option<()> {
    let (manner, wait) = timeout(CONNECT_TIMEOUT + REQUEST_TIMEOUT, answer(&mut stream)).await.ok()??;
    match manner {
        Manner::Close => {}
        // Up to the client's FIN, or its reset.
        Manner::Wait => while answer(&mut stream).await.is_some() {},
        Manner::Delay => {
            // Nothing more is sent: what is read is the client's FIN, or its reset.
            if stream.read(&mut [0]).await.ok()? > 0 {
                return None;
            }
            sleep(wait).await;
        }
    }
    Some(())
}

async fn answer(stream: &mut TcpStream) -> Option<(Manner, Duration)> {
    let mut request = [0; REQUEST_BYTES];
    stream.read_exact(&mut request).await.ok()?;
    stream.write_all(&[b'r'; REPLY_BYTES]).await.ok()?;
    Manner::of(&request)
}
