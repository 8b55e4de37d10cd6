//! The way to the gateways: one connection to each, read line by line. The controller uses it too,
//! for drained instances.

pub mod client;
pub mod discover;

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    path::PathBuf,
};

use futures::{Stream, StreamExt};
use lambent_api::signal::Message;
use tokio::{sync::mpsc, task::JoinSet};

/// Messages that wait to be read; gateways wait when it is full.
const MESSAGES: usize = 1024;

/// News about a gateway.
#[derive(Clone, Debug)]
pub enum LinkEvent {
    /// Connected; it will say everything that it knows, and then `Synced`.
    Up,
    /// It said something.
    Message(Message),
    /// The connection is lost.
    Down,
}

/// From which gateway, and what. Or which gateways there are.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // Nearly all are the large one, and none is kept.
pub enum FromGateways {
    /// One of them.
    One(SocketAddr, LinkEvent),
    /// All that there are.
    All(BTreeSet<SocketAddr>),
}

/// Keeps a connection to each of the gateways for as long as the receiver is there.
pub fn connect_all(
    gateways: impl Stream<Item = BTreeSet<SocketAddr>> + Send + 'static,
    token: PathBuf,
) -> mpsc::Receiver<FromGateways> {
    let (sender, receiver) = mpsc::channel(MESSAGES);
    tokio::spawn(follow(gateways, token, sender));
    receiver
}

async fn follow(
    gateways: impl Stream<Item = BTreeSet<SocketAddr>> + Send,
    token: PathBuf,
    to: mpsc::Sender<FromGateways>,
) {
    let mut gateways = std::pin::pin!(gateways);
    // Connections end with this task: both are dropped together.
    let mut connections = JoinSet::new();
    let mut by_address = HashMap::new();
    loop {
        let now = tokio::select! {
            now = gateways.next() => now,
            () = to.closed() => return,
        };
        let Some(now) = now else { return };
        by_address.retain(|address, task: &mut tokio::task::AbortHandle| {
            let stays = now.contains(address);
            if !stays {
                task.abort();
            }
            stays
        });
        for address in &now {
            let start = || connections.spawn(client::keep(*address, token.clone(), to.clone()));
            by_address.entry(*address).or_insert_with(start);
        }
        if to.send(FromGateways::All(now)).await.is_err() {
            return;
        }
    }
}
