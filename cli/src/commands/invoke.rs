//! `lambent invoke`: one call, and its answer as it comes.

use std::{
    fs,
    io::{self, Read},
    process::ExitCode,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use lambent_api::FunctionKey;
use serde::Deserialize;
use tokio::time::timeout;

use crate::{
    args::InvokeArgs,
    client::{
        Target,
        call::{Call, Connection},
        functions::split,
        output,
        route::{self, Route},
    },
};

/// The exit status for an answer of 400 or more, as `curl --fail` has it.
const REFUSED: u8 = 22;
/// A larger body is not read: a Function takes one with `maxBody`, which is 6Mi unless it says more.
const MAX_BODY: u64 = 1 << 30;
/// Of a refusal, what is read for its reason.
const MAX_PROBLEM: usize = 64 << 10;

/// Calls, and prints the answer.
pub async fn run(args: InvokeArgs) -> anyhow::Result<ExitCode> {
    let limit = args.timeout;
    let work = invoke(args);
    match limit {
        None => work.await,
        Some(limit) => timeout(limit.get(), work)
            .await
            .unwrap_or_else(|_| bail!("no whole answer within {limit}; --timeout gives it longer")),
    }
}

async fn invoke(args: InvokeArgs) -> anyhow::Result<ExitCode> {
    let call = call(&args)?;
    let (route, target) = way(args.gateway, args.target, &args.name).await?;
    let answer = Connection::open(route, target.as_ref()).await?.send(call).await?;
    show(answer, args.include).await
}

async fn way(
    gateway: Option<String>,
    target: crate::args::TargetArgs,
    name: &str,
) -> anyhow::Result<(Route, Option<Target>)> {
    if let Some(gateway) = gateway {
        let (namespace, name) = split(name, target.namespace);
        let function = FunctionKey::new(namespace.unwrap_or_else(|| "default".to_owned()), name);
        return Ok((route::to_gateway(&gateway, &function).context("--gateway")?, None));
    }
    let mut target = Target::find(target).await?;
    let function = target.function(name).await?;
    let url = function.status.as_ref().and_then(|status| status.url.as_deref());
    let route = route::to_function(&target.place, url, &function.key()).context("the URL in the Function's status")?;
    Ok((route, Some(target)))
}

fn call(args: &InvokeArgs) -> anyhow::Result<Call> {
    let body = args.data.as_deref().map(data).transpose()?;
    let method = match (&args.method, &body) {
        (Some(method), _) => method.parse().with_context(|| format!("-X {method:?} is no method"))?,
        (None, Some(_)) => Method::POST,
        (None, None) => Method::GET,
    };
    let mut headers = headers(&args.headers)?;
    if let Some(body) = &body
        && !headers.contains_key(header::CONTENT_TYPE)
    {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(body)));
    }
    Ok(Call { method, path: args.path.clone(), headers, body: body.unwrap_or_default() })
}

/// `DATA`, `@FILE`, `-` or `@-`.
fn data(text: &str) -> anyhow::Result<Bytes> {
    let read = |from: &mut dyn Read, name: &str| {
        let mut bytes = Vec::new();
        from.take(MAX_BODY + 1).read_to_end(&mut bytes).with_context(|| format!("--data: {name}"))?;
        if bytes.len() as u64 > MAX_BODY {
            bail!("--data: {name} is longer than 1Gi, which no Function takes");
        }
        Ok(bytes.into())
    };
    match text.strip_prefix('@') {
        _ if text == "-" => read(&mut io::stdin().lock(), "standard input"),
        Some("-") => read(&mut io::stdin().lock(), "standard input"),
        Some(path) => read(&mut fs::File::open(path).with_context(|| format!("--data: {path}"))?, path),
        None => Ok(Bytes::copy_from_slice(text.as_bytes())),
    }
}

fn content_type(body: &[u8]) -> &'static str {
    match std::str::from_utf8(body) {
        Ok(text) if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() => "application/json",
        Ok(_) => "text/plain; charset=utf-8",
        Err(_) => "application/octet-stream",
    }
}

fn headers(lines: &[String]) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let wrong = || format!("-H {line:?} is no header: write it as 'Name: value'");
        let (name, value) = line.split_once(':').with_context(wrong)?;
        let name = HeaderName::try_from(name.trim()).with_context(wrong)?;
        headers.append(name, HeaderValue::try_from(value.trim()).with_context(wrong)?);
    }
    Ok(headers)
}

