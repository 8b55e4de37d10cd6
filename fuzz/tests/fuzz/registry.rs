//! Pull secrets as users make them, and what a registry may say.

use lambent_controller::image::{PullSecret, Resolver};
use lambent_fuzz::{spell, spell_text};
use proptest::{
    collection::vec,
    prelude::{Strategy, any},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    runtime::Runtime,
    sync::watch,
    time::{Duration, timeout},
};

use crate::check;

const SECRETS: &[&str] = &[
    "{\"auths\":{",
    "\"r.example\":",
    "{\"auth\":\"",
    "dTpwOnc",
    "=",
    "==",
    "\"}",
    "{\"username\":\"",
    "u",
    "\",\"password\":\"p\"}",
    "{\"registrytoken\":\"t\"}",
    "}}",
    ",",
    "\"*.example/a\":",
    "\"https://index.docker.io/v1/\":",
    "\"",
    "null",
    "[]",
    "{",
    "}",
    ":",
    "\\u0000",
    "ä",
];
/// No literal bytes and no other host: nothing else than this registry is ever asked.
const CHALLENGES: &[&str] = &[
    "Bearer ",
    "Basic ",
    "bearer ",
    "realm=",
    "\"http://HOST/token\"",
    "http://HOST/token",
    "\"",
    ",",
    ", ",
    " ",
    "=",
    "service=",
    "\"a\"",
    "scope=\"repository:a:pull\"",
    "\\\"",
    "error=\"invalid_token\"",
    "\"\"",
    ";",
    "é",
    "realm=\"\"",
    "realm",
];
const BODIES: &[&str] = &[
    "{\"token\":\"",
    "{\"access_token\":\"",
    "t",
    "\"}",
    "\\n",
    "\\u0000",
    "{\"errors\":[{\"code\":\"",
    "DENIED",
    "MANIFEST_UNKNOWN",
    "\",\"message\":\"",
    "\"}]}",
    "{",
    "}",
    "[",
    "]",
    "\"schemaVersion\":2,",
    "\"config\":{},\"layers\":[]",
    "null",
    "\"",
];
const WITHIN: Duration = Duration::from_secs(60);

#[test]
fn a_pull_secret_is_read_or_refused() {
    check(any::<Vec<u8>>(), |bytes| {
        let json = spell(&bytes, SECRETS);
        match PullSecret::from_docker_config_json(&json) {
            Ok(secret) => assert!(!format!("{secret:?}").contains("password")),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    });
}

/// The three bytes choose status codes, so that challenges and tokens are reached.
#[derive(Clone, Debug, Default)]
struct Said {
    statuses: [u8; 3],
    challenge: Vec<u8>,
    token: Vec<u8>,
    manifest: Vec<u8>,
}

fn said() -> impl Strategy<Value = Said> {
    let text = || vec(any::<u8>(), 0..20);
    let input = (any::<[u8; 3]>(), text(), text(), text());
    input.prop_map(|(statuses, challenge, token, manifest)| Said { statuses, challenge, token, manifest })
}

#[test]
fn whatever_a_registry_says_resolving_ends_with_an_image_or_an_error() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = Runtime::new().unwrap();
    let (now, answers) = watch::channel(Said::default());
    let host = runtime.block_on(serve(answers));
    check(said(), |case| {
        now.send_replace(case);
        let resolver = Resolver::new(vec![host.clone()]);
        let image = format!("{host}/a:1");
        let outcome = runtime.block_on(async { timeout(WITHIN, resolver.resolve(&image, &[])).await });
        match outcome.expect("it ends") {
            Ok(resolved) => assert!(resolved.user > 0 && resolved.reference.contains('@')),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    });
}

async fn serve(said: watch::Receiver<Said>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let me = host.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (said, me) = (said.clone(), me.clone());
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                let said = said.borrow().clone();
                let _ = stream.write_all(&answer(&said, &head, &me)).await;
            });
        }
    });
    host
}

fn answer(said: &Said, head: &[u8], me: &str) -> Vec<u8> {
    let words = |bytes: &[u8], words| {
        let chosen: Vec<u8> = bytes.iter().map(|byte| byte % 0xf0).collect();
        spell_text(&chosen, words).replace("HOST", me)
    };
    let (number, status, body) = match head {
        head if head.starts_with(b"GET /token") => (1, ["200 OK", "401 Unauthorized"], words(&said.token, BODIES)),
        head if head.starts_with(b"GET /v2/ ") => (0, ["401 Unauthorized", "200 OK"], words(&said.manifest, BODIES)),
        _ => (2, ["200 OK", "404 Not Found"], words(&said.manifest, BODIES)),
    };
    let status = status[usize::from(said.statuses[number].is_multiple_of(5))];
    let challenge = words(&said.challenge, CHALLENGES).replace(['\r', '\n'], "");
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nwww-authenticate: {challenge}\r\ncontent-type: application/json\r\n\
         docker-content-digest: sha256:{}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}",
        "0".repeat(64)
    )
    .into_bytes()
}
