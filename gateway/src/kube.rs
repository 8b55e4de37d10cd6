//! The gateway on a cluster: watches of Functions and Revisions, the raise from zero, and who may
//! call the internal port.

use std::{
    collections::HashMap,
    fmt::Debug,
    hash::Hash,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, future::BoxFuture};
use k8s_openapi::{
    api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use lambent_api::{
    ConditionType, Conditions, Follower, Function, FunctionKey, Guarded, Name, Reason, Revision, RevisionKey, Seen,
    Settings,
};
use lambent_compact::Shared;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::{sync::mpsc, time::timeout};
use tracing::{debug, warn};

use crate::{
    directory::{Change, FunctionView, RevisionView},
    hub::Raise,
    internal::{Authenticate, Role},
};

/// A call to the API server that takes longer is given up and made again.
const CALL: Duration = Duration::from_secs(5);
/// Where the API server says on which node the pod of a token is.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// The audience of tokens for the internal port.
const AUDIENCE: &str = "lambent-gateway";
/// How long a reviewed token is good without another review.
const REVIEWED_FOR: Duration = Duration::from_secs(60);
/// More tokens than there can be callers: the oldest go first.
const MAX_REVIEWED: usize = 256;

/// Follows Functions until the receiver is gone.
pub async fn functions(client: Client, namespace: Option<String>, to: mpsc::Sender<Change>, synced: impl FnOnce()) {
    let mut shared = Shared::default();
    let change = |seen| match seen {
        Seen::There(function) => Change::Function(function_view(&function, &mut shared)),
        Seen::Gone(key) => Change::FunctionGone(key),
        Seen::Only(keys) => Change::OnlyFunctions(keys),
    };
    follow(api(client, namespace), to, FunctionKey::of, change, synced).await;
}

/// Follows Revisions until the receiver is gone.
pub async fn revisions(client: Client, namespace: Option<String>, to: mpsc::Sender<Change>, synced: impl FnOnce()) {
    let change = |seen| match seen {
        Seen::There(revision) => Change::Revision(revision_view(&revision)),
        Seen::Gone(key) => Change::RevisionGone(key),
        Seen::Only(keys) => Change::OnlyRevisions(keys),
    };
    follow(api(client, namespace), to, RevisionKey::of, change, synced).await;
}

fn api<K>(client: Client, namespace: Option<String>) -> Api<Guarded<K>>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client, &namespace),
        None => Api::all(client),
    }
}

async fn follow<K, Key>(
    api: Api<Guarded<K>>,
    to: mpsc::Sender<Change>,
    key: fn(&ObjectMeta) -> Key,
    mut change: impl FnMut(Seen<K, Key>) -> Change,
    synced: impl FnOnce(),
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    Key: Eq + Hash,
{
    let (mut follower, mut synced) = (Follower::new(key), Some(synced));
    let mut events = pin!(watcher(api, watcher::Config::default().any_semantic()).default_backoff());
    while let Some(event) = events.next().await {
        let seen = match event {
            Ok(event) => follower.take(event),
            Err(error) => {
                warn!(%error, "a watch failed; it is tried again, and what runs is served on");
                None
            }
        };
        let Some(seen) = seen else { continue };
        let is_whole = matches!(seen, Seen::Only(_));
        if to.send(change(seen)).await.is_err() {
            return;
        }
        if let Some(synced) = synced.take_if(|_| is_whole) {
            synced();
        }
    }
}

fn function_view(function: &Function, shared: &mut Shared<Settings>) -> FunctionView {
    let status = function.status.clone().unwrap_or_default();
    // A registry that is away may come back; who waits for a first Revision is told all the same.
    let stalled = status.conditions.iter().find(|c| {
        c.status == "True"
            && (c.type_ == ConditionType::Stalled.to_string()
                || c.type_ == ConditionType::Reconciling.to_string() && c.reason == "RegistryUnreachable")
    });
    let [revision, latest] = [status.revision, status.latest_revision].map(|name| name.map(Name::from));
    FunctionView {
        key: function.key(),
        settings: Settings::try_from(&function.spec).ok().map(|settings| shared.share(settings)),
        stalled: stalled.map(|c| Reason::new(&c.reason, &c.message)),
        next: latest.clone().filter(|latest| revision.as_ref().is_some_and(|r| r != latest)),
        revision: revision.or(latest),
    }
}

fn revision_view(revision: &Revision) -> RevisionView {
    let conditions = revision.status.as_ref().map(|s| &s.conditions);
    let startable = conditions.and_then(|c| c.find(ConditionType::Startable)).filter(|c| c.status == "False");
    RevisionView {
        key: revision.key(),
        wanted: u32::try_from(revision.spec.instances).unwrap_or(0),
        protocol: revision.spec.template.protocol,
        proven: conditions.is_some_and(|c| c.is_true(ConditionType::Ready)),
        not_startable: startable.map(|c| Reason::new(&c.reason, &c.message)),
        stopping: revision.spec.stopping.clone(),
    }
}

/// Raises through the scale subresource, which is all that the gateway may write.
pub struct KubeRaise(pub Client);

impl Raise for KubeRaise {
    fn raise<'a>(&'a self, namespace: &'a str, revision: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let api: Api<Revision> = Api::namespaced(self.0.clone(), namespace);
            // Only from zero: whatever else it says by now is the autoscaler's decision. A count of
            // zero is left out of a Scale by today's API servers, and need not be by others.
            let zeros = [json!({"path": "/spec", "value": {}}), json!({"path": "/spec/replicas", "value": 0})];
            for zero in zeros {
                if raise_if(&api, revision, zero).await {
                    return;
                }
            }
            debug!(namespace, revision, "was raised already");
        })
    }
}

