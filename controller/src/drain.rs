//! Cutting the grace of stopping instances short as soon as a gateway says that no request uses
//! them any more. Only those that are stopping already: a gateway may tell, not stop.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt};
use lambent_api::{
    FunctionKey,
    signal::{Drained, Message},
};
use lambent_fleet::{Fleet, Phase, Stop};

use crate::{context::Context, names, parked};

/// The gateway's watch may be faster than ours, but not by more.
const AHEAD: Duration = Duration::from_secs(10);
/// How often we look whether ours has caught up.
const LOOK: Duration = Duration::from_millis(50);
/// So many are kept until then; for more the grace runs its course.
const EARLY: usize = 4096;

/// Whether an instance may be ended.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is stopping.
    End,
    /// It is there but not known to be stopping, yet.
    Wait,
    /// It is gone, or was never there.
    Ignore,
}

/// Follows what gateways say, for ever.
pub(crate) async fn run<F: Fleet>(context: Arc<Context<F>>, said: impl Stream<Item = Message> + Send) {
    let mut said = std::pin::pin!(said.fuse());
    let mut early: VecDeque<(Drained, Instant)> = VecDeque::new();
    loop {
        tokio::select! {
            Some(message) = said.next() => match message {
                Message::Drained(news) => take(&context, &mut early, news).await,
                Message::Load(load) => parked::take(&context, &load),
                Message::Synced => {}
            },
            () = tokio::time::sleep(LOOK), if !early.is_empty() => look_again(&context, &mut early).await,
            else => std::future::pending().await,
        }
    }
}

async fn take<F: Fleet>(context: &Context<F>, early: &mut VecDeque<(Drained, Instant)>, news: Drained) {
    match judge(context, &news) {
        Verdict::End => end(context, &news).await,
        Verdict::Wait if early.len() < EARLY => early.push_back((news, Instant::now())),
        Verdict::Wait | Verdict::Ignore => {}
    }
}

async fn look_again<F: Fleet>(context: &Context<F>, early: &mut VecDeque<(Drained, Instant)>) {
    for _ in 0..early.len() {
        let Some((news, since)) = early.pop_front() else { return };
        match judge(context, &news) {
            Verdict::End => end(context, &news).await,
            Verdict::Wait if since.elapsed() < AHEAD => early.push_back((news, since)),
            Verdict::Wait | Verdict::Ignore => {}
        }
    }
}

fn judge<F>(context: &Context<F>, news: &Drained) -> Verdict {
    let Some(function) = names::function_of(&news.instance.name) else { return Verdict::Ignore };
    let index = context.instances.lock();
    match index.get(&FunctionKey::new(news.namespace.clone(), function), &news.instance.name) {
        Some(instance) if instance.id != news.instance => Verdict::Ignore,
        // Said again until it is gone; it has been told already.
        Some(instance) if news.in_use && instance.phase == Phase::Stopping => Verdict::Ignore,
        Some(instance) if news.stuck || instance.phase == Phase::Stopping => Verdict::End,
        Some(_) => Verdict::Wait,
        None => Verdict::Ignore,
    }
}

async fn end<F: Fleet>(context: &Context<F>, news: &Drained) {
    let Drained { stuck, in_use, namespace, instance } = news;
    let how = match (stuck, in_use) {
        (true, true) => Stop::Gracefully,
        (true, false) => Stop::Idle,
        (false, _) => Stop::Drained,
    };
    if let Err(error) = context.fleet.stop(namespace, instance, how).await {
        // It ends anyway, only later.
        tracing::warn!(%namespace, instance = instance.name, %error, "drained instance not ended early");
    }
}
