//! Whom a command asks. Named by its flags; otherwise the `lambent dev` that runs, as whoever starts
//! one means it, which is said; otherwise the cluster of the current context.

use std::{path::Path, time::Duration};

use anyhow::{Context, bail};
use http::{HeaderValue, header};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use lambent_dev::state_dir::{self, Endpoint};
use tokio::time::timeout;

use super::{output, refusal};
use crate::args::TargetArgs;

/// To be connected to an API server.
const CONNECT: Duration = Duration::from_secs(10);
/// An API server that has not answered by then does not.
const ANSWER: Duration = Duration::from_secs(30);

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A `lambent dev` on this machine.
    Dev {
        /// Where it serves callers.
        gateway: String,
    },
    /// A cluster.
    Cluster {
        /// As it is known to the user.
        name: String,
        /// Whether this runs in it.
        inside: bool,
    },
}

/// An API server, and where in it.
pub struct Target {
    /// Its client.
    pub client: Client,
    /// What it is.
    pub place: Place,
    /// The namespace that is meant; all without.
    pub namespace: Option<String>,
    /// Where Lambent runs.
    pub system_namespace: String,
}

/// What the flags lead to.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Dev { endpoint: Endpoint, by_itself: bool },
    Cluster,
    NoDev,
}

fn choose(args: &TargetArgs, running: Option<Endpoint>) -> Choice {
    if args.context.is_some() || args.kubeconfig.is_some() {
        return Choice::Cluster;
    }
    match running {
        Some(endpoint) => Choice::Dev { endpoint, by_itself: !args.dev },
        None if args.dev => Choice::NoDev,
        None => Choice::Cluster,
    }
}

impl Target {
    /// The one that the flags lead to. Nothing is asked yet.
    pub async fn find(args: TargetArgs) -> anyhow::Result<Self> {
        let running = state_dir::find(&state_dir::bases(args.state_dir.as_deref()));
        match choose(&args, running) {
            Choice::Dev { endpoint, by_itself } => {
                if by_itself {
                    let Endpoint { gateway, pid, .. } = &endpoint;
                    output::note(&format!(
                        "asking the running `lambent dev` (process {pid}, {gateway}); --context asks a cluster"
                    ));
                }
                Self::dev(endpoint, args)
            }
            Choice::NoDev => bail!(
                "no `lambent dev` runs: start one with `lambent dev DIRECTORY` in another terminal{}",
                args.state_dir.map_or_else(String::new, |path| format!(" and --state-dir {}", path.display()))
            ),
            Choice::Cluster => Self::cluster(args).await,
        }
    }

    fn dev(endpoint: Endpoint, args: TargetArgs) -> anyhow::Result<Self> {
        let Endpoint { server, token, gateway, pid: _ } = endpoint;
        let mut config = Config::new(server.parse().context("the address that `lambent dev` has told")?);
        let mut token = HeaderValue::try_from(format!("Bearer {token}")).context("the token of `lambent dev`")?;
        token.set_sensitive(true);
        config.headers.push((header::AUTHORIZATION, token));
        let place = Place::Dev { gateway };
        let TargetArgs { namespace, system_namespace, .. } = args;
        Ok(Self { client: client(config)?, place, namespace, system_namespace })
    }

    async fn cluster(args: TargetArgs) -> anyhow::Result<Self> {
        let TargetArgs { context, kubeconfig, namespace, system_namespace, .. } = args;
        let inside = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        let (config, name) = match read_kubeconfig(kubeconfig.as_deref())? {
            Some(read) => from_kubeconfig(read, context).await?,
            None if context.is_none() => match Config::incluster() {
                Ok(config) => (config, "this one".to_owned()),
                Err(_) => bail!(
                    "there is nothing to ask: no `lambent dev` runs and no kubeconfig is there. Start one with \
                     `lambent dev DIRECTORY`, or name a cluster with KUBECONFIG, --kubeconfig or --context"
                ),
            },
            None => bail!("no kubeconfig is there to find a context in: name one with --kubeconfig or KUBECONFIG"),
        };
        let namespace = namespace.or_else(|| Some(config.default_namespace.clone()));
        let place = Place::Cluster { name, inside };
        Ok(Self { client: client(config)?, place, namespace, system_namespace })
    }

