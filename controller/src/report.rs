//! Tells what was found and done: the status of the Function and its Revisions, Events, gauges.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use lambent_api::{
    ConditionType, Conditions, Function, FunctionKey, FunctionStatus, Revision, RevisionStatus, meta::ANNOTATION_SOURCE,
};

use lambent_fleet::process::launch::is_process;

use crate::{
    apply::{self, Error},
    context::{Context, Watched},
    driver::Latest,
    events::{self, News},
    lookup::Standing,
    memory::Written,
    observe::{Observed, Told},
    plan::Plan,
    rollout::Step,
    status::{
        self, Counts, Due,
        function::{Image, Parking, Progress, View},
    },
};

/// Revisions whose status is written at once.
const AT_ONCE: usize = 8;

/// Writes what changed. Returns when to come again for numbers that were not worth it yet.
pub(crate) async fn report<F>(
    context: &Context<F>,
    function: &Function,
    observed: &Observed,
    latest: &Latest,
    plan: &Plan,
    told: &[Told],
    at: Timestamp,
) -> Result<Option<Duration>, Error> {
    // Revisions first: the Function's says that traffic moves, and a Revision that it moves to is Ready.
    let revisions = revisions(context, observed, told).await?;
    let counts = told.iter().fold(Counts::default(), |sum, told| sum.plus(told.counts));
    context.metrics.instances(&observed.key, counts);
    let view = View {
        name: &observed.key.name,
        generation: function.metadata.generation,
        url: context.url(&observed.key),
        serving: plan.serving.clone(),
        latest: latest.revision().and_then(|r| r.metadata.name.clone()),
        progress: progress(observed, latest, plan, told),
        image: image(context, observed, latest),
        parking: parking(observed, plan, told),
        counts,
        from_files: from_files(function, observed, plan, told),
        restarted: latest.begins_anew(),
    };
    let new = status::function::status(&observed.status, view, at);
    let function = write(context, function, observed, new).await?;
    Ok([revisions, function].into_iter().flatten().min())
}

async fn revisions<F>(context: &Context<F>, observed: &Observed, told: &[Told]) -> Result<Option<Duration>, Error> {
    let now = Instant::now();
    let mut wait: Option<Duration> = None;
    let mut due = Vec::new();
    for (revision, told) in observed.revisions.iter().zip(told) {
        let name = &revision.key().name;
        let Some(differs) = context
            .remember(&observed.key, |memory| differs(&mut memory.revision(name).written, told.old == told.new, now))
        else {
            continue;
        };
        match status::due(status::revision::same_words(&told.old, &told.new), differs, now) {
            Due::Now => due.push((revision.clone(), told.new.clone())),
            Due::In(later) => wait = Some(wait.map_or(later, |wait| wait.min(later))),
        }
    }
    let writes = stream::iter(due).map(|(revision, status)| write_revision(context, &observed.key, revision, status));
    writes.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await.into_iter().collect::<Result<(), Error>>()?;
    Ok(wait)
}

/// Since when there is another status than the written one.
fn differs<S: Clone + PartialEq>(written: &mut Written<S>, same: bool, now: Instant) -> Option<Instant> {
    if same {
        written.is_same();
        return None;
    }
    Some(written.differs(now))
}

async fn write_revision<F>(
    context: &Context<F>,
    function: &FunctionKey,
    revision: Arc<Revision>,
    status: RevisionStatus,
) -> Result<(), Error> {
    apply::status(context, revision.as_ref(), &status).await?;
    let name = revision.key().name;
    context.remember(function, |memory| memory.revision(&name).written.set(status, Instant::now()));
    Ok(())
}

async fn write<F>(
    context: &Context<F>,
    function: &Function,
    observed: &Observed,
    new: FunctionStatus,
) -> Result<Option<Duration>, Error> {
    let (old, now) = (&observed.status, Instant::now());
    let differs = context.remember(&observed.key, |memory| differs(&mut memory.written, *old == new, now));
    let Some(differs) = differs else { return Ok(None) };
    if let Due::In(later) = status::due(status::function::same_words(old, &new), differs, now) {
        return Ok(Some(later));
    }
    apply::status(context, function, &new).await?;
    for news in events::between(old, &new) {
        tracing::info!(function = %observed.key, ?news, "Function changed");
        events::tell(&context.events, news, function);
    }
    context.remember(&observed.key, |memory| memory.written.set(new, Instant::now()));
    Ok(None)
}

