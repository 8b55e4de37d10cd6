//! What the head of a request must be like before it is anybody's. hyper reads it; what two readers could
//! still take in two ways, and what is not a gateway's to do, goes no further.

use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};

use crate::{
    refusal::Refusal,
    server::{MAX_HEAD, MAX_HEADERS},
};

/// Between a name and its value, and after that.
const SEPARATORS: usize = ": \r\n".len();

/// Whether the gateway takes a request with this head.
///
/// # Errors
/// Says what is wrong with it.
pub fn check<B>(request: &Request<B>) -> Result<(), Refusal> {
    let headers = request.headers();
    if headers.len() > MAX_HEADERS || size(request.uri(), headers) > MAX_HEAD as usize {
        return Err(Refusal::HeadTooLarge);
    }
    // The function's word for it would be taken by caller and instance for a tunnel (RFC 9110 section 9.3.6).
    if request.method() == Method::CONNECT {
        return Err(Refusal::BadRequest("CONNECT asks for a tunnel, and a function is none".into()));
    }
    check_host(request.version(), headers)?;
    check_codings(headers)
}

/// Roughly: of the request line only what may be long.
fn size(target: &Uri, headers: &HeaderMap) -> usize {
    let target = target.path_and_query().map_or(0, |path| path.as_str().len());
    headers.iter().fold(target, |size, (name, value)| size + name.as_str().len() + value.len() + SEPARATORS)
}

/// HTTP/1.1 has one Host, others may have none (RFC 9112 section 3.2).
fn check_host(version: Version, headers: &HeaderMap) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let fault = match (hosts.next(), hosts.next()) {
        (None, _) if version == Version::HTTP_11 => "it has no Host",
        (Some(_), Some(_)) => "it has more than one Host",
        (Some(host), None) if !host.as_bytes().iter().all(|byte| may_be_in_host(*byte)) => "its Host is none",
        _ => return Ok(()),
    };
    Err(Refusal::BadRequest(fault.into()))
}

/// Names, addresses and ports (RFC 3986 section 3.2.2), but no user.
fn may_be_in_host(byte: u8) -> bool {
    IN_HOSTS[usize::from(byte)]
}

/// Worked out beforehand: every byte of every request's Host is looked up.
static IN_HOSTS: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0);
    while byte < table.len() {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let (more, mut at) = (b"-._~!$&'()*+,;=%:[]", 0);
    while at < more.len() {
        table[more[at] as usize] = true;
        at += 1;
    }
    table
};

/// What is left when only chunks are taken off must be the content (RFC 9112 section 6.1).
fn check_codings(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter().map(HeaderValue::as_bytes);
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Refusal::BadRequest("Transfer-Encoding may be chunked, and nothing else".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(version: Version, fields: &[(&'static str, &str)]) -> Result<(), Refusal> {
        let mut request = Request::get("/").version(version);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap())
    }

    #[test]
    fn hosts_are_names_and_addresses_with_ports() {
        for host in ["a.example", "a.example:80", "A_b.example.", "127.0.0.1:8080", "[::1]:8080", "x%20y", ""] {
            assert_eq!(checked(Version::HTTP_11, &[("host", host)]), Ok(()), "{host}");
        }
        for host in ["a b", "a/b", "a@b", "a\\b", "<a>", "a#b", "a?b"] {
            assert!(checked(Version::HTTP_11, &[("host", host)]).is_err(), "{host}");
        }
    }

    #[test]
    fn only_http_1_1_has_to_say_a_host() {
        assert!(checked(Version::HTTP_11, &[]).is_err());
        assert_eq!((checked(Version::HTTP_10, &[]), checked(Version::HTTP_2, &[])), (Ok(()), Ok(())));
        assert!(checked(Version::HTTP_2, &[("host", "a"), ("host", "a")]).is_err());
    }

    #[test]
    fn one_coding_is_taken_and_said_once() {
        let coded = |codings: &[&'static str]| {
            let codings = codings.iter().map(|coding| ("transfer-encoding", *coding));
            checked(Version::HTTP_11, &[("host", "a")].into_iter().chain(codings).collect::<Vec<_>>())
        };
        assert_eq!((coded(&["chunked"]), coded(&["Chunked"])), (Ok(()), Ok(())));
        for codings in [&["gzip, chunked"][..], &["gzip", "chunked"], &["chunked", "chunked"], &["identity"]] {
            assert!(coded(codings).is_err(), "{codings:?}");
        }
    }
}
