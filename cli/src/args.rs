//! The command line. Every flag of a role can be set by an environment variable too.

mod client;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use client::{
    CompletionsArgs, DescribeArgs, DescribeFormat, InvokeArgs, ListArgs, ListFormat, LogsArgs, NewArgs, TargetArgs,
    Template,
};

/// Functions on your own Kubernetes: `kubectl apply` a Function, get a URL; nothing runs while
/// nobody calls.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs functions on this machine: the whole platform in one process, no cluster needed
    ///
    /// Reads Function manifests, the same ones that `kubectl apply` takes, and serves each at
    /// http://127.0.0.1:8080/fn/<namespace>/<name>, from zero to scale.max processes and back. What is run
    /// is said by annotations of the manifest: dev.lambent.dev/command, and if wanted .../workdir, .../watch
    /// (files whose change makes a new Revision) and .../build; or its image is run by podman, nerdctl or docker.
    Dev(DevArgs),
    /// Makes a small function that runs at once under `lambent dev`, with a test and a Containerfile
    New(NewArgs),
    /// Lists Functions
    List(ListArgs),
    /// Shows all about a Function: settings, conditions, Revisions, instances, Events, decisions
    Describe(DescribeArgs),
    /// Calls a Function and prints what it answers
    Invoke(InvokeArgs),
    /// Prints what the instances of a Function write
    Logs(LogsArgs),
    /// Checks manifests as a cluster would, without one: schema, unknown fields and rules, with line numbers
    Check(CheckArgs),
    /// Makes Functions true: Revisions, instances, status. Runs in the cluster; the chart starts it
    Controller(ControllerArgs),
    /// Takes requests, queues them and forwards them to instances. Runs in the cluster
    Gateway(GatewayArgs),
    /// Decides how many instances each Revision needs. Runs in the cluster
    Autoscaler(AutoscalerArgs),
    /// Tells gateways the addresses of new instances before the API does. Runs on each node, if it is enabled
    ///
    /// Asks the node's container runtime over its socket (CRI v1: containerd, CRI-O), every few milliseconds while a
    /// gateway waits for a pod of this node and never otherwise. It has no rights in the cluster: it shows the
    /// gateways the token of its service account, which names its node, and they ask it about their own pods there.
    /// Functions start without it too, about 0.7 s later.
    Node(NodeArgs),
    /// Prints a script with which a shell completes this command line
    Completions(CompletionsArgs),
    /// Prints the custom resource definitions, for `kubectl apply -f -`
    Crds,
    /// Calls a URL and fails unless it answers below 500; for probes and `helm test`
    Healthcheck(HealthcheckArgs),
}

#[derive(Args, Debug)]
pub struct DevArgs {
    /// Manifests, or directories with manifests; watched for changes
    #[arg(default_value = ".", value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Where callers are served; port 0 takes a free one
    #[arg(long, env = "LAMBENT_DEV_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// What runs functions: their commands as processes, or their images by a container engine;
    /// auto runs commands, and images where there is none
    #[arg(long, default_value = "auto")]
    pub engine: Engine,
    /// Where to make the directory for its own files [default: in XDG_RUNTIME_DIR, or ~/.local/state]
    #[arg(long, env = "LAMBENT_DEV_STATE_DIR", value_name = "DIRECTORY")]
    pub state_dir: Option<PathBuf>,
    /// When stopping: let requests run for so long at most
    #[arg(long, default_value = "30", value_parser = seconds)]
    pub drain_seconds: Duration,
    /// What is logged: a level, or directives such as `info,lambent_gateway=debug`; `output` is what functions write
    #[arg(
        long,
        env = "LAMBENT_DEV_LOG_LEVEL",
        default_value = "warn,lambent_dev=info,lambent::roles=info,lambent_autoscaler::record=info,output=info"
    )]
    pub log_level: String,
}

#[derive(Args, Debug)]
pub struct CheckArgs {
    /// Manifests; - is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Engine {
    Auto,
    Process,
    Podman,
    Nerdctl,
    Docker,
}

/// What the roles have that talk to the API server.
#[derive(Args, Clone, Debug)]
pub struct CommonArgs {
    /// Watch this namespace only [default: all]
    #[arg(long, env = "LAMBENT_NAMESPACE")]
    pub namespace: Option<String>,
    /// The namespace that Lambent runs in: its Leases and gateways are there
    #[arg(long, env = "LAMBENT_SYSTEM_NAMESPACE", default_value = "lambent-system")]
    pub system_namespace: String,
    #[command(flatten)]
    pub process: ProcessArgs,
}

/// What all of Lambent's processes in a cluster have.
#[derive(Args, Clone, Debug)]
pub struct ProcessArgs {
    /// Where /metrics, /healthz and /readyz are served
    #[arg(long, env = "LAMBENT_ADMIN_ADDRESS", default_value = "0.0.0.0:9090")]
    pub admin_address: SocketAddr,
    /// How logs are written
    #[arg(long, env = "LAMBENT_LOG_FORMAT", default_value = "json")]
    pub log_format: LogFormat,
    /// What is logged: a level, or directives such as `info,lambent_gateway=debug,access=off`
    #[arg(long, env = "LAMBENT_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    Json,
    Text,
}

