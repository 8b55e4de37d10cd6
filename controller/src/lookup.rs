//! Looking up images at their registry, in the background: a slow registry must not keep the
//! instances of the Revision that serves from being looked after.

use std::{sync::Arc, time::Instant};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{LocalObjectReference, Secret, ServiceAccount};
use kube::{Api, Client};
use lambent_api::{Function, FunctionKey, Reason, Template};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    Builder,
    backoff::Backoff,
    image::{FALLBACK_USER, ImageError, PullSecret, ResolvedImage, Resolver},
    latest::Image,
};

/// Registries are asked this many questions at once.
const AT_ONCE: usize = 16;
/// Where a registry keeps its Docker credentials in a Secret.
const SECRET_KEY: &str = ".dockerconfigjson";

/// What is known of the image of a source.
pub(crate) struct Lookup {
    source: String,
    backoff: Backoff,
    state: State,
}

enum State {
    Asking { last: Option<Reason>, _task: AbortOnDropHandle<()> },
    Known(Known),
    Failed { reason: Reason, retries: bool },
}

/// A usable image, and what there is to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// What to run.
    pub(crate) image: Image,
    /// For the condition `ImageResolved`.
    pub(crate) note: Option<String>,
}

/// How a lookup stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not known yet.
    Asking,
    /// Usable.
    Known(Known),
    /// Not usable; it is asked again after the back-off, or when the source changes.
    Failed(Reason),
}

impl Lookup {
    /// The lookup of a source that was just begun, after `before`.
    pub(crate) fn begun(source: &str, before: Option<Self>, task: AbortOnDropHandle<()>) -> Self {
        let (backoff, last) = match before.filter(|before| before.source == source) {
            Some(Self { backoff, state: State::Failed { reason, .. }, .. }) => (backoff, Some(reason)),
            _ => (Backoff::default(), None),
        };
        Self { source: source.to_owned(), backoff, state: State::Asking { last, _task: task } }
    }

    /// How it stands, if it is about this source.
    pub(crate) fn standing(&self, source: &str) -> Option<Standing> {
        (self.source == source).then(|| match &self.state {
            // What was wrong is told until it is known to be over.
            State::Asking { last: Some(reason), .. } => Standing::Failed(reason.clone()),
            State::Asking { last: None, .. } => Standing::Asking,
            State::Known(known) => Standing::Known(known.clone()),
            State::Failed { reason, .. } => Standing::Failed(reason.clone()),
        })
    }

    /// Whether it has come to an image.
    pub(crate) fn is_known(&self) -> bool {
        matches!(self.state, State::Known(_))
    }

    /// Whether it is time to ask: for another source, or after the back-off.
    pub(crate) fn is_due(&self, source: &str, now: Instant) -> bool {
        let retries = matches!(self.state, State::Failed { retries: true, .. });
        self.source != source || (retries && self.backoff.wait(now).is_none())
    }

    /// When to ask again.
    pub(crate) fn retry_in(&self, now: Instant) -> Option<std::time::Duration> {
        matches!(self.state, State::Failed { retries: true, .. }).then(|| self.backoff.wait(now).unwrap_or_default())
    }

    /// The registry's answer.
    pub(crate) fn answered(
        &mut self,
        source: &str,
        answer: &Result<ResolvedImage, ImageError>,
        written: &str,
        now: Instant,
    ) {
        if self.source != source {
            return;
        }
        self.state = judge(answer, written);
        if matches!(self.state, State::Failed { .. }) {
            self.backoff.failed(now);
        }
    }
}

/// | registry says | then                                                                    |
/// | ------------- | ----------------------------------------------------------------------- |
/// | an image      | that one, by digest                                                     |
/// | denied        | the image as written: the node may have rights that we have not         |
/// | not found     | no Revision; asked again with back-off, as it may be pushed any moment  |
/// | unreachable   | no Revision; asked again with back-off                                  |
/// | invalid       | no Revision; asked again only for another source                        |
/// | (not built)   | the same                                                                |
fn judge(answer: &Result<ResolvedImage, ImageError>, written: &str) -> State {
    match answer {
        Ok(found) => State::Known(Known {
            image: Image { reference: found.reference.clone(), user: found.user },
            note: found.note.clone(),
        }),
        Err(error @ ImageError::Denied { .. }) => State::Known(Known {
            image: Image { reference: written.to_owned(), user: FALLBACK_USER },
            note: Some(error.to_string()),
        }),
        Err(error @ ImageError::NotFound { .. }) => failed("ImageNotFound", error, true),
        Err(error @ ImageError::Unreachable { .. }) => failed("RegistryUnreachable", error, true),
        Err(error @ ImageError::Invalid { .. }) => failed("InvalidImage", error, false),
        Err(ImageError::NotBuilt(reason)) => State::Failed { reason: reason.clone(), retries: false },
    }
}

