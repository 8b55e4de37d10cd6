//! `lambent check` and a real API server say the same of the same manifests, `kubectl apply` being what
//! asks the server.

use futures::{StreamExt, stream};
use lambent_tests::{
    Context,
    command::{kubectl_with_input, lambent_check},
    with_temp_ns,
};

use crate::corpus::{REFUSED, manifest};

/// At once, so that the test takes seconds.
const AT_ONCE: usize = 4;

/// Specs that have something in them on which the two could differ. What they say of it is not written
/// down here: the server knows.
const SPECS: &[&str] = &[
    "{image: a}",
    "{image: a, timeout: 15m, scale: {min: 2, max: 2, idle: 24h}, rollout: {maxSurge: 1}}",
    // Empty: the default, or nothing.
    "{image: a, timeout: null}",
    "{image: a, timeout: }",
    "{image: a, scale: null, queue: , rollout: null}",
    "{image: a, scale: {min: null, max: null}}",
    "{image: a, rollout: {maxSurge: null}}",
    "{image: a, env: null, args: null, resources: null, securityContext: null, pod: null}",
    "{image: a, env: [{name: A, value: null}]}",
    "{image: a, env: [{name: null}]}",
    "{image: a, env: [null]}",
    "{image: a, args: [null]}",
    "{image: a, pod: {nodeSelector: {disk: null}}}",
    "{image: a, imagePullPolicy: null}",
    "{image: a, protocol: null}",
    "{image: null}",
    "null",
    "{}",
    "[]",
    // Types.
    "{image: 7}",
    "{image: a, concurrency: '2'}",
    "{image: a, concurrency: 2.0}",
    "{image: a, concurrency: 2.5}",
    "{image: a, concurrency: 1001}",
    "{image: a, concurrency: 99999999999}",
    "{image: a, env: [{name: A, value: yes}]}",
    "{image: a, env: [{name: A, value: 'yes'}]}",
    "{image: a, env: [{name: A, value: on}, {name: B, value: \"off\"}]}",
    "{image: a, env: [{name: A, value: 1}]}",
    "{image: a, env: [{name: A, value: 2001-01-01}]}",
    "{image: a, pod: {volumes: [{name: v, configMap: {name: c, defaultMode: 0644}}]}}",
    "{image: a, pod: {volumes: [{name: v, configMap: {name: c, defaultMode: '0644'}}]}}",
    "{image: a, resources: {limits: {cpu: 1, memory: 64Mi}}}",
    "{image: a, resources: {limits: {cpu: 0.5}}}",
    "{image: a, resources: {limits: {cpu: '0.5'}}}",
    "{image: a, args: serve}",
    "{image: a, env: {A: b}}",
    // Lists with keys.
    "{image: a, env: [{name: A, value: '1'}, {name: A, value: '2'}]}",
    "{image: a, env: [{value: '1'}]}",
    "{image: a, volumeMounts: [{name: v, mountPath: /v}]}",
    "{image: a, volumeMounts: [{name: v}]}",
    // Unknown fields, deep within.
    "{image: a, env: [{name: A, valeu: x}]}",
    "{image: a, readinessProbe: {httpGet: {path: /, prot: 80}}}",
    "{image: a, readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1}}",
    "{image: a, securityContext: {runAsUser: 0, runAsNonRoot: false}}",
    "{image: a, securityContext: {runAsUser: root}}",
    // Rules.
    "{image: a, streamTimeout: 24h}",
    "{image: a, streamTimeout: 24h1ms}",
    "{image: a, rollout: {maxSurge: 0}}",
    "{image: a, rollout: {maxSurge: 0%}}",
    "{image: a, rollout: {maxSurge: 100%}}",
    "{image: a, maxBody: 6Mi}",
    "{image: a, maxBody: 1048576}",
    "{image: a, scale: {max: 10001}}",
    "{image: a, protocol: h2c}",
    "{image: a, imagePullPolicy: Sometimes}",
];

/// The same of the metadata.
const METADATA: &[&str] = &[
    "{name: a}",
    "{name: Hello_World}",
    "{name: -a}",
    "{name: ''}",
    "{name: 7}",
    "{name: null}",
    "{}",
    "{name: a, labels: {app.kubernetes.io/name: Hello_1.2-x, empty: ''}}",
    "{name: a, labels: null}",
    "{name: a, labels: {team: null}}",
    "{name: a, labels: {team: two words}}",
    "{name: a, labels: {team: -x}}",
    "{name: a, labels: {team: x123456789012345678901234567890123456789012345678901234567890123}}",
    "{name: a, labels: {'a b': x}}",
    "{name: a, labels: {A.b/c: x}}",
    "{name: a, labels: {a/b/c: x}}",
    "{name: a, labels: {team: 7}}",
    "{name: a, labels: {team: yes}}",
    "{name: a, labels: [team]}",
    "{name: a, annotations: {Example.com/Note: 'any text: ü'}}",
    "{name: a, annotations: {a_b/c: x}}",
    "{name: a, annotations: {note: true}}",
    "{name: a, annotations: {note: null}}",
    "{name: a, namespace: Sh_op}",
    "{name: a, namespace: a.b}",
    "{name: a, finalizers: [lambent.dev/x]}",
    "{name: a, finalizers: ['a b/c']}",
    "{name: a, nmespace: shop}",
];

async fn verdicts(cx: &Context, manifest: String) -> Option<String> {
    let arguments = ["apply", "--dry-run=server", "-n", &cx.namespace, "-f", "-"];
    let server = kubectl_with_input(cx, &arguments, &manifest).await;
    let check = lambent_check(&manifest).await;
    (server.ok != check.ok).then(|| {
        let verdict = |well| if well { "well" } else { "refused" };
        format!(
            "{manifest}the server: {}: {}\ncheck: {}: {}\n",
            verdict(server.ok),
            server.stderr.trim(),
            verdict(check.ok),
            check.stdout.trim()
        )
    })
}

#[tokio::test]
async fn check_and_the_api_server_agree_on_every_manifest() {
    with_temp_ns(async |cx: Context| {
        let specs = SPECS.iter().map(|spec| manifest("{name: a}", spec));
        let metadata = METADATA.iter().map(|metadata| manifest(metadata, "{image: a}"));
        let manifests = REFUSED.iter().map(|refused| refused.manifest()).chain(specs).chain(metadata);
        let asked = stream::iter(manifests).map(|manifest| verdicts(&cx, manifest));
        let differ: Vec<String> = asked.buffered(AT_ONCE).filter_map(async |differ| differ).collect().await;
        assert!(differ.is_empty(), "{} differ:\n{}", differ.len(), differ.join("\n"));
    })
    .await;
}
