//! `lambent completions`.

use clap::CommandFactory;

use crate::{
    args::{Cli, CompletionsArgs},
    client::output,
};

/// Prints the script for a shell.
pub fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    // Not straight to the pipe, which may be closed: the generator panics then.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "lambent", &mut script);
    output::write(&script)
}
