//! As much of an HTTP server as a load needs: any request is answered with one short page, and the connection closed.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::churn::{REPLY_BYTES, REQUEST_TIMEOUT};

/// No request of a load is longer.
const LONGEST: usize = 4096;
const END: &[u8] = b"\r\n\r\n";

/// Answers one request. `None` where the client went away or asked for nothing.
pub(crate) async fn answer(mut stream: TcpStream) -> Option<()> {
    timeout(REQUEST_TIMEOUT, request(&mut stream)).await.ok()??;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {REPLY_BYTES}\r\nConnection: close\r\n\r\n");
    let page = [head.as_bytes(), &[b'r'; REPLY_BYTES]].concat();
    stream.write_all(&page).await.ok()?;
    stream.shutdown().await.ok()
}

/// Reads to the end of the head; there is no body.
async fn request(stream: &mut TcpStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.windows(END.len()).any(|bytes| bytes == END) {
        if head.len() > LONGEST || stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    Some(())
}
