//! What a request is about, from its path and query.

use std::fmt;

use http::Uri;
use lambent_api::Name;

use super::{
    Key, Kind, Refusal,
    selector::{Fields, Selector},
};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) kind: Kind,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
}

impl Target {
    /// `/apis/<group>/<version>[/namespaces/<namespace>]/<plural>[/<name>[/<subresource>]]`
    pub(super) fn parse(path: &str) -> Option<Self> {
        let kind_of = |rest: &str| Kind::ALL.into_iter().find(|kind| kind.plural() == rest);
        let (api_version, rest) = split_api_version(path)?;
        let mut parts = rest.split('/').filter(|part| !part.is_empty()).map(str::to_owned).peekable();
        let namespace = parts.next_if(|part| part == "namespaces").and_then(|_| parts.next());
        let kind = kind_of(&parts.next()?).filter(|kind| kind.api_version() == api_version)?;
        let (name, subresource) = (parts.next(), parts.next());
        parts.next().is_none().then_some(Self { kind, namespace, name, subresource })
    }

    /// The one object that is meant.
    pub(super) fn key(&self) -> Result<Key, Refusal> {
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => Ok(Key::new(self.kind, namespace, name)),
            _ => Err(Refusal::MethodNotAllowed),
        }
    }
}

fn split_api_version(path: &str) -> Option<(&str, &str)> {
    if let Some(rest) = path.strip_prefix("/apis/") {
        let group_end = rest.find('/')?;
        let end = rest[group_end + 1..].find('/')? + group_end + 1;
        return Some((&rest[..end], &rest[end..]));
    }
    let rest = path.strip_prefix("/api/")?;
    rest.find('/').map(|end| rest.split_at(end))
}

/// What a list or a watch is to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) watch: bool,
    pub(super) bookmarks: bool,
    pub(super) version: Option<u64>,
    pub(super) timeout_seconds: Option<u64>,
    pub(super) selector: Selector,
    pub(super) fields: Fields,
    /// Who says one is told the rest in further answers.
    pub(super) limit: Option<usize>,
    pub(super) after: Option<After>,
}

/// How far a list in parts has come: what `continue` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct After {
    /// At which it was begun. Whoever watches from there hears of all that has changed meanwhile.
    pub(super) version: u64,
    /// The last object so far.
    pub(super) namespace: Name,
    pub(super) name: Name,
}

impl After {
    fn parse(text: &str) -> Result<Self, Refusal> {
        let mut parts = text.split('/');
        let mut parsed = || {
            let version = parts.next()?.parse().ok()?;
            Some(Self { version, namespace: parts.next()?.into(), name: parts.next()?.into() })
        };
        parsed().ok_or_else(|| Refusal::BadRequest(format!("continue={text} is none of ours")))
    }
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.version, self.namespace, self.name)
    }
}

impl Query {
    pub(super) fn parse(uri: &Uri) -> Result<Self, Refusal> {
        let mut query = Self::default();
        for (key, value) in pairs(uri) {
            let number = || value.parse().map_err(|_| Refusal::BadRequest(format!("{key}={value} is no number")));
            match key.as_str() {
                "watch" => query.watch = value == "true" || value == "1",
                "allowWatchBookmarks" => query.bookmarks = value == "true" || value == "1",
                "resourceVersion" if !value.is_empty() => {
                    query.version = Some(number()?).filter(|version| *version > 0);
                }
                "timeoutSeconds" => query.timeout_seconds = Some(number()?),
                "limit" => query.limit = Some(number()? as usize).filter(|limit| *limit > 0),
                "continue" if !value.is_empty() => query.after = Some(After::parse(&value)?),
                "labelSelector" => query.selector = Selector::parse(&value)?,
                "fieldSelector" => query.fields = Fields::parse(&value)?,
                _ => {}
            }
        }
        Ok(query)
    }
}

/// The parameters of a query, decoded.
pub(crate) fn pairs(uri: &Uri) -> impl Iterator<Item = (String, String)> {
    let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key), decode(value))
    })
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = || u8::from_str_radix(std::str::from_utf8(after.get(..2)?).ok()?, 16).ok();
        match (first, hex()) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(*first),
        }
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(kind: Kind, rest: [Option<&str>; 3]) -> Option<Target> {
        let [namespace, name, subresource] = rest.map(|part| part.map(str::to_owned));
        Some(Target { kind, namespace, name, subresource })
    }

    #[test]
    fn paths_are_those_of_an_api_server() {
        let functions = "/apis/lambent.dev/v1alpha1/functions";
        assert_eq!(Target::parse(functions), is(Kind::Function, [None; 3]));
        let scale = "/apis/lambent.dev/v1alpha1/namespaces/shop/revisions/r-1/scale";
        assert_eq!(Target::parse(scale), is(Kind::Revision, [Some("shop"), Some("r-1"), Some("scale")]));
        assert_eq!(Target::parse("/api/v1/namespaces/shop/pods"), is(Kind::Pod, [Some("shop"), None, None]));
        let events = "/apis/events.k8s.io/v1/namespaces/shop/events/e";
        assert_eq!(Target::parse(events), is(Kind::Event, [Some("shop"), Some("e"), None]));
        for other in ["/api/v1/secrets", "/apis/lambent.dev/v2/functions", "/version", "/api/v1/functions", "/"] {
            assert_eq!(Target::parse(other), None, "{other}");
        }
    }

    #[test]
    fn queries_are_decoded() {
        let uri = "/x?&watch=true&resourceVersion=7&labelSelector=a%2Fb%3Dc%2Cd&timeoutSeconds=9".parse().unwrap();
        let query = Query::parse(&uri).unwrap();
        assert_eq!((query.watch, query.version, query.timeout_seconds), (true, Some(7), Some(9)));
        assert_eq!(query.selector, Selector::parse("a/b=c,d").unwrap());
        assert!(Query::parse(&"/x?resourceVersion=y".parse().unwrap()).is_err());
        let next = Query::parse(&"/x?limit=5&continue=7%2Fshop%2Fhello".parse().unwrap()).unwrap();
        let after = After { version: 7, namespace: "shop".into(), name: "hello".into() };
        assert_eq!((next.limit, next.after), (Some(5), Some(after)));
        assert!(Query::parse(&"/x?continue=hello".parse().unwrap()).is_err());
    }
}
