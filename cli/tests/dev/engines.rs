//! `--engine`: images by a container engine. The engines are stand-ins that do what is asked of them with a
//! process: what is not shown here is that the real ones understand the same words.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;

use crate::support::{Dev, Files, python, wait_for};

/// `run` serves in the foreground on the published port and answers with its engine's and the image's name;
/// a container is there until `rm`, as one whose client was killed.
const ENGINE: &str = r#"
import http.server, os, signal, sys
here = os.path.dirname(os.path.abspath(sys.argv[0]))
name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
containers = os.path.join(here, "..", "containers")
if words[0] == "info":
    if os.path.exists(os.path.join(here, "..", name + ".broken")):
        sys.exit("\nCannot connect to the daemon\n")
elif words[:2] == ["rm", "--force"]:
    try: os.remove(os.path.join(containers, words[2]))
    except FileNotFoundError: pass
elif words[0] == "run":
    rest, options = words[1:], {}
    while rest[0].startswith("--"):
        option = rest.pop(0)
        if option not in ("--rm", "--init"): options.setdefault(option, []).append(rest.pop(0))
    address, port, inner = options["--publish"][0].split(":")
    assert "PORT=" + inner in options["--env"], options
    open(os.path.join(containers, options["--name"][0]), "w").close()
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = f"{name} {' '.join(rest)}\n".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        def log_message(self, *_): pass
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    print("container of", name, flush=True)
    http.server.HTTPServer((address, int(port)), Answer).serve_forever()
else:
    sys.exit("not understood: " + " ".join(words))
"#;

/// A machine with these engines and no others.
struct Engines(tempfile::TempDir);