/// Raises to one if the test holds. Whether there is no use in another test.
async fn raise_if(api: &Api<Revision>, revision: &str, mut test: serde_json::Value) -> bool {
    test["op"] = "test".into();
    let add = json!({"op": "add", "path": "/spec/replicas", "value": 1});
    let Ok(patch) = serde_json::from_value(json!([test, add])).map(Patch::<()>::Json) else { return true };
    match timeout(CALL, api.patch_scale(revision, &PatchParams::default(), &patch)).await {
        Ok(Ok(_)) => debug!(revision, "raised from zero"),
        Ok(Err(kube::Error::Api(status))) if status.code == 422 => return false,
        Ok(Err(error)) => warn!(revision, %error, "could not ask for a first instance"),
        Err(_) => warn!(revision, "the API server did not answer in time"),
    }
    true
}

/// Asks the API server whose a token is.
#[derive(Clone)]
pub struct Reviewer(Arc<Reviews>);

struct Reviews {
    client: Client,
    accounts: Accounts,
    reviewed: Mutex<HashMap<TokenHash, Reviewed>>,
}

type TokenHash = [u8; 32];

/// Whose tokens are good, by full user names.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    /// Those that may listen and retire.
    pub listeners: Vec<String>,
    /// The gateways' own.
    pub peer: Option<String>,
    /// The node agents'.
    pub node: Option<String>,
}

impl Accounts {
    /// What the user of a good token is.
    fn role(&self, user: &UserInfo) -> Option<Role> {
        let name = user.username.as_ref()?;
        if self.peer.as_ref() == Some(name) {
            return Some(Role::Peer);
        }
        if self.node.as_ref() == Some(name) {
            let node = user.extra.as_ref().and_then(|extra| extra.get(NODE_NAME)?.first());
            if node.is_none() {
                warn!(
                    user = name,
                    "an agent's token does not name its node; that takes one of a pod, and Kubernetes 1.30 or later"
                );
            }
            return node.map(|node| Role::Node(node.as_str().into()));
        }
        self.listeners.contains(name).then_some(Role::Listener)
    }
}

#[derive(Clone)]
struct Reviewed {
    role: Role,
    at: Instant,
    /// Whether it is being reviewed again.
    again: bool,
}

impl Reviewer {
    /// Lets these accounts in.
    pub fn new(client: Client, accounts: Accounts) -> Self {
        Self(Arc::new(Reviews { client, accounts, reviewed: Mutex::default() }))
    }
}

impl Reviews {
    /// The role that a token has by the API server's word, which is remembered.
    async fn reviewed_role(&self, hash: TokenHash, token: String) -> Option<Role> {
        match timeout(CALL, self.review(token)).await {
            Ok(Ok(Some(role))) => {
                self.remember(hash, role.clone());
                return Some(role);
            }
            Ok(Ok(None)) => {
                warn!("a token for the internal port was refused");
                self.reviewed.lock().remove(&hash);
            }
            Ok(Err(error)) => warn!(%error, "a token for the internal port could not be reviewed"),
            Err(_) => warn!("a token for the internal port could not be reviewed in time"),
        }
        // Reviewed before: while the API server is away that has to do.
        let mut reviewed = self.reviewed.lock();
        let reviewed = reviewed.get_mut(&hash)?;
        reviewed.again = false;
        Some(reviewed.role.clone())
    }

