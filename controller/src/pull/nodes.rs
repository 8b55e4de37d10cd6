//! What matters of a node, and whether a Function may run on it: the scheduler's own rules for labels,
//! affinity and taints, as far as they can be known without asking it.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Node as KubeNode, NodeSelectorRequirement, NodeSelectorTerm, NodeStatus, Taint, Toleration,
};
use lambent_api::template::PodFields;

/// The one field that a node can be selected by.
const NAME_FIELD: &str = "metadata.name";

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    /// When it joined.
    pub(crate) created: Timestamp,
    /// Whether pods can be placed there at present: it is ready and not cordoned.
    pub(crate) open: bool,
    /// Its labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// Its taints that keep pods away.
    pub(crate) taints: Vec<Taint>,
    /// Images that its kubelet lists, which are only the largest 50: hashes of their names, sorted, as the names of
    /// all nodes would take megabytes.
    images: Vec<u64>,
}

impl From<&KubeNode> for Node {
    fn from(node: &KubeNode) -> Self {
        let spec = node.spec.clone().unwrap_or_default();
        let ready = node.status.as_ref().is_some_and(is_ready);
        let names = node.status.iter().flat_map(|s| s.images.iter().flatten()).flat_map(|i| i.names.iter().flatten());
        let mut images: Vec<u64> = names.map(|name| hash(name)).collect();
        images.sort_unstable();
        Self {
            created: node.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            open: ready && spec.unschedulable != Some(true) && node.metadata.deletion_timestamp.is_none(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: spec.taints.into_iter().flatten().filter(|taint| taint.effect != "PreferNoSchedule").collect(),
            images,
        }
    }
}

impl Node {
    /// Whether two differ in nothing that decides where images are pulled; images come and go.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let Self { created, open, labels, taints, images: _ } = self;
        (created, open, labels, taints) == (&other.created, &other.open, &other.labels, &other.taints)
    }

    /// Whether its kubelet lists this image.
    pub(crate) fn lists(&self, image: &str) -> bool {
        self.images.binary_search(&hash(image)).is_ok()
    }

    /// Whether pods with these fields belong there, be it not at present.
    pub(crate) fn suits(&self, name: &str, pod: &PodFields) -> bool {
        let selected = pod.node_selector.iter().all(|(key, value)| self.labels.get(key) == Some(value));
        let affinity = pod.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        selected && required.is_none_or(|r| r.node_selector_terms.iter().any(|term| self.has(name, term)))
    }

    /// Whether pods with these fields can be placed there now, if they belong there.
    pub(crate) fn admits(&self, pod: &PodFields) -> bool {
        self.open && self.taints.iter().all(|taint| pod.tolerations.iter().any(|t| tolerates(t, taint)))
    }

    /// Terms are alternatives; within one, all has to be so. One that asks for nothing selects nothing.
    fn has(&self, name: &str, term: &NodeSelectorTerm) -> bool {
        let expressions = term.match_expressions.iter().flatten();
        let fields = term.match_fields.iter().flatten();
        let value = |key: &str| self.labels.get(key).map(String::as_str);
        let field = |key: &str| (key == NAME_FIELD).then_some(name);
        let mut all =
            expressions.clone().map(|r| meets(value(&r.key), r)).chain(fields.clone().map(|r| meets(field(&r.key), r)));
        (expressions.count() + fields.count() > 0) && all.all(|met| met)
    }
}

