//! Which Revision the current spec of a Function means, and what a new one looks like.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use lambent_api::{
    Function, Revision, RevisionSpec, Template,
    meta::{ANNOTATION_REDEPLOY, ANNOTATION_SOURCE, LABEL_FUNCTION},
};

use crate::names;

/// What the image of a template came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    /// By digest, or as written if it could not be resolved.
    pub(crate) reference: String,
    /// The user that it runs as.
    pub(crate) user: i64,
}

/// The digest of what the user wrote: two Functions' specs of the same source run the same thing,
/// without asking the registry.
pub(crate) fn source(function: &Function) -> Result<String, serde_json::Error> {
    let redeploy = function.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION_REDEPLOY));
    function.spec.template.digest(redeploy.map_or("", String::as_str))
}

/// The Revision that was made from a source.
pub(crate) fn of_source<'a>(revisions: &'a [Arc<Revision>], source: &str) -> Option<&'a Arc<Revision>> {
    let has_it = |r: &&Arc<Revision>| source_of(r) == Some(source);
    revisions.iter().filter(has_it).max_by_key(|r| r.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

fn source_of(revision: &Revision) -> Option<&str> {
    revision.metadata.annotations.as_ref()?.get(ANNOTATION_SOURCE).map(String::as_str)
}

/// Whether the Revision belongs to this very Function, and not to a former one of its name, whose
/// Revisions are about to be collected.
pub(crate) fn is_owned(revision: &Revision, function: &Function) -> bool {
    let owners = revision.metadata.owner_references.iter().flatten();
    function.metadata.uid.is_some() && owners.into_iter().any(|o| Some(&o.uid) == function.metadata.uid.as_ref())
}

/// The Revision of a source with its image resolved. Its name tells what runs, so going back to an
/// earlier state leads to the Revision that is there already.
pub(crate) fn revision(function: &Function, source: &str, image: &Image) -> Result<Revision, serde_json::Error> {
    let template = Template { image: image.reference.clone(), ..function.spec.template.clone() };
    let function_name = function.metadata.name.clone().unwrap_or_default();
    let metadata = ObjectMeta {
        name: Some(names::revision(&function_name, &template.digest("")?)),
        namespace: function.metadata.namespace.clone(),
        labels: Some([(LABEL_FUNCTION.to_owned(), function_name.clone())].into()),
        annotations: Some([(ANNOTATION_SOURCE.to_owned(), source.to_owned())].into()),
        owner_references: Some(vec![owner(function)]),
        ..ObjectMeta::default()
    };
    let spec = RevisionSpec {
        function: function_name,
        // At least the one instance that proves it.
        instances: function.spec.scale.min.max(1),
        stopping: Vec::new(),
        template,
        image_user: image.user,
    };
    Ok(Revision { metadata, spec, status: None })
}

/// Deleting the Function takes the Revision along, and never waits for it.
fn owner(function: &Function) -> OwnerReference {
    OwnerReference {
        api_version: Function::api_version(&()).into_owned(),
        kind: Function::kind(&()).into_owned(),
        name: function.metadata.name.clone().unwrap_or_default(),
        uid: function.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(rest: &str) -> Function {
        let head = "apiVersion: lambent.dev/v1alpha1\nkind: Function";
        serde_yaml::from_str(&format!("{head}\nmetadata: {{name: hello, namespace: shop, uid: f-1}}\nspec: {rest}"))
            .unwrap()
    }

    fn image(reference: &str) -> Image {
        Image { reference: reference.to_owned(), user: 1000 }
    }

    #[test]
    fn scale_settings_make_no_new_source_and_what_runs_does() {
        let base = source(&function("{image: a}")).unwrap();
        assert_eq!(source(&function("{image: a, scale: {min: 3}, timeout: 5s, concurrency: 9}")).unwrap(), base);
        assert_ne!(source(&function("{image: a, args: [x]}")).unwrap(), base);
        let mut again = function("{image: a}");
        again.metadata.annotations = Some([(ANNOTATION_REDEPLOY.to_owned(), "now".to_owned())].into());
        assert_ne!(source(&again).unwrap(), base);
    }

    #[test]
    fn the_same_image_behind_another_tag_is_the_same_revision() {
        let one = revision(&function("{image: a:1}"), "s1", &image("a@sha256:1")).unwrap();
        let other = revision(&function("{image: a:2}"), "s2", &image("a@sha256:1")).unwrap();
        assert_eq!(one.metadata.name, other.metadata.name);
        assert_eq!(one.spec, other.spec);
    }

    #[test]
    fn a_new_revision_asks_for_its_proof_or_its_warm_instances() {
        let made = |spec| revision(&function(spec), "s", &image("a@sha256:1")).unwrap();
        assert_eq!(made("{image: a}").spec.instances, 1);
        let warm = made("{image: a, scale: {min: 3}}");
        assert_eq!((warm.spec.instances, warm.spec.image_user), (3, 1000));
        assert_eq!(warm.spec.template.image, "a@sha256:1");
        assert!(warm.metadata.name.unwrap().starts_with("hello-"));
    }

    #[test]
    fn a_revision_is_found_by_its_source_and_belongs_to_one_function() {
        let owner = function("{image: a}");
        let made = Arc::new(revision(&owner, "s", &image("a@sha256:1")).unwrap());
        assert!(is_owned(&made, &owner));
        assert!(of_source(std::slice::from_ref(&made), "s").is_some());
        assert!(of_source(std::slice::from_ref(&made), "t").is_none());
        let mut namesake = owner;
        namesake.metadata.uid = Some("f-2".to_owned());
        assert!(!is_owned(&made, &namesake));
    }
}
