//! Which Function a request is for, by its Host or by its path. Pure: text in, names out.

/// What a request names, borrowed from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<'a> {
    /// Namespace of the Function.
    pub namespace: &'a str,
    /// Name of the Function.
    pub name: &'a str,
    /// Path and query as the function sees them, byte for byte as they came; may lack the first `/`.
    pub rest: &'a str,
}

/// The Function that `host` names under `domain`, else the one that the path names.
///
/// | Host | path and query | Function | it sees |
/// | --- | --- | --- | --- |
/// | `hello.shop.fn.example` | `/a?b` | shop/hello | `/a?b` |
/// | any other | `/fn/shop/hello` | shop/hello | `/` |
/// | any other | `/fn/shop/hello/a//b%2F?c` | shop/hello | `/a//b%2F?c` |
/// | any other | `/else` | none | |
pub fn route<'a>(host: Option<&'a str>, path_and_query: &'a str, domain: Option<&str>) -> Option<Route<'a>> {
    if let Some((namespace, name)) = host.zip(domain).and_then(|(host, domain)| by_host(host, domain)) {
        return Some(Route { namespace, name, rest: path_and_query });
    }
    by_path(path_and_query)
}

fn by_host<'a>(host: &'a str, domain: &str) -> Option<(&'a str, &'a str)> {
    let host = without_port(host);
    let cut = host.len().checked_sub(domain.len() + 1)?;
    let (names, suffix) = (host.get(..cut)?, host.get(cut + 1..)?);
    if !suffix.eq_ignore_ascii_case(domain) || host.as_bytes().get(cut) != Some(&b'.') {
        return None;
    }
    let (name, namespace) = names.split_once('.')?;
    Some((namespace, name)).filter(|_| !name.is_empty() && !namespace.is_empty() && !namespace.contains('.'))
}

fn without_port(host: &str) -> &str {
    host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(name, _)| name)
}

fn by_path(path_and_query: &str) -> Option<Route<'_>> {
    let (namespace, after) = path_and_query.strip_prefix("/fn/")?.split_once('/')?;
    let end = after.find(['/', '?']).unwrap_or(after.len());
    let (name, rest) = after.split_at(end);
    Some(Route { namespace, name, rest }).filter(|r| !r.namespace.is_empty() && !r.name.is_empty())
}

/// What goes into the request line for the function: `rest` with the `/` that it must begin with.
pub fn origin_form(rest: &str) -> std::borrow::Cow<'_, str> {
    if rest.starts_with('/') { rest.into() } else { format!("/{rest}").into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names<'a>(host: &'a str, path: &'a str) -> Option<(&'a str, &'a str, &'a str)> {
        route(Some(host), path, Some("fn.example")).map(|r| (r.namespace, r.name, r.rest))
    }

    #[test]
    fn the_prefix_is_cut_off_and_the_rest_is_untouched() {
        assert_eq!(names("x", "/fn/shop/hello"), Some(("shop", "hello", "")));
        assert_eq!(names("x", "/fn/shop/hello/"), Some(("shop", "hello", "/")));
        assert_eq!(names("x", "/fn/shop/hello?a=b"), Some(("shop", "hello", "?a=b")));
        assert_eq!(names("x", "/fn/shop/hello/a//b%2F..?c=/d"), Some(("shop", "hello", "/a//b%2F..?c=/d")));
        assert_eq!(origin_form("?a"), "/?a");
    }

    #[test]
    fn a_host_of_the_domain_wins_over_the_path() {
        assert_eq!(names("hello.shop.fn.example", "/fn/a/b"), Some(("shop", "hello", "/fn/a/b")));
        assert_eq!(names("hello.shop.FN.Example:8080", "/a"), Some(("shop", "hello", "/a")));
    }

    #[test]
    fn other_hosts_and_paths_name_no_function() {
        for (host, path) in [
            ("fn.example", "/a"),
            ("a.fn.example", "/a"),
            ("a.b.c.fn.example", "/a"),
            ("a.bfn.example", "/a"),
            ("x", "/"),
            ("x", "/fn/shop"),
            ("x", "/fn/shop/"),
            ("x", "/fn//hello"),
            ("x", "/functions/shop/hello"),
        ] {
            assert_eq!(names(host, path), None, "{host} {path}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_added(host in ".{0,30}", path in "/(fn/)?.{0,60}") {
            if let Some(r) = route(Some(&host), &path, Some("d")) {
                let by_path = format!("/fn/{}/{}{}", r.namespace, r.name, r.rest);
                prop_assert!(r.rest == path || by_path == path);
            }
        }
    }
}
