//! Calls of a gateway's internal port, and connections there that change their protocol.

use std::{net::SocketAddr, path::Path, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header, request::Builder};
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::http1, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::{net::TcpStream, time::timeout};

/// Connecting and being let in, where the protocol is changed.
const WITHIN: Duration = Duration::from_secs(1);

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The token's file.
    #[error("the token's file: {0}")]
    Token(std::io::Error),
    /// No connection.
    #[error("connecting: {0}")]
    Connect(std::io::Error),
    /// It broke off.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// A token that no header can hold.
    #[error("the request: {0}")]
    Request(#[from] http::Error),
    /// It does not let us in.
    #[error("it answered {0}")]
    Status(StatusCode),
    /// Not in time.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
}

impl ConnectError {
    /// Nothing listens there: the process has ended, and its connections with it.
    pub fn is_nobody_there(&self) -> bool {
        matches!(self, Self::Connect(error) if error.kind() == std::io::ErrorKind::ConnectionRefused)
    }
}

/// Calls the gateway at `address`, with the token in that file. Ends with the head of the answer, or after
/// `within`.
///
/// # Errors
/// If it can't be reached, or not in time.
pub async fn call(
    address: SocketAddr,
    token: &Path,
    request: Builder,
    body: Bytes,
    within: Duration,
) -> Result<Response<Incoming>, ConnectError> {
    let answer = async {
        // Read anew each time: the kubelet replaces it.
        let token = tokio::fs::read_to_string(token).await.map_err(ConnectError::Token)?;
        let request = request
            .header(header::HOST, address.to_string())
            .header(header::AUTHORIZATION, format!("Bearer {}", token.trim()))
            .body(Full::new(body))?;
        let stream = TcpStream::connect(address).await.map_err(ConnectError::Connect)?;
        stream.set_nodelay(true).map_err(ConnectError::Connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the answer, or with what it was upgraded to.
        tokio::spawn(connection.with_upgrades());
        Ok(sender.send_request(request).await?)
    };
    timeout(within, answer).await.map_err(|_| ConnectError::Timeout(within))?
}

/// Asks the gateway at `address` to go over to `protocol`, with the token in that file. Bounded in time.
///
/// # Errors
/// If it can't be reached or does not let us in.
pub async fn upgrade(
    address: SocketAddr,
    token: &Path,
    path: &str,
    protocol: &str,
) -> Result<TokioIo<Upgraded>, ConnectError> {
    let request = Request::post(path).header(header::CONNECTION, "upgrade").header(header::UPGRADE, protocol);
    let response = call(address, token, request, Bytes::new(), WITHIN).await?;
    match response.status() {
        // It is here already: the answer was the agreement.
        StatusCode::SWITCHING_PROTOCOLS => Ok(TokioIo::new(hyper::upgrade::on(response).await?)),
        status => Err(ConnectError::Status(status)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tempfile::NamedTempFile;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    fn token(text: &str) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[tokio::test]
    async fn bytes_go_both_ways_once_the_other_side_has_agreed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gateway = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            assert!(head.starts_with("POST /there HTTP/1.1\r\n") && head.contains("authorization: Bearer secret\r\n"));
            stream.write_all(b"HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: a/1\r\n\r\nhello").await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'!');
        };
        let file = token("secret\n");
        let agent = async {
            let mut stream = upgrade(address, file.path(), "/there", "a/1").await.unwrap();
            let mut said = [0; 5];
            stream.read_exact(&mut said).await.unwrap();
            assert_eq!(&said, b"hello");
            stream.write_all(b"!").await.unwrap();
        };
        tokio::join!(gateway, agent);
    }

    #[tokio::test]
    async fn who_is_refused_is_told_so_and_a_port_without_listener_is_known_as_such() {
        let file = token("secret");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gateway = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 403 x\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        };
        let agent = async {
            let refused = upgrade(address, file.path(), "/", "a/1").await.unwrap_err();
            assert!(matches!(refused, ConnectError::Status(StatusCode::FORBIDDEN)), "{refused}");
        };
        tokio::join!(gateway, agent);
        drop(listener);
        assert!(upgrade(address, file.path(), "/", "a/1").await.unwrap_err().is_nobody_there());
    }
}
