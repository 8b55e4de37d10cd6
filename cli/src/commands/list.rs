//! `lambent list`.

use jiff::Timestamp;
use lambent_api::{ConditionType, Conditions, Function};
use serde_json::json;

use crate::{
    args::{ListArgs, ListFormat},
    client::{
        Place, Target, output,
        table::{age, table},
    },
};

/// Prints the Functions of a namespace or of all.
pub async fn run(args: ListArgs) -> anyhow::Result<()> {
    let mut target = Target::find(args.target).await?;
    if args.all_namespaces {
        target.namespace = None;
    }
    let functions = target.functions().await?;
    if functions.is_empty() && matches!(args.output, ListFormat::Table | ListFormat::Wide) {
        output::note(&nothing(&target));
        return Ok(());
    }
    let with_namespace = target.namespace.is_none();
    match args.output {
        ListFormat::Table => output::print(&narrow(&functions, with_namespace, Timestamp::now())),
        ListFormat::Wide => output::print(&wide(&functions, with_namespace, Timestamp::now())),
        ListFormat::Json => output::print_json(&as_list(&functions)),
        ListFormat::Yaml => output::print_yaml(&as_list(&functions)),
        ListFormat::Name => output::print(&names(&functions)),
    }
}

fn nothing(target: &Target) -> String {
    let place = match &target.namespace {
        Some(namespace) => format!("namespace {namespace} of {} has no Function", target.place.named()),
        None => format!("{} has no Function", target.place.named()),
    };
    match (&target.place, &target.namespace) {
        (Place::Dev { .. }, _) => format!("{place}: `lambent new hello --template python` makes one"),
        (_, Some(_)) => format!("{place}: `kubectl apply` one, or look in all namespaces with -A"),
        (_, None) => format!("{place}: `kubectl apply` one, which `lambent new` makes"),
    }
}

fn as_list(functions: &[Function]) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "List", "items": functions})
}

fn names(functions: &[Function]) -> String {
    functions.iter().map(|function| format!("function.lambent.dev/{}\n", function.key().name)).collect()
}

fn narrow(functions: &[Function], with_namespace: bool, now: Timestamp) -> String {
    let rows: Vec<Row> = functions.iter().map(|function| Row::of(function, now)).collect();
    if with_namespace {
        let cells = rows.into_iter().map(|r| [r.namespace, r.name, r.ready, r.reason, r.instances, r.url, r.age]);
        let heads = ["NAMESPACE", "NAME", "READY", "REASON", "INSTANCES", "URL", "AGE"];
        return table(heads, &cells.collect::<Vec<_>>(), 0);
    }
    let cells = rows.into_iter().map(|r| [r.name, r.ready, r.reason, r.instances, r.url, r.age]);
    table(["NAME", "READY", "REASON", "INSTANCES", "URL", "AGE"], &cells.collect::<Vec<_>>(), 0)
}

fn wide(functions: &[Function], with_namespace: bool, now: Timestamp) -> String {
    let rows = functions.iter().map(|function| Row::of(function, now));
    if with_namespace {
        let cells = rows.map(|r| {
            let Row { namespace, name, ready, reason, instances, url, age, revision, scale, concurrency, image } = r;
            [namespace, name, ready, reason, instances, url, age, revision, scale, concurrency, image]
        });
        let heads = [
            "NAMESPACE",
            "NAME",
            "READY",
            "REASON",
            "INSTANCES",
            "URL",
            "AGE",
            "REVISION",
            "SCALE",
            "CONCURRENCY",
            "IMAGE",
        ];
        return table(heads, &cells.collect::<Vec<_>>(), 0);
    }
    let cells = rows.map(|r| {
        let Row { namespace: _, name, ready, reason, instances, url, age, revision, scale, concurrency, image } = r;
        [name, ready, reason, instances, url, age, revision, scale, concurrency, image]
    });
    let heads = ["NAME", "READY", "REASON", "INSTANCES", "URL", "AGE", "REVISION", "SCALE", "CONCURRENCY", "IMAGE"];
    table(heads, &cells.collect::<Vec<_>>(), 0)
}

