//! Finding out when an instance answers: connecting until it accepts.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

/// The first tries are this far apart; a process that is about to listen is seen at once.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// After `EAGER` the pause doubles up to this, so that a slow starter costs next to nothing.
const LAST_PAUSE: Duration = Duration::from_millis(50);
/// How long the first pause is kept: twice what a container without volumes takes to start.
const EAGER: Duration = Duration::from_secs(1);
/// A connection within a cluster takes well under a millisecond; a lost SYN is sent again after a second.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);

/// Connects until the address accepts, and returns that connection. Ends only with success or
/// when dropped: the caller sets the deadline.
pub async fn until_accepts(address: SocketAddr) -> TcpStream {
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        if let Ok(Ok(stream)) = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            let _ = stream.set_nodelay(true);
            return stream;
        }
        sleep(pause).await;
        if started.elapsed() > EAGER {
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }
}
