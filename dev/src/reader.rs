//! Looks at the files in a process of its own, which ends with the look: some megabytes that reading takes
//! would stay for good, and there may be no other change for hours. And a text that is too much for a
//! parser ends that process, and nothing that runs.
//!
//! ```text
//! lambent dev -- Request --> lambent read-manifests
//!             <-- Line* --
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufWriter, IsTerminal, Write, stdin, stdout},
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::Duration,
};

use lambent_api::FunctionKey;
use lambent_compact::{Packed, Packer};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    process::Command,
    time::timeout,
};

use crate::{
    files::{self, Known, Wanted},
    lossless,
    manifest::{Manifest, PLACE, Problem},
    notices::notices,
    source::Source,
};

/// The argument that leads to [`main`].
pub const ARGUMENT: &str = "read-manifests";
/// More of what a process that failed has written is not repeated.
const MAX_WORDS: u64 = 4096;
/// Reading takes longer only where a file hangs: ten thousand manifests take a tenth of it.
const LIMIT: Duration = Duration::from_secs(120);

/// What is to be looked at.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    paths: Vec<Named>,
    processes: bool,
    known: Vec<Origin>,
}

/// What was known after a look, to be told the next one.
#[derive(Debug, Default)]
pub(crate) struct Remembered(Option<Packed>);

#[derive(Debug, Serialize, Deserialize)]
struct Named(#[serde(with = "lossless")] PathBuf);

#[derive(Debug, Serialize, Deserialize)]
struct Origin(#[serde(with = "lossless")] PathBuf, Box<[FunctionKey]>);

/// What was found, one after the other.
#[derive(Debug, Serialize, Deserialize)]
enum Line {
    /// With the object as it runs here, as JSON.
    Function(FunctionKey, Asked, String),
    Problem(Problem),
    Kept(FunctionKey),
    Watched(Named),
    Notice(String),
    Known(Origin),
    /// That was all. Whether something could not be read, so that no change may be told of.
    End(bool),
    /// Or why there is nothing.
    Failed(String),
}

/// A Function that a manifest asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// Where its manifest is.
    pub(crate) place: String,
    /// Whether its command is run, and not its image.
    pub(crate) is_process: bool,
    /// Of one that is built first: the digest of its source.
    pub(crate) built_from: Option<String>,
}

/// What the files ask for.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// With the objects, packed: most are what they were before.
    pub(crate) functions: BTreeMap<FunctionKey, (Asked, Packed)>,
    /// What is wrong, each once.
    pub(crate) problems: BTreeSet<Problem>,
    /// Functions that something is wrong with or that stood in a file that can't be read now.
    pub(crate) kept: BTreeSet<FunctionKey>,
    /// What has no effect here.
    pub(crate) notices: BTreeSet<String>,
    pub(crate) ground: Ground,
}

/// Where a change makes another look necessary.
#[derive(Debug, Default)]
pub(crate) struct Ground {
    /// Directories whose changes matter.
    pub(crate) watched: BTreeSet<PathBuf>,
    /// Whether something could not be read, so that no change may be told of.
    pub(crate) partial: bool,
}

impl Request {
    pub(crate) fn new(paths: &[PathBuf], processes: bool, remembered: &Remembered) -> Self {
        let known = remembered.0.as_ref().and_then(|known| known.value().ok()).unwrap_or_default();
        Self { paths: paths.iter().cloned().map(Named).collect(), processes, known }
    }
}

/// Why there is no look.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// One of the paths that were named can't be read.
    #[error("{0}")]
    Paths(String),
    /// It is the process that failed, and no manifest.
    #[error("lambent {ARGUMENT} failed: {0}")]
    Process(String),
}

/// Looks, by a process of this program.
///
/// # Errors
/// If one of the paths can't be read, or the process fails.
pub(crate) async fn look(program: &Path, request: &Request) -> Result<(Look, Remembered), Error> {
    let found = match timeout(LIMIT, found(program, request)).await {
        Ok(found) => found.map_err(|error| Error::Process(error.to_string()))?,
        // Dropped, it is killed.
        Err(_) => return Err(Error::Process(format!("no end after {} s: does a file hang?", LIMIT.as_secs()))),
    };
    found.map_err(Error::Paths)
}

