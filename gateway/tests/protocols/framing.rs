//! Where a message ends (RFC 9112 sections 5 to 7). What two readers could read in two ways never gets to
//! the instance as it came.

use crate::{
    exchange, refused, seen,
    wire::{self, Caller, latin1},
    with_instance,
};

fn post(rest: &str) -> String {
    format!("POST /fn/shop/hello HTTP/1.1\r\nHost: g\r\n{rest}")
}

const GET: &str = "GET /fn/shop/hello HTTP/1.1\r\nHost: g\r\n\r\n";
/// A second request, if one takes it for that.
const HIDDEN: &str = "GET /fn/shop/hello/hidden HTTP/1.1\r\nHost: g\r\n\r\n";

#[tokio::test]
async fn lengths_that_contradict_each_other_are_refused() {
    for lengths in [
        "Content-Length: 4\r\nContent-Length: 5",
        "Content-Length: 4, 5",
        "Content-Length: -4",
        "Content-Length: +4",
        "Content-Length: 0x4",
        "Content-Length: 4 4",
        "Content-Length: 4a",
        "Content-Length: ",
        "Content-Length: 99999999999999999999999",
    ] {
        let answer = refused(post(&format!("{lengths}\r\n\r\nbody{HIDDEN}"))).await;
        assert_eq!(answer.status(), 400, "{lengths}");
    }
}

#[tokio::test]
async fn codings_that_are_not_chunked_at_last_are_refused() {
    for coding in
        ["gzip", "xchunked", "chunked, gzip", "identity", "\"chunked\"", "chunked;a=b", "\u{b}chunked", "chunke"]
    {
        let answer = refused(post(&format!("Transfer-Encoding: {coding}\r\n\r\n0\r\n\r\n{HIDDEN}"))).await;
        assert_eq!(answer.status(), 400, "{coding}");
    }
}

/// RFC 9112 section 6.1: what is left when only chunks are taken off would not be the content.
#[tokio::test]
async fn codings_besides_chunked_are_not_implemented() {
    for coding in ["gzip, chunked", "chunked, chunked", "identity, chunked"] {
        let answer = refused(post(&format!("Transfer-Encoding: {coding}\r\n\r\n2\r\nab\r\n0\r\n\r\n"))).await;
        assert!(matches!(answer.status(), 400 | 501), "{coding} {}", answer.status());
    }
}

#[tokio::test]
async fn old_versions_have_no_chunks() {
    let request =
        format!("POST /fn/shop/hello HTTP/1.0\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}");
    assert_eq!(refused(request).await.status(), 400);
}

/// RFC 9112 section 6.1: refused, or read by its chunks alone; the connection ends in both cases.
#[tokio::test]
async fn a_length_beside_chunks_smuggles_nothing() {
    for framing in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Content-Length: 4\r\nTransfer-Encoding: Chunked\r\nContent-Length: 5",
        "Transfer-Encoding: chunked\r\nConnection: keep-alive, Transfer-Encoding\r\nContent-Length: 4",
    ] {
        let (gateway, instance) = with_instance(|_| wire::OK.into()).await;
        let mut caller = Caller::connect(gateway.address).await;
        let answer = caller.ask(post(&format!("{framing}\r\n\r\n2\r\nab\r\n0\r\n\r\n{HIDDEN}"))).await;
        assert!(matches!(answer.status(), 200 | 400), "{framing} {answer:?}");
        assert!(caller.is_closed().await, "{framing}: the connection goes on");
        for request in instance.seen() {
            assert_eq!((request.target(), request.body.as_slice()), ("/", &b"ab"[..]), "{framing}");
            assert!(request.has("content-length") != request.has("transfer-encoding"), "{framing} {request:?}");
        }
    }
}

#[tokio::test]
async fn one_length_said_twice_is_said_once() {
    let seen = seen(post("Content-Length: 4\r\nContent-Length: 4\r\n\r\nbody")).await;
    assert_eq!((seen.one("content-length"), seen.body.as_slice()), ("4", &b"body"[..]));
}

#[tokio::test]
async fn a_length_that_connection_names_stays() {
    let seen = seen(post("Connection: content-length\r\nContent-Length: 4\r\n\r\nbody")).await;
    assert_eq!((seen.one("content-length"), seen.body.as_slice()), ("4", &b"body"[..]));
}

#[tokio::test]
async fn lines_that_are_no_fields_are_refused() {
    for line in [
        "X-Folded: a\r\n b",
        "X-Folded: a\r\n\tb",
        " X-Before: a",
        "X-Space : a",
        "Content-Length : 4",
        "Transfer-Encoding : chunked",
        "X-Null: a\0b",
        "X-Return: a\rb",
        "X Y: a",
        "no colon",
        ": no name",
        "X-\u{e4}: a",
        "X-(a): b",
    ] {
        let answer = refused(post(&format!("{line}\r\nContent-Length: 4\r\n\r\nbody"))).await;
        assert_eq!(answer.status(), 400, "{line:?}");
    }
}

#[tokio::test]
async fn request_lines_that_are_none_are_refused() {
    for line in [
        "GET /fn/shop/hello",
        "GET  /fn/shop/hello HTTP/1.1",
        "GET /fn/shop/hello  HTTP/1.1",
        "GET /fn/shop/hello HTTP/1.1 ",
        "GET /fn/shop/hello HTTP/1.1x",
        "GET /fn/shop/hello http/1.1",
        "GET /fn/shop/hello HTTP/9.1",
        "G(T /fn/shop/hello HTTP/1.1",
        "GET\t/fn/shop/hello\tHTTP/1.1",
    ] {
        let status = refused(format!("{line}\r\nHost: g\r\n\r\n")).await.status();
        assert!(matches!(status, 400 | 505), "{line:?} {status}");
    }
}

