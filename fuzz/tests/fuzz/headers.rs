//! Headers on their way through, against what the RFCs say.

use std::{collections::HashSet, net::IpAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header, uri::Authority};
use lambent_fuzz::spell;
use lambent_gateway::{forwarded::Peer, headers, upgrade};
use proptest::prelude::any;

use crate::check;

const NAMES: [HeaderName; 20] = [
    header::CONNECTION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::CONTENT_LENGTH,
    header::HOST,
    header::VIA,
    header::FORWARDED,
    header::COOKIE,
    header::CONTENT_TYPE,
    header::AUTHORIZATION,
    header::EXPECT,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-secret"),
    HeaderName::from_static("x-other"),
];
const WORDS: &[&str] = &[
    "close",
    "keep-alive",
    "upgrade",
    "Upgrade",
    "te",
    "trailers",
    "x-secret",
    "X-Other",
    "content-length",
    "host",
    ",",
    ", ",
    " ",
    "\t",
    "5",
    "chunked",
    "websocket",
    "10.0.0.1",
    "a.example",
    "\"",
    "\\",
    "for=",
    ";",
    "=",
    "application/grpc",
];
const HOP_BY_HOP: [&str; 6] = ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];

type Lines = Vec<(u8, Vec<u8>)>;

fn map(lines: &[(u8, Vec<u8>)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines.iter().take(100) {
        if let Ok(value) = HeaderValue::from_bytes(&spell(value, WORDS)) {
            map.append(NAMES[usize::from(*name) % NAMES.len()].clone(), value);
        }
    }
    map
}

/// The names in all lines of `Connection`, as RFC 9110 section 5.3 joins them.
fn named(map: &HeaderMap) -> HashSet<String> {
    let lines =
        map.get_all(header::CONNECTION).iter().map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned());
    let names = lines.flat_map(|line| line.split(',').map(|name| name.trim().to_ascii_lowercase()).collect::<Vec<_>>());
    names.filter(|name| !name.is_empty()).collect()
}

fn all(map: &HeaderMap, name: &HeaderName) -> Vec<HeaderValue> {
    map.get_all(name).iter().cloned().collect()
}

#[test]
fn what_is_for_one_hop_goes_and_the_rest_stays() {
    check(any::<Lines>(), |lines| {
        let before = map(&lines);
        let mut after = before.clone();
        headers::remove_hop_by_hop(&mut after);
        let named = named(&before);
        let chunked = before.contains_key(header::TRANSFER_ENCODING);
        for name in NAMES {
            // Whatever Connection says, the one frames the message and the other says for whom it is.
            let stays = [header::CONTENT_LENGTH, header::HOST].contains(&name);
            let for_one_hop = HOP_BY_HOP.contains(&name.as_str())
                || (named.contains(name.as_str()) && !stays)
                || (name == header::CONTENT_LENGTH && chunked);
            let wanted = if for_one_hop { Vec::new() } else { all(&before, &name) };
            assert_eq!(all(&after, &name), wanted, "{name} of {before:?}");
        }
    });
}

#[test]
fn the_chain_of_proxies_grows_by_one_and_loses_nobody() {
    check(any::<(Lines, [u8; 16], bool)>(), |(lines, address, http2)| {
        let before = map(&lines);
        let mut after = before.clone();
        let peer = IpAddr::from(address);
        Peer::new(peer).add_to(&mut after, if http2 { Version::HTTP_2 } else { Version::HTTP_11 });
        for name in [header::VIA, header::FORWARDED] {
            let (before, after) = (all(&before, &name), all(&after, &name));
            assert_eq!(after[..before.len()], before);
            assert_eq!(after.len(), before.len() + 1);
        }
        let list = |map: &HeaderMap| {
            let lines = map.get_all("x-forwarded-for").iter();
            let lines = lines.map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned()).collect::<Vec<_>>();
            let items = lines.join(",");
            items.split(',').map(|item| item.trim().to_owned()).filter(|i| !i.is_empty()).collect::<Vec<_>>()
        };
        let (before, after) = (list(&before), list(&after));
        assert_eq!(after, [before, vec![peer.to_canonical().to_string()]].concat());
    });
}

#[test]
fn a_request_id_is_fit_for_logs_and_the_callers_own_if_it_can_be() {
    check(any::<Lines>(), |lines| {
        let map = map(&lines);
        let id = headers::request_id(&map);
        assert!(!id.is_empty() && id.len() <= 128 && id.to_str().is_ok());
        let own = map.get("x-request-id").filter(|own| !own.is_empty() && own.len() <= 128 && own.to_str().is_ok());
        assert!(own.is_none_or(|own| *own == id));
    });
}

#[test]
fn a_wish_to_upgrade_counts_in_any_line_of_connection() {
    check(any::<Lines>(), |lines| {
        let map = map(&lines);
        let wished = map.contains_key(header::UPGRADE) && named(&map).contains("upgrade");
        assert_eq!(upgrade::wanted(&map).is_some(), wished, "{map:?}");
    });
}

#[test]
fn a_request_becomes_one_of_http_2_and_keeps_its_path() {
    check(any::<(Lines, Vec<u8>)>(), |(lines, path)| {
        let path =
            format!("/{}", String::from_utf8_lossy(&spell(&path, &["a", "/", "?", "%2F", "//", "b=c", ":", "@"])));
        let Ok(uri) = Uri::try_from(path) else { return };
        let mut request = Request::builder().method(Method::GET).uri(uri.clone()).body(()).unwrap();
        *request.headers_mut() = map(&lines);
        headers::to_http2(&mut request);
        assert_eq!(request.uri().path_and_query(), uri.path_and_query());
        assert!(request.uri().authority().is_some() && request.uri().scheme().is_some());
        for name in [header::HOST, header::CONNECTION] {
            assert!(!request.headers().contains_key(name));
        }
    });
}

#[test]
fn a_request_of_http_2_has_a_host_and_its_cookies_in_one_line() {
    check(any::<Lines>(), |lines| {
        let before = map(&lines);
        let mut after = before.clone();
        headers::from_authority(&mut after, &Authority::from_static("b.example"));
        headers::join_cookies(&mut after);
        assert!(after.contains_key(header::HOST));
        let bytes = |map: &HeaderMap| {
            let lines = map.get_all(header::COOKIE).iter().map(|line| line.as_bytes().to_vec()).collect::<Vec<_>>();
            (lines.len(), lines.join(&b"; "[..]))
        };
        let (before, after) = (bytes(&before), bytes(&after));
        assert_eq!((after.0, after.1), (before.0.min(1), before.1));
    });
}