/// What the process has found, or why one of the paths can't be read.
async fn found(program: &Path, request: &Request) -> io::Result<Result<(Look, Remembered), String>> {
    let mut command = Command::new(program);
    command.arg0("lambent").arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A terminal's Ctrl-C is ours; it ends by itself, soon, and also when nobody reads.
    let mut process = command.process_group(0).kill_on_drop(true).spawn()?;
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (process.stdin.take(), process.stdout.take(), process.stderr.take())
    else {
        return Err(io::Error::other("no pipes"));
    };
    let request = serde_json::to_vec(request)?;
    // It takes all of that before it says anything. One that ends before has its reason.
    let _ = stdin.write_all(&request).await;
    drop((stdin, request));
    // Both end with the process.
    let (found, words) = tokio::join!(collect(BufReader::new(stdout)), words(stderr));
    let found = found?;
    let status = process.wait().await?;
    found.ok_or_else(|| io::Error::other(format!("{status}; {}", words.trim())))
}

/// The first of what it has to say; it must not be kept from saying the rest.
async fn words(mut stderr: impl AsyncRead + Unpin) -> String {
    let mut words = Vec::new();
    // Without them it is only less clear what is wrong.
    let _ = (&mut stderr).take(MAX_WORDS).read_to_end(&mut words).await;
    let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&words).into_owned()
}

/// All that was found, or why there is nothing; none if the end is missing.
async fn collect(from: impl AsyncBufRead + Unpin) -> io::Result<Option<Result<(Look, Remembered), String>>> {
    let (mut look, mut known, mut packer) = (Look::default(), Vec::new(), Packer::default());
    let mut lines = from.lines();
    while let Some(line) = lines.next_line().await? {
        match serde_json::from_str(&line)? {
            Line::Function(key, asked, object) => drop(look.functions.insert(key, (asked, packer.pack(&object)))),
            Line::Problem(problem) => drop(look.problems.insert(problem)),
            Line::Kept(key) => drop(look.kept.insert(key)),
            Line::Watched(Named(path)) => drop(look.ground.watched.insert(path)),
            Line::Notice(notice) => drop(look.notices.insert(notice)),
            Line::Known(origin) => known.push(origin),
            Line::End(partial) => {
                look.ground.partial = partial;
                let known = Packed::alone(&serde_json::to_string(&known)?);
                return Ok(Some(Ok((look, Remembered(Some(known))))));
            }
            Line::Failed(words) => return Ok(Some(Err(words))),
        }
    }
    Ok(None)
}

