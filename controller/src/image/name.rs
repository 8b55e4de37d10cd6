//! Image names, read as container runtimes read them (the grammar of the distribution project's package
//! `reference`, and Docker Hub where no registry is named). The parser that comes with oci-client is a
//! regular expression that takes 15 MB once it is compiled, which was half of an idle controller.

use oci_client::Reference;

const HUB: &str = "docker.io";
const HUB_BEFORE: &str = "index.docker.io";
const HUB_OFFICIAL: &str = "library";
const LATEST: &str = "latest";
const LONGEST_REPOSITORY: usize = 255;
const LONGEST_TAG: usize = 128;
/// Algorithms of digests, and how many hexadecimal digits theirs have.
const DIGESTS: [(&str, usize); 3] = [("sha256", 64), ("sha384", 96), ("sha512", 128)];

/// Reads `[registry/]repository[:tag][@digest]`.
///
/// # Errors
/// Which part is wrong, and how it should be.
pub(super) fn parse(image: &str) -> Result<Reference, &'static str> {
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    // A colon before the last slash is a port's.
    let path_begins = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[path_begins..].find(':') {
        Some(colon) => (&rest[..path_begins + colon], Some(&rest[path_begins + colon + 1..])),
        None => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err("its tag is not 1 to 128 of letters, digits, '_', '.' and '-'");
    }
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Err("its digest is not one like sha256:<64 hexadecimal digits>");
    }
    let (registry, repository) = split(name)?;
    Ok(match (tag, digest) {
        (tag, None) => Reference::with_tag(registry, repository, tag.unwrap_or(LATEST).to_owned()),
        (None, Some(digest)) => Reference::with_digest(registry, repository, digest.to_owned()),
        (Some(tag), Some(digest)) => {
            Reference::with_tag_and_digest(registry, repository, tag.to_owned(), digest.to_owned())
        }
    })
}

/// The registry and the repository there.
fn split(name: &str) -> Result<(String, String), &'static str> {
    let is_registry = |first: &str| first.contains(['.', ':']) || first == "localhost";
    let (registry, repository) = match name.split_once('/').filter(|(first, _)| is_registry(first)) {
        Some((HUB_BEFORE, repository)) => (HUB, repository),
        Some((registry, repository)) if is_host(registry) => (registry, repository),
        Some(_) => return Err("its registry is no host name with or without a port"),
        None => (HUB, name),
    };
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("a repository's name is in lower case");
    }
    if !repository.split('/').all(is_path_component) {
        return Err("its repository is not made of letters, digits and single separators: '.', '_', '__', '-'");
    }
    let repository = match registry == HUB && !repository.contains('/') {
        true => format!("{HUB_OFFICIAL}/{repository}"),
        false => repository.to_owned(),
    };
    if repository.len() > LONGEST_REPOSITORY {
        return Err("its repository's name is longer than 255 characters");
    }
    Ok((registry.to_owned(), repository))
}

/// Labels of letters, digits and inner hyphens, and a port.
fn is_host(registry: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let (host, port) = registry.split_once(':').unwrap_or((registry, "0"));
    host.split('.').all(is_label) && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
}

/// Runs of letters and digits, with one separator between each two of them: `.`, `_`, `__` or hyphens.
fn is_path_component(component: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator = |s: &str| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-');
    component.starts_with(is_letter) && component.ends_with(is_letter) && component.split(is_letter).all(is_separator)
}

fn is_tag(tag: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=LONGEST_TAG).contains(&tag.len())
        && tag.bytes().all(|b| is_word(b) || b == b'.' || b == b'-')
        && tag.bytes().next().is_some_and(is_word)
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, hex)) = digest.split_once(':') else { return false };
    DIGESTS.contains(&(algorithm, hex.len())) && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_without_a_registry_are_docker_hubs() {
        let whole = |image: &str| parse(image).map(|reference| reference.whole());
        assert_eq!(whole("busybox").unwrap(), "docker.io/library/busybox:latest");
        assert_eq!(whole("index.docker.io/busybox:1").unwrap(), "docker.io/library/busybox:1");
        assert_eq!(whole("shop/hello").unwrap(), "docker.io/shop/hello:latest");
        assert_eq!(whole("localhost/hello").unwrap(), "localhost/hello:latest");
        assert_eq!(whole("test:5000/repo").unwrap(), "test:5000/repo:latest");
        assert_eq!(whole("test.com:5000").unwrap(), "docker.io/library/test.com:5000");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let words = |image: &str| parse(image).unwrap_err();
        assert!(words("hello:").contains("tag"));
        assert!(words("hello@sha256:12").contains("digest"));
        assert!(words("Shop/hello").contains("lower case"));
        assert!(words("a_b.example:1/hello").contains("registry"));
        assert!(words("").contains("repository") && words("a//b").contains("repository"));
    }

    /// A part of a name, or of something that is nearly one.
    fn part() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => "[a-z0-9]{1,4}",
            1 => "[a-zA-Z0-9._-]{0,5}",
            1 => "[a-z0-9]{1,3}(\\.|_|__|-{1,3}|___|\\.\\.)[a-z0-9]{1,3}",
            1 => Just("localhost".to_owned()),
            1 => Just("index.docker.io".to_owned()),
        ]
    }

    fn image() -> impl Strategy<Value = String> {
        let host = prop_oneof!["[a-zA-Z0-9.-]{1,8}(:[0-9]{0,4})?/", Just(String::new())];
        let path = prop::collection::vec(part(), 1..4).prop_map(|parts| parts.join("/"));
        let tag = prop_oneof![3 => Just(String::new()), 2 => ":[a-zA-Z0-9_.-]{0,6}", 1 => ":[a-z]{126,130}"];
        let digest = prop_oneof![
            4 => Just(String::new()),
            1 => "@sha256:[0-9a-fA-F]{63,65}",
            1 => "@(sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}|md5:[0-9a-f]{32}|sha256)",
        ];
        (host, path, tag, digest).prop_map(|(host, path, tag, digest)| format!("{host}{path}{tag}{digest}"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn names_are_read_as_the_library_reads_them(image in image()) {
            // But for capitals in the first part of a path, which it takes for a host.
            let library = image.parse::<Reference>().ok();
            let library = library.filter(|r| !r.repository().bytes().any(|b| b.is_ascii_uppercase()));
            prop_assert_eq!(parse(&image).ok(), library);
        }
    }
}
