//! From paths to what they ask for: every Function once, and all that is wrong. What a broken file
//! had before stays, so that a half-written change takes nothing away.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use lambent_api::FunctionKey;

use crate::{
    find::{Found, find},
    manifest::{self, Contents, Manifest, Problem},
    source::{self, Source},
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
    /// Whether something could not be read, so that no change may be told of.
    pub(crate) partial: bool,
}

/// Which Functions came from which file when it could be read last.
pub(crate) type Known = BTreeMap<PathBuf, Box<[FunctionKey]>>;

/// Which file a Function comes from, and in which line.
type Holders = BTreeMap<FunctionKey, (PathBuf, usize)>;

/// Looks at everything.
///
/// # Errors
/// If one of the paths itself can't be read.
pub(crate) fn look(paths: &[PathBuf], processes: bool, known: &mut Known) -> io::Result<Wanted> {
    Ok(judge(find(paths)?, processes, known))
}

fn judge(found: Found, processes: bool, known: &mut Known) -> Wanted {
    let Found { files, watched, unreadable, .. } = found;
    let mut wanted = Wanted { watched, partial: !unreadable.is_empty(), ..Wanted::default() };
    let hidden = |file: &Path| unreadable.keys().any(|directory| file.starts_with(directory));
    // A file that went takes its Functions along.
    known.retain(|file, _| files.contains(file) || hidden(file));
    let unseen = known.iter().filter(|(file, _)| !files.contains(*file));
    wanted.kept.extend(unseen.flat_map(|(_, keys)| keys.iter().cloned()));
    wanted.problems.extend(unreadable.into_iter().map(|(file, error)| Problem {
        file,
        line: 0,
        message: format!("{error}; what was there goes on"),
    }));
    let read: Vec<_> =
        files.iter().filter_map(|file| Some((file, read(file, known.get(file).map(AsRef::as_ref))?))).collect();
    let mut holders = broken(&read, known);
    for (file, contents) in read {
        let keys = take_all(file, contents, processes, &mut wanted, &mut holders);
        known.insert(file.clone(), keys);
    }
    let served = |key: &FunctionKey| !wanted.functions.contains_key(key);
    wanted.kept = std::mem::take(&mut wanted.kept).into_iter().filter(served).collect();
    wanted
}

/// What a file has; nothing if it is not ours.
fn read(file: &Path, before: Option<&[FunctionKey]>) -> Option<Contents> {
    let text = fs::metadata(file).and_then(|meta| match meta.len() {
        0..=MAX_MANIFEST => fs::read_to_string(file),
        _ => Ok(String::new()),
    });
    match text {
        Ok(text) if !text.contains(OURS) && before.is_none_or(<[_]>::is_empty) => None,
        Ok(text) => Some(manifest::read(file, &text)),
        Err(error) => {
            let problem = Problem { file: file.to_owned(), line: 1, message: error.to_string() };
            Some(Contents { problems: vec![problem], ..Contents::default() })
        }
    }
}

/// The Functions of broken files: none of them comes from another file meanwhile.
fn broken(read: &[(&PathBuf, Contents)], known: &Known) -> Holders {
    let mut holders = Holders::new();
    for (file, contents) in read.iter().filter(|(_, contents)| !contents.problems.is_empty()) {
        let well: BTreeSet<_> = contents.manifests.iter().map(|manifest| manifest.function.key()).collect();
        let lost = known.get(*file).into_iter().flatten().filter(|key| !well.contains(key));
        holders.extend(lost.map(|key| (key.clone(), ((*file).clone(), 1))));
    }
    holders
}

/// Takes what a file has. The Functions that come from it.
fn take_all(
    file: &Path,
    contents: Contents,
    processes: bool,
    wanted: &mut Wanted,
    holders: &mut Holders,
) -> Box<[FunctionKey]> {
    wanted.problems.extend(contents.problems);
    let lost = holders.iter().filter(|(_, (holder, _))| holder == file).map(|(key, _)| key.clone());
    let mut keys: BTreeSet<FunctionKey> = lost.collect();
    wanted.kept.extend(keys.iter().cloned());
    for manifest in contents.manifests {
        let key = manifest.function.key();
        if take(manifest, processes, wanted, holders) {
            keys.insert(key);
        }
    }
    keys.into_iter().collect()
}