fn is_ready(status: &NodeStatus) -> bool {
    status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

fn meets(value: Option<&str>, requirement: &NodeSelectorRequirement) -> bool {
    let values = || requirement.values.iter().flatten().map(String::as_str);
    let listed = value.is_some_and(|value| values().any(|v| v == value));
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let numbers = number(value).zip(number(values().next()));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers.is_some_and(|(value, limit)| value > limit),
        "Lt" => numbers.is_some_and(|(value, limit)| value < limit),
        _ => false,
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let same_effect = set(&toleration.effect).is_none_or(|effect| effect == taint.effect);
    let same_key = set(&toleration.key).is_none_or(|key| key == taint.key);
    let value = |text: &Option<String>| text.clone().unwrap_or_default();
    same_effect
        && same_key
        && match set(&toleration.operator).as_deref() {
            None | Some("Equal") => set(&toleration.key).is_some() && value(&toleration.value) == value(&taint.value),
            Some("Exists") => true,
            // Comparisons of numbers, which most schedulers don't have: at worst it is not pulled ahead.
            Some(_) => false,
        }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An open node that joined at this second.
    pub(crate) fn node(second: i64, labels: &[(&str, &str)]) -> Node {
        Node {
            created: Timestamp::from_second(second).unwrap(),
            open: true,
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            taints: Vec::new(),
            images: Vec::new(),
        }
    }

    fn read(yaml: &str) -> Node {
        Node::from(&serde_yaml::from_str::<KubeNode>(yaml).unwrap())
    }

    fn fields(yaml: &str) -> PodFields {
        serde_yaml::from_str(yaml).unwrap()
    }

    const READY: &str = "status: {conditions: [{type: Ready, status: 'True'}],
      images: [{names: ['r/a@sha256:1', 'r/a:1']}, {names: ['r/b@sha256:2']}]}";

    #[test]
    fn a_node_is_open_when_it_is_ready_and_not_cordoned() {
        let node = |spec: &str, status: &str| read(&format!("metadata: {{name: n}}\nspec: {spec}\n{status}"));
        assert!(node("{}", READY).open);
        assert!(!node("{unschedulable: true}", READY).open);
        assert!(!node("{}", "status: {conditions: [{type: Ready, status: Unknown}]}").open);
        assert!(!node("{}", "status: {}").open);
    }

    #[test]
    fn images_are_known_by_all_their_names_and_make_no_other_node() {
        let node = read(&format!("metadata: {{name: n}}\n{READY}"));
        assert!(["r/a@sha256:1", "r/a:1", "r/b@sha256:2"].iter().all(|image| node.lists(image)));
        assert!(!node.lists("r/a@sha256:2"));
        let emptied = Node { images: Vec::new(), ..node.clone() };
        assert!(emptied != node && emptied.is_like(&node));
        assert!(!Node { open: false, ..node.clone() }.is_like(&node));
    }

    #[test]
    fn labels_decide_as_the_scheduler_reads_them() {
        let node = node(0, &[("zone", "a"), ("cpus", "8")]);
        let required = |terms: &str| {
            format!(
                "affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: {terms}}}}}}}"
            )
        };
        let expression = |text: &str| required(&format!("[{{matchExpressions: [{text}]}}]"));
        let yes = [
            "{}".to_owned(),
            "nodeSelector: {zone: a}".to_owned(),
            expression("{key: zone, operator: In, values: [a, b]}"),
            expression("{key: zone, operator: NotIn, values: [b]}"),
            expression("{key: gpu, operator: NotIn, values: [b]}"),
            expression("{key: zone, operator: Exists}"),
            expression("{key: gpu, operator: DoesNotExist}"),
            expression("{key: cpus, operator: Gt, values: ['4']}"),
            expression("{key: cpus, operator: Lt, values: ['9']}"),
            required("[{matchFields: [{key: metadata.name, operator: In, values: [n]}]}]"),
            required(
                "[{matchExpressions: [{key: zone, operator: In, values: [b]}]}, {matchExpressions: [{key: cpus, operator: Exists}]}]",
            ),
        ];
        for text in yes {
            assert!(node.suits("n", &fields(&text)), "{text}");
        }
        let no = [
            "nodeSelector: {zone: b}".to_owned(),
            "nodeSelector: {zone: a, gpu: one}".to_owned(),
            expression("{key: zone, operator: In, values: [b]}"),
            expression("{key: gpu, operator: Exists}"),
            expression("{key: zone, operator: Exists}, {key: gpu, operator: Exists}"),
            expression("{key: zone, operator: Gt, values: ['4']}"),
            required("[{matchFields: [{key: metadata.name, operator: NotIn, values: [n]}]}]"),
            required("[{}]"),
            required("[]"),
        ];
        for text in no {
            assert!(!node.suits("n", &fields(&text)), "{text}");
        }
    }

    #[test]
    fn preferences_exclude_no_node() {
        let preferred = "affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution:
          [{weight: 1, preference: {matchExpressions: [{key: gpu, operator: Exists}]}}]}}";
        assert!(node(0, &[]).suits("n", &fields(preferred)));
    }

    #[test]
    fn taints_keep_out_who_does_not_tolerate_them() {
        let tainted = read(&format!(
            "metadata: {{name: n}}\nspec: {{taints: [{{key: gpu, value: one, effect: NoSchedule}},
             {{key: soft, effect: PreferNoSchedule}}]}}\n{READY}"
        ));
        let admits = |text: &str| tainted.admits(&fields(&format!("tolerations: [{text}]")));
        for text in [
            "{key: gpu, operator: Exists}",
            "{key: gpu, value: one}",
            "{key: gpu, operator: Equal, value: one, effect: NoSchedule}",
            "{operator: Exists}",
        ] {
            assert!(admits(text), "{text}");
        }
        for text in [
            "",
            "{key: gpu}",
            "{key: gpu, value: two}",
            "{key: gpu, operator: Exists, effect: NoExecute}",
            "{key: x, operator: Exists}",
        ] {
            assert!(!admits(text), "{text}");
        }
        assert!(!Node { open: false, ..tainted.clone() }.admits(&fields("tolerations: [{operator: Exists}]")));
        assert!(tainted.suits("n", &fields("{}")), "it belongs there, and may be let in later");
    }
}
