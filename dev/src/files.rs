//! From paths to what they ask for: every Function once, and all that is wrong. What a broken file
//! had before stays, so that a half-written change takes nothing away.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fs, io,
    path::{Path, PathBuf},
};

use lambent_api::FunctionKey;

use crate::{
    manifest::{self, Manifest, Problem},
    source::{Source, is_skipped},
};

/// A larger file is no manifest.
const MAX_MANIFEST: u64 = 1 << 20;
/// What a file must mention to be ours: a directory may have YAML of all kinds.
const OURS: &str = "lambent.dev/";

/// What the paths ask for now.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// By name; with the source, where it is run as a process.
    pub(crate) functions: BTreeMap<FunctionKey, (Manifest, Option<Source>)>,
    /// What is wrong, each once.
    pub(crate) problems: BTreeSet<Problem>,
    /// Functions that something is wrong with or that stood in a file that can't be read now.
    pub(crate) kept: BTreeSet<FunctionKey>,
    /// Directories whose changes matter.
    pub(crate) watched: BTreeSet<PathBuf>,
}

/// Which Functions stood in which file when it could be read last.
pub(crate) type Known = BTreeMap<PathBuf, Box<[FunctionKey]>>;

/// Looks at everything.
///
/// # Errors
/// If one of the paths itself can't be read.
pub(crate) fn look(paths: &[PathBuf], processes: bool, known: &mut Known) -> io::Result<Wanted> {
    let mut wanted = Wanted::default();
    let mut files = BTreeSet::new();
    for path in paths {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        find(path, true, &mut files, &mut wanted.watched).map_err(named)?;
    }
    // A file that went takes its Functions along.
    known.retain(|file, _| files.contains(file));
    for file in files {
        read(&file, processes, &mut wanted, known);
    }
    let served = |key: &FunctionKey| !wanted.functions.contains_key(key);
    wanted.kept = std::mem::take(&mut wanted.kept).into_iter().filter(served).collect();
    Ok(wanted)
}

fn find(path: &Path, named: bool, files: &mut BTreeSet<PathBuf>, watched: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    if fs::metadata(path)?.is_file() {
        if named || path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            watched.extend(
                path.parent()
                    .map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent }.to_owned()),
            );
            files.insert(path.to_owned());
        }
        return Ok(());
    }
    watched.insert(path.to_owned());
    for entry in fs::read_dir(path)?.flatten() {
        let (path, kind) = (entry.path(), entry.file_type()?);
        if (kind.is_dir() && !is_skipped(&path)) || kind.is_file() {
            // Gone between two looks is as good as never there.
            let _ = find(&path, false, files, watched);
        }
    }
    Ok(())
}

fn read(file: &Path, processes: bool, wanted: &mut Wanted, known: &mut Known) {
    let problem = |message: String| Problem { file: file.to_owned(), line: 1, message };
    let text = match fs::metadata(file).and_then(|meta| match meta.len() {
        0..=MAX_MANIFEST => fs::read_to_string(file),
        _ => Ok(String::new()),
    }) {
        Ok(text) => text,
        Err(error) => {
            wanted.problems.insert(problem(error.to_string()));
            wanted.kept.extend(known.get(file).into_iter().flatten().cloned());
            return;
        }
    };
    let before = known.get(file).cloned().unwrap_or_default();
    if !text.contains(OURS) && before.is_empty() {
        return;
    }
    let contents = manifest::read(file, &text);
    let broken = !contents.problems.is_empty();
    wanted.problems.extend(contents.problems);
    let mut here = BTreeSet::new();
    for manifest in contents.manifests {
        here.insert(manifest.function.key());
        take(manifest, processes, wanted);
    }
    if broken {
        wanted.kept.extend(before.iter().cloned());
        here.extend(before);
    }
    known.insert(file.to_owned(), here.into_iter().collect());
}

