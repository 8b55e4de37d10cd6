//! Where to call a Function from here.

use http::Uri;
use lambent_api::FunctionKey;
use thiserror::Error;

use super::Place;

/// Where something is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Whether it is https.
    pub tls: bool,
    /// Without the brackets of an IPv6 address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// `host[:port]` as it was written, for the header Host.
    pub authority: String,
    /// What comes before the caller's own path.
    pub path: String,
}

/// A text is no URL that can be called.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0} can't be called: a URL is meant, such as http://127.0.0.1:8080")]
pub struct InvalidUrl(String);

/// The way to a Function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Straight there.
    Direct(Address),
    /// Straight there if it can be connected to, else through the API server.
    DirectOrForwarded(Address),
    /// Through the API server: an address of the inside.
    Forwarded(Address),
}

impl Address {
    /// Of a URL.
    pub fn parse(url: &str) -> Result<Self, InvalidUrl> {
        let invalid = || InvalidUrl(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| invalid())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(invalid()),
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(invalid)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || uri.query().is_some() {
            return Err(invalid());
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { tls, host, port, authority: authority.to_string(), path })
    }

    /// A Function at a gateway's address.
    fn of(gateway: &str, function: &FunctionKey) -> Result<Self, InvalidUrl> {
        let mut address = Self::parse(gateway)?;
        let FunctionKey { namespace, name } = function;
        address.path += &format!("/fn/{namespace}/{name}");
        Ok(address)
    }

    /// Whether it is a Service's name, which is known in its cluster only.
    fn is_of_the_inside(&self) -> bool {
        self.host.ends_with(".svc") || self.host.contains(".svc.")
    }
}

/// The way to a gateway that was named.
pub fn to_gateway(gateway: &str, function: &FunctionKey) -> Result<Route, InvalidUrl> {
    Address::of(gateway, function).map(Route::Direct)
}

/// | asked | status.url | way |
/// | --- | --- | --- |
/// | dev | | its gateway |
/// | cluster | a Service's name, called from outside | forwarded |
/// | cluster | anything else | direct, else forwarded |
/// | cluster | none yet | forwarded: the gateway says why |
pub fn to_function(place: &Place, url: Option<&str>, function: &FunctionKey) -> Result<Route, InvalidUrl> {
    let (url, inside) = match (place, url) {
        (Place::Dev { gateway }, _) => return to_gateway(gateway, function),
        (Place::Cluster { .. }, None) => return Address::of("http://lambent-gateway", function).map(Route::Forwarded),
        (Place::Cluster { inside, .. }, Some(url)) => (url, *inside),
    };
    let address = Address::parse(url)?;
    Ok(if address.is_of_the_inside() && !inside {
        Route::Forwarded(address)
    } else {
        Route::DirectOrForwarded(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> (bool, String, u16, String) {
        let Address { tls, host, port, path, .. } = Address::parse(url).unwrap();
        (tls, host, port, path)
    }

    #[test]
    fn urls_are_read_and_others_are_refused_with_an_example() {
        assert_eq!(parsed("http://a:81/b/"), (false, "a".to_owned(), 81, "/b".to_owned()));
        assert_eq!(parsed("https://a"), (true, "a".to_owned(), 443, String::new()));
        assert_eq!(parsed("http://[::1]:8080"), (false, "::1".to_owned(), 8080, String::new()));
        for wrong in ["a:80", "ftp://a", "http://", "http://a b", "http://user@a", "http://a/?q=1", ""] {
            let error = Address::parse(wrong).unwrap_err().to_string();
            assert!(error.contains("such as http://"), "{error}");
        }
    }

    #[test]
    fn the_way_follows_the_table() {
        let function = FunctionKey::new("shop", "hello");
        let cluster = |inside| Place::Cluster { name: "c".to_owned(), inside };
        let dev = Place::Dev { gateway: "http://127.0.0.1:8080".to_owned() };
        let (service, public) = ("http://lambent-gateway.x.svc/fn/shop/hello", "https://fn.example/fn/shop/hello");
        let address = |url| Address::parse(url).unwrap();
        for (place, url, expected) in [
            (&dev, None, Route::Direct(address("http://127.0.0.1:8080/fn/shop/hello"))),
            (&cluster(false), Some(service), Route::Forwarded(address(service))),
            (&cluster(true), Some(service), Route::DirectOrForwarded(address(service))),
            (&cluster(false), Some(public), Route::DirectOrForwarded(address(public))),
            (&cluster(false), None, Route::Forwarded(address("http://lambent-gateway/fn/shop/hello"))),
        ] {
            assert_eq!(to_function(place, url, &function).unwrap(), expected, "{place:?} {url:?}");
        }
        let told = to_gateway("http://g:1/base/", &function).unwrap();
        assert_eq!(told, Route::Direct(address("http://g:1/base/fn/shop/hello")));
    }
}
