//! One look at one Function: observe -> resolve -> decide -> apply -> status. What is decided
//! where is pure and elsewhere; this only calls it in order.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use lambent_api::{Function, Revision, Settings};
use lambent_fleet::Fleet;
use thiserror::Error;

use crate::{
    apply,
    context::{Context, Watched},
    events::{self, News},
    latest,
    lookup::{Known, Lookup, Standing},
    observe::{self, Observed, Told},
    plan::{self, Input, Plan},
    probes, pull, report,
    rollout::Step,
};

/// Longer than any healthy API server takes for a batch; then the look starts over.
const LIMIT: Duration = Duration::from_secs(30);
/// Until a Revision of a former namesake is collected.
const NAMESAKE: Duration = Duration::from_secs(1);

/// What ended a look early; it is taken again, with back-off.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// Something could not be carried out.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// The template can't be written as JSON.
    #[error("digest of the template: {0}")]
    Digest(#[from] serde_json::Error),
    /// The API server takes too long.
    #[error("not done within {LIMIT:?}")]
    Timeout,
}

/// Which Revision the current spec means.
pub(crate) enum Latest {
    /// That one.
    Known(Arc<Revision>),
    /// One that is there under another source.
    ToMark(Arc<Revision>),
    /// One that is to be made.
    ToCreate(Box<Revision>),
    /// Not known yet.
    Resolving,
    /// None, as its image can't be had.
    NoImage(lambent_api::Reason),
    /// None, as the spec is invalid; the last good one goes on.
    Invalid(Option<Arc<Revision>>),
}

impl Latest {
    /// The Revision, if it is there.
    pub(crate) fn revision(&self) -> Option<&Arc<Revision>> {
        match self {
            Self::Known(revision) | Self::ToMark(revision) => Some(revision),
            Self::Invalid(revision) => revision.as_ref(),
            Self::ToCreate(_) | Self::Resolving | Self::NoImage(_) => None,
        }
    }

    /// Whether its rollout begins now, even if there has been one before.
    pub(crate) fn begins_anew(&self) -> bool {
        matches!(self, Self::ToMark(_))
    }
}

/// Looks at a Function and makes true what it asks for. When to look again, if nothing touches it before.
pub(crate) async fn reconcile<F: Fleet>(
    object: &Watched,
    context: &Arc<Context<F>>,
) -> Result<Option<Duration>, Error> {
    let _timer = context.metrics.reconcile.start_timer();
    match &object.0 {
        // What belongs to it is collected; nothing may be started any more.
        Ok(function) if function.metadata.deletion_timestamp.is_some() => {
            context.pulls.want(&function.key(), Vec::new());
            Ok(None)
        }
        Ok(function) => tokio::time::timeout(LIMIT, look(function, context)).await.unwrap_or(Err(Error::Timeout)),
        Err(invalid) => {
            report::unreadable(context, object, &invalid.error);
            Ok(None)
        }
    }
}

/// When to look again after a failure.
pub(crate) fn after_error<F>(object: &Watched, context: &Context<F>) -> Option<Duration> {
    let Ok(function) = &object.0 else { return None };
    let now = Instant::now();
    let wait = context.remember(&function.key(), |memory| {
        memory.errors.failed(now);
        memory.errors.wait(now)
    });
    Some(wait.unwrap_or_default())
}

