//! `lambent check`: what a cluster would say of a manifest, without one.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use lambent_dev::manifest;

use crate::args::CheckArgs;

/// Prints every problem with file and line; fails if there is one, or no Function at all.
pub fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let (mut functions, mut problems) = (0, 0);
    for file in &args.files {
        let contents = manifest::read(file, &read(file)?);
        functions += contents.manifests.len();
        problems += contents.problems.len();
        for problem in &contents.problems {
            writeln!(out, "{problem}")?;
        }
    }
    match (functions, problems) {
        (_, 1) => bail!("1 problem"),
        (_, 2..) => bail!("{problems} problems"),
        (0, 0) => bail!("no Function is there: a manifest has apiVersion: lambent.dev/v1alpha1 and kind: Function"),
        (1, 0) => writeln!(out, "1 Function, well")?,
        _ => writeln!(out, "{functions} Functions, all well")?,
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
