//! Long bodies: how fast they pass, and that they aren't held in memory.

use std::{net::SocketAddr, time::Instant};

use anyhow::ensure;
use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::{Request, body::Frame, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{
    Plan, Rows,
    shape::{Columns, shuffled},
};
use crate::{
    local::{Contestant, Lab},
    process, progress,
    row::Row,
    stats::{Estimate, paired},
};

const LENGTH: usize = 64 * 1000 * 1000;
const CHUNK: usize = 64 * 1024;
static ZEROS: [u8; CHUNK] = [0; CHUNK];
/// From the function to the caller, and the other way.
pub const WAYS: [&str; 2] = ["down", "up"];

/// Measures.
pub async fn run(plan: Plan) -> Rows {
    let lab = Lab::start(&plan.folder).await?;
    let rounds = plan.rounds(15, 3);
    let mut columns = Columns::default();
    for round in 0..rounds {
        progress::say(&format!("round {} of {rounds}", round + 1));
        for at in shuffled(lab.contestants.len() * WAYS.len()) {
            transfer(&lab.contestants[at / WAYS.len()], WAYS[at % WAYS.len()], &mut columns).await?;
        }
    }
    let mut rows = Vec::new();
    for way in WAYS {
        rows.extend(rows_of(way, &columns, &lab.contestants)?);
    }
    Ok(rows)
}

async fn transfer(contestant: &Contestant, way: &str, columns: &mut Columns) -> anyhow::Result<()> {
    let name = contestant.name;
    let before = process::resident(&contestant.pids);
    for pid in &contestant.pids {
        process::forget_peak(*pid)?;
    }
    let cpu = process::cpu_seconds(&contestant.pids);
    let seconds = send(contestant.target.address, &contestant.target.path, way).await?;
    let mut peak = 0.0;
    for pid in &contestant.pids {
        peak += process::peak(*pid)?;
    }
    columns.push(format!("rate {way} {name}"), LENGTH as f64 / 1e6 / seconds);
    columns.push(format!("cpu {way} {name}"), (process::cpu_seconds(&contestant.pids) - cpu) * 1e3);
    columns.push(format!("peak {way} {name}"), (peak - before).max(0.0) / 1024.0);
    Ok(())
}

/// Seconds for a body of that length.
pub async fn send(address: SocketAddr, path: &str, way: &str) -> anyhow::Result<f64> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let (method, path, length) = match way {
        "down" => ("GET", format!("{path}bytes/{LENGTH}"), 0),
        _ => ("POST", path.to_owned(), LENGTH),
    };
    let chunks = (0..length).step_by(CHUNK).map(move |from| {
        let chunk = Bytes::from_static(&ZEROS[..CHUNK.min(length - from)]);
        Ok::<_, std::convert::Infallible>(Frame::data(chunk))
    });
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, address.to_string());
    if length > 0 {
        request = request.header(header::CONTENT_LENGTH, length);
    }
    let started = Instant::now();
    let response = sender.send_request(request.body(StreamBody::new(stream::iter(chunks)))?).await?;
    ensure!(response.status() == 200, "{}", response.status());
    let (mut body, mut received) = (response.into_body(), 0);
    while let Some(frame) = body.frame().await {
        received += frame?.data_ref().map_or(0, Bytes::len);
    }
    let seconds = started.elapsed().as_secs_f64();
    ensure!(way != "down" || received == LENGTH, "{received} bytes");
    connection.abort();
    Ok(seconds)
}

fn rows_of(way: &str, columns: &Columns, contestants: &[Contestant]) -> Rows {
    let key = |what: &str, name: &str| format!("{what} {way} {name}");
    let ours = "Lambent";
    let mut rate = Row::new(format!("64 MB {way}"), "MB/s", columns.median(&key("rate", ours))?)
        .floor("direct", columns.median(&key("rate", "direct"))?);
    let mut cpu = Row::new(format!("processor for 64 MB {way}"), "ms", columns.median(&key("cpu", ours))?);
    let most = |name: &str| Estimate::quantile(columns.of(&key("peak", name)), 1.0);
    let mut peak = Row::new(format!("most memory taken for 64 MB {way}"), "MiB", most(ours)?);
    for peer in contestants.iter().map(|c| c.name).filter(|name| !["direct", ours].contains(name)) {
        rate = rate.peer(peer, columns.median(&key("rate", peer))?);
        cpu = cpu.peer(peer, columns.median(&key("cpu", peer))?);
        peak = peak.peer(peer, most(peer)?);
        if peer == "nginx" {
            rate = rate.ratio(peer, paired(columns.of(&key("rate", ours)), columns.of(&key("rate", peer)))?);
        }
    }
    Ok(vec![rate, cpu, peak])
}