/// RFC 9112 section 2.2: an empty line before the request is passed over.
#[tokio::test]
async fn an_empty_line_before_a_request_is_passed_over() {
    assert_eq!(seen("\r\nGET /fn/shop/hello/a HTTP/1.1\r\nHost: g\r\n\r\n").await.target(), "/a");
}

#[tokio::test]
async fn chunk_extensions_are_for_one_hop() {
    let chunks = "4;a=b;c=\"d;e\"\r\nWiki\r\n005 ; x\r\npedia\r\n0;last\r\n\r\n";
    let seen = seen(post(&format!("Transfer-Encoding: chunked\r\n\r\n{chunks}"))).await;
    assert_eq!((seen.body.as_slice(), seen.one("transfer-encoding")), (&b"Wikipedia"[..], "chunked"));
    assert!(!seen.has("content-length"));
}

/// The instance may have the head by then, but must not take what came of the body for the whole.
#[tokio::test]
async fn broken_chunks_are_the_callers_fault_and_no_whole_request() {
    for chunks in [
        "zz\r\nab\r\n0\r\n\r\n",
        "2\r\nabX\r\n0\r\n\r\n",
        "-2\r\nab\r\n0\r\n\r\n",
        "0x2\r\nab\r\n0\r\n\r\n",
        "\r\nab\r\n0\r\n\r\n",
        "FFFFFFFFFFFFFFFFF\r\nab",
        "2\r\nab\r\n0\r\nbad trailer\r\n\r\n",
    ] {
        let (gateway, instance) = with_instance(|_| wire::OK.into()).await;
        let mut caller = Caller::connect(gateway.address).await;
        let answer = caller.ask(post(&format!("Transfer-Encoding: chunked\r\n\r\n{chunks}"))).await;
        assert_eq!(instance.seen(), [], "{chunks:?}");
        assert_eq!(answer.status(), 400, "{chunks:?} {:?}", latin1(&answer.body));
    }
}

#[tokio::test]
async fn an_extension_without_an_end_is_refused() {
    let (gateway, instance) = with_instance(|_| wire::OK.into()).await;
    let mut caller = Caller::connect(gateway.address).await;
    let answer = caller.ask(post(&format!("Transfer-Encoding: chunked\r\n\r\n1;{}", "x".repeat(200_000)))).await;
    assert!(answer.status() >= 400);
    assert_eq!(instance.seen(), []);
}

#[tokio::test]
async fn what_follows_a_body_is_the_next_request() {
    let (gateway, instance) = with_instance(|_| wire::OK.into()).await;
    let mut caller = Caller::connect(gateway.address).await;
    caller.send(post(&format!("Content-Length: 4\r\n\r\nbody{HIDDEN}"))).await;
    for _ in 0..2 {
        assert_eq!(caller.answer_to("GET").await.status(), 200);
    }
    let seen = instance.seen();
    assert_eq!((seen[0].body.as_slice(), seen[1].target()), (&b"body"[..], "/hidden"));
}

#[tokio::test]
async fn a_get_may_have_a_body_and_a_post_none() {
    let get = seen("GET /fn/shop/hello HTTP/1.1\r\nHost: g\r\nContent-Length: 4\r\n\r\nbody").await;
    assert_eq!(get.body, b"body");
    let post = seen(post("Content-Length: 0\r\n\r\n")).await;
    assert_eq!(post.one("content-length"), "0");
}

/// RFC 9110 section 8.6: a length is sent where the method expects content.
#[tokio::test]
async fn a_get_without_a_body_gets_none_on_the_way() {
    let get = seen("GET /fn/shop/hello HTTP/1.1\r\nHost: g\r\n\r\n").await;
    assert!(!get.has("content-length") && !get.has("transfer-encoding"), "{get:?}");
}

/// RFC 9112 sections 5.2 and 6.3.
#[tokio::test]
async fn answers_that_can_be_read_in_two_ways_are_a_bad_gateway() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody!",
        "HTTP/1.1 200 OK\r\nContent-Length: 4, 5\r\n\r\nbody!",
        "HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\nbody",
        "HTTP/1.1 200 OK\r\nX-Folded: a\r\n b\r\nContent-Length: 4\r\n\r\nbody",
        "HTTP/1.1 200 OK\r\nContent-Length : 4\r\n\r\nbody",
        "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 4\r\n\r\nbody",
        "HTTP/1.1 2x0 OK\r\nContent-Length: 4\r\n\r\nbody",
        "nonsense\r\n\r\n",
    ] {
        let (gateway, _instance) = with_instance(move |_| answer.into()).await;
        assert_eq!(Caller::connect(gateway.address).await.ask(GET).await.status(), 502, "{answer:?}");
    }
}

/// RFC 9110 section 9.2.2: only what may not have been read goes again. This one was answered.
#[tokio::test]
async fn an_answer_that_makes_no_sense_is_not_asked_for_again() {
    let (gateway, instance) = with_instance(|_| "HTTP/1.1 200 OK\r\nno colon\r\n\r\n".into()).await;
    assert_eq!(Caller::connect(gateway.address).await.ask(GET).await.status(), 502);
    assert_eq!(instance.seen().len(), 1);
}

#[tokio::test]
async fn an_answer_with_chunks_and_a_length_is_read_by_its_chunks() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    let (answer, _) = exchange(GET, answer).await;
    assert_eq!((answer.body.as_slice(), answer.has("content-length")), (&b"ab"[..], false));
}