    /// The answer to a question that takes no time. `doing` is in the words of an error, such as
    /// "list Functions".
    pub async fn ask<T>(&self, doing: &str, question: impl Future<Output = kube::Result<T>>) -> anyhow::Result<T> {
        match timeout(ANSWER, question).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => bail!(refusal::words(&error, doing, &self.place)),
            Err(_) => bail!(
                "{} does not answer (waited {} s to {doing}); try again, or see whether `kubectl version` works",
                self.place.named(),
                ANSWER.as_secs()
            ),
        }
    }
}

impl Place {
    /// For people.
    pub fn named(&self) -> String {
        match self {
            Self::Dev { .. } => "`lambent dev`".to_owned(),
            Self::Cluster { name, .. } => format!("the cluster {name}"),
        }
    }
}

/// The kubeconfig that was named, or the usual one, if there is one.
fn read_kubeconfig(named: Option<&Path>) -> anyhow::Result<Option<Kubeconfig>> {
    if let Some(path) = named {
        let read = Kubeconfig::read_from(path);
        return read.map(Some).with_context(|| format!("--kubeconfig {}", path.display()));
    }
    let variable = std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty());
    let usual = std::env::home_dir().map(|home| home.join(".kube/config")).filter(|path| path.is_file());
    if variable.is_none() && usual.is_none() {
        return Ok(None);
    }
    Kubeconfig::read().map(Some).context("the kubeconfig, which KUBECONFIG or ~/.kube/config names, can't be read")
}

async fn from_kubeconfig(read: Kubeconfig, context: Option<String>) -> anyhow::Result<(Config, String)> {
    let known: Vec<String> = read.contexts.iter().map(|context| context.name.clone()).collect();
    let Some(name) = context.or_else(|| read.current_context.clone()).filter(|name| !name.is_empty()) else {
        bail!("the kubeconfig has no current context: {}", name_one(&known));
    };
    if !known.contains(&name) {
        bail!("the kubeconfig has no context {name}: {}", name_one(&known));
    }
    let options = KubeConfigOptions { context: Some(name.clone()), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(read, &options)
        .await
        .with_context(|| format!("the kubeconfig's context {name}"))?;
    Ok((config, name))
}

fn name_one(known: &[String]) -> String {
    match known {
        [] => "it has none at all".to_owned(),
        _ => format!("name one with --context or `kubectl config use-context`; there are {}", known.join(", ")),
    }
}

fn client(mut config: Config) -> anyhow::Result<Client> {
    config.connect_timeout = Some(CONNECT);
    // Logs that are followed and forwarded ports may be silent for as long as they like; other
    // questions have a limit of their own.
    config.read_timeout = None;
    config.write_timeout = None;
    Client::try_from(config).context("the client of the API server")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint {
            server: "http://127.0.0.1:1".into(),
            token: "t".into(),
            gateway: "http://127.0.0.1:2".into(),
            pid: 3,
        }
    }

    #[test]
    fn a_running_dev_is_asked_unless_a_cluster_is_named() {
        let dev = |by_itself| Choice::Dev { endpoint: endpoint(), by_itself };
        let context = || Some("prod".to_owned());
        for (flag, context, running, expected) in [
            (false, None, true, dev(true)),
            (true, None, true, dev(false)),
            (false, context(), true, Choice::Cluster),
            (false, None, false, Choice::Cluster),
            (false, context(), false, Choice::Cluster),
            (true, None, false, Choice::NoDev),
        ] {
            let args = TargetArgs { dev: flag, context: context.clone(), ..TargetArgs::default() };
            assert_eq!(choose(&args, running.then(endpoint)), expected, "{flag} {context:?} {running}");
        }
        let named = TargetArgs { kubeconfig: Some("file".into()), ..TargetArgs::default() };
        assert_eq!(choose(&named, Some(endpoint())), Choice::Cluster);
    }

    #[tokio::test]
    async fn a_context_that_is_not_there_is_an_error_that_names_those_that_are() {
        let text = "apiVersion: v1\nkind: Config\ncontexts: [{name: a, context: {cluster: c}}, {name: b, context: {cluster: c}}]\n";
        let read = || Kubeconfig::from_yaml(text).unwrap();
        let error = from_kubeconfig(read(), Some("c".to_owned())).await.unwrap_err().to_string();
        assert!(error.contains("no context c") && error.contains("there are a, b"), "{error}");
        let error = from_kubeconfig(read(), None).await.unwrap_err().to_string();
        assert!(error.contains("no current context") && error.contains("--context"), "{error}");
    }
}