async fn show(answer: Response<Incoming>, include: bool) -> anyhow::Result<ExitCode> {
    let (status, headers) = (answer.status(), answer.headers());
    let first = format!("{:?} {status}", answer.version());
    if include {
        let mut head = format!("{first}\n").into_bytes();
        for (name, value) in headers {
            head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
        }
        head.push(b'\n');
        output::write(&head)?;
    } else {
        output::note(&first);
    }
    let failed = status.as_u16() >= 400;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_problem = failed && content_type.starts_with("application/problem+json");
    let problem = print_body(answer.into_body(), is_problem).await?;
    if let Some(words) = problem_words(&problem) {
        output::note(&words);
    }
    Ok(if failed { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS })
}

/// Each part as soon as it comes. What is kept of it, if it is to be.
async fn print_body(mut body: Incoming, keep: bool) -> anyhow::Result<Vec<u8>> {
    let mut kept = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the answer was cut off: the function ran too long, or its instance has ended")?;
        let Some(bytes) = frame.data_ref() else { continue };
        output::write(bytes)?;
        if keep && kept.len() + bytes.len() <= MAX_PROBLEM {
            kept.extend_from_slice(bytes);
        }
    }
    Ok(kept)
}

/// What a refusal says, as in RFC 9457 with a reason.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Problem {
    reason: String,
    #[serde(default)]
    detail: String,
    request_id: Option<String>,
}

fn problem_words(body: &[u8]) -> Option<String> {
    let Problem { reason, detail, request_id } = serde_json::from_slice(body).ok()?;
    let id = request_id.map_or_else(String::new, |id| format!(" (request {id})"));
    Some(format!("{reason}: {detail}{id}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn parsed(arguments: &[&str]) -> anyhow::Result<Call> {
        let cli = Cli::parse_from([&["lambent", "invoke", "hello"], arguments].concat());
        let Command::Invoke(args) = cli.command else { unreachable!() };
        call(&args)
    }

    #[test]
    fn data_makes_a_post_of_the_type_that_it_has() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), [0xff, 0xfe]).unwrap();
        let path = format!("@{}", file.path().display());
        for (arguments, method, content_type, length) in [
            (&[][..], Method::GET, None, 0),
            (&["-d", "{\"a\": 1}"], Method::POST, Some("application/json"), 8),
            (&["-d", "a=1"], Method::POST, Some("text/plain; charset=utf-8"), 3),
            (&["-d", "-1"], Method::POST, Some("application/json"), 2),
            (&["-d", &path], Method::POST, Some("application/octet-stream"), 2),
            (&["-d", "x", "-X", "PUT", "-H", "content-type: a/b"], Method::PUT, Some("a/b"), 1),
            (&["-X", "DELETE"], Method::DELETE, None, 0),
        ] {
            let call = parsed(arguments).unwrap();
            let shown = call.headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap());
            assert_eq!((call.method, shown, call.body.len()), (method, content_type, length), "{arguments:?}");
        }
    }

    #[test]
    fn headers_are_repeated_and_wrong_ones_refused_with_the_form() {
        let call = parsed(&["-H", "A: 1", "-H", "a:2", "-H", "Empty:"]).unwrap();
        assert_eq!(call.headers.get_all("a").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(call.headers["empty"], "");
        for wrong in ["nothing", "a b: c", "a: \u{1}"] {
            let error = parsed(&["-H", wrong]).err().unwrap().to_string();
            assert!(error.contains("'Name: value'"), "{error}");
        }
        assert!(parsed(&["-d", "@/no/such/file"]).err().unwrap().to_string().contains("/no/such/file"));
        assert!(parsed(&["-X", "a b"]).is_err());
    }

    #[test]
    fn a_refusal_is_told_with_its_reason_and_id() {
        let body =
            br#"{"title": "Too Many Requests", "reason": "QueueFull", "detail": "1000 wait", "requestId": "id-1"}"#;
        assert_eq!(problem_words(body).unwrap(), "QueueFull: 1000 wait (request id-1)");
        assert_eq!(problem_words(b"{\"title\": \"of the function itself\"}"), None);
        assert_eq!(problem_words(b""), None);
    }
}
