//! `lambent new`: the files of a small function, from templates that are part of this binary.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use lambent_api::meta::MAX_NAME_LENGTH;

use crate::{
    args::{NewArgs, Template},
    client::output,
};

/// What stands for the name in a template.
const NAME: &str = "@name@";

/// A file's path and text.
type File = (&'static str, &'static str);

macro_rules! files {
    ($folder:literal: $($path:literal),+) => {
        &[$(($path, include_str!(concat!("../../templates/", $folder, "/", $path, ".template")))),+]
    };
}

const RUST: &[File] = files!("rust": "function.yaml", "Cargo.toml", "src/main.rs", "Containerfile", ".containerignore", ".gitignore", "README.md");
const PYTHON: &[File] = files!("python": "function.yaml", "main.py", "test_main.py", "Containerfile", "README.md");
const NODE: &[File] =
    files!("node": "function.yaml", "main.js", "main.test.js", "package.json", "Containerfile", "README.md");

/// Writes the files and says what to do with them.
pub fn run(args: &NewArgs) -> anyhow::Result<()> {
    check_name(&args.name)?;
    let directory = args.dir.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    let (files, test) = match args.template {
        Template::Rust => (RUST, "cargo test"),
        Template::Python => (PYTHON, "python3 -m unittest"),
        Template::Node => (NODE, "node --test"),
    };
    write_all(&directory, files, &args.name)?;
    let (name, shown) = (&args.name, directory.display());
    let paths: Vec<&str> = files.iter().map(|(path, _)| *path).collect();
    output::print(&format!(
        "{shown}: {}\n\n\
         Run it:   lambent dev {shown}\n\
         Call it:  lambent invoke {name}\n\
         Test it:  cd {shown} && {test}\n\
         {shown}/README.md says how it comes to a cluster.\n",
        paths.join(" ")
    ))
}

/// The rule that a cluster has for names of Functions.
fn check_name(name: &str) -> anyhow::Result<()> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let whole = !name.is_empty() && name.chars().all(inner) && !name.starts_with('-') && !name.ends_with('-');
    if whole && name.len() <= MAX_NAME_LENGTH {
        return Ok(());
    }
    bail!(
        "{name:?} can't be a Function's name: lower case letters, digits and '-', with a letter or digit at both ends, at \
         most {MAX_NAME_LENGTH} of them; it becomes a host name"
    )
}

/// All files, or none if one of them is there already.
fn write_all(directory: &Path, files: &[File], name: &str) -> anyhow::Result<()> {
    let there: Vec<String> = files
        .iter()
        .map(|(path, _)| directory.join(path))
        .filter(|path| path.symlink_metadata().is_ok())
        .map(|path| path.display().to_string())
        .collect();
    if !there.is_empty() {
        bail!("already there: {}; nothing was written: name another directory with --dir", there.join(", "));
    }
    for (path, text) in files {
        let path = directory.join(path);
        let write = || {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
            file.write_all(text.replace(NAME, name).as_bytes())
        };
        write().with_context(|| path.display().to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use lambent_dev::manifest;

    use super::*;

    #[test]
    fn a_name_is_taken_if_a_cluster_takes_it() {
        let long = "a".repeat(MAX_NAME_LENGTH + 1);
        for name in ["a", "a-1", "1a", &long[1..], "", "-a", "a-", "A", "a_b", "a.b", "a/b", "ä", &long] {
            let text = format!(
                "apiVersion: lambent.dev/v1alpha1\nkind: Function\nmetadata: {{name: {name:?}}}\nspec: {{image: a}}\n"
            );
            let contents = manifest::read(Path::new("f.yaml"), &text);
            assert_eq!(check_name(name).is_ok(), contents.problems.is_empty(), "{name:?}: {:?}", contents.problems);
        }
    }

    #[test]
    fn nothing_is_written_over_and_then_nothing_is_written() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("main.py"), "mine").unwrap();
        let error = write_all(directory.path(), PYTHON, "hello").unwrap_err().to_string();
        assert!(error.contains("already there: ") && error.contains("main.py; ") && error.contains("--dir"), "{error}");
        assert_eq!(fs::read_to_string(directory.path().join("main.py")).unwrap(), "mine");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn each_template_makes_a_function_of_that_name_with_a_command_for_dev() {
        for files in [RUST, PYTHON, NODE] {
            let directory = tempfile::tempdir().unwrap();
            write_all(directory.path(), files, "my-fn").unwrap();
            let file = directory.path().join("function.yaml");
            let contents = manifest::read(&file, &fs::read_to_string(&file).unwrap());
            assert!(contents.problems.is_empty(), "{:?}", contents.problems);
            let manifest = &contents.manifests[0];
            assert_eq!(manifest.function.key().name, "my-fn");
            assert!(manifest.annotations.command.is_some() && !manifest.annotations.watch.is_empty());
            for (path, _) in files {
                let text = fs::read_to_string(directory.path().join(path)).unwrap();
                assert!(!text.contains(NAME), "{path}");
            }
        }
    }
}
