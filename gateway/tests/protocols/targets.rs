//! Request targets: odd but legal ones go through byte for byte (RFC 3986, RFC 9112 section 3.2), and
//! which Function a request is for is said by one authority only.

use http::Request;

use crate::{
    refused, seen,
    support::{connect_http2, text},
    wire::{self, Caller, in_time},
    with_instance,
};

const HOST: &str = "Host: hello.shop.fn.example";

const ODD: &[&str] = &[
    "/",
    "//",
    "//a",
    "//evil.example/a",
    "/a//b///",
    "/a%2Fb%2f%2E%2e",
    "/../a/./b/..",
    "/..",
    "/a;v=1;w/b;",
    "/a?b=c?d&e==&&f",
    "/?",
    "/a?",
    "/??",
    "/?a=/../b//c",
    "/a?b=http://x.example/?c=d",
    "/%00%FF%0d%0a",
    "/a+b%20c",
    "/:@!$&'()*,=~-._",
    "/a:80/b",
    "/?[]",
    "/fn/shop/hello",
    "/fn/other/name/x",
];

#[tokio::test]
async fn odd_targets_are_untouched_by_host() {
    let (gateway, instance) = with_instance(|_| wire::OK.into()).await;
    let mut caller = Caller::connect(gateway.address).await;
    for target in ODD {
        let answer = caller.ask(format!("GET {target} HTTP/1.1\r\n{HOST}\r\n\r\n")).await;
        assert_eq!(answer.status(), 200, "{target}");
    }
    let seen: Vec<_> = instance.seen().iter().map(|request| request.start.clone()).collect();
    let wanted: Vec<_> = ODD.iter().map(|target| format!("GET {target} HTTP/1.1")).collect();
    assert_eq!(seen, wanted);
}

#[tokio::test]
async fn odd_targets_are_untouched_behind_the_prefix() {
    let (gateway, instance) = with_instance(|_| wire::OK.into()).await;
    let mut caller = Caller::connect(gateway.address).await;
    for target in ODD {
        let answer = caller.ask(format!("GET /fn/shop/hello{target} HTTP/1.1\r\nHost: g\r\n\r\n")).await;
        assert_eq!(answer.status(), 200, "{target}");
    }
    let seen: Vec<_> = instance.seen().iter().map(|request| request.target().to_owned()).collect();
    assert_eq!(seen, ODD);
}

#[tokio::test]
async fn odd_targets_are_untouched_from_http2() {
    let (gateway, instance) = with_instance(|_| wire::OK.into()).await;
    let mut caller = connect_http2(gateway.address).await;
    for target in ODD {
        let request = Request::get(format!("http://hello.shop.fn.example{target}")).body(text("")).unwrap();
        assert_eq!(in_time("an answer", caller.send_request(request)).await.unwrap().status(), 200, "{target}");
    }
    let seen: Vec<_> = instance.seen().iter().map(|request| request.target().to_owned()).collect();
    assert_eq!(seen, ODD);
}

#[tokio::test]
async fn the_bare_prefix_is_the_root() {
    for (target, wanted) in [("/fn/shop/hello", "/"), ("/fn/shop/hello?", "/?"), ("/fn/shop/hello?a=b?c", "/?a=b?c")] {
        assert_eq!(seen(format!("GET {target} HTTP/1.1\r\nHost: g\r\n\r\n")).await.target(), wanted);
    }
}

#[tokio::test]
async fn unknown_methods_go_through() {
    for method in ["PROPFIND", "M-SEARCH", "x", "!#$%&'*+-.^_`|~", "TRACE", "patch"] {
        let seen = seen(format!("{method} /a HTTP/1.1\r\n{HOST}\r\n\r\n")).await;
        assert_eq!(seen.start, format!("{method} /a HTTP/1.1"));
    }
}

#[tokio::test]
async fn options_of_the_whole_server_stay_so() {
    assert_eq!(seen(format!("OPTIONS * HTTP/1.1\r\n{HOST}\r\n\r\n")).await.target(), "*");
}

/// RFC 9112 section 3.2.4 takes a target without a path for the whole server; http reads it as /.
#[tokio::test]
async fn options_in_absolute_form_without_a_path_are_of_the_root() {
    let request = format!("OPTIONS http://hello.shop.fn.example HTTP/1.1\r\n{HOST}\r\n\r\n");
    assert_eq!(seen(request).await.target(), "/");
}