/// The process: looks once at what standard input names.
pub fn main() -> ExitCode {
    if stdin().is_terminal() {
        eprintln!(
            "lambent {ARGUMENT} is how `lambent dev` reads manifests; `lambent check FILE` says what it thinks of one"
        );
        return ExitCode::FAILURE;
    }
    let mut to = BufWriter::new(stdout().lock());
    let request = serde_json::from_reader(stdin().lock()).map_err(io::Error::from);
    match request.and_then(|request| answer(request, &mut to)).and_then(|()| to.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn answer(Request { paths, processes, known }: Request, to: &mut impl Write) -> io::Result<()> {
    let paths: Vec<PathBuf> = paths.into_iter().map(|Named(path)| path).collect();
    let mut known = known.into_iter().map(|Origin(file, functions)| (file, functions)).collect();
    let mut say = |line| {
        serde_json::to_writer(&mut *to, &line)?;
        to.write_all(b"\n")
    };
    match files::look(&paths, processes, &mut known) {
        Ok(wanted) => lines(wanted, known, say),
        Err(error) => say(Line::Failed(error.to_string())),
    }
}

fn lines(wanted: Wanted, known: Known, mut say: impl FnMut(Line) -> io::Result<()>) -> io::Result<()> {
    let Wanted { functions, problems, kept, watched, partial } = wanted;
    let of_all = functions.values().map(|(manifest, source)| (&manifest.function, source.is_some()));
    notices(of_all).into_iter().try_for_each(|notice| say(Line::Notice(notice)))?;
    for (key, (manifest, source)) in functions {
        say(asked(key, manifest, source.as_ref())?)?;
    }
    problems.into_iter().try_for_each(|problem| say(Line::Problem(problem)))?;
    kept.into_iter().try_for_each(|key| say(Line::Kept(key)))?;
    watched.into_iter().try_for_each(|path| say(Line::Watched(Named(path))))?;
    known.into_iter().try_for_each(|(file, functions)| say(Line::Known(Origin(file, functions))))?;
    say(Line::End(partial))
}

fn asked(key: FunctionKey, mut manifest: Manifest, source: Option<&Source>) -> io::Result<Line> {
    let built_from = source.filter(|_| manifest.annotations.build.is_some()).map(|source| source.digest.clone());
    let place = format!("{}:{}", manifest.file.display(), manifest.line);
    manifest.function.metadata.annotations.get_or_insert_default().insert(PLACE.to_owned(), place.clone());
    let object = match source {
        Some(source) => serde_json::to_string(&source.run_by(&manifest))?,
        None => serde_json::to_string(&manifest.function)?,
    };
    let asked = Asked { place, is_process: source.is_some(), built_from };
    Ok(Line::Function(key, asked, object))
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt};

    use super::*;

    fn said(directory: &Path) -> String {
        let request = Request::new(&[directory.to_owned()], true, &Remembered::default());
        let request: Request = serde_json::from_str(&serde_json::to_string(&request).unwrap()).unwrap();
        let mut text = Vec::new();
        answer(request, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn what_is_found_arrives_whole_also_from_a_directory_whose_name_is_no_text() {
        let directory = tempfile::tempdir().unwrap();
        let odd = directory.path().join(OsStr::from_bytes(b"caf\xe9"));
        fs::create_dir(&odd).unwrap();
        let text = "apiVersion: lambent.dev/v1alpha1\nkind: Function\nmetadata: {name: one, annotations: \
                    {dev.lambent.dev/command: run me, dev.lambent.dev/build: make}}\nspec: {image: a, port: 81}\n";
        fs::write(odd.join("f.yaml"), text).unwrap();
        fs::write(odd.join("broken.yaml"), "kind: Function\napiVersion: lambent.dev/v1alpha1\nspec: [").unwrap();
        let said = said(directory.path());
        let (look, remembered) = collect(said.as_bytes()).await.unwrap().unwrap().unwrap();
        let (key, (asked, object)) = look.functions.first_key_value().unwrap();
        assert_eq!((key, asked.is_process), (&FunctionKey::new("default", "one"), true));
        assert_eq!(asked.place, format!("{}:3", odd.join("f.yaml").display()));
        let object: serde_json::Value = object.value().unwrap();
        assert_eq!(object["metadata"]["annotations"][PLACE], asked.place.as_str());
        assert_eq!(object["spec"]["command"], serde_json::json!(["run", "me"]));
        let digest = asked.built_from.as_ref().unwrap();
        assert!(object["spec"]["image"].as_str().unwrap().ends_with(digest), "{object}");
        assert_eq!(look.problems.first().unwrap().file, odd.join("broken.yaml"));
        assert!(look.ground.watched.contains(&odd) && !look.ground.partial);
        let next = Request::new(&[], true, &remembered);
        let origin = next.known.iter().find(|Origin(file, _)| *file == odd.join("f.yaml")).unwrap();
        assert_eq!(*origin.1, [FunctionKey::new("default", "one")]);
        assert!(look.notices.first().unwrap().starts_with("port "), "{:?}", look.notices);
    }

    #[tokio::test]
    async fn a_path_that_is_not_there_is_told_and_is_no_fault_of_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let said = said(&directory.path().join("none"));
        let words = collect(said.as_bytes()).await.unwrap().unwrap().unwrap_err();
        assert!(words.contains("none"), "{words}");
    }

    #[tokio::test]
    async fn a_look_without_an_end_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let said = said(directory.path());
        let cut = said.rsplit_once(r#"{"End""#).unwrap().0;
        assert!(collect(cut.as_bytes()).await.unwrap().is_none());
        assert!(collect(said.as_bytes()).await.unwrap().unwrap().is_ok());
        // As by another version of this program.
        collect(&b"{\"Other\":1}\n"[..]).await.unwrap_err();
    }

    /// A program in place of ours.
    fn script(directory: &Path, lines: &str) -> PathBuf {
        let program = directory.join("program");
        fs::write(&program, format!("#!/bin/sh\n{lines}\n")).unwrap();
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        program
    }

    // The clock goes on by itself whenever there is nothing else to do.
    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let program = script(directory.path(), "exec sleep 1000");
        let error = look(&program, &Request::new(&[], true, &Remembered::default())).await.unwrap_err();
        assert!(error.to_string().ends_with("failed: no end after 120 s: does a file hang?"), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_fails_is_told_with_its_words() {
        let directory = tempfile::tempdir().unwrap();
        let much = "for _ in 1 2 3 4 5 6 7 8; do head -c 30000 /dev/zero >&2; done";
        let program = script(directory.path(), &format!("echo too deep >&2\n{much}\nexit 3"));
        let error = look(&program, &Request::new(&[], true, &Remembered::default())).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("too deep"), "{error}");
        let error = look(Path::new("/no/lambent"), &Request::new(&[], true, &Remembered::default())).await.unwrap_err();
        assert!(error.to_string().starts_with("lambent read-manifests failed: No such file"), "{error}");
    }
}
