//! From an order to what is to be run: a pure function of the order and of a port.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

use k8s_openapi::api::core::v1::EnvVar;
use lambent_api::Template;
use thiserror::Error;

use super::engine::{Engine, NoEngine};
use crate::Order;

/// Repository of the image of what is run as a plain process: `process.lambent.dev/<function>`,
/// with the digest of its source. Such a template has command and directory of the process.
pub const PROCESS_REPOSITORY: &str = "process.lambent.dev/";

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Its path, or its name to be looked up in PATH.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Set in addition to our own environment.
    pub env: Vec<(String, String)>,
    /// Where it starts; where we are when absent.
    pub directory: Option<PathBuf>,
    /// Shell words of what is to be run once it has ended.
    pub after: Option<OsString>,
}

/// Why there is nothing to run.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NoLaunch {
    /// It is an image, and nothing here runs images.
    #[error(
        "nothing here runs the image {0}: say what to run instead in the annotation dev.lambent.dev/command, or {1}"
    )]
    NoEngine(String, NoEngine),
    /// A process without a command.
    #[error("the annotation dev.lambent.dev/command is empty")]
    NoCommand,
}

/// Whether it is run as a plain process.
pub fn is_process(template: &Template) -> bool {
    template.image.starts_with(PROCESS_REPOSITORY)
}

/// What to run for an order.
///
/// # Errors
/// If it can't be run here.
pub fn launch(order: &Order, port: u16, engine: Result<&Engine, NoEngine>) -> Result<Launch, NoLaunch> {
    let template = &order.revision.spec.template;
    if is_process(template) {
        return process(template, port);
    }
    match engine {
        Ok(engine) => Ok(engine.launch(order, port)),
        Err(why) => Err(NoLaunch::NoEngine(template.image.clone(), why)),
    }
}

fn process(template: &Template, port: u16) -> Result<Launch, NoLaunch> {
    let env = environment(template, port);
    let known: BTreeMap<&str, &str> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let words = template.command.iter().chain(&template.args);
    let mut words = words.map(|word| expand(word, &known));
    let program = words.next().ok_or(NoLaunch::NoCommand)?;
    Ok(Launch {
        program,
        arguments: words.map(OsString::from).collect(),
        directory: template.working_dir.as_ref().map(PathBuf::from),
        after: None,
        env,
    })
}

/// PORT, which is ours, and what the template says. A value from a Secret, a ConfigMap or a field is
/// not known here: it stays what our own environment says.
pub(super) fn environment(template: &Template, port: u16) -> Vec<(String, String)> {
    let mut all = vec![("PORT".to_owned(), port.to_string())];
    for EnvVar { name, value, value_from } in template.env.iter().filter(|var| var.name != "PORT") {
        if value_from.is_some() {
            continue;
        }
        let known = all.iter().map(|(name, value): &(String, String)| (name.as_str(), value.as_str())).collect();
        let value = expand(value.as_deref().unwrap_or_default(), &known);
        all.push((name.clone(), value));
    }
    all
}

/// Replaces `$(NAME)` as a cluster does: what is not known stays, and `$$` is a dollar.
pub(super) fn expand(text: &str, known: &BTreeMap<&str, &str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match known.get(name) {
                Some(value) => out.push_str(value),
                None => out.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;

    /// An order of this name for this template, as YAML.
    pub(in crate::process) fn order(name: &str, template: &str) -> Order {
        let revision = format!(
            "{{apiVersion: lambent.dev/v1alpha1, kind: Revision, metadata: {{namespace: shop, name: r, uid: u}},
            spec: {{function: hello, template: {template}}}}}"
        );
        let spec: lambent_api::FunctionSpec = serde_yaml::from_str("image: a").unwrap();
        Order {
            name: name.to_owned(),
            revision: Arc::new(serde_yaml::from_str(&revision).unwrap()),
            settings: Arc::new((&spec).try_into().unwrap()),
        }
    }

    #[test]
    fn a_process_gets_its_port_and_its_environment() {
        let template = "{image: process.lambent.dev/hello@sha256:0, command: [serve, '$(PORT)', '$(NOBODY)', '$$(PORT)'],
            workingDir: /srv, env: [{name: URL, value: 'http://x:$(PORT)'}, {name: PORT, value: '1'}, {name: BOTH, value: '$(URL)/$(PORT)'}]}";
        let launch = launch(&order("r-0", template), 1234, Err(NoEngine::Off)).unwrap();
        assert_eq!(launch.program, "serve");
        assert_eq!(launch.arguments, ["1234", "$(NOBODY)", "$(PORT)"]);
        assert_eq!(launch.directory, Some("/srv".into()));
        let expected = [("PORT", "1234"), ("URL", "http://x:1234"), ("BOTH", "http://x:1234/1234")];
        assert_eq!(launch.env, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn an_image_needs_an_engine() {
        for (why, advice) in [(NoEngine::Off, "--engine process"), (NoEngine::NotFound, "podman")] {
            let error = launch(&order("r-0", "{image: a}"), 1, Err(why)).unwrap_err().to_string();
            assert!(error.contains("dev.lambent.dev/command") && error.contains(advice), "{error}");
        }
    }

    #[test]
    fn dollars_that_are_no_reference_stay() {
        let known = BTreeMap::from([("A", "1")]);
        for (text, expected) in [("$(A", "$(A"), ("a$", "a$"), ("$A $(A)", "$A 1"), ("$$(A)", "$(A)"), ("$$$(A)", "$1")]
        {
            assert_eq!(expand(text, &known), expected, "{text}");
        }
    }
}