impl Engines {
    fn new(names: &[&str]) -> Self {
        let engines = Self(tempfile::tempdir().unwrap());
        // The interpreter itself: what is called so on PATH may be a script that needs more of PATH.
        let told = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
        let python = PathBuf::from(String::from_utf8(told.stdout).unwrap().trim());
        fs::create_dir(engines.path("bin")).unwrap();
        fs::create_dir(engines.path("containers")).unwrap();
        // What functions with a command take.
        symlink(&python, engines.path("bin").join("python3")).unwrap();
        symlink("/bin/sh", engines.path("bin").join("sh")).unwrap();
        for name in names {
            let program = engines.path("bin").join(name);
            fs::write(&program, format!("#!{}{ENGINE}", python.display())).unwrap();
            fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        engines
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn files(&self, manifests: &str) -> Files {
        let mut files = Files::new();
        files.write("f.yaml", manifests);
        files.variables.push(("PATH", self.path("bin")));
        files
    }

    fn containers(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("containers")).unwrap().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    fn until_none_is_left(&self, what: &str) {
        let gone = wait_for(|| self.containers().is_empty().then_some(()));
        assert!(gone.is_some(), "{what}: {:?}", self.containers());
    }
}

fn image(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: lambent.dev/v1alpha1\nkind: Function\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         image: registry.example/{name}:1\n{spec}"
    )
}

/// What it says before it ends by itself.
fn refusal(files: &Files, arguments: &[&str]) -> String {
    let mut command: Command = files.command();
    let output = command.args(["--listen", "127.0.0.1:0"]).args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn auto_runs_images_with_the_first_engine_that_works_and_commands_as_processes() {
    let engines = Engines::new(&["podman", "docker"]);
    // A client that is there without what it talks to.
    fs::write(engines.path("podman.broken"), "").unwrap();
    let files = engines.files(&format!("{}---\n{}", image("boxed", "  args: [a, b]\n"), python("hello", "")));
    let dev = files.dev();
    dev.line("shop/boxed runs its image with docker");
    assert_eq!(dev.ok("/fn/shop/boxed"), "docker registry.example/boxed:1 a b\n");
    assert!(dev.ok("/fn/shop/hello").starts_with("one "));
    dev.line("| container of docker");
    assert!(engines.containers().iter().all(|name| name.starts_with("lambent-shop-boxed-")));
}

#[test]
fn a_named_engine_runs_all_images_also_of_functions_with_a_command() {
    let engines = Engines::new(&["podman", "nerdctl", "docker"]);
    let files = engines.files(&format!("{}---\n{}", image("boxed", ""), python("hello", "")));
    let dev = files.dev_with(&["--engine", "nerdctl"]);
    assert_eq!(dev.ok("/fn/shop/boxed"), "nerdctl registry.example/boxed:1\n");
    assert_eq!(dev.ok("/fn/shop/hello"), "nerdctl none\n");
}

#[test]
fn a_named_engine_that_is_not_there_or_does_not_work_is_an_error_with_a_way_out() {
    let engines = Engines::new(&["docker"]);
    fs::write(engines.path("docker.broken"), "").unwrap();
    let files = engines.files(&image("boxed", ""));
    let words = refusal(&files, &["--engine", "podman"]);
    assert!(words.contains("podman can't be used: No such file") && words.contains("--engine process"), "{words}");
    let words = refusal(&files, &["--engine", "docker"]);
    assert!(words.contains("docker can't be used: Cannot connect to the daemon"), "{words}");
}

#[test]
fn without_an_engine_an_image_is_told_to_need_one_and_commands_run() {
    let engines = Engines::new(&[]);
    let dev = engines.files(&format!("{}---\n{}", image("boxed", ""), python("hello", ""))).dev();
    dev.line("f.yaml:3: shop/boxed can't run here: it has no annotation dev.lambent.dev/command, and no container");
    assert!(dev.ok("/fn/shop/hello").starts_with("one "));
    refused_for_want_of_an_engine(&dev);
}

#[test]
fn with_engine_process_no_engine_is_used() {
    let engines = Engines::new(&["podman"]);
    let dev = engines.files(&image("boxed", "")).dev_with(&["--engine", "process"]);
    refused_for_want_of_an_engine(&dev);
    assert!(engines.containers().is_empty());
}

fn refused_for_want_of_an_engine(dev: &Dev) {
    let told = wait_for(|| Some(dev.get("/fn/shop/boxed")).filter(|(status, _)| *status == 503));
    let (_, body) = told.unwrap_or_else(|| panic!("{}", dev.output()));
    assert!(body.contains("nothing here runs the image registry.example/boxed:1"), "{body}");
}

#[test]
fn a_container_is_taken_away_when_it_stops_or_dies() {
    let engines = Engines::new(&["podman"]);
    let dev = engines.files(&image("boxed", "  scale: {idle: 1s}\n")).dev();
    dev.ok("/fn/shop/boxed");
    engines.until_none_is_left("after its idle time");
    dev.ok("/fn/shop/boxed");
    assert_eq!(engines.containers().len(), 1);
    let mut dev = dev;
    dev.signal(Signal::INT);
    assert_eq!(dev.ended().0, Some(0));
    assert_eq!(engines.containers(), Vec::<String>::new());
}

#[test]
fn a_container_does_not_outlive_a_kill() {
    let engines = Engines::new(&["podman"]);
    let mut dev = engines.files(&image("boxed", "  scale: {min: 2}\n")).dev();
    dev.until("both to run", || engines.containers().len() == 2);
    dev.ok("/fn/shop/boxed");
    dev.signal(Signal::KILL);
    dev.ended();
    engines.until_none_is_left("after a kill");
    // The script's path stands in its command line.
    let directory = engines.path("bin").display().to_string();
    let ours = |path: &Path| fs::read_to_string(path.join("cmdline")).is_ok_and(|line| line.contains(&directory));
    let left = || fs::read_dir("/proc").unwrap().flatten().filter(|entry| ours(&entry.path())).count();
    assert!(wait_for(|| (left() == 0).then_some(())).is_some(), "{} processes are left", left());
}