    async fn review(&self, token: String) -> Result<Option<Role>, kube::Error> {
        let spec = TokenReviewSpec { token: Some(token), audiences: Some(vec![AUDIENCE.to_owned()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let status = api.create(&PostParams::default(), &review).await?.status.unwrap_or_default();
        let audience = status.audiences.unwrap_or_default().iter().any(|a| a == AUDIENCE);
        let good = status.authenticated == Some(true) && audience;
        Ok(status.user.filter(|_| good).and_then(|user| self.accounts.role(&user)))
    }

    fn remember(&self, hash: TokenHash, role: Role) {
        let mut reviewed = self.reviewed.lock();
        if reviewed.len() >= MAX_REVIEWED {
            let oldest = reviewed.iter().min_by_key(|(_, reviewed)| reviewed.at).map(|(hash, _)| *hash);
            oldest.and_then(|hash| reviewed.remove(&hash));
        }
        reviewed.insert(hash, Reviewed { role, at: Instant::now(), again: false });
    }

    /// What is known of a token, and whether it is to be reviewed again by whoever asks.
    fn known(&self, hash: &TokenHash) -> Option<(Role, bool)> {
        let mut reviewed = self.reviewed.lock();
        let reviewed = reviewed.get_mut(hash)?;
        let again = !reviewed.again && reviewed.at.elapsed() >= REVIEWED_FOR;
        reviewed.again |= again;
        Some((reviewed.role.clone(), again))
    }
}

impl Authenticate for Reviewer {
    fn role_of(&self, token: String) -> BoxFuture<'_, Option<Role>> {
        Box::pin(async move {
            let hash: TokenHash = Sha256::digest(&token).into();
            let Some((role, again)) = self.0.known(&hash) else { return self.0.reviewed_role(hash, token).await };
            if again {
                // Gateways must not wait for an API server that hangs before they talk to each other.
                let reviews = self.0.clone();
                tokio::spawn(async move { reviews.reviewed_role(hash, token).await });
            }
            Some(role)
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn callers_are_told_of_what_is_stalled_and_of_a_registry_that_is_away() {
        let told = |type_: &str, reason: &str| {
            let mut function = Function::new("hello", serde_json::from_value(json!({"image": "a"})).unwrap());
            let condition = json!({"type": type_, "status": "True", "reason": reason, "message": "words",
                "lastTransitionTime": "2026-01-01T00:00:00Z"});
            function.status = Some(serde_json::from_value(json!({"conditions": [condition]})).unwrap());
            function_view(&function, &mut Shared::default()).stalled.map(|stalled| stalled.reason)
        };
        assert_eq!(told("Stalled", "ImageNotFound").as_deref(), Some("ImageNotFound"));
        assert_eq!(told("Reconciling", "RegistryUnreachable").as_deref(), Some("RegistryUnreachable"));
        assert_eq!(told("Reconciling", "Resolving"), None);
    }

    #[tokio::test]
    async fn a_token_that_was_good_a_while_ago_is_good_at_once_and_is_asked_about_again() {
        let client = Client::try_from(kube::Config::new("http://127.0.0.1:9".parse().unwrap())).unwrap();
        let reviewer = Reviewer::new(client, Accounts::default());
        let hash: TokenHash = Sha256::digest("token").into();
        let at = Instant::now().checked_sub(REVIEWED_FOR).unwrap();
        reviewer.0.reviewed.lock().insert(hash, Reviewed { role: Role::Peer, at, again: false });
        // The API server doesn't answer, and nobody waits for it.
        assert_eq!(reviewer.role_of("token".into()).now_or_never(), Some(Some(Role::Peer)));
        assert!(reviewer.0.reviewed.lock()[&hash].again);
        assert_eq!(reviewer.role_of("other".into()).now_or_never(), None);
    }

    #[test]
    fn an_agent_is_known_by_its_account_and_by_the_node_that_its_token_names() {
        let agent = Some("system:serviceaccount:nodes:lambent-node".to_owned());
        let accounts = Accounts { listeners: vec!["autoscaler".into()], peer: Some("gateway".into()), node: agent };
        let role = |user: &str, extra: serde_json::Value| {
            accounts.role(&serde_json::from_value(json!({"username": user, "extra": extra})).unwrap())
        };
        let on_a = json!({NODE_NAME: ["a"], "authentication.kubernetes.io/pod-name": ["lambent-node-1"]});
        let account = "system:serviceaccount:nodes:lambent-node";
        assert_eq!(role(account, on_a.clone()), Some(Role::Node("a".into())));
        assert_eq!(role(account, json!({})), None, "a token that is not bound to a pod");
        assert_eq!(role("autoscaler", on_a.clone()), Some(Role::Listener));
        assert_eq!(role("gateway", on_a.clone()), Some(Role::Peer));
        assert_eq!(role("system:serviceaccount:nodes:default", on_a), None);
    }

    #[test]
    fn requests_go_to_the_proving_revision_while_none_serves() {
        let mut function = Function::new("hello", serde_json::from_value(json!({"image": "a"})).unwrap());
        function.status = Some(serde_json::from_value(json!({"latestRevision": "hello-1"})).unwrap());
        assert_eq!(function_view(&function, &mut Shared::default()).revision.as_deref(), Some("hello-1"));
        function.status =
            Some(serde_json::from_value(json!({"revision": "hello-0", "latestRevision": "hello-1"})).unwrap());
        let view = function_view(&function, &mut Shared::default());
        assert_eq!((view.revision.as_deref(), view.next.as_deref()), (Some("hello-0"), Some("hello-1")));
    }
}
