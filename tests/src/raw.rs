//! Requests byte by byte, for what no HTTP client would send.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::Gateway;

/// Nothing that is read here takes longer.
const LIMIT: Duration = Duration::from_secs(60);

/// A connection that sends exactly what it is told.
pub struct Raw {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Raw {
    /// A new connection.
    ///
    /// # Panics
    /// If there is none to be had.
    pub async fn connect(gateway: &Gateway) -> Self {
        let stream = TcpStream::connect(&gateway.authority).await.expect("a connection to the gateway");
        stream.set_nodelay(true).expect("no delay");
        Self { stream, unread: Vec::new() }
    }

    /// Sends these bytes. That the other side reads no more is no failure: it may have answered.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Status line and headers of the answer.
    ///
    /// # Panics
    /// If there are none.
    pub async fn head(&mut self) -> String {
        self.up_to(b"\r\n\r\n").await
    }

    /// The next line, with its end.
    ///
    /// # Panics
    /// If there is none.
    pub async fn line(&mut self) -> String {
        self.up_to(b"\n").await
    }

    async fn up_to(&mut self, end: &[u8]) -> String {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|w| w == end) {
                let head: Vec<u8> = self.unread.drain(..at + end.len()).collect();
                return String::from_utf8_lossy(&head).into_owned();
            }
            assert!(self.read().await, "the connection ended after {:?}", self.so_far());
        }
    }

    /// Everything up to the end of the connection.
    pub async fn to_end(mut self) -> String {
        while self.read().await {}
        self.so_far()
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.unread).into_owned()
    }

    async fn read(&mut self) -> bool {
        let read = timeout(LIMIT, self.stream.read_buf(&mut self.unread)).await.expect("more of an answer");
        read.is_ok_and(|count| count > 0)
    }
}
