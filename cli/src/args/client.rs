//! The command line of what users run beside `lambent dev`: against a running one and against
//! clusters alike.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use clap_complete::Shell;
use lambent_api::Duration;

/// Which API server is asked.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Where")]
pub struct TargetArgs {
    /// Ask the running `lambent dev` [default: if one runs and no context is named]
    #[arg(long, conflicts_with_all = ["context", "kubeconfig"])]
    pub dev: bool,
    /// Ask the cluster of this context of the kubeconfig [default: the current one]
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Ask a cluster, as this kubeconfig says [default: KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The namespace of the Function [default: the context's; under `lambent dev` all]
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// The directory that `lambent dev` was given as its --state-dir
    #[arg(long, env = "LAMBENT_DEV_STATE_DIR", value_name = "DIRECTORY")]
    pub state_dir: Option<PathBuf>,
    /// The namespace that Lambent itself runs in
    #[arg(long, env = "LAMBENT_SYSTEM_NAMESPACE", default_value = "lambent-system", value_name = "NAMESPACE")]
    pub system_namespace: String,
}

#[derive(Args, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Functions of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// How they are shown
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    pub output: ListFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// One line each
    Table,
    /// The table, with more columns
    Wide,
    /// The objects, as kubectl has them
    Json,
    /// The objects, as kubectl has them
    Yaml,
    /// Names for kubectl, such as function.lambent.dev/hello
    Name,
}

#[derive(Args, Debug)]
pub struct DescribeArgs {
    /// The Function
    #[arg(value_name = "[NAMESPACE/]NAME")]
    pub name: String,
    #[command(flatten)]
    pub target: TargetArgs,
    /// How it is shown
    #[arg(short, long, default_value = "text", value_name = "FORMAT")]
    pub output: DescribeFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DescribeFormat {
    /// For people
    Text,
    /// One object: function, revisions, instances, events, decisions
    Json,
    /// The same
    Yaml,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Exit status: 0 if the answer is below 400; 22 if it is 400 or more (as `curl --fail`; the body is printed
all the same); 1 if there was no whole answer; 2 if the command line is wrong.

Examples:
  lambent invoke hello
  lambent invoke shop/thumbnail -d @photo.jpg -H 'Content-Type: image/jpeg' >thumbnail.jpg
  echo '{\"n\": 1}' | lambent invoke hello -d - --path '/items?dry=true' -X PUT")]
pub struct InvokeArgs {
    /// The Function
    #[arg(value_name = "[NAMESPACE/]NAME")]
    pub name: String,
    /// What is sent: this, a file's content as @FILE, or standard input as -
    ///
    /// Content-Type is application/json where it is JSON, text/plain where it is other text, and
    /// application/octet-stream else; -H says it otherwise.
    #[arg(short, long, value_name = "DATA|@FILE|-", allow_hyphen_values = true)]
    pub data: Option<String>,
    /// A header, as 'Name: value'; may be repeated
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub headers: Vec<String>,
    /// What comes after the Function's URL: path and query, percent-encoded
    #[arg(long, default_value = "", value_name = "PATH")]
    pub path: String,
    /// The method [default: POST with --data, else GET]
    #[arg(short = 'X', long, value_name = "METHOD")]
    pub method: Option<String>,
    /// Print the answer's head to standard output too, before the body
    #[arg(short, long)]
    pub include: bool,
    /// Give up after so long, such as 30s [default: when the gateway does, by the Function's timeouts]
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<Duration>,
    /// Call here, such as http://127.0.0.1:8080, and ask no API server
    ///
    /// Else the URL in the Function's status is called; where that is one for inside of the cluster,
    /// or can't be reached from here, a port is forwarded to a gateway through the API server.
    #[arg(long, value_name = "URL")]
    pub gateway: Option<String>,
    #[command(flatten)]
    pub target: TargetArgs,
}

#[derive(Args, Debug)]
pub struct LogsArgs {
    /// The Function
    #[arg(value_name = "[NAMESPACE/]NAME")]
    pub name: String,
    /// Go on with what is written from now on, by new instances too
    #[arg(short, long)]
    pub follow: bool,
    /// Of each instance, what its container wrote before it was restarted
    #[arg(short, long, conflicts_with = "follow")]
    pub previous: bool,
    /// Only so many of the last lines of each instance; -1 is all
    #[arg(long, default_value_t = -1, value_name = "LINES", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i64).range(-1..))]
    pub tail: i64,
    /// Only what was written since so long ago, such as 10s, 5m or 2h
    #[arg(long, value_name = "DURATION")]
    pub since: Option<Duration>,
    /// Each line with its time
    #[arg(long)]
    pub timestamps: bool,
    #[command(flatten)]
    pub target: TargetArgs,
}

#[derive(Args, Debug)]
pub struct NewArgs {
    /// Its name: lower case letters, digits and '-', at most 40
    pub name: String,
    /// What it is written in
    #[arg(short, long)]
    pub template: Template,
    /// Where its files are put; made if it isn't there [default: a directory of its name]
    #[arg(short, long, value_name = "DIRECTORY")]
    pub dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Template {
    /// Rust with axum
    Rust,
    /// Python 3 with its standard library
    Python,
    /// Node.js without packages
    Node,
}

#[derive(Args, Debug)]
#[command(after_help = "\
To have them at once, and in each new shell:
  bash:  lambent completions bash >~/.local/share/bash-completion/completions/lambent
  zsh:   lambent completions zsh >\"${fpath[1]}/_lambent\"
  fish:  lambent completions fish >~/.config/fish/completions/lambent.fish")]
pub struct CompletionsArgs {
    /// For which shell
    pub shell: Shell,
}