#[tokio::test]
async fn an_absolute_target_comes_as_its_path() {
    for (target, wanted) in [("/a//b%2F?c?", "/a//b%2F?c?"), ("", "/"), ("?x=/", "/?x=/"), ("/?", "/?")] {
        let request = format!("GET http://hello.shop.fn.example{target} HTTP/1.1\r\n{HOST}\r\n\r\n");
        let seen = seen(request).await;
        assert_eq!((seen.target(), seen.one("host")), (wanted, "hello.shop.fn.example"));
    }
}

#[tokio::test]
async fn an_absolute_targets_authority_finds_the_function() {
    let seen = seen("GET http://hello.shop.fn.example/a HTTP/1.1\r\nHost: other.example\r\n\r\n").await;
    assert_eq!(seen.target(), "/a");
}

#[tokio::test]
async fn an_absolute_targets_authority_hides_the_host() {
    let answer = refused("GET http://other.example/a HTTP/1.1\r\nHost: hello.shop.fn.example\r\n\r\n").await;
    assert_eq!(answer.status(), 404);
}

/// RFC 9112 section 3.2.2: a proxy must replace the Host by the target's.
#[tokio::test]
async fn the_instance_sees_the_absolute_targets_authority_as_host() {
    let seen = seen("GET http://two.example:81/fn/shop/hello/a HTTP/1.1\r\nHost: one.example\r\n\r\n").await;
    assert_eq!((seen.target(), seen.one("host")), ("/a", "two.example:81"));
    assert_eq!(seen.one("x-forwarded-host"), "two.example:81");
}

/// RFC 9113 section 8.3.1: the authority replaces a Host that differs.
#[tokio::test]
async fn an_http2_authority_replaces_the_host() {
    let (gateway, instance) = with_instance(|_| wire::OK.into()).await;
    let mut caller = connect_http2(gateway.address).await;
    let request = Request::get("http://hello.shop.fn.example/a").header("host", "other.example").body(text(""));
    assert_eq!(in_time("an answer", caller.send_request(request.unwrap())).await.unwrap().status(), 200);
    assert_eq!(instance.only().one("host"), "hello.shop.fn.example");
}

#[tokio::test]
async fn a_host_names_a_function_in_any_case_and_with_a_port() {
    let seen = seen("GET /a HTTP/1.1\r\nHOST: Hello.SHOP.fn.Example:8080\r\n\r\n").await;
    assert_eq!((seen.target(), seen.one("host")), ("/a", "Hello.SHOP.fn.Example:8080"));
}

/// RFC 9112 section 3.2.
#[tokio::test]
async fn a_request_without_a_host_is_refused() {
    assert_eq!(refused("GET /fn/shop/hello HTTP/1.1\r\nAccept: */*\r\n\r\n").await.status(), 400);
}

/// RFC 9112 section 3.2: whoever is before us may have looked at the other.
#[tokio::test]
async fn a_request_with_two_hosts_is_refused() {
    for (first, second) in [("hello.shop.fn.example", "other.example"), ("other.example", "hello.shop.fn.example")] {
        let request = format!("GET /fn/shop/hello HTTP/1.1\r\nHost: {first}\r\nHost: {second}\r\n\r\n");
        assert_eq!(refused(request).await.status(), 400, "{first}, {second}");
    }
}

/// RFC 9112 section 3.2.
#[tokio::test]
async fn a_request_with_a_host_that_is_none_is_refused() {
    for host in ["a b", "a/b", "user@a", "a, b", "a\"b", "\u{e4}"] {
        let request = format!("GET /fn/shop/hello HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(refused(request).await.status(), 400, "{host}");
    }
}

#[tokio::test]
async fn targets_that_are_none_are_refused() {
    for target in ["fn/shop/hello", "/fn/shop/hello/a b", "/fn/shop/hello/\u{1}", "/fn/shop/hello/<a>", "", "http://"] {
        let status = refused(format!("GET {target} HTTP/1.1\r\nHost: g\r\n\r\n")).await.status();
        assert!(matches!(status, 400 | 404), "{target:?} {status}");
    }
}

/// A tunnel is not ours to give (RFC 9110 section 9.3.6): the function's word for it would be taken by
/// caller and instance for one.
#[tokio::test]
async fn connect_is_refused() {
    for target in ["hello.shop.fn.example:80", "other.example:443"] {
        let (gateway, instance) = with_instance(|_| "HTTP/1.1 200 OK\r\n\r\n".into()).await;
        let mut caller = Caller::connect(gateway.address).await;
        caller.send(format!("CONNECT {target} HTTP/1.1\r\n{HOST}\r\n\r\n")).await;
        let answer = caller.wire.head().await;
        assert_eq!(instance.seen(), [], "{target}");
        assert!((400..=599).contains(&answer.expect("an answer").status()), "{target}");
    }
}
