//! Takes its time: any path answers after ?ms= milliseconds. `/headers...` shows the request as it
//! arrived, `/env` the environment, and `/exit?code=` ends the process in mid-request.

mod answers;

use std::{env, error::Error, net::Ipv4Addr};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = env::var("PORT").map_or(Ok(8080), |port| port.parse())?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
    let mut stop = signal(SignalKind::terminate())?;
    let started = answers::now();
    println!("slow: listening on port {port}");

    let connections = GracefulShutdown::new();
    loop {
        tokio::select! {
            _ = stop.recv() => break,
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                let _ = socket.set_nodelay(true);
                let service = service_fn(move |request| answers::answer(request, started));
                let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
                tokio::spawn(connections.watch(connection));
            }
        }
    }
    drop(listener); // who comes now is refused at once
    connections.shutdown().await;
    Ok(())
}
