//! `lambent healthcheck`: one call, in an image that has nothing else to call with.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::args::HealthcheckArgs;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// More of an answer is not read.
const MOST: u64 = 64 << 10;

/// Tries until the URL answers below 500, with the words that are wanted, or the time is over.
pub async fn run(args: &HealthcheckArgs) -> anyhow::Result<()> {
    let until = Instant::now() + args.timeout_seconds;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let outcome = timeout(left, check(args)).await.unwrap_or_else(|_| bail!("no answer in time"));
        match outcome {
            Ok(status) => {
                println!("{} answered {status}", args.url);
                return Ok(());
            }
            Err(error) if left <= PAUSE => return Err(error).context(args.url.clone()),
            Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn check(args: &HealthcheckArgs) -> anyhow::Result<u16> {
    let answer = call(&args.url).await?;
    let status = status(&answer).context("the answer is no HTTP")?;
    ensure!(status < 500, "it answered {status}");
    if let Some(words) = &args.contains {
        ensure!(answer.contains(words), "it answered {status} without {words:?}");
    }
    Ok(status)
}

/// The answer to a GET. HTTP/1.0, so that it ends with the connection.
async fn call(url: &str) -> anyhow::Result<String> {
    let rest = url.strip_prefix("http://").context("only http:// URLs can be called")?;
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut stream = TcpStream::connect(&address).await.with_context(|| format!("connecting to {address}"))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer).await.context("reading the answer")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn status(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// What a check finds where this is answered.
    async fn check_of(answer: &'static str, contains: Option<&str>) -> anyhow::Result<u16> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/some/path", listener.local_addr().unwrap());
        let args = HealthcheckArgs { url, timeout_seconds: Duration::ZERO, contains: contains.map(str::to_owned) };
        let answering = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /some/path HTTP/1.0\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        tokio::join!(check(&args), answering).0
    }

    const MISSING: &str = "HTTP/1.0 404 Not Found\r\n\r\n{\"reason\": \"FunctionNotFound\"}";

    #[tokio::test]
    async fn any_answer_below_500_will_do_unless_words_are_wanted() {
        assert_eq!(check_of(MISSING, None).await.unwrap(), 404);
        assert_eq!(check_of(MISSING, Some("FunctionNotFound")).await.unwrap(), 404);
        let other = check_of("HTTP/1.1 404 Not Found\r\n\r\nno such page", Some("FunctionNotFound")).await;
        assert!(other.unwrap_err().to_string().contains("FunctionNotFound"));
    }

    #[tokio::test]
    async fn an_error_of_the_server_and_no_http_are_failures() {
        assert!(check_of("HTTP/1.1 503 Service Unavailable\r\n\r\n", None).await.is_err());
        assert!(check_of("hello", None).await.is_err());
    }
}
