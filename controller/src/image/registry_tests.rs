//! The resolver against the real registry program.

use oci_client::client::ImageLayer;

use super::{
    test_images::{PASSWORD, Registry, USER, free_address, gzip, install_tls_provider, layer, tar_of},
    *,
};

const PASSWD: &[u8] = b"root:x:0:0::/:/bin/sh\napp:x:1234:1234::/:/bin/sh\n";
const OLD_PASSWD: &[u8] = b"app:x:7:7::/:/bin/sh\n";

fn resolver(registry: &Registry) -> Resolver {
    Resolver::new(vec![registry.host.clone()])
}

fn secret(registry: &Registry, user: &str, password: &str) -> PullSecret {
    let json = serde_json::json!({"auths": {&registry.host: {"username": user, "password": password}}});
    PullSecret::from_docker_config_json(json.to_string().as_bytes()).unwrap()
}

#[tokio::test]
async fn a_tag_becomes_a_digest_and_the_user_is_the_images() {
    let registry = Registry::open();
    let digest = registry.push("team/app:1", "1000:1000", &[layer(&[("app", b"x")])]).await;
    let resolved = resolver(&registry).resolve(&registry.name("team/app:1"), &[]).await.unwrap();
    let reference = format!("{}/team/app@{digest}", registry.host);
    assert_eq!(resolved, ResolvedImage { reference, user: 1000, note: None });
}

#[tokio::test]
async fn a_digest_stays_and_its_user_is_asked_for_only_once() {
    let registry = Registry::open();
    let digest = registry.push("app:1", "1000", &[layer(&[])]).await;
    let (resolver, name) = (resolver(&registry), registry.name(&format!("app:1@{digest}")));
    let first = resolver.resolve(&name, &[]).await.unwrap();
    assert_eq!((first.reference.as_str(), first.user), (registry.name(&format!("app@{digest}")).as_str(), 1000));
    drop(registry);
    assert_eq!(resolver.resolve(&name, &[]).await.unwrap(), first);
}

#[tokio::test]
async fn a_named_user_is_found_in_the_topmost_passwd() {
    let registry = Registry::open();
    let plain = ImageLayer::oci_v1(tar_of(&[("./etc/passwd", OLD_PASSWD)]), None);
    let layers = [plain, layer(&[("etc/passwd", PASSWD)]), layer(&[("app", &[1; 100_000])])];
    registry.push("app:1", "app:web", &layers).await;
    registry.push("old:1", "app", &layers[..1]).await;
    let resolver = resolver(&registry);
    for (name, user) in [("app:1", 1234), ("old:1", 7)] {
        let resolved = resolver.resolve(&registry.name(name), &[]).await.unwrap();
        assert_eq!((resolved.user, resolved.note), (user, None), "{name}");
    }
}

#[tokio::test]
async fn a_removed_passwd_or_an_unknown_name_falls_back_and_says_so() {
    let registry = Registry::open();
    let passwd = layer(&[("etc/passwd", PASSWD)]);
    registry.push("removed:1", "app", &[passwd.clone(), layer(&[("etc/.wh.passwd", b"")])]).await;
    registry.push("unknown:1", "nobody", &[passwd]).await;
    registry.push("root:1", "root", &[layer(&[])]).await;
    let resolver = resolver(&registry);
    for (name, why) in [("removed:1", "no /etc/passwd"), ("unknown:1", "not in its /etc/passwd"), ("root:1", "root")] {
        let resolved = resolver.resolve(&registry.name(name), &[]).await.unwrap();
        assert_eq!(resolved.user, FALLBACK_USER, "{name}");
        assert!(resolved.note.as_ref().unwrap().contains(why), "{name}: {resolved:?}");
    }
}

#[tokio::test]
async fn a_zstd_layer_is_passed_over_and_a_note_says_so() {
    let registry = Registry::open();
    let zstd = ImageLayer::new(vec![1; 50], "application/vnd.oci.image.layer.v1.tar+zstd".to_owned(), None);
    registry.push("app:1", "app", &[layer(&[("etc/passwd", PASSWD)]), zstd]).await;
    let resolved = resolver(&registry).resolve(&registry.name("app:1"), &[]).await.unwrap();
    assert_eq!(resolved.user, 1234);
    assert!(resolved.note.unwrap().contains("zstd"));
}