struct Row {
    namespace: String,
    name: String,
    ready: String,
    reason: String,
    /// Those that answer, of those that there are.
    instances: String,
    url: String,
    age: String,
    revision: String,
    /// The least and the most.
    scale: String,
    concurrency: String,
    image: String,
}

impl Row {
    fn of(function: &Function, now: Timestamp) -> Self {
        let (key, spec, status) = (function.key(), &function.spec, function.status.clone().unwrap_or_default());
        let ready = status.conditions.find(ConditionType::Ready);
        let created = function.metadata.creation_timestamp.as_ref().map(|time| time.0);
        Self {
            namespace: key.namespace.into(),
            name: key.name.into(),
            ready: ready.map_or_else(|| "Unknown".to_owned(), |condition| condition.status.clone()),
            reason: ready.map(|condition| condition.reason.clone()).unwrap_or_default(),
            instances: match status.parked {
                0 => format!("{}/{}", status.ready, status.instances),
                parked => format!("{}/{} ({parked} parked)", status.ready, status.instances),
            },
            url: status.url.unwrap_or_default(),
            age: age(created, now),
            revision: status.revision.unwrap_or_default(),
            scale: format!("{}-{}", spec.scale.min, spec.scale.max),
            concurrency: spec.concurrency.to_string(),
            image: spec.template.image.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T01:00:00Z";

    fn functions() -> Vec<Function> {
        let value = json!([
            {
                "apiVersion": "lambent.dev/v1alpha1", "kind": "Function",
                "metadata": {"name": "hello", "namespace": "shop", "creationTimestamp": "2026-01-01T00:58:00Z"},
                "spec": {"image": "registry.example/hello:1", "scale": {"max": 7}},
                "status": {
                    "conditions": [{
                        "type": "Ready", "status": "True", "reason": "Serving", "message": "",
                        "lastTransitionTime": "2026-01-01T00:58:01Z",
                    }],
                    "url": "http://a/fn/shop/hello", "revision": "hello-1", "instances": 2, "ready": 1,
                },
            },
            {
                "apiVersion": "lambent.dev/v1alpha1", "kind": "Function",
                "metadata": {"name": "new", "namespace": "shop", "creationTimestamp": NOW},
                "spec": {"image": "b"},
            },
        ]);
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_line_shows_what_matters_of_each() {
        let expected = "\
NAME    READY     REASON    INSTANCES   URL                      AGE
hello   True      Serving   1/2         http://a/fn/shop/hello   2m
new     Unknown   -         0/0         -                        0s
";
        assert_eq!(narrow(&functions(), false, NOW.parse().unwrap()), expected);
        let all = narrow(&functions(), true, NOW.parse().unwrap());
        assert!(all.starts_with("NAMESPACE   NAME    READY"), "{all}");
    }

    #[test]
    fn the_wide_table_has_what_runs_and_its_limits() {
        let table = wide(&functions(), false, NOW.parse().unwrap());
        let mut lines = table.lines().map(|line| line.split_whitespace().skip(6).collect::<Vec<_>>());
        assert_eq!(lines.next().unwrap(), ["REVISION", "SCALE", "CONCURRENCY", "IMAGE"]);
        assert_eq!(lines.next().unwrap(), ["hello-1", "0-7", "1", "registry.example/hello:1"]);
    }

    #[test]
    fn objects_and_names_are_as_kubectl_has_them() {
        assert_eq!(names(&functions()), "function.lambent.dev/hello\nfunction.lambent.dev/new\n");
        let list = as_list(&functions());
        assert_eq!((&list["kind"], &list["items"][0]["kind"]), (&json!("List"), &json!("Function")));
    }
}
