//! What a proxy tells the function about its caller: `Forwarded` (RFC 7239), its predecessors
//! X-Forwarded-*, and `Via` (RFC 9110 section 7.6.3).

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// How many headers are added, with the request's identity: there is room for them at once.
const ADDED: usize = 6;

/// Who is at the other end of a connection, spelt out once for all requests that come on it.
#[derive(Debug)]
pub struct Peer {
    address: HeaderValue,
    /// The beginning of its part of `Forwarded`.
    forwarded: String,
}

impl Peer {
    /// At this address.
    pub fn new(address: IpAddr) -> Self {
        let address = address.to_canonical();
        let text = address.to_string();
        Self {
            forwarded: if address.is_ipv6() { format!("for=\"[{text}]\"") } else { format!("for={text}") },
            address: HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("unknown")),
        }
    }

    /// Tells the function who called, how and under which name.
    pub fn add_to(&self, headers: &mut HeaderMap, version: Version) {
        headers.reserve(ADDED);
        let host = headers.get(header::HOST).cloned();
        if let Ok(hop) = HeaderValue::try_from(self.forwarded(host.as_ref())) {
            headers.append(header::FORWARDED, hop);
        }
        headers.append(header::VIA, via(version));
        let chain = self.chain(headers);
        headers.insert(X_FORWARDED_FOR, chain);
        if let Some(host) = host {
            headers.entry(X_FORWARDED_HOST).or_insert(host);
        }
        headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
    }

    /// One more hop at the end of `Forwarded`.
    fn forwarded(&self, host: Option<&HeaderValue>) -> Vec<u8> {
        let host = host.filter(|host| host.to_str().is_ok_and(|host| !host.contains(['"', '\\'])));
        match host {
            Some(host) => [self.forwarded.as_bytes(), b";host=\"", host.as_bytes(), b"\";proto=http"].concat(),
            None => [self.forwarded.as_bytes(), b";proto=http"].concat(),
        }
    }

    /// All lines in one: some functions look at the first only, some proxies before us add theirs last.
    fn chain(&self, headers: &HeaderMap) -> HeaderValue {
        let mut before = headers.get_all(&X_FORWARDED_FOR).iter().peekable();
        if before.peek().is_none() {
            return self.address.clone();
        }
        let all: Vec<_> = before.chain([&self.address]).map(HeaderValue::as_bytes).collect();
        HeaderValue::try_from(all.join(&b", "[..])).unwrap_or_else(|_| self.address.clone())
    }
}

fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_2 => "2 lambent",
        Version::HTTP_10 => "1.0 lambent",
        _ => "1.1 lambent",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add_forwarded(headers: &mut HeaderMap, peer: &str, version: Version) {
        Peer::new(peer.parse().unwrap()).add_to(headers, version);
    }

    #[test]
    fn several_lines_become_one_chain() {
        let mut headers = HeaderMap::new();
        headers.append(X_FORWARDED_FOR, "10.0.0.1".parse().unwrap());
        headers.append(X_FORWARDED_FOR, "10.0.0.2".parse().unwrap());
        add_forwarded(&mut headers, "10.0.0.3", Version::HTTP_11);
        assert_eq!(headers.get_all(X_FORWARDED_FOR).iter().collect::<Vec<_>>(), ["10.0.0.1, 10.0.0.2, 10.0.0.3"]);
    }

    #[test]
    fn a_host_that_can_not_be_quoted_is_left_out() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "a\"b".parse().unwrap());
        add_forwarded(&mut headers, "10.0.0.3", Version::HTTP_10);
        assert_eq!(headers[header::FORWARDED], "for=10.0.0.3;proto=http");
        assert_eq!(headers[header::VIA], "1.0 lambent");
    }

    #[test]
    fn the_caller_is_added_to_the_chain() {
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_FOR, "10.0.0.1".parse().unwrap());
        headers.insert(header::HOST, "a.example".parse().unwrap());
        add_forwarded(&mut headers, "::ffff:10.0.0.2", Version::HTTP_11);
        assert_eq!(headers[&X_FORWARDED_FOR], "10.0.0.1, 10.0.0.2");
        assert_eq!(headers[&X_FORWARDED_HOST], "a.example");
        assert_eq!(headers[header::FORWARDED], "for=10.0.0.2;host=\"a.example\";proto=http");
        assert_eq!(headers[header::VIA], "1.1 lambent");
    }

    #[test]
    fn via_and_forwarded_go_on_where_others_began() {
        let mut headers = HeaderMap::new();
        headers.insert(header::VIA, "1.0 edge".parse().unwrap());
        add_forwarded(&mut headers, "2001:db8::1", Version::HTTP_2);
        assert_eq!(headers.get_all(header::VIA).iter().collect::<Vec<_>>(), ["1.0 edge", "2 lambent"]);
        assert_eq!(headers[header::FORWARDED], "for=\"[2001:db8::1]\";proto=http");
    }
}