async fn look<F: Fleet>(function: &Function, context: &Arc<Context<F>>) -> Result<Option<Duration>, Error> {
    // observe (caches only)
    let (now, at) = (Instant::now(), Timestamp::now());
    let observed = observe::observe(context, function, now);
    // resolve (registry, in the background; only a source that has no Revision)
    let latest = resolve(context, function, &observed, now)?;
    // decide (pure)
    let Some(settings) = observed.settings.clone() else {
        report::nothing_to_serve(context, function, &observed, at).await?;
        return Ok(None);
    };
    let latest_name = latest.revision().map(|r| r.key().name);
    let latest_name = latest_name.as_deref();
    // Marked once more, it is tried anew.
    let going_on = latest_name.filter(|_| !latest.begins_anew());
    let (input, rollout_left) = context.remember(&observed.key, |memory| {
        let left = observed.rollout_left(memory, &settings, going_on, (now, at));
        (observed.input(memory, &settings, latest_name, left, now), left)
    });
    let plan = plan::plan(&input);
    probes::start(context, &observed.unprobed(), settings.start_timeout);
    // apply (client required)
    let started = start_and_stop(context, &observed, &settings, &plan).await;
    let made = make_revision(context, function, &latest).await;
    forget(context, &observed, &plan).await?;
    ask(context, &latest, &plan).await?;
    // status (client required; only what changed)
    let told = tell(context, &observed, &input, &plan, settings.image_pull_ahead, at);
    pull_ahead(context, &observed, &plan, latest_name, settings.image_pull_ahead);
    let again = report::report(context, function, &observed, &latest, &plan, &told, at).await?;
    started?;
    let namesake = made?.then_some(NAMESAKE);
    let deadline = rollout_left.filter(|left| !left.is_zero());
    let waits = [again, namesake, deadline, waits(context, &observed, &input)];
    Ok(waits.into_iter().flatten().min())
}

fn resolve<F: Fleet>(
    context: &Arc<Context<F>>,
    function: &Function,
    observed: &Observed,
    now: Instant,
) -> Result<Latest, Error> {
    if observed.invalid.is_some() {
        let last = observed.status.latest_revision.as_deref();
        return Ok(Latest::Invalid(last.and_then(|name| observed.revision(name)).cloned()));
    }
    let source = latest::source(function)?;
    if let Some(revision) = latest::of_source(&observed.revisions, &source) {
        return Ok(Latest::Known(revision.clone()));
    }
    Ok(match look_up(context, function, &source, now) {
        Standing::Asking => Latest::Resolving,
        Standing::Failed(reason) => Latest::NoImage(reason),
        Standing::Known(Known { image, .. }) => {
            let made = latest::revision(function, &source, &image)?;
            match observed.revision(&made.key().name) {
                Some(there) => Latest::ToMark(there.clone()),
                None => Latest::ToCreate(Box::new(made)),
            }
        }
    })
}

/// How the lookup of this source stands; begun if need be. Its answer makes the next look.
fn look_up<F: Fleet>(context: &Arc<Context<F>>, function: &Function, source: &str, now: Instant) -> Standing {
    let key = function.key();
    context.remember(&key, |memory| {
        if memory.lookup.as_ref().is_none_or(|lookup| lookup.is_due(source, now)) {
            let (shared, about, key) = (context.clone(), source.to_owned(), key.clone());
            let written = function.spec.template.image.clone();
            let task = context.registries.ask(function, move |answer| {
                shared.remember_if_known(&key, |memory| {
                    let lookup = memory.lookup.as_mut();
                    lookup.map(|lookup| lookup.answered(&about, &answer, &written, Instant::now()))
                });
                shared.queue.touch(key);
            });
            memory.lookup = Some(Lookup::begun(source, memory.lookup.take(), task));
        }
        memory.lookup.as_ref().and_then(|lookup| lookup.standing(source)).unwrap_or(Standing::Asking)
    })
}

async fn start_and_stop<F: Fleet>(
    context: &Context<F>,
    observed: &Observed,
    settings: &Arc<Settings>,
    plan: &Plan,
) -> Result<(), apply::Error> {
    let busy = plan.revisions.iter().filter(|(_, todo)| !todo.start.is_empty() || !todo.stop.is_empty());
    let work = busy.filter_map(|(name, todo)| {
        let revision = observed.revision(name)?;
        let stopping: Vec<_> = todo.stop.iter().map(|removal| (&removal.instance.name, removal.why)).collect();
        tracing::info!(function = %observed.key, revision = name, wanted = todo.wanted, starting = todo.start.len(),
            ?stopping, "instances change");
        Some(apply::instances(context, revision, settings, todo))
    });
    futures::future::join_all(work).await.into_iter().collect()
}