/// How to reach gateways from inside.
#[derive(Args, Clone, Debug)]
pub struct LinkArgs {
    /// The gateways' internal port
    #[arg(long, env = "LAMBENT_GATEWAY_INTERNAL_PORT", default_value_t = 8081)]
    pub gateway_internal_port: u16,
    /// File with a service account token of the audience `lambent-gateway`
    #[arg(long, env = "LAMBENT_TOKEN_FILE", default_value = "/var/run/secrets/lambent/token")]
    pub token_file: PathBuf,
}

#[derive(Args, Debug)]
pub struct ControllerArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub link: LinkArgs,
    /// Where callers reach the gateway, for the URLs in the Functions' status [default: its Service]
    #[arg(long, env = "LAMBENT_PUBLIC_URL")]
    pub public_url: Option<String>,
    /// A registry that is asked over plain http; may be repeated
    #[arg(
        long = "plain-http-registry",
        env = "LAMBENT_PLAIN_HTTP_REGISTRIES",
        value_delimiter = ',',
        value_name = "HOST[:PORT]"
    )]
    pub plain_http_registries: Vec<String>,
    /// Images that are pulled at once to nodes where they are not needed yet; 0: none
    #[arg(long, env = "LAMBENT_PULL_AHEAD", default_value_t = 8, value_name = "COUNT")]
    pub pull_ahead: usize,
}

#[derive(Args, Debug)]
pub struct GatewayArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// Where callers are served
    #[arg(long, env = "LAMBENT_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Where the autoscaler and the controller are served
    #[arg(long, env = "LAMBENT_INTERNAL_LISTEN", default_value = "0.0.0.0:8081")]
    pub internal_listen: SocketAddr,
    /// Serve functions as <name>.<namespace>.<DOMAIN> too
    #[arg(long, env = "LAMBENT_DOMAIN")]
    pub domain: Option<String>,
    /// A service account that may use the internal port, as system:serviceaccount:<namespace>:<name>; may be repeated
    #[arg(long = "trusted-account", env = "LAMBENT_TRUSTED_ACCOUNTS", value_delimiter = ',', value_name = "ACCOUNT")]
    pub trusted_accounts: Vec<String>,
    /// This gateway's pod, so that it and other gateways know each other; without it, it is the only one
    #[arg(long, env = "LAMBENT_POD", requires = "peer_account")]
    pub pod: Option<String>,
    /// The service account of all gateways, as system:serviceaccount:<namespace>:<name>
    #[arg(long, env = "LAMBENT_PEER_ACCOUNT", value_name = "ACCOUNT")]
    pub peer_account: Option<String>,
    /// The service account of node agents, as system:serviceaccount:<namespace>:<name>; they tell addresses of new
    /// instances before the API does
    #[arg(long, env = "LAMBENT_NODE_ACCOUNT", value_name = "ACCOUNT")]
    pub node_account: Option<String>,
    /// File with a service account token of the audience `lambent-gateway`, for other gateways
    #[arg(long, env = "LAMBENT_TOKEN_FILE", default_value = "/var/run/secrets/lambent/token")]
    pub token_file: PathBuf,
    /// When stopping: serve on for so long while the network learns of it
    #[arg(long, env = "LAMBENT_DRAIN_DELAY_SECONDS", default_value = "5", value_parser = seconds)]
    pub drain_delay_seconds: Duration,
    /// When stopping: let requests run for so long at most; longer than the longest timeout
    #[arg(long, env = "LAMBENT_DRAIN_SECONDS", default_value = "930", value_parser = seconds)]
    pub drain_seconds: Duration,
}

#[derive(Args, Debug)]
pub struct AutoscalerArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub link: LinkArgs,
}

#[derive(Args, Debug)]
pub struct NodeArgs {
    #[command(flatten)]
    pub process: ProcessArgs,
    /// Where the container runtime listens; the first that answers is used
    #[arg(
        long = "runtime-endpoint",
        env = "LAMBENT_RUNTIME_ENDPOINT",
        value_delimiter = ',',
        default_value = "unix:///run/containerd/containerd.sock,unix:///run/crio/crio.sock",
        value_name = "URL"
    )]
    pub runtime_endpoints: Vec<String>,
    /// The internal ports of all gateways: a name with the addresses of all of them, as of a headless Service
    #[arg(
        long,
        env = "LAMBENT_GATEWAYS",
        default_value = "lambent-gateway-peers.lambent-system.svc:8081",
        value_name = "HOST:PORT"
    )]
    pub gateways: String,
    /// File with a service account token of the audience `lambent-gateway`, bound to this agent's pod
    #[arg(long, env = "LAMBENT_TOKEN_FILE", default_value = "/var/run/secrets/lambent/token")]
    pub token_file: PathBuf,
    /// Where the node's cgroups are, writable: for parked instances, which are frozen there; without it nothing is
    #[arg(long, env = "LAMBENT_CGROUPS", value_name = "DIRECTORY")]
    pub cgroups: Option<PathBuf>,
    /// Push the memory of parked instances out, to files and to swap where there is some: their first request
    /// brings back what it uses, and takes longer for that
    #[arg(long, env = "LAMBENT_PUSH_OUT")]
    pub push_out: bool,
}

#[derive(Args, Debug)]
pub struct HealthcheckArgs {
    /// An http:// URL
    pub url: String,
    /// How long to try
    #[arg(long, default_value = "10", value_parser = seconds)]
    pub timeout_seconds: Duration,
    /// What the answer must have in it
    #[arg(long, value_name = "TEXT")]
    pub contains: Option<String>,
}

fn seconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
