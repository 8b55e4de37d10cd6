//! The smallest function: it answers with the name of its host. What makes it a good one: it
//! listens on $PORT, and on SIGTERM it finishes what runs and then ends.

use std::{convert::Infallible, env, error::Error, fs, net::Ipv4Addr};

use http_body_util::Full;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

async fn answer(_request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "nowhere".to_owned());
    Ok(Response::new(Full::from(format!("Hello from {}\n", host.trim()))))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = env::var("PORT").map_or(Ok(8080), |port| port.parse())?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
    let mut stop = signal(SignalKind::terminate())?;
    println!("hello: listening on port {port}");

    let connections = GracefulShutdown::new();
    loop {
        tokio::select! {
            _ = stop.recv() => break,
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                let _ = socket.set_nodelay(true);
                let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service_fn(answer));
                tokio::spawn(connections.watch(connection));
            }
        }
    }
    drop(listener); // who comes now is refused at once
    connections.shutdown().await;
    Ok(())
}