/// Whether the Function comes from this manifest.
fn take(manifest: Manifest, processes: bool, wanted: &mut Wanted, holders: &mut Holders) -> bool {
    let key = manifest.function.key();
    let problem = |message| Problem { file: manifest.file.clone(), line: manifest.line, message };
    if let Some((file, line)) = holders.get(&key) {
        let words = format!("{key} stands in {}:{line} already; one of them needs another name", file.display());
        wanted.problems.insert(problem(words));
        return false;
    }
    holders.insert(key.clone(), (manifest.file.clone(), manifest.line));
    let source = match manifest.annotations.command.as_ref().filter(|_| processes).map(|_| Source::read(&manifest)) {
        None => None,
        Some(Ok(source)) => Some(source),
        Some(Err(error)) => {
            wanted.problems.insert(problem(error.to_string()));
            // Whatever is missing may come back.
            wanted.watched.extend(source::named(&manifest));
            wanted.kept.insert(key);
            return true;
        }
    };
    wanted.watched.extend(source.iter().flat_map(|source| source.watched.iter().cloned()));
    wanted.functions.insert(key, (manifest, source));
    true
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
    fn a_function_of_a_broken_file_does_not_come_from_another_one_meanwhile() {
        let mut files = Files::new();
        files.write("a.yaml", &function("one"));
        files.write("b.yaml", &function("one").replace("image: a", "image: b"));
        let image =
            |wanted: &Wanted| wanted.functions.values().next().map(|(m, _)| m.function.spec.template.image.clone());
        assert_eq!(image(&files.look()).as_deref(), Some("a"));
        // In its text, and in what it names.
        let missing = "apiVersion: lambent.dev/v1alpha1\nkind: Function\nmetadata: {name: one, annotations: \
                       {dev.lambent.dev/command: x, dev.lambent.dev/watch: nothing}}\nspec: {image: a}\n";
        for broken in ["apiVersion: lambent.dev/v1alpha1\nkind: [", missing] {
            files.write("a.yaml", broken);
            let wanted = files.look();
            assert_eq!((image(&wanted), wanted.kept.len()), (None, 1), "{broken}");
            assert!(wanted.problems.iter().any(|problem| problem.message.contains("a.yaml:")), "{:?}", wanted.problems);
        }
        fs::remove_file(files.directory.path().join("a.yaml")).unwrap();
        assert_eq!(image(&files.look()).as_deref(), Some("b"));
        // Nor from a new one that comes before it.
        files.write("b.yaml", "apiVersion: lambent.dev/v1alpha1\nkind: [");
        files.write("a.yaml", &function("one"));
        assert_eq!(image(&files.look()), None);
    }

    #[test]
    fn where_something_that_is_watched_is_missing_its_place_is_watched() {
        let mut files = Files::new();
        let annotations = "annotations: {dev.lambent.dev/command: x, dev.lambent.dev/watch: src/deep/main.py}";
        files.write("a/f.yaml", &function("one").replace("name: one", &format!("name: one, {annotations}")));
        files.write("a/src/deep/main.py", "");
        let path = |name: &str| files.directory.path().join(name);
        let (source, deep) = (path("a/src"), path("a/src/deep"));
        assert!(files.look().watched.contains(&deep));
        fs::remove_file(deep.join("main.py")).unwrap();
        assert!(files.look().watched.contains(&deep));
        fs::remove_dir(&deep).unwrap();
        let wanted = files.look();
        assert!(wanted.watched.contains(&source) && wanted.kept.len() == 1, "{wanted:?}");
    }

    #[test]
    fn a_linked_manifest_is_read_once_and_a_link_that_leads_nowhere_is_not() {
        use std::os::unix::fs::symlink;
        let mut files = Files::new();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("real"), function("one")).unwrap();
        files.write("b.yaml", &function("two"));
        for (target, link) in [("real", "a.yaml"), ("nothing", "c.yaml")] {
            symlink(elsewhere.path().join(target), files.directory.path().join(link)).unwrap();
        }
        symlink("b.yaml", files.directory.path().join("d.yaml")).unwrap();
        let wanted = files.look();
        assert_eq!(names(&wanted), ["one", "two"]);
        assert!(wanted.problems.is_empty(), "{:?}", wanted.problems);
        assert!(wanted.watched.contains(&fs::canonicalize(elsewhere.path()).unwrap()));
    }

    #[test]
    fn a_directory_that_can_not_be_read_keeps_what_it_had_and_is_named() {
        let known: Known = [(PathBuf::from("a/b/f.yaml"), [FunctionKey::new("shop", "one")].into())].into();
        let found = Found { unreadable: [("a/b".into(), "Permission denied".into())].into(), ..Found::default() };
        let mut after = known.clone();
        let wanted = judge(found, true, &mut after);
        assert_eq!(wanted.kept.len(), 1);
        assert!(wanted.partial && after == known);
        let problem = wanted.problems.first().unwrap().to_string();
        assert_eq!(problem, "a/b: Permission denied; what was there goes on");
        assert!(judge(Found::default(), true, &mut after).kept.is_empty(), "it is there and the file is not");
    }

    #[test]
    fn a_path_that_is_not_there_is_an_error_with_its_name() {
        let error = look(&["/no/such/path".into()], true, &mut Known::new()).unwrap_err();
        assert!(error.to_string().starts_with("/no/such/path: "), "{error}");
    }
}
