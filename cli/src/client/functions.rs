//! Functions by name, and what to say of those that are not there.

use anyhow::bail;
use kube::{Api, api::ListParams};
use lambent_api::{Function, FunctionKey};

use super::Target;

/// Functions in one answer of an API server.
const PAGE: u32 = 500;
/// Names in an error.
const NAMED: usize = 20;

impl Target {
    /// All Functions of the namespace that is meant, by namespace and name.
    pub async fn functions(&self) -> anyhow::Result<Vec<Function>> {
        let api: Api<Function> = match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let doing = match &self.namespace {
            Some(namespace) => format!("list the Functions of namespace {namespace}"),
            None => "list the Functions of all namespaces".to_owned(),
        };
        let mut all = Vec::new();
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = self.ask(&doing, api.list(&params)).await?;
            all.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
        all.sort_by_key(Function::key);
        Ok(all)
    }

    /// The Function of a name, as `[namespace/]name`.
    pub async fn function(&mut self, name: &str) -> anyhow::Result<Function> {
        let (namespace, name) = split(name, self.namespace.take());
        self.namespace = namespace;
        if let Some(namespace) = &self.namespace {
            let api: Api<Function> = Api::namespaced(self.client.clone(), namespace);
            let doing = format!("read Function {name} in namespace {namespace}");
            if let Some(function) = self.ask(&doing, api.get_opt(&name)).await? {
                return Ok(function);
            }
        }
        pick(self.functions().await?, &name, self.namespace.as_deref())
    }
}

/// `[namespace/]name`; the namespace in the name goes before the one that was named elsewhere.
pub fn split(name: &str, namespace: Option<String>) -> (Option<String>, String) {
    match name.split_once('/') {
        Some((namespace, name)) => (Some(namespace.to_owned()), name.to_owned()),
        None => (namespace, name.to_owned()),
    }
}

/// The only one of this name.
fn pick(mut all: Vec<Function>, name: &str, namespace: Option<&str>) -> anyhow::Result<Function> {
    let keys: Vec<FunctionKey> = all.iter().map(Function::key).collect();
    let found: Vec<usize> = (0..keys.len()).filter(|at| keys[*at].name == name).collect();
    match found[..] {
        [one] => Ok(all.swap_remove(one)),
        [] => bail!(missing(name, namespace, &keys)),
        _ => {
            let places: Vec<String> = found.iter().map(|at| keys[*at].to_string()).collect();
            bail!("{name} is in several namespaces: name one of {}", places.join(", "))
        }
    }
}

fn missing(name: &str, namespace: Option<&str>, known: &[FunctionKey]) -> String {
    let place = namespace.map_or_else(String::new, |namespace| format!(" in namespace {namespace}"));
    if known.is_empty() {
        let elsewhere = namespace.map_or("", |_| "; `lambent list -A` shows those of all namespaces");
        return format!(
            "no Function {name} is there, and no other{place}: apply a manifest, which `lambent new` makes{elsewhere}"
        );
    }
    let shown = |key: &FunctionKey| if namespace.is_some() { key.name.to_string() } else { key.to_string() };
    let names: Vec<String> = known.iter().take(NAMED).map(shown).collect();
    let more = known.len().checked_sub(NAMED + 1).map_or_else(String::new, |more| format!(" and {} more", more + 1));
    format!("no Function {name} is there{place}; there are {}{more}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use lambent_api::FunctionSpec;
    use serde_json::json;

    use super::*;

    fn function(namespace: &str, name: &str) -> Function {
        let spec: FunctionSpec = serde_json::from_value(json!({"image": "a"})).unwrap();
        let mut function = Function::new(name, spec);
        function.metadata.namespace = Some(namespace.to_owned());
        function
    }

    fn error(all: Vec<Function>, namespace: Option<&str>) -> String {
        pick(all, "hello", namespace).unwrap_err().to_string()
    }

    #[test]
    fn a_name_that_is_not_there_is_answered_with_those_that_are() {
        let all = || vec![function("shop", "a"), function("shop", "b")];
        assert_eq!(error(all(), Some("shop")), "no Function hello is there in namespace shop; there are a, b");
        assert_eq!(error(all(), None), "no Function hello is there; there are shop/a, shop/b");
        let many = (0..25).map(|number| function("shop", &format!("f{number}"))).collect();
        assert!(error(many, None).ends_with("shop/f19 and 5 more"));
        let none = error(Vec::new(), Some("shop"));
        assert!(none.contains("lambent new") && none.contains("lambent list -A"), "{none}");
    }

    #[test]
    fn a_name_without_a_namespace_must_be_the_only_one() {
        let picked = pick(vec![function("a", "x"), function("b", "hello")], "hello", None).unwrap();
        assert_eq!(picked.key(), FunctionKey::new("b", "hello"));
        let words = error(vec![function("a", "hello"), function("b", "hello")], None);
        assert_eq!(words, "hello is in several namespaces: name one of a/hello, b/hello");
        assert_eq!(split("a/b", Some("c".to_owned())), (Some("a".to_owned()), "b".to_owned()));
        assert_eq!(split("b", None), (None, "b".to_owned()));
    }
}