fn progress(observed: &Observed, latest: &Latest, plan: &Plan, told: &[Told]) -> Progress {
    match latest {
        Latest::Invalid(_) => Progress::Invalid(observed.invalid.clone().unwrap_or_default()),
        Latest::NoImage(reason) => Progress::NoImage(reason.clone()),
        Latest::Resolving | Latest::ToCreate(_) => Progress::Resolving,
        Latest::Known(revision) | Latest::ToMark(revision) => {
            let told =
                observed.revisions.iter().zip(told).find(|(r, _)| Arc::ptr_eq(r, revision)).map(|(_, told)| told);
            let trouble = told.and_then(|told| told.trouble.clone());
            match told {
                _ if matches!(plan.step, Some(Step::GivenUp { .. })) => Progress::GivenUp(trouble),
                Some(Told { trouble: Some(reason), .. }) => Progress::Failing(reason.clone()),
                Some(told) if is_proven(told) && plan.serving.as_deref() != Some(&revision.key().name) => {
                    let ready = u32::try_from(told.counts.ready).unwrap_or(0);
                    Progress::RollingOut { ready, need: plan.need }
                }
                Some(told) if is_proven(told) => Progress::Serving,
                _ => Progress::Starting,
            }
        }
    }
}

fn from_files(function: &Function, observed: &Observed, plan: &Plan, told: &[Told]) -> Option<i32> {
    let mut all = observed.revisions.iter().zip(told);
    let serving = all.find(|(revision, _)| revision.metadata.name == plan.serving);
    is_process(&function.spec.template).then(|| serving.map_or(0, |(_, told)| told.counts.ready))
}

fn parking(observed: &Observed, plan: &Plan, told: &[Told]) -> Parking {
    if observed.settings.as_ref().is_none_or(|settings| settings.parked == 0) {
        return Parking::Off;
    }
    let mut all = observed.revisions.iter().zip(told);
    let serving = all.find(|(revision, _)| revision.metadata.name == plan.serving).map(|(_, told)| told);
    match serving {
        Some(Told { not_parkable: Some(why), .. }) => Parking::Impossible(why.clone()),
        Some(told) if told.counts.parked > 0 => Parking::Parked,
        _ => Parking::Unknown,
    }
}

fn is_proven(told: &Told) -> bool {
    told.new.conditions.is_true(ConditionType::Ready)
}

fn image<F>(context: &Context<F>, observed: &Observed, latest: &Latest) -> Image {
    let (Latest::Known(revision) | Latest::ToMark(revision)) = latest else {
        return match latest {
            // What is built here is no image that was looked for.
            Latest::NoImage(reason) if context.config.builder.is_none() => Image::Missing(reason.clone()),
            _ => Image::Unknown,
        };
    };
    let reference = revision.spec.template.image.clone();
    let source = revision.metadata.annotations.iter().flatten().find(|(k, _)| *k == ANNOTATION_SOURCE);
    let note = context.remember(&observed.key, |memory| match memory.lookup.as_ref()?.standing(source?.1) {
        Some(Standing::Known(known)) => known.note,
        _ => None,
    });
    if reference.contains("@sha256:") { Image::ByDigest(reference, note) } else { Image::ByTag(reference, note) }
}

/// The spec is invalid and was never valid as far as we know: there is nothing to go on with.
pub(crate) async fn nothing_to_serve<F>(
    context: &Context<F>,
    function: &Function,
    observed: &Observed,
    at: Timestamp,
) -> Result<(), Error> {
    let view = View {
        name: &observed.key.name,
        generation: function.metadata.generation,
        url: context.url(&observed.key),
        serving: observed.status.revision.clone(),
        latest: observed.status.latest_revision.clone(),
        progress: Progress::Invalid(observed.invalid.clone().unwrap_or_default()),
        image: Image::Unknown,
        parking: Parking::Unknown,
        counts: Counts::default(),
        from_files: None,
        restarted: false,
    };
    let new = status::function::status(&observed.status, view, at);
    write(context, function, observed, new).await.map(drop)
}

/// An object that can't be read has no status that could be kept: an Event tells, once.
pub(crate) fn unreadable<F>(context: &Context<F>, object: &Watched, error: &str) {
    let meta = kube::Resource::meta(object);
    let key = FunctionKey::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
    let told = context.remember(&key, |memory| memory.unreadable.replace(error.to_owned()));
    if told.as_deref() != Some(error) {
        tracing::warn!(function = %key, error, "Function can't be read");
        events::tell(&context.events, News::InvalidSpec(error.to_owned()), object);
    }
}
