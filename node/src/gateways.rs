//! Which gateways there are: the addresses behind one name, asked for by DNS, which takes no rights.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    time::Duration,
};

use tokio::{net::lookup_host, time::sleep};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::link::Links;

/// Between two questions; names are kept about as long by cluster DNS.
const CALM: Duration = Duration::from_secs(5);
/// While a gateway is not connected: it may be gone, and another one in its place.
const EAGER: Duration = Duration::from_secs(1);

/// Keeps a connection to each gateway until it is dropped. `name` is `host:port`.
pub async fn run(name: String, links: Links) {
    let mut tasks: HashMap<SocketAddr, AbortOnDropHandle<()>> = HashMap::new();
    let mut complained = false;
    loop {
        match lookup_host(&name).await {
            Ok(found) => {
                follow(&mut tasks, &found.collect(), &links);
                complained = false;
            }
            // Those that are known stay.
            Err(error) if !complained => {
                warn!(name, %error, "the gateways' addresses can't be looked up; trying again");
                complained = true;
            }
            Err(_) => {}
        }
        let all = !tasks.is_empty() && links.count() >= tasks.len();
        sleep(if all { CALM } else { EAGER }).await;
    }
}

fn follow(tasks: &mut HashMap<SocketAddr, AbortOnDropHandle<()>>, found: &BTreeSet<SocketAddr>, links: &Links) {
    if tasks.len() != found.len() || !found.iter().all(|gateway| tasks.contains_key(gateway)) {
        info!(gateways = ?found, "gateways");
    }
    tasks.retain(|gateway, _| found.contains(gateway));
    for gateway in found {
        tasks.entry(*gateway).or_insert_with(|| AbortOnDropHandle::new(tokio::spawn(links.clone().keep(*gateway))));
    }
}
