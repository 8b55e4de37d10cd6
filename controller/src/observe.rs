//! What is known of a Function, from the caches and the memory alone.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use lambent_api::{
    ConditionType, Conditions, Function, FunctionKey, FunctionStatus, PulledImages, Reason, Revision, RevisionStatus,
    Settings,
};
use lambent_fleet::Instance;

use crate::{
    context::Context,
    latest,
    memory::{Memory, State},
    plan::{Input, RevisionView},
    rollout::Deadline,
    status::{self, Counts, function::is_given_up},
};

/// What is known of a Function at one moment.
pub(crate) struct Observed {
    /// Which Function.
    pub(crate) key: FunctionKey,
    /// Its metadata.generation.
    pub(crate) generation: Option<i64>,
    /// The current settings, or the last valid ones.
    pub(crate) settings: Option<Arc<Settings>>,
    /// Why the current settings can't be served.
    pub(crate) invalid: Option<String>,
    /// Its Revisions.
    pub(crate) revisions: Vec<Arc<Revision>>,
    /// Its instances.
    pub(crate) instances: Vec<Instance>,
    /// Its status as it was written last.
    pub(crate) status: FunctionStatus,
}

/// Reads the caches.
pub(crate) fn observe<F>(context: &Context<F>, function: &Function, now: Instant) -> Observed {
    let key = function.key();
    let mut revisions = context.revisions_of(&key);
    revisions.retain(|r| r.metadata.deletion_timestamp.is_none() && latest::is_owned(r, function));
    let instances = context.instances.lock().of(&key);
    let parsed = Settings::try_from(&function.spec);
    let invalid = parsed.as_ref().err().map(ToString::to_string);
    context.remember(&key, |memory| {
        let settings = match parsed {
            Ok(settings) => {
                memory.last_valid = None;
                Some(Arc::new(settings))
            }
            Err(_) => memory.last_valid.clone(),
        };
        let known: HashSet<&str> = instances.iter().map(|i| i.id.uid.as_str()).collect();
        memory.keep_only(|name| revisions.iter().any(|r| r.key().name == name), |uid| known.contains(uid));
        let status = memory.written.or_cached(function.status.clone().unwrap_or_default(), now);
        if status.rollout_since.is_none() {
            memory.rollout.end();
        }
        let generation = function.metadata.generation;
        Observed { key: key.clone(), generation, settings, invalid, revisions, instances, status }
    })
}

impl Observed {
    /// What the plan is made from.
    pub(crate) fn input(
        &self,
        memory: &mut Memory,
        settings: &Settings,
        latest: Option<&str>,
        rollout_left: Option<Duration>,
        now: Instant,
    ) -> Input {
        Input {
            serving: self.status.revision.clone(),
            latest: latest.map(str::to_owned),
            min: settings.min,
            kept: settings.kept(),
            max: settings.max,
            surge: settings.max_surge,
            deadline: Deadline::of(rollout_left, is_given_up(&self.status), self.is_of_this_spec()),
            history: settings.revision_history,
            revisions: self.revisions.iter().map(|r| self.view(memory, r, settings.start_timeout, now)).collect(),
        }
    }

    /// Whether the status is about the spec as it is now.
    fn is_of_this_spec(&self) -> bool {
        self.status.observed_generation == self.generation
    }

    /// How long the latest Revision may still take to replace the one that serves; none if it doesn't, or
    /// only begins to.
    pub(crate) fn rollout_left(
        &self,
        memory: &mut Memory,
        settings: &Settings,
        latest: Option<&str>,
        (now, at): (Instant, Timestamp),
    ) -> Option<Duration> {
        let since = self.status.rollout_since.as_ref().filter(|_| self.status.latest_revision.as_deref() == latest)?;
        Some(settings.deadline.saturating_sub(memory.rollout.since(since.0, at, now)))
    }

