//! Answers each connection once and closes it.

use std::net::SocketAddrV4;
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::oneshot;

use super::{CONNECT_TIMEOUT, REPLY_BYTES, REQUEST_BYTES, REQUEST_TIMEOUT};
use crate::netns::{Error, SERVER, Topology};

/// Where the server listens.
pub(super) const ADDRESS: SocketAddrV4 = SocketAddrV4::new(SERVER, 8080);

/// The server on its own thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Server {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<Result<()>, Error>>,
}

impl Server {
    /// Starts the server and returns once it listens.
    pub fn start(topology: &Topology) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (listens, ready) = mpsc::channel();
        let thread = topology.servers().spawn("churn-server", move || serve(&listens, stopped))?;
        if ready.recv().is_err() {
            // Its end says why.
            join(thread)?;
            bail!("ended before it listened on {ADDRESS}");
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

fn serve(listens: &mpsc::Sender<()>, stopped: oneshot::Receiver<()>) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(ADDRESS.into())?;
        // The kernel cuts this to somaxconn, 4096.
        let listener = socket.listen(4096).with_context(|| format!("cannot listen on {ADDRESS}"))?;
        // Nobody waits for it only where the caller is gone.
        let _ = listens.send(());
        tokio::select! {
            outcome = accept(listener) => outcome,
            _ = stopped => Ok(()),
        }
    })
}

async fn accept(listener: TcpListener) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await.context("cannot accept connections")?;
        tokio::task::spawn_local(async move {
            // Only the client's side of a connection is counted, and it sees every failure of this one.
            let _ = tokio::time::timeout(CONNECT_TIMEOUT + REQUEST_TIMEOUT, answer(stream)).await;
        });
    }
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = [0; REQUEST_BYTES];
    stream.read_exact(&mut request).await?;
    stream.write_all(&[b'r'; REPLY_BYTES]).await
}