/// Makes or marks the latest Revision. Returns whether one of a former namesake is in the way.
async fn make_revision<F>(context: &Context<F>, function: &Function, latest: &Latest) -> Result<bool, Error> {
    match latest {
        Latest::ToMark(revision) => {
            apply::set_source(context, revision, &latest::source(function)?).await?;
            Ok(false)
        }
        Latest::ToCreate(revision) => {
            let created = apply::create(context, revision).await?;
            if created {
                let name = revision.key().name;
                tracing::info!(function = %function.key(), revision = %name, image = revision.spec.template.image, "new Revision");
                events::tell(&context.events, News::RevisionCreated(name.into()), function);
            }
            Ok(!created)
        }
        Latest::Known(_) | Latest::Resolving | Latest::NoImage(_) | Latest::Invalid(_) => Ok(false),
    }
}

async fn forget<F>(context: &Context<F>, observed: &Observed, plan: &Plan) -> Result<(), apply::Error> {
    for revision in plan.forget.iter().filter_map(|name| observed.revision(name)) {
        apply::forget(context, revision).await?;
    }
    Ok(())
}

/// The count that a Revision is to have when it begins to serve; the autoscaler goes on from there.
async fn ask<F>(context: &Context<F>, latest: &Latest, plan: &Plan) -> Result<(), apply::Error> {
    match (plan.step, latest.revision()) {
        (Some(Step::Ask { new }), Some(revision)) => apply::set_count(context, revision, new).await,
        _ => Ok(()),
    }
}

/// What there is to tell about each Revision now, in the order of the input.
fn tell<F>(
    context: &Context<F>,
    observed: &Observed,
    input: &Input,
    plan: &Plan,
    image_pull_ahead: bool,
    at: Timestamp,
) -> Vec<Told> {
    let pulls = image_pull_ahead && context.pulls_ahead();
    let images = |revision: &Revision| {
        let before = revision.status.as_ref().and_then(|status| status.images.clone());
        context.pulls.progress(&revision.key()).or(before).filter(|_| pulls)
    };
    let now = Instant::now();
    context.remember(&observed.key, |memory| {
        memory.errors.reset();
        let pairs = observed.revisions.iter().zip(&input.revisions);
        let tell = pairs.map(|(revision, view)| {
            let idle = plan.revisions.get(&view.name).is_none_or(|todo| todo.wanted == 0);
            if idle && view.instances.is_empty() {
                // Whoever wakes it later shall not hear of old trouble.
                memory.revision(&view.name).calm();
            }
            observe::tell(memory, revision, view, images(revision), now, at)
        });
        tell.collect()
    })
}

/// Hands over what is to be pulled ahead, if anything.
fn pull_ahead<F>(context: &Context<F>, observed: &Observed, plan: &Plan, latest: Option<&str>, wanted: bool) {
    if !context.pulls_ahead() {
        return;
    }
    let (revisions, instances) = (&observed.revisions, &observed.instances);
    let targets = || pull::targets(revisions, instances, plan.serving.as_deref(), latest);
    context.pulls.want(&observed.key, if wanted { targets() } else { Vec::new() });
}

/// How long until there is something to do that no event tells of.
fn waits<F>(context: &Context<F>, observed: &Observed, input: &Input) -> Option<Duration> {
    let now = Instant::now();
    context.remember(&observed.key, |memory| {
        let backoff = input.revisions.iter().filter_map(|r| memory.revision(&r.name).backoff.wait(now)).min();
        let lookup = memory.lookup.as_ref().and_then(|lookup| lookup.retry_in(now));
        [backoff, lookup, memory.unconfirmed(), observe::next_deadline(input, now)].into_iter().flatten().min()
    })
}
