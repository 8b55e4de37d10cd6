//! `lambent healthcheck`: one call, in an image that has nothing else to call with.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::args::HealthcheckArgs;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// Tries until the URL answers below 500 or the time is over.
pub async fn run(args: &HealthcheckArgs) -> anyhow::Result<()> {
    let until = Instant::now() + args.timeout_seconds;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let outcome = timeout(left, call(&args.url)).await.unwrap_or_else(|_| bail!("no answer in time"));
        match outcome {
            Ok(status) if status < 500 => {
                println!("{} answered {status}", args.url);
                return Ok(());
            }
            Ok(status) if left <= PAUSE => bail!("{} answered {status}", args.url),
            Err(error) if left <= PAUSE => return Err(error).context(args.url.clone()),
            _ => sleep(PAUSE).await,
        }
    }
}

/// The status of a GET. HTTP/1.0, so that the answer ends with the connection.
async fn call(url: &str) -> anyhow::Result<u16> {
    let rest = url.strip_prefix("http://").context("only http:// URLs can be called")?;
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut stream = TcpStream::connect(&address).await.with_context(|| format!("connecting to {address}"))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.context("reading the answer")?;
    let text = std::str::from_utf8(&head).context("the answer is no HTTP")?;
    text.strip_prefix("HTTP/1.").and_then(|t| t.get(2..5)).and_then(|s| s.parse().ok()).context("the answer is no HTTP")
}
