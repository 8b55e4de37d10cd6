//! The three kinds of patch that the roles send.

use serde_json::Value;

use super::Refusal;

/// A change to be made to an object.
#[derive(Clone, Debug)]
pub(super) enum Patch {
    /// RFC 7386.
    Merge(Value),
    /// RFC 6902.
    Json(json_patch::Patch),
    /// Server-side apply of a status; there is one manager, so what it does not say goes.
    Apply(Value),
}

impl Patch {
    /// By the content type of its body.
    pub(super) fn parse(content_type: &str, body: &[u8]) -> Result<Self, Refusal> {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        let not_json = |error: serde_json::Error| Refusal::BadRequest(format!("the patch can't be read: {error}"));
        match kind {
            // The same, for objects without lists that a patch reaches into.
            "application/merge-patch+json" | "application/strategic-merge-patch+json" => {
                Ok(Self::Merge(serde_json::from_slice(body).map_err(not_json)?))
            }
            "application/json-patch+json" => Ok(Self::Json(serde_json::from_slice(body).map_err(not_json)?)),
            "application/apply-patch+yaml" => Ok(Self::Apply(serde_json::from_slice(body).map_err(not_json)?)),
            other => Err(Refusal::UnsupportedMediaType(other.to_owned())),
        }
    }

    /// The object that follows from one.
    pub(super) fn apply(&self, object: &mut Value) -> Result<(), Refusal> {
        match self {
            Self::Merge(patch) => {
                same_uid(object, patch)?;
                json_patch::merge(object, patch);
            }
            Self::Json(patch) => {
                json_patch::patch(object, patch).map_err(|error| Refusal::Invalid(error.to_string()))?;
            }
            Self::Apply(patch) => {
                same_uid(object, patch)?;
                object["status"] = patch["status"].clone();
            }
        }
        Ok(())
    }
}

/// Who names a uid means that object and no later one of its name.
fn same_uid(object: &Value, patch: &Value) -> Result<(), Refusal> {
    let (is, meant) = (&object["metadata"]["uid"], &patch["metadata"]["uid"]);
    if meant.is_null() || is == meant {
        return Ok(());
    }
    Err(Refusal::Conflict(format!("Precondition failed: UID in precondition: {meant}, UID in object meta: {is}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(content_type: &str, patch: &Value) -> Result<Value, Refusal> {
        let mut object = json!({"metadata": {"uid": "u"}, "spec": {"a": 1, "b": 2}, "status": {"x": 1, "y": 2}});
        Patch::parse(content_type, patch.to_string().as_bytes())?.apply(&mut object)?;
        Ok(object)
    }

    #[test]
    fn a_merge_takes_away_what_is_null() {
        let object = patched("application/merge-patch+json", &json!({"spec": {"a": null, "c": 3}})).unwrap();
        assert_eq!(object["spec"], json!({"b": 2, "c": 3}));
    }

    #[test]
    fn a_failed_test_of_a_json_patch_changes_nothing() {
        let patch = json!([{"op": "test", "path": "/spec/a", "value": 9}, {"op": "remove", "path": "/spec/b"}]);
        assert!(matches!(patched("application/json-patch+json", &patch), Err(Refusal::Invalid(_))));
    }

    #[test]
    fn an_applied_status_is_what_was_said_last() {
        let patch = json!({"metadata": {"uid": "u"}, "status": {"x": 3}});
        assert_eq!(patched("application/apply-patch+yaml", &patch).unwrap()["status"], json!({"x": 3}));
    }

    #[test]
    fn another_object_of_that_name_is_not_meant() {
        let patch = json!({"metadata": {"uid": "other"}, "status": {}});
        assert!(matches!(patched("application/apply-patch+yaml", &patch), Err(Refusal::Conflict(_))));
    }
}
