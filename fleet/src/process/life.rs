//! The life of one instance: its process is started, started again when it crashes, and ended when
//! the instance is to stop.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use lambent_api::{InstanceRef, Reason};
use tokio::time::{Instant, sleep, timeout};

use super::{
    Shared,
    crash::{Crashes, Next},
    engine::NoEngine,
    launch::{is_process, launch},
    ports::is_free,
    supervised::{Exit, NotStarted, Process, find, spawn},
    table::{End, EndReceiver},
};
use crate::{Instance, Order, Phase, Stop};

/// From SIGTERM to SIGKILL, for one that may be busy, as in a cluster.
const GRACE: Duration = Duration::from_secs(10);
/// The same for one that no request uses.
const IDLE_GRACE: Duration = Duration::from_secs(2);

/// Lives until the instance is stopped.
pub(super) async fn live(shared: Arc<Shared>, order: Order, instance: Instance, mut end: EndReceiver) {
    let id = instance.id.clone();
    match shared.ports.take() {
        Some(port) => run(&shared, &order, instance, port.number, &mut end).await,
        None => fail(&shared, &id, Phase::Failing(Reason::new("NoPort", "no port is free"))),
    }
    // Without a port, or taken by another: whoever ordered it stops it.
    let _ = end.wait_for(Option::is_some).await;
    let mut table = shared.table.lock();
    table.remove(&id);
    shared.count.send_replace(table.len());
}

fn fail(shared: &Shared, id: &InstanceRef, phase: Phase) {
    shared.table.lock().change(id, |instance| (instance.phase, instance.address) = (phase, None));
}

async fn run(shared: &Arc<Shared>, order: &Order, instance: Instance, port: u16, end: &mut EndReceiver) {
    let mut crashes = Crashes::default();
    let id = instance.id.clone();
    while end.borrow().is_none() {
        let started = Instant::now();
        let next = match start(shared, order, &instance, port).await {
            Ok(mut process) => {
                let address = (Ipv4Addr::LOCALHOST, port).into();
                shared.table.lock().change(&id, |i| (i.phase, i.address) = (Phase::Running, Some(address)));
                let exit = until_exit(&mut process, order, end).await;
                let last_line = process.finish().await;
                match exit {
                    Exit::NotStarted(words) => crashes.not_started("CommandFailed", &words),
                    how => crashes.ended(started.elapsed(), &in_words(&how, last_line.as_deref())),
                }
            }
            Err(NotStarted { reason, words }) => crashes.not_started(reason, &words),
        };
        if end.borrow().is_some() {
            return;
        }
        if let Next::After(wait, reason) = next {
            fail(shared, &id, Phase::Failing(reason));
            let _ = timeout(wait, end.wait_for(Option::is_some)).await;
        }
        if !is_free(port) {
            return fail(
                shared,
                &id,
                Phase::Ended(Reason::new("PortTaken", format!("port {port} was taken by another process"))),
            );
        }
        shared.table.lock().change(&id, |i| (i.phase, i.restarts) = (Phase::Starting, i.restarts + 1));
    }
}

/// Until the process has ended, by itself or because the instance was stopped.
async fn until_exit(process: &mut Process, order: &Order, end: &mut EndReceiver) -> Exit {
    let how = tokio::select! {
        exit = process.exit() => return exit,
        how = end.wait_for(Option::is_some) => how.ok().and_then(|how| *how),
    };
    let mut grace = grace(how);
    if how == Some(End::Stop(Stop::Gracefully)) {
        // As a cluster's preStop sleep: what runs may go on until nobody waits for it.
        let shorter = |how: &Option<End>| *how != Some(End::Stop(Stop::Gracefully));
        tokio::select! {
            exit = process.exit() => return exit,
            how = end.wait_for(shorter) => grace = self::grace(how.ok().and_then(|how| *how)),
            () = sleep(order.settings.timeout) => {}
        }
    }
    process.terminate(grace).await;
    loop {
        tokio::select! {
            exit = process.exit() => return exit,
            Ok(()) = end.changed() => {
                let how = *end.borrow_and_update();
                process.terminate(self::grace(how)).await;
            }
        }
    }
}

fn grace(how: Option<End>) -> Duration {
    match how {
        Some(End::Within(grace)) => grace,
        Some(End::Stop(Stop::Idle)) => IDLE_GRACE,
        Some(End::Stop(Stop::Gracefully | Stop::Drained)) | None => GRACE,
    }
}

fn in_words(how: &Exit, last_line: Option<&str>) -> String {
    match last_line {
        Some(line) => format!("{how}: {line}"),
        None => how.to_string(),
    }
}

async fn start(shared: &Arc<Shared>, order: &Order, instance: &Instance, port: u16) -> Result<Process, NotStarted> {
    let engine = match is_process(&order.revision.spec.template) {
        true => Err(NoEngine::Off),
        false => shared.config.engine.get().await,
    };
    let launch =
        launch(order, port, engine).map_err(|error| NotStarted { reason: "NothingToRun", words: error.to_string() })?;
    let program = find(&launch)?;
    let (shared, instance) = (shared.clone(), instance.clone());
    let supervisors = shared.supervisors.clone();
    let output = Arc::new(move |channel, lines: &[String]| shared.config.output.lines(&instance, channel, lines));
    spawn(&supervisors, launch, program.into(), output)
        .await
        .map_err(|error| NotStarted { reason: "StartFailed", words: format!("starting a process: {error}") })
}
