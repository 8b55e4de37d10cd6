//! Finding out when an instance answers, where no readiness probe of its author's tells: the
//! controller connects by itself, so that a Function becomes Ready without anybody calling it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use lambent_api::FunctionKey;
use lambent_fleet::{Fleet, Instance, probe};
use tokio_util::task::AbortOnDropHandle;

use crate::context::Context;

/// Begins to try those instances that have an address and have not answered.
pub(crate) fn start<F: Fleet>(context: &Arc<Context<F>>, instances: &[&Instance], start_timeout: Duration) {
    for instance in instances {
        let Some(address) = instance.connectable() else { continue };
        let key = instance.function_key();
        context.remember(&key, |memory| {
            if memory.wants_probe(&instance.id.uid) {
                memory.probing(&instance.id.uid, spawn(context, instance, address, start_timeout));
            }
        });
    }
}

fn spawn<F: Fleet>(
    context: &Arc<Context<F>>,
    instance: &Instance,
    address: SocketAddr,
    limit: Duration,
) -> AbortOnDropHandle<()> {
    let (context, key) = (context.clone(), instance.function_key());
    let (uid, restarts) = (instance.id.uid.clone(), instance.restarts);
    AbortOnDropHandle::new(tokio::spawn(async move {
        // The semaphore is never closed; without a permit this would merely be unbounded.
        let _permit = context.probes.acquire().await;
        // After the limit the instance is overdue and goes: nobody waits for it any more.
        if tokio::time::timeout(limit, probe::until_accepts(address)).await.is_ok() {
            accepted(&context, key, &uid, restarts);
        }
    }))
}

fn accepted<F>(context: &Context<F>, function: FunctionKey, uid: &str, restarts: u32) {
    context.remember_if_known(&function, |memory| memory.answered(uid, restarts));
    context.queue.touch(function);
}
