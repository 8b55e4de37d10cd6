//! A real `lambent dev` over a directory of its own.
#![allow(clippy::unwrap_used)] // A test's own fixture.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

/// Far longer than anything takes, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A function that answers with a word, its process id and how many requests it has had; it takes
/// `?ms=` milliseconds, and one request at a time.
pub(crate) const PYTHON: &str = r#"
import http.server, os, signal, sys, time, urllib.parse
WORD = "one"
count = 0
class Hello(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        global count
        count += 1
        query = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)
        if "die" in query: os._exit(3)
        time.sleep(int(query.get("ms", ["0"])[0]) / 1000)
        body = f"{WORD} {os.getpid()} {count}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    def server_bind(self):
        import socketserver
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]
print("listening", flush=True)
Server(("127.0.0.1", int(os.environ["PORT"])), Hello).serve_forever(poll_interval=0.01)
"#;

/// A manifest of a function that runs `main.py` and watches it.
pub(crate) fn python(name: &str, spec: &str) -> String {
    manifest(name, "exec python3 main.py", spec)
}

/// A manifest of a function that runs a shell's command.
pub(crate) fn manifest(name: &str, script: &str, spec: &str) -> String {
    let script = script.replace('\'', "''");
    format!(
        "apiVersion: lambent.dev/v1alpha1\nkind: Function\nmetadata:\n  name: {name}\n  namespace: shop\n  annotations:\n    \
         dev.lambent.dev/command: 'sh -c \"{script}\"'\n    dev.lambent.dev/watch: main.py\nspec:\n  image: none\n{spec}"
    )
}

/// A running `lambent dev`. It is killed with this value, and its directory goes.
pub(crate) struct Dev {
    child: Child,
    pub(crate) listen: SocketAddr,
    output: Arc<Mutex<String>>,
    pub(crate) files: Files,
}

/// A directory of functions, one for the state, and variables for `lambent dev`.
pub(crate) struct Files {
    /// What is served instead of the functions.
    pub(crate) served: Option<PathBuf>,
    pub(crate) functions: tempfile::TempDir,
    pub(crate) state: tempfile::TempDir,
    pub(crate) variables: Vec<(&'static str, PathBuf)>,
    /// Which `lambent` is run.
    pub(crate) program: PathBuf,
    /// Its state is to be where it is without being told.
    pub(crate) without_state_dir: bool,
}

impl Files {
    pub(crate) fn new() -> Self {
        let (functions, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let program = env!("CARGO_BIN_EXE_lambent").into();
        let files = Self { served: None, functions, state, variables: Vec::new(), program, without_state_dir: false };
        files.write("main.py", PYTHON);
        files
    }

    /// Of functions that are elsewhere.
    pub(crate) fn of(served: &Path) -> Self {
        Self { served: Some(served.to_owned()), ..Self::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.functions.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        // As editors do it: nobody sees half of it.
        let new = self.path(&format!(".{name}.new"));
        fs::write(&new, text).unwrap();
        fs::rename(new, self.path(name)).unwrap();
    }

    pub(crate) fn dev(self) -> Dev {
        self.dev_with(&[])
    }

    pub(crate) fn dev_with(self, arguments: &[&str]) -> Dev {
        let mut command = self.command();
        command.args(["--listen", "127.0.0.1:0"]).args(arguments).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let output = child.stdout.take().unwrap();
        self.started(child, output)
    }

    /// On a terminal of this size. What is kept of its output has the terminal's control sequences in it.
    pub(crate) fn dev_on_terminal(self, columns: u16, lines: u16) -> Dev {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        unlockpt(&terminal).unwrap();
        let size = Winsize { ws_col: columns, ws_row: lines, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal, size).unwrap();
        let screen = ioctl_tiocgptpeer(&terminal, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        let mut command = self.command();
        command.args(["--listen", "127.0.0.1:0"]).env("TERM", "xterm").stdout(screen).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        self.started(child, File::from(terminal))
    }

    fn started(self, child: Child, output: impl Read + Send + 'static) -> Dev {
        let (lines, output) = (BufReader::new(output).lines(), Arc::new(Mutex::new(String::new())));
        let kept = output.clone();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let mut dev = Dev { child, listen: (Ipv4Addr::LOCALHOST, 0).into(), output, files: self };
        let line = dev.line("serving at http://");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
        dev.listen = address.unwrap().parse().unwrap();
        dev
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("dev");
        command.arg(self.served.as_deref().unwrap_or(self.functions.path()));
        command.stdin(Stdio::null());
        if self.without_state_dir {
            command.env_remove("XDG_STATE_HOME").env_remove("LAMBENT_DEV_STATE_DIR");
        } else {
            command.arg("--state-dir").arg(self.state.path());
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl Dev {
    /// The first line that has these words, when it comes.
    pub(crate) fn line(&self, words: &str) -> String {
        self.line_within(PATIENCE, words)
    }

    /// The same, of what takes long.
    pub(crate) fn line_within(&self, patience: Duration, words: &str) -> String {
        let find = || self.output().lines().find(|line| line.contains(words)).map(str::to_owned);
        let found = wait_within(patience, find);
        found.unwrap_or_else(|| panic!("waited too long for {words:?} in:\n{}", self.output()))
    }

    pub(crate) fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// Waits until a condition holds.
    pub(crate) fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let held = wait_for(|| condition().then_some(()));
        assert!(held.is_some(), "waited too long for {what}:\n{}", self.output());
    }

    /// The status and the body of a GET.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        get(self.listen, path)
    }

    /// Waits until a GET is answered with 200, and returns the body.
    pub(crate) fn ok(&self, path: &str) -> String {
        let found = wait_for(|| Some(self.get(path)).filter(|(status, _)| *status == 200));
        found.unwrap_or_else(|| panic!("{path} did not work:\n{}", self.output())).1
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end. Its code, and how long that took.
    pub(crate) fn ended(&mut self) -> (Option<i32>, Duration) {
        let start = Instant::now();
        let child = &mut self.child;
        let status = wait_for(|| child.try_wait().unwrap());
        let status = status.unwrap_or_else(|| panic!("it did not end:\n{}", self.output()));
        (status.code(), start.elapsed())
    }

    /// All processes that mention its directory, without itself.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let own = i32::try_from(self.child.id()).unwrap();
        processes_of(self.files.functions.path()).into_iter().filter(|pid| *pid != own).collect()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processes whose working directory is this one.
pub(crate) fn processes_of(directory: &Path) -> Vec<i32> {
    let directory = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    let all = fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == directory)).collect()
}

pub(crate) fn wait_for<T>(look: impl FnMut() -> Option<T>) -> Option<T> {
    wait_within(PATIENCE, look)
}

/// Looks again and again until there is something, with a pause between two looks.
fn wait_within<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    while start.elapsed() < patience {
        if let Some(found) = look() {
            return Some(found);
        }
        thread::sleep(Duration::from_millis(5));
    }
    None
}

/// The status and the body of a GET; status 0 where there is no answer.
pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let call = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = call().unwrap_or_default();
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    (status, text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}
