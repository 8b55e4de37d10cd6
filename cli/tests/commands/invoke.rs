//! `invoke`: what is sent, what is printed, how it ends.

use std::{
    fs,
    io::{BufRead, BufReader, Lines},
    process::{Child, ChildStdout, Stdio},
};

use crate::{
    Ran, command, lambent, run, run_with_input,
    support::{Dev, Files, manifest, python, wait_for},
};

/// Answers with the request as it came; `/fail` with 418; `/two` in two parts, the second one when there is
/// a file `go`; `/cut` with one part, and then it dies when there is that file.
const ECHO: &str = r#"
import http.server, json, os, signal, socketserver, sys, time
class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path.startswith("/two"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"6\r\nfirst\n\r\n")
            self.wfile.flush()
            while not os.path.exists("go"): time.sleep(0.01)
            self.wfile.write(b"7\r\nsecond\n\r\n0\r\n\r\n")
            return
        if self.path.startswith("/cut"):
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"begun\n")
            self.wfile.flush()
            while not os.path.exists("go"): time.sleep(0.01)
            os._exit(1)
        body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        text = json.dumps({"method": self.command, "path": self.path, "body": body, "headers": headers}).encode()
        self.send_response(418 if self.path.startswith("/fail") else 200)
        self.send_header("X-Echo", "yes")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    do_POST = do_PUT = do_GET
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    def server_bind(self):
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
Server(("127.0.0.1", int(os.environ["PORT"])), Echo).serve_forever(poll_interval=0.01)
"#;

fn echo() -> Dev {
    let files = Files::new();
    files.write("main.py", ECHO);
    files.write("f.yaml", &python("echo", "  concurrency: 10\n"));
    let dev = files.dev();
    dev.ok("/fn/shop/echo");
    dev
}

fn request(ran: Ran) -> serde_json::Value {
    serde_json::from_str(&ran.ok()).unwrap()
}

#[test]
fn what_is_given_is_sent_and_the_body_is_printed() {
    let dev = echo();
    let get = run(&dev, &["invoke", "echo"]);
    assert_eq!(get.err, "lambent: HTTP/1.1 200 OK\n");
    let get = request(get);
    assert_eq!((&get["method"], &get["path"], &get["body"]), (&"GET".into(), &"/".into(), &"".into()));

    let post =
        request(run(&dev, &["invoke", "shop/echo", "-d", "{\"a\": 1}", "--path", "/x%2Fy//z?q=1&r", "-H", "X-One: 1"]));
    assert_eq!(
        (&post["method"], &post["path"], &post["body"]),
        (&"POST".into(), &"/x%2Fy//z?q=1&r".into(), &"{\"a\": 1}".into())
    );
    assert_eq!(
        (&post["headers"]["content-type"], &post["headers"]["x-one"]),
        (&"application/json".into(), &"1".into())
    );

    fs::write(dev.files.path("data.txt"), "of a file").unwrap();
    let file = format!("@{}", dev.files.path("data.txt").display());
    let put = request(run(&dev, &["invoke", "echo", "-n", "shop", "-X", "PUT", "-d", &file]));
    assert_eq!((&put["method"], &put["body"]), (&"PUT".into(), &"of a file".into()));

    let input = request(run_with_input(&dev, &["invoke", "echo", "-d", "-"], "of a pipe"));
    assert_eq!(input["body"], "of a pipe");
}

#[test]
fn the_head_is_printed_where_it_is_asked_for() {
    let dev = echo();
    let ran = run(&dev, &["invoke", "echo", "-i"]);
    assert_eq!(ran.err, "");
    let out = ran.ok();
    let (head, body) = out.split_once("\n\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\n") && head.contains("\nx-echo: yes"), "{head}");
    assert!(head.contains("\nserver-timing: ") && body.starts_with('{'), "{out}");
}

#[test]
fn an_answer_of_400_or_more_is_printed_and_ends_with_22() {
    let dev = echo();
    let ran = run(&dev, &["invoke", "echo", "--path", "/fail"]);
    assert!(ran.out.contains("\"path\": \"/fail\""), "{ran:?}");
    assert!(ran.failed(22).contains("418"));
}

#[test]
fn a_refusal_of_the_gateway_is_told_with_its_reason() {
    let files = Files::new();
    files.write("f.yaml", &format!("{}---\n{}", python("hello", ""), manifest("broken", "echo oh no >&2; exit 3", "")));
    let dev = files.dev();
    dev.ok("/fn/shop/hello");
    let died = run(&dev, &["invoke", "hello", "--path", "/?die=1"]);
    assert!(died.out.contains("\"reason\""), "{died:?}");
    let words = died.failed(22);
    assert!(words.contains("HTTP/1.1 502 Bad Gateway") && words.contains("InstanceFailed: "), "{words}");
    let words = run(&dev, &["invoke", "broken"]).failed(22);
    assert!(words.contains("503 Service Unavailable") && words.contains("StartFailed: "), "{words}");
}

/// A call whose first line has come; the file `go` lets it go on.
fn begun(dev: &Dev, path: &str) -> (Child, Lines<BufReader<ChildStdout>>, String) {
    let mut command = command(dev, &["invoke", "echo", "--path", path]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    (child, lines, first)
}

#[test]
fn an_answer_is_printed_as_it_comes() {
    let dev = echo();
    let (mut child, mut lines, first) = begun(&dev, "/two");
    assert_eq!(first, "first");
    dev.files.write("go", "");
    assert_eq!(lines.next().unwrap().unwrap(), "second");
    assert!(lines.next().is_none() && child.wait().unwrap().success());
}

#[test]
fn an_answer_that_is_cut_off_is_no_success() {
    let dev = echo();
    let (child, lines, first) = begun(&dev, "/cut");
    assert_eq!(first, "begun");
    dev.files.write("go", "");
    assert_eq!(lines.count(), 0);
    let words = Ran::from(child.wait_with_output().unwrap()).failed(1);
    assert!(words.contains("the answer was cut off"), "{words}");
}

#[test]
fn an_answer_that_takes_longer_than_the_caller_waits_is_no_success() {
    let dev = echo();
    let late = run(&dev, &["invoke", "echo", "--path", "/two", "--timeout", "300ms"]);
    assert!(late.failed(1).contains("no whole answer within 300ms"));
}

#[test]
fn a_gateway_that_is_named_is_called_and_nobody_is_asked() {
    let dev = echo();
    let url = format!("http://{}", dev.listen);
    let run = |arguments: &[&str]| -> Ran { lambent().args(arguments).output().unwrap().into() };
    let answer = request(run(&["invoke", "echo", "-n", "shop", "--gateway", &url, "--path", "/a"]));
    assert_eq!(answer["path"], "/a");
    let missing = run(&["invoke", "shop/nobody", "--gateway", &url]).failed(22);
    assert!(missing.contains("FunctionNotFound"), "{missing}");
    let wrong = run(&["invoke", "shop/echo", "--gateway", "localhost"]).failed(1);
    assert!(wrong.contains("such as http://"), "{wrong}");
    drop(dev);
    let gone = wait_for(|| Some(run(&["invoke", "shop/echo", "--gateway", &url])).filter(|ran| ran.code == Some(1)));
    assert!(gone.unwrap().err.contains("can't be reached"));
}