fn failed(reason: &str, error: &ImageError, retries: bool) -> State {
    State::Failed { reason: Reason::new(reason, error.to_string()), retries }
}

/// Asks registries, a bounded number at once.
pub(crate) struct Registries {
    client: Client,
    resolver: Resolver,
    permits: Semaphore,
    builder: Option<Arc<dyn Builder>>,
}

impl Registries {
    /// `plain_http` names the registries that are spoken to without TLS. With a builder none is asked.
    pub(crate) fn new(client: Client, plain_http: Vec<String>, builder: Option<Arc<dyn Builder>>) -> Self {
        Self { client, resolver: Resolver::new(plain_http), permits: Semaphore::new(AT_ONCE), builder }
    }

    /// Asks for the image of a template in the background and hands over the answer.
    pub(crate) fn ask(
        self: &Arc<Self>,
        function: &Function,
        tell: impl FnOnce(Result<ResolvedImage, ImageError>) + Send + 'static,
    ) -> AbortOnDropHandle<()> {
        let (registries, key, template) = (self.clone(), function.key(), function.spec.template.clone());
        if let Some(builder) = &self.builder {
            let work = builder.build(function);
            let built = ResolvedImage { reference: template.image, user: FALLBACK_USER, note: None };
            // Bounded by the builder, which knows what takes long and what nothing.
            return AbortOnDropHandle::new(tokio::spawn(async move {
                tell(work.await.map(|()| built).map_err(ImageError::NotBuilt));
            }));
        }
        AbortOnDropHandle::new(tokio::spawn(async move {
            // The semaphore is never closed; without a permit it would merely be unbounded.
            let _permit = registries.permits.acquire().await;
            tell(registries.look_up(&key, &template).await);
        }))
    }

    async fn look_up(&self, function: &FunctionKey, template: &Template) -> Result<ResolvedImage, ImageError> {
        let secrets = self.pull_secrets(&function.namespace, template).await;
        self.resolver.resolve(&template.image, &secrets).await
    }

    /// Those of the Function, or else of its service account, as the API server does it for Pods.
    async fn pull_secrets(&self, namespace: &str, template: &Template) -> Vec<PullSecret> {
        let mut references = template.pod.image_pull_secrets.clone();
        if references.is_empty() {
            let account = template.pod.service_account_name.as_deref().unwrap_or("default");
            references = self.secrets_of_account(namespace, account).await;
        }
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let parsed = stream::iter(references).then(|reference| read(secrets.clone(), reference));
        parsed.collect::<Vec<_>>().await.into_iter().flatten().collect()
    }

    async fn secrets_of_account(&self, namespace: &str, name: &str) -> Vec<LocalObjectReference> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let account = accounts.get_opt(name).await.unwrap_or_else(|error| {
            tracing::debug!(namespace, account = name, %error, "no look at the account's pull secrets");
            None
        });
        account.and_then(|account| account.image_pull_secrets).unwrap_or_default()
    }
}

/// A Secret that can't be read counts as absent, as the kubelet has it; the registry then says what
/// is missing.
async fn read(secrets: Api<Secret>, reference: LocalObjectReference) -> Option<PullSecret> {
    let secret = secrets.get_opt(&reference.name).await.unwrap_or_else(|error| {
        tracing::warn!(secret = reference.name, %error, "pull secret can't be read");
        None
    });
    let config = secret.and_then(|mut secret| secret.data.as_mut()?.remove(SECRET_KEY));
    PullSecret::from_docker_config_json(&config?.0)
        .inspect_err(|error| tracing::warn!(secret = reference.name, %error, "pull secret can't be parsed"))
        .ok()
}
