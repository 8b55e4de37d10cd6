//! Host and path.

use http::{Uri, uri::PathAndQuery};
use lambent_fuzz::spell_text;
use lambent_gateway::router::{origin_form, route};
use proptest::prelude::any;

use crate::check;

const HOSTS: &[&str] =
    &["hello", "shop", ".", "fn.example", "FN.Example", ":", "8080", "[::1]", "ä", "%2e", " ", "a", "-"];
const PATHS: &[&str] =
    &["/fn/", "/fn", "shop", "hello", "/", "//", "?", "%2F", "%", "..", "a=b", "ä", "#", ";", "&", " ", "*", "\u{0}"];
const DOMAIN: &str = "fn.example";

#[test]
fn a_route_names_a_function_and_loses_no_byte() {
    check(any::<(Vec<u8>, Vec<u8>)>(), |(host, path)| {
        let (host, path) = (spell_text(&host, HOSTS), spell_text(&path, PATHS));
        let Some(found) = route(Some(&host), &path, Some(DOMAIN)) else { return };
        for name in [found.namespace, found.name] {
            assert!(!name.is_empty() && !name.contains('/'), "{found:?}");
        }
        let by_path = format!("/fn/{}/{}{}", found.namespace, found.name, found.rest);
        let by_host = format!("{}.{}.{DOMAIN}", found.name, found.namespace);
        let by_host = found.rest == path && host.to_ascii_lowercase().starts_with(&by_host.to_ascii_lowercase());
        assert!(by_host || by_path == path, "{host:?} {path:?}: {found:?}");
    });
}

#[test]
fn a_function_that_a_host_names_is_found_whatever_the_path_is() {
    check(any::<(Vec<u8>, Option<u16>)>(), |(path, port)| {
        let path = spell_text(&path, PATHS);
        let host = port.map_or("hello.shop.fn.example".into(), |port| format!("Hello.Shop.FN.example:{port}"));
        let found = route(Some(&host), &path, Some(DOMAIN)).unwrap();
        assert_eq!((found.rest, found.namespace.to_ascii_lowercase()), (&*path, "shop".to_owned()));
    });
}

#[test]
fn what_hyper_takes_as_a_path_goes_on_as_it_came() {
    check(any::<Vec<u8>>(), |path| {
        let path = format!("/fn/shop/hello{}", spell_text(&path, PATHS));
        // What the HTTP parser lets through.
        let Ok(taken) = PathAndQuery::try_from(path) else { return };
        let Some(found) = route(None, taken.as_str(), Some(DOMAIN)) else { return };
        let wanted = origin_form(found.rest);
        let sent = Uri::try_from(&*wanted).expect("a path that came in goes out");
        assert_eq!(sent.path_and_query().map(PathAndQuery::as_str), Some(&*wanted));
        assert!(sent.authority().is_none() && sent.scheme().is_none(), "{sent:?}");
    });
}
