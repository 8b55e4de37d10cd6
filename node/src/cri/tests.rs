use super::{
    fake::{FakeRuntime, Sandbox},
    *,
};

fn uids(uids: &[&str]) -> Vec<String> {
    uids.iter().map(|uid| (*uid).to_owned()).collect()
}

async fn addresses(runtime: &Runtime, of: &[&str]) -> Vec<(String, String)> {
    let found = runtime.addresses(&uids(of)).await.unwrap();
    let mut found: Vec<_> = found.into_iter().map(|(uid, ip)| (uid, ip.to_string())).collect();
    found.sort();
    found
}

#[tokio::test]
async fn a_runtime_says_what_it_is() {
    let fake = FakeRuntime::start();
    let version = Runtime::new(&fake.endpoint()).unwrap().version().await.unwrap();
    assert_eq!((version.runtime_name.as_str(), version.runtime_api_version.as_str()), ("fake", "v1"));
}

#[tokio::test]
async fn only_what_was_asked_for_and_runs_has_an_address() {
    let fake = FakeRuntime::start();
    fake.put(Sandbox::ready("u-1", "10.244.0.7"));
    fake.put(Sandbox::ready("u-2", "fd00::7"));
    fake.put(Sandbox { state: PodSandboxState::NotReady, ..Sandbox::ready("u-3", "10.244.0.8") });
    fake.put(Sandbox::ready("of the host's network", ""));
    let runtime = Runtime::new(&fake.endpoint()).unwrap();
    let one = addresses(&runtime, &["u-1", "u-3", "of the host's network"]).await;
    assert_eq!(one, [("u-1".into(), "10.244.0.7".into())]);
    // So many are found in one list.
    let before = fake.lists();
    let more = addresses(&runtime, &["u-2", "u-3", "u-4", "u-5", "u-6"]).await;
    assert_eq!(more, [("u-2".into(), "fd00::7".into())]);
    assert_eq!(fake.lists(), before + 1);
}

#[tokio::test]
async fn the_last_of_a_pods_sandboxes_counts() {
    let fake = FakeRuntime::start();
    fake.put(Sandbox { attempt: 1, ..Sandbox::ready("u-1", "10.244.0.8") });
    fake.put(Sandbox::ready("u-1", "10.244.0.7"));
    let runtime = Runtime::new(&fake.endpoint()).unwrap();
    assert_eq!(addresses(&runtime, &["u-1"]).await, [("u-1".into(), "10.244.0.8".into())]);
}

#[tokio::test]
async fn a_sandbox_that_goes_between_two_questions_is_no_error() {
    let fake = FakeRuntime::start();
    fake.put(Sandbox::ready("u-1", "10.244.0.7"));
    fake.vanish();
    let runtime = Runtime::new(&fake.endpoint()).unwrap();
    assert!(addresses(&runtime, &["u-1"]).await.is_empty());
}

#[tokio::test]
async fn a_runtime_that_starts_again_is_found_at_its_new_socket() {
    let mut fake = FakeRuntime::start();
    fake.put(Sandbox::ready("u-1", "10.244.0.7"));
    let runtime = Runtime::new(&fake.endpoint()).unwrap();
    assert_eq!(addresses(&runtime, &["u-1"]).await.len(), 1);
    fake.stop().await;
    assert!(matches!(runtime.addresses(&uids(&["u-1"])).await, Err(RuntimeError::Status(_))));
    fake.start_again();
    while runtime.addresses(&uids(&["u-1"])).await.is_err() {}
    assert_eq!(addresses(&runtime, &["u-1"]).await.len(), 1);
}

#[test]
fn what_is_no_endpoint_is_refused() {
    assert!(matches!(Runtime::new("no endpoint"), Err(RuntimeError::Endpoint(_))));
}
