//! Doing what was planned: two sequences of faults side by side.

mod api_server;
mod function;
mod platform;

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

pub use self::platform::{look, settled};
use crate::{
    load::Callers,
    plan::{Fault, Planned},
    progress,
    record::Seconds,
    world::World,
};

/// Between the end of a fault and the next of its sequence, at least.
const REST: Duration = Duration::from_secs(3);

/// Inflicts the faults of one sequence, up to a time.
pub async fn inflict_all(world: Arc<World>, callers: Arc<Callers>, planned: Vec<Planned>, until: Seconds) {
    for planned in planned {
        world.sleep_until(planned.at).await;
        if world.now() >= until {
            return;
        }
        world.begin(&planned);
        let done = inflict(&world, &callers, &planned).await;
        world.is_over(planned.number);
        if let Err(error) = done {
            progress::say(&format!("#{} {} failed: {error:#}", planned.number, planned.fault));
            world.note(planned.number, |h| h.failed = Some(format!("{error:#}")));
        }
        sleep(REST).await;
    }
}

async fn inflict(world: &Arc<World>, callers: &Arc<Callers>, planned: &Planned) -> anyhow::Result<()> {
    let number = planned.number;
    match &planned.fault {
        Fault::Kill { component, pick } => platform::kill(world, number, component, *pick).await,
        Fault::RestartGateways => platform::restart_gateways(world, number).await,
        Fault::StopApiServer { seconds } => api_server::stop(world, number, *seconds).await,
        Fault::DeletePod { function, pick } => function::delete_pod(world, number, function, *pick, false).await,
        Fault::ForceDeletePod { function, pick } => function::delete_pod(world, number, function, *pick, true).await,
        Fault::Crash { function, pick } => function::crash(world, number, function, *pick).await,
        Fault::RollOut { function } => function::roll_out(world, number, function).await,
        Fault::RollOutBad { function, how, seconds } => {
            function::roll_out_bad(world, number, function, *how, *seconds).await
        }
        Fault::NewWithBadImage { how, seconds } => {
            let name = planned.function().unwrap_or_default();
            function::new_with_bad_image(world, callers, (number, &name), *how, *seconds).await
        }
        Fault::Scale { function, min } => world.change(function, &serde_json::json!({"scale": {"min": min}})).await,
        Fault::Concurrency { function, to } => world.change(function, &serde_json::json!({"concurrency": to})).await,
    }
}
