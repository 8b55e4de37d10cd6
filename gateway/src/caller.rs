//! A caller's connection, shared so that its closing is seen also while a request body on it is
//! unread: HTTP alone would notice only at the next read.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// A connection as HTTP reads and writes it.
#[derive(Debug)]
pub struct Caller {
    reads: OwnedReadHalf,
    writes: Arc<OwnedWriteHalf>,
}

/// Sees the closing of a connection.
#[derive(Clone, Debug)]
pub struct Presence(Arc<OwnedWriteHalf>);

impl Caller {
    /// Shares a connection.
    pub fn new(stream: TcpStream) -> (Self, Presence) {
        let (reads, writes) = stream.into_split();
        let writes = Arc::new(writes);
        (Self { reads, writes: writes.clone() }, Presence(writes))
    }

    fn stream(&self) -> &TcpStream {
        (*self.writes).as_ref()
    }

    fn poll_until_written(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream().poll_write_ready(cx))?;
            match write(self.stream()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl Presence {
    /// Ends when the other side has closed its end, whatever is still unread before that.
    pub async fn ends(&self) {
        // Of all readiness only the closing is waited for: nobody sends urgent data to an HTTP server.
        while self.0.ready(Interest::PRIORITY).await.is_ok_and(|ready| !ready.is_read_closed()) {
            tokio::task::yield_now().await;
        }
    }
}

impl AsyncRead for Caller {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reads).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Caller {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_until_written(cx, |stream| stream.try_write(data))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_until_written(cx, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = SockRef::from(self.stream()).shutdown(std::net::Shutdown::Write);
        // Closed by the other side already: nothing is left to shut.
        Poll::Ready(shut.or_else(|e| if e.kind() == io::ErrorKind::NotConnected { Ok(()) } else { Err(e) }))
    }
}