#[tokio::test]
async fn a_damaged_layer_ends_the_search_with_a_note() {
    let registry = Registry::open();
    let whole = gzip(&tar_of(&[("app", b"x")]));
    let damaged = ImageLayer::oci_v1_gzip(whole[..whole.len() / 2].to_vec(), None);
    registry.push("app:1", "app", &[layer(&[("etc/passwd", PASSWD)]), damaged]).await;
    let resolved = resolver(&registry).resolve(&registry.name("app:1"), &[]).await.unwrap();
    assert_eq!(resolved.user, FALLBACK_USER);
    assert!(resolved.note.unwrap().contains("not a readable tar"));
}

#[tokio::test]
async fn an_index_keeps_its_own_digest_and_gives_this_machines_user() {
    let registry = Registry::open();
    let ours = oci_client::config::Architecture::default().to_string();
    let (one, two) = (registry.push("a:1", "1", &[layer(&[])]).await, registry.push("a:2", "2", &[layer(&[])]).await);
    let index = registry.push_index("a:all", &[("riscv64", &one), (&ours, &two)]).await;
    let resolved = resolver(&registry).resolve(&registry.name("a:all"), &[]).await.unwrap();
    assert_eq!((resolved.reference, resolved.user), (registry.name(&format!("a@{index}")), 2));
}

#[tokio::test]
async fn a_missing_tag_and_a_missing_repository_are_not_found() {
    let registry = Registry::open();
    registry.push("app:1", "1", &[layer(&[])]).await;
    for name in ["app:2", "other:1"] {
        let error = resolver(&registry).resolve(&registry.name(name), &[]).await.unwrap_err();
        assert!(matches!(error, ImageError::NotFound { .. }), "{error}");
        assert!(error.to_string().contains(name) && error.to_string().contains("it says: "), "{error}");
    }
}

#[tokio::test]
async fn a_closed_registry_denies_all_but_the_right_secret() {
    let registry = Registry::closed();
    registry.push("app:1", "1", &[layer(&[])]).await;
    let (resolver, name) = (resolver(&registry), registry.name("app:1"));
    let (right, wrong) = (secret(&registry, USER, PASSWORD), secret(&registry, USER, "wrong"));
    for secrets in [vec![], vec![wrong.clone()]] {
        let error = resolver.resolve(&name, &secrets).await.unwrap_err();
        assert!(matches!(error, ImageError::Denied { .. }), "{error}");
        assert!(!error.to_string().contains("wrong"), "{error}");
    }
    assert_eq!(resolver.resolve(&name, &[wrong, right]).await.unwrap().user, 1);
}

#[tokio::test]
async fn the_credentials_of_one_call_do_not_serve_the_next() {
    let registry = Registry::closed();
    registry.push("app:1", "1", &[layer(&[])]).await;
    let (resolver, name) = (resolver(&registry), registry.name("app:1"));
    resolver.resolve(&name, &[secret(&registry, USER, PASSWORD)]).await.unwrap();
    let error = resolver.resolve(&name, &[]).await.unwrap_err();
    assert!(matches!(error, ImageError::Denied { .. }), "{error}");
}

#[tokio::test]
async fn a_registry_that_is_away_is_unreachable() {
    install_tls_provider();
    let host = free_address();
    let error = Resolver::new(vec![host.clone()]).resolve(&format!("{host}/app:1"), &[]).await.unwrap_err();
    assert!(matches!(error, ImageError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_plain_http_registry_that_nobody_allowed_names_the_setting() {
    let registry = Registry::open();
    let error = Resolver::new(vec![]).resolve(&registry.name("app:1"), &[]).await.unwrap_err();
    assert!(matches!(error, ImageError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("plainHttpRegistries"), "{error}");
}

#[tokio::test]
async fn a_name_that_is_none_is_invalid() {
    for name in ["", "UPPER/case", "a b", "app@sha256:12"] {
        let error = Resolver::new(vec![]).resolve(name, &[]).await.unwrap_err();
        assert!(matches!(error, ImageError::Invalid { .. }), "{name}: {error}");
    }
}
