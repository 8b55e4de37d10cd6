//! What can't be served is refused when it is applied, with words that say what to change.

use lambent_api::{Revision, revision::RevisionSpec};
use lambent_tests::{Context, with_temp_ns};
use serde_json::json;

use crate::corpus::REFUSED;

#[tokio::test]
async fn each_manifest_of_the_corpus_is_refused_with_words_that_say_what_to_change() {
    with_temp_ns(async |cx: Context| {
        for refused in REFUSED {
            let what = refused.what;
            let Err(error) = cx.try_apply(&refused.name(), refused.spec()).await else { panic!("{what} was taken") };
            let kube::Error::Api(status) = error else { panic!("{what}: no answer of the API server: {error}") };
            for word in refused.words {
                assert!(status.message.contains(word), "{what}: no {word:?} in: {}", status.message);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_revision_runs_can_not_be_changed() {
    with_temp_ns(async |cx: Context| {
        let template = json!({"image": "registry.example/a@sha256:0"});
        let spec = json!({"function": "none", "instances": 0, "template": template});
        let revision: Revision = cx.create(json!({"metadata": {"name": "none-1"}, "spec": spec})).await;
        let RevisionSpec { mut template, .. } = revision.spec;
        template.image = "registry.example/b@sha256:0".to_owned();
        let patch = kube::api::Patch::Merge(json!({"spec": {"template": template}}));
        let changed = cx.api::<Revision>().patch("none-1", &kube::api::PatchParams::default(), &patch).await;
        let error = changed.expect_err("a refusal").to_string();
        assert!(error.contains("a Revision's template can't change: change the Function"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn an_image_alone_is_a_whole_function() {
    with_temp_ns(async |cx: Context| {
        let function =
            cx.try_apply("short", json!({"image": "registry.example/a:1"})).await.expect("an applied Function");
        let spec = serde_json::to_value(&function.spec).unwrap();
        assert_eq!(spec["scale"], json!({"min": 0, "parked": 0, "max": 100, "idle": "1m"}));
        assert_eq!(spec["queue"], json!({"depth": 1000, "timeout": "30s"}));
        assert_eq!((&spec["concurrency"], &spec["port"], &spec["maxBody"]), (&json!(1), &json!(8080), &json!("6Mi")));
    })
    .await;
}