fn take(manifest: Manifest, processes: bool, wanted: &mut Wanted) {
    let key = manifest.function.key();
    let problem = |message| Problem { file: manifest.file.clone(), line: manifest.line, message };
    let source = match manifest.annotations.command.as_ref().filter(|_| processes).map(|_| Source::read(&manifest)) {
        None => None,
        Some(Ok(source)) => Some(source),
        Some(Err(error)) => {
            wanted.problems.insert(problem(error.to_string()));
            wanted.kept.insert(key);
            return;
        }
    };
    wanted.watched.extend(source.iter().flat_map(|source| source.watched.iter().cloned()));
    match wanted.functions.entry(key.clone()) {
        Entry::Vacant(place) => drop(place.insert((manifest, source))),
        Entry::Occupied(first) => {
            let there = &first.get().0;
            let words = format!(
                "{key} stands in {}:{} already; one of them needs another name",
                there.file.display(),
                there.line
            );
            wanted.problems.insert(problem(words));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files {
        directory: tempfile::TempDir,
        known: Known,
    }

    impl Files {
        fn new() -> Self {
            Self { directory: tempfile::tempdir().unwrap(), known: Known::new() }
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn look(&mut self) -> Wanted {
            look(&[self.directory.path().to_owned()], true, &mut self.known).unwrap()
        }
    }

    fn function(name: &str) -> String {
        format!("apiVersion: lambent.dev/v1alpha1\nkind: Function\nmetadata: {{name: {name}}}\nspec: {{image: a}}\n")
    }

    fn names(wanted: &Wanted) -> Vec<&str> {
        wanted.functions.keys().map(|key| key.name.as_str()).collect()
    }

    #[test]
    fn functions_are_found_in_all_directories_and_other_yaml_is_left_alone() {
        let mut files = Files::new();
        files.write("a/f.yaml", &function("one"));
        files.write("b.yml", &format!("{}---\n{}", function("two"), function("three")));
        files.write("target/f.yaml", &function("built"));
        files.write("chart.yaml", "{{ not yaml }");
        let wanted = files.look();
        assert_eq!(names(&wanted), ["one", "three", "two"]);
        assert!(wanted.problems.is_empty(), "{:?}", wanted.problems);
    }

    #[test]
    fn of_two_manifests_of_one_name_the_second_is_told_where_the_first_is() {
        let mut files = Files::new();
        files.write("a.yaml", &function("one"));
        files.write("b.yaml", &format!("\n{}", function("one")));
        let wanted = files.look();
        assert_eq!(names(&wanted), ["one"]);
        let problem = wanted.problems.first().unwrap();
        assert!(problem.file.ends_with("b.yaml") && problem.line == 4, "{problem}");
        assert!(
            problem.message.starts_with("default/one stands in ") && problem.message.contains("a.yaml:3"),
            "{problem}"
        );
    }

    #[test]
    fn a_broken_file_keeps_what_it_had_and_one_that_went_does_not() {
        let mut files = Files::new();
        files.write("a.yaml", &function("one"));
        files.write("b.yaml", &function("two"));
        assert_eq!(names(&files.look()), ["one", "two"]);
        files.write("a.yaml", "apiVersion: lambent.dev/v1alpha1\nkind: [");
        fs::remove_file(files.directory.path().join("b.yaml")).unwrap();
        let wanted = files.look();
        assert!(wanted.functions.is_empty());
        assert_eq!(wanted.kept.into_iter().map(|key| key.name).collect::<Vec<_>>(), ["one"]);
        assert_eq!(wanted.problems.len(), 1);
        files.write("a.yaml", &function("three"));
        let wanted = files.look();
        assert_eq!((names(&wanted), wanted.kept.len()), (vec!["three"], 0));
    }

    #[test]
    fn a_path_that_is_not_there_is_an_error_with_its_name() {
        let error = look(&["/no/such/path".into()], true, &mut Known::new()).unwrap_err();
        assert!(error.to_string().starts_with("/no/such/path: "), "{error}");
    }
}
