//! The API server of the test cluster, stopped for a while: it keeps its connections and answers
//! nobody, as one that hangs.

use std::time::Duration;

use lambent_tests::control_plane::Daemon;
use tokio::time::sleep;

use crate::world::World;

/// Stops it for so many seconds.
pub async fn stop(world: &World, number: usize, seconds: u64) -> anyhow::Result<()> {
    let server = Daemon::find(&world.cx, "apiserver")?;
    world.hits(number, &format!("kube-apiserver, process {}, SIGSTOP", server.pid()));
    let _frozen = server.freeze(Duration::from_secs(seconds + 2))?;
    sleep(Duration::from_secs(seconds)).await;
    Ok(())
}
