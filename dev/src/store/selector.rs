//! Label selectors, the equality-based ones, and field selectors.

use serde_json::Value;

use super::Refusal;

/// What an object's labels must be like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    Is(String, String),
    IsNot(String, String),
    Exists(String),
    ExistsNot(String),
}

impl Selector {
    /// `a=b,c!=d,e,!f`
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        if text.contains('(') {
            return Err(Refusal::BadRequest(format!("set-based label selectors are not known here: {text}")));
        }
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let requirement = |part: &str| {
            if let Some((key, value)) = part.split_once("!=") {
                Requirement::IsNot(key.trim().to_owned(), value.trim().to_owned())
            } else if let Some((key, value)) = part.split_once('=') {
                Requirement::Is(key.trim().to_owned(), value.trim_start_matches('=').trim().to_owned())
            } else if let Some(key) = part.strip_prefix('!') {
                Requirement::ExistsNot(key.to_owned())
            } else {
                Requirement::Exists(part.to_owned())
            }
        };
        Ok(Self(parts.map(requirement).collect()))
    }

    /// Whether an object, as JSON text, is meant.
    pub(super) fn matches(&self, object: &str) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let object: Value = serde_json::from_str(object).unwrap_or_default();
        let label = |key: &str| object["metadata"]["labels"].get(key).and_then(Value::as_str);
        self.0.iter().all(|requirement| match requirement {
            Requirement::Is(key, value) => label(key) == Some(value),
            Requirement::IsNot(key, value) => label(key) != Some(value),
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::ExistsNot(key) => label(key).is_none(),
        })
    }
}

/// What an object's fields must be: of any kind, where a server knows a few of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// `metadata.name=a,regarding.kind==b`
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let equal = |part: &str| match part.split_once('=') {
            Some((path, value)) if !path.ends_with('!') => {
                Ok((format!("/{}", path.replace('.', "/")), value.trim_start_matches('=').to_owned()))
            }
            _ => Err(Refusal::BadRequest(format!("only equal fields are known here: {part}"))),
        };
        Ok(Self(parts.map(equal).collect::<Result<_, _>>()?))
    }

    /// Whether an object, as JSON text, is meant.
    pub(super) fn matches(&self, object: &str) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let object: Value = serde_json::from_str(object).unwrap_or_default();
        self.0.iter().all(|(pointer, value)| object.pointer(pointer).and_then(Value::as_str) == Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_compared_at_any_depth() {
        let object = r#"{"metadata": {"name": "a"}, "regarding": {"kind": "Function"}}"#;
        for (selector, expected) in [
            ("", true),
            ("metadata.name=a", true),
            ("metadata.name=a,regarding.kind==Function", true),
            ("metadata.name=b", false),
            ("metadata.uid=a", false),
        ] {
            assert_eq!(Fields::parse(selector).unwrap().matches(object), expected, "{selector}");
        }
        assert!(Fields::parse("metadata.name!=a").is_err());
    }

    #[test]
    fn labels_are_compared_as_a_server_does() {
        let object = r#"{"metadata": {"labels": {"a": "1", "b": "2"}}}"#;
        for (selector, expected) in [
            ("", true),
            ("a=1", true),
            ("a==1,b", true),
            ("a=2", false),
            ("!c,b!=3", true),
            ("c", false),
            ("!a", false),
        ] {
            assert_eq!(Selector::parse(selector).unwrap().matches(object), expected, "{selector}");
        }
        assert!(Selector::parse("a in (1,2)").is_err());
    }
}