    /// Looks at all instances before it asks what they taught about their Revision.
    fn view(&self, memory: &mut Memory, revision: &Revision, start_timeout: Duration, now: Instant) -> RevisionView {
        let name = revision.key().name;
        let probed = is_probed(revision);
        let instances =
            self.instances_of(&name).map(|instance| memory.look(instance, probed, start_timeout, now)).collect();
        let ordered = memory.ordered(&name, now);
        let remembered = memory.revision(&name);
        let conditions = revision.status.as_ref().map(|s| &s.conditions);
        remembered.proven |= conditions.is_some_and(|c| c.is_true(ConditionType::Ready));
        RevisionView {
            created: revision.metadata.creation_timestamp.as_ref().map_or(jiff::Timestamp::UNIX_EPOCH, |time| time.0),
            asked: u32::try_from(revision.spec.instances).unwrap_or(0),
            named: revision.spec.stopping.clone(),
            proven: remembered.proven,
            held_back: remembered.backoff.wait(now).is_some(),
            instances,
            ordered,
            name: name.into(),
        }
    }

    /// Instances of one Revision.
    pub(crate) fn instances_of(&self, revision: &str) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(move |instance| instance.revision == revision)
    }

    /// A Revision by its name.
    pub(crate) fn revision(&self, name: &str) -> Option<&Arc<Revision>> {
        self.revisions.iter().find(|r| r.metadata.name.as_deref() == Some(name))
    }

    /// Those whose first answer the controller has to find out by itself.
    pub(crate) fn unprobed(&self) -> Vec<&Instance> {
        let probed = self.revisions.iter().filter(|r| is_probed(r));
        let probed: HashSet<&str> = probed.filter_map(|r| r.metadata.name.as_deref()).collect();
        self.instances.iter().filter(|i| !probed.contains(i.revision.as_str())).collect()
    }
}

/// Whether a readiness probe of its author's says when an instance answers.
fn is_probed(revision: &Revision) -> bool {
    revision.spec.template.readiness_probe.is_some()
}

/// What there is to tell about one Revision.
pub(crate) struct Told {
    /// The status as it was written last.
    pub(crate) old: RevisionStatus,
    /// The status that follows.
    pub(crate) new: RevisionStatus,
    /// Its instances.
    pub(crate) counts: Counts,
    /// Why instances that should be frozen are not.
    pub(crate) not_parkable: Option<Reason>,
    /// Why none can start.
    pub(crate) trouble: Option<Reason>,
}

/// What there is to tell about a Revision after the plan was carried out.
pub(crate) fn tell(
    memory: &mut Memory,
    revision: &Revision,
    view: &RevisionView,
    images: Option<PulledImages>,
    now: Instant,
    at: jiff::Timestamp,
) -> Told {
    let ordered = memory.ordered(&view.name, now).len();
    let remembered = memory.revision(&view.name);
    let parked = remembered.parked.as_deref().cloned().unwrap_or_default();
    let counts = Counts::of(&view.instances, ordered).with_parked(parked.count);
    let trouble = status::revision::trouble(&view.instances, remembered.trouble.as_ref());
    let old = remembered.written.or_cached(revision.status.clone().unwrap_or_default(), now);
    let told = status::revision::View {
        name: &view.name,
        generation: revision.metadata.generation,
        proven: view.proven,
        trouble: trouble.as_ref(),
        counts,
        images,
    };
    let new = status::revision::status(&old, &told, at);
    Told { old, new, counts, not_parkable: parked.why_not, trouble }
}

/// When the next starting instance becomes overdue.
pub(crate) fn next_deadline(input: &Input, now: Instant) -> Option<Duration> {
    let states = input.revisions.iter().flat_map(|r| r.instances.iter().map(|i| &i.state));
    let deadlines = states.filter_map(|state| match state {
        State::Starting(deadline) => Some(deadline.saturating_duration_since(now)),
        _ => None,
    });
    deadlines.min()
}
