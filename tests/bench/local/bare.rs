//! The least that a proxy on hyper can be: each caller's connection has one of its own to the backend, and both are
//! driven by one task. It routes, limits, logs and adds nothing, so what it costs is hyper's and the kernel's.

use std::{net::SocketAddr, sync::Arc};

use hyper::{
    Request,
    body::Incoming,
    client::conn::http1::{self as client, SendRequest},
    server::conn::http1 as server,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Builder,
    sync::Mutex,
};

/// Runs until it is ended.
pub fn run(address: SocketAddr, backend: SocketAddr) -> anyhow::Result<()> {
    Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (caller, _) = listener.accept().await?;
            tokio::spawn(join(caller, backend));
        }
    })
}

/// Ends when either side closes its connection.
async fn join(caller: TcpStream, backend: SocketAddr) -> anyhow::Result<()> {
    let instance = TcpStream::connect(backend).await?;
    caller.set_nodelay(true)?;
    instance.set_nodelay(true)?;
    let (sender, instance) = client::Builder::new().writev(false).handshake(TokioIo::new(instance)).await?;
    // Requests of one connection come one after the other: it is always free.
    let sender: Arc<Mutex<SendRequest<Incoming>>> = Arc::new(Mutex::new(sender));
    let service = service_fn(move |request: Request<Incoming>| {
        let sender = sender.clone();
        async move { sender.lock().await.send_request(request).await }
    });
    let caller = server::Builder::new().writev(false).serve_connection(TokioIo::new(caller), service);
    tokio::select! {
        ended = caller => ended?,
        ended = instance => ended?,
    }
    Ok(())
}
