//! `lambent check`: what a cluster would say of a manifest, without one.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use lambent_dev::manifest;

use crate::{args::CheckArgs, client::output};

/// Prints every problem with file and line; fails if there is one, or no Function at all.
pub fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let (mut functions, mut problems) = (0, 0);
    for file in &args.files {
        let contents = manifest::read(file, &read(file)?);
        functions += contents.manifests.len();
        problems += contents.problems.len();
        for problem in &contents.problems {
            output::print(&format!("{problem}\n"))?;
        }
    }
    match (functions, problems) {
        (_, 1) => bail!("1 problem"),
        (_, 2..) => bail!("{problems} problems"),
        (0, 0) => bail!("no Function is there: a manifest has apiVersion: lambent.dev/v1alpha1 and kind: Function"),
        (1, 0) => output::print("1 Function, well\n")?,
        _ => output::print(&format!("{functions} Functions, all well\n"))?,
    }
    Ok(())
}

fn read(file: &PathBuf) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input")?;
        return Ok(text);
    }
    fs::read_to_string(file).with_context(|| file.display().to_string())
}
