//! The rules for `metadata` that every object keeps, whatever its definition says.

use serde_json::Value;

use super::schema::Misfit;

/// Fields that every object has and that the definition does not describe.
const FIELDS: [&str; 15] = [
    "name",
    "generateName",
    "namespace",
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
    "managedFields",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
];
/// Of a namespace, of a label's value and of the part of a key after the slash.
const LONGEST_LABEL: usize = 63;
/// Of the part of a key before the slash.
const LONGEST_DOMAIN: usize = 253;
/// Keys and values of all annotations together.
const ANNOTATIONS_BYTES: usize = 256 * 1024;

const KEY_IN_WORDS: &str = "a key has letters, digits, '-', '_' and '.', at most 63 of them, begins and ends with a \
                            letter or digit, and may have a DNS name and '/' before it";
const VALUE_IN_WORDS: &str = "a label's value has letters, digits, '-', '_' and '.', at most 63 of them, and begins \
                              and ends with a letter or digit";

/// What does not fit in it. That the name is a good one is for the definition's rules to say.
pub(super) fn check(metadata: &Value) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    match &metadata["name"] {
        Value::String(_) => {}
        Value::Null => misfits.push(Misfit::new("/metadata", "name is missing")),
        name => misfits.push(Misfit::new("/metadata/name", format!("must be a string: write \"{name}\""))),
    }
    for (name, value) in metadata.as_object().into_iter().flatten() {
        let pointer = format!("/metadata/{}", escaped(name));
        match (name.as_str(), value) {
            (name, _) if !FIELDS.contains(&name) => misfits.push(Misfit::new(&pointer, "unknown field")),
            ("namespace", Value::String(namespace)) => misfits.extend(check_namespace(namespace, &pointer)),
            ("labels" | "annotations", Value::Object(pairs)) => {
                misfits.extend(pairs.iter().filter_map(|(key, value)| check_pair(name, key, value, &pointer)));
                misfits.extend(check_size(name, pairs, &pointer));
            }
            ("finalizers", Value::Array(names)) => misfits.extend(check_finalizers(names, &pointer)),
            _ => {}
        }
    }
    misfits
}

fn check_namespace(namespace: &str, pointer: &str) -> Option<Misfit> {
    let words = "must be a DNS label: at most 63 lower case letters, digits and '-'";
    let fits = namespace.is_empty() || namespace.len() <= LONGEST_LABEL && is_dns_label(namespace);
    (!fits).then(|| Misfit::new(pointer, format!("is \"{namespace}\", and {words}")))
}

fn check_pair(kind: &str, key: &str, value: &Value, pointer: &str) -> Option<Misfit> {
    let misfit = |message: String| Some(Misfit::new(&format!("{pointer}/{}", escaped(key)), message));
    let Some(text) = value.as_str() else { return misfit(format!("must be a string: write \"{value}\"")) };
    let is_label = kind == "labels";
    // Only the keys of annotations do not mind upper case before the slash.
    let key_fits = if is_label { is_key(key) } else { is_key(&key.to_lowercase()) };
    match () {
        () if !key_fits => misfit(format!("is no key of {kind}: {KEY_IN_WORDS}")),
        () if is_label && !(text.is_empty() || is_word(text)) => misfit(format!("is \"{text}\", and {VALUE_IN_WORDS}")),
        () => None,
    }
}

fn check_size(kind: &str, pairs: &serde_json::Map<String, Value>, pointer: &str) -> Option<Misfit> {
    let size: usize = pairs.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    let too_large = kind == "annotations" && size > ANNOTATIONS_BYTES;
    too_large.then(|| Misfit::new(pointer, format!("have {size} bytes, and may have {ANNOTATIONS_BYTES}")))
}

fn check_finalizers<'a>(names: &'a [Value], pointer: &'a str) -> impl Iterator<Item = Misfit> + 'a {
    let wrong = |name: &Value| name.as_str().is_some_and(|name| !is_key(name));
    let names = names.iter().enumerate().filter(move |(_, name)| wrong(name));
    names.map(move |(index, name)| {
        Misfit::new(&format!("{pointer}/{index}"), format!("is {name}, and is to be like a key: {KEY_IN_WORDS}"))
    })
}

/// As part of a JSON pointer.
pub(super) fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// What Kubernetes calls a qualified name.
fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((domain, name)) => is_domain(domain) && is_word(name),
        None => is_word(key),
    }
}

fn is_domain(domain: &str) -> bool {
    domain.len() <= LONGEST_DOMAIN && domain.split('.').all(is_dns_label)
}

fn is_dns_label(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    ends_fit(text, fits) && text.bytes().all(|byte| fits(byte) || byte == b'-')
}

fn is_word(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric();
    text.len() <= LONGEST_LABEL && ends_fit(text, fits) && text.bytes().all(|byte| fits(byte) || b"-_.".contains(&byte))
}

fn ends_fit(text: &str, fits: impl Fn(u8) -> bool) -> bool {
    let ends = text.as_bytes().first().zip(text.as_bytes().last());
    ends.is_some_and(|(first, last)| fits(*first) && fits(*last))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wrong(metadata: &Value) -> Vec<String> {
        check(metadata).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_an_api_server_takes_is_well() {
        let long = "a".repeat(63);
        let metadata = json!({
            "name": "hello", "namespace": "shop-2", "finalizers": ["lambent.dev/x"],
            "labels": {"app.kubernetes.io/name": "Hello_1.2-x", "empty": "", (long.clone()): long},
            "annotations": {"Example.COM/Note": "any text: äöü / \n", "dev.lambent.dev/command": "x"},
        });
        assert_eq!(wrong(&metadata), Vec::<String>::new());
    }

    #[test]
    fn what_an_api_server_refuses_is_named() {
        for (field, expected) in [
            (json!({"namespace": "Sh_op"}), "metadata.namespace: is \"Sh_op\", and must be a DNS label"),
            (json!({"namespace": "a".repeat(64)}), "metadata.namespace: is "),
            (json!({"labels": {"a": "two words"}}), "metadata.labels.a: is \"two words\", and a label's value"),
            (json!({"labels": {"a": "x".repeat(64)}}), "metadata.labels.a: is "),
            (json!({"labels": {"a": "-x"}}), "metadata.labels.a: is \"-x\""),
            (json!({"labels": {"a b": "x"}}), "metadata.labels.a b: is no key of labels"),
            (json!({"labels": {"A.b/c": "x"}}), "metadata.labels[A.b/c]: is no key of labels"),
            (json!({"labels": {"a/b/c": "x"}}), "metadata.labels[a/b/c]: is no key of labels"),
            (json!({"labels": {"/b": "x"}}), "metadata.labels[/b]: is no key of labels"),
            (json!({"labels": {"a": 7}}), "metadata.labels.a: must be a string: write \"7\""),
            (json!({"annotations": {"a_b/c": "x"}}), "metadata.annotations[a_b/c]: is no key of annotations"),
            (json!({"annotations": {"a": "x".repeat(256 * 1024)}}), "metadata.annotations: have 262145 bytes"),
            (json!({"finalizers": ["a b"]}), "metadata.finalizers[0]: is \"a b\""),
            (json!({"nmespace": "shop"}), "metadata.nmespace: unknown field"),
            (json!({"name": 7}), "metadata.name: must be a string: write \"7\""),
        ] {
            let mut metadata = json!({"name": "hello"});
            metadata.as_object_mut().unwrap().extend(field.as_object().unwrap().clone());
            let found = wrong(&metadata);
            assert!(found.len() == 1 && found[0].starts_with(expected), "{expected}: {found:?}");
        }
    }
}
