//! The section of a `k8s_attributes` processor.

use std::time::Duration;

use regex::bytes::Regex;
use tailwater_config::{ConfigError, Section, nearest};
use tailwater_golang::regexp;
use tailwater_kubernetes::Access;

use super::access;
use super::association::{Association, Source};
use super::rules::{DEFAULT_METADATA, FieldKind, FieldRule, Keys, METADATA, Origin, Rules};
use super::table::Wanted;

/// Sources of an association.
const SOURCES_MAX: usize = 4;
/// Pods that are left alone, unless something else is said.
const EXCLUDED: [&str; 2] = ["jaeger-agent", "jaeger-collector"];

/// The section of a `k8s_attributes` processor.
#[derive(Clone, Debug)]
pub struct K8sAttributesConfig {
    /// How the API is reached.
    pub access: Access,
    /// Nothing is asked; only addresses are stamped.
    pub passthrough: bool,
    /// What is to be known.
    pub wanted: Wanted,
    /// Which pods are followed.
    pub filter: Filter,
    /// `wait_for_metadata_timeout`, if it is waited so long at the start.
    pub wait_at_start: Option<Duration>,
    /// How long data waits for metadata that is late.
    pub late: Duration,
}

/// Which pods are followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those on this node.
    pub node: Option<String>,
    /// Those on the node that this variable names, before `node`.
    pub node_variable: Option<String>,
    /// Those in this namespace.
    pub namespace: Option<String>,
    /// `labelSelector`.
    pub labels: String,
    /// `fieldSelector`, without the node.
    pub fields: String,
}

fn non_empty(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "passthrough",
        "True: nothing is asked, `k8s.pod.ip` is added alone.",
    ),
    (
        "wait_for_metadata",
        "Data waits for the first lists for `wait_for_metadata_timeout`, in place of `late_metadata_timeout`.",
    ),
    ("wait_for_metadata_timeout", "How long."),
    (
        "late_metadata_timeout",
        "own: How long data waits for metadata that is late; 0 = not at all.",
    ),
    (
        "deleted_pod_grace_period",
        "own: A deleted pod is remembered until nothing of it was passed on for so long.",
    ),
    (
        "exclude",
        "Pods whose data stays as it is; also those with the annotation `opentelemetry.io/k8s-processor.ignore: \"true\"`.",
    ),
    (
        "exclude::pods",
        "By name; jaeger-agent and jaeger-collector unless set.",
    ),
    ("exclude::pods::0::name", "An expression."),
    ("filter", "The pods that are followed; all unless set."),
    (
        "filter::node",
        "Those on this node. Set it or `node_from_env_var` on nodes: else all pods of the cluster are followed.",
    ),
    (
        "filter::node_from_env_var",
        "Those on the node that this variable of the environment names. One that is not set is refused at the start.",
    ),
    ("filter::namespace", "Those of this namespace."),
    ("filter::labels", "Those with all of these labels."),
    ("filter::fields", "Those with all of these fields."),
    ("filter::labels::0::key", "The label or field."),
    ("filter::fields::0::key", "The label or field."),
    ("filter::labels::0::value", "Its value."),
    ("filter::fields::0::value", "Its value."),
    ("filter::labels::0::op", "How it is compared."),
    ("filter::fields::0::op", "How it is compared."),
    ("extract", "What is added."),
    (
        "pod_association",
        "How the pod of a resource is found: the first association for which the resource has all values decides, whether there is such a pod or not. Unless set: `k8s.pod.ip`, `ip`, the address of the connection, `host.name` if it is one.",
    ),
    (
        "pod_association::0::sources",
        "Values that all count, at most 4. Required.",
    ),
    (
        "pod_association::0::sources::0::from",
        "Where the value comes from: the address of the sender, or an attribute. Required.",
    ),
    (
        "pod_association::0::sources::0::name",
        "Of resource_attribute: its name.",
    ),
];

impl K8sAttributesConfig {
    /// Reads the section; mistakes are in it.
    pub fn decode(s: &mut Section<'_, '_>) -> K8sAttributesConfig {
        s.describe(OPTIONS);
        let access = access::decode(s);
        let wait = s.bool("wait_for_metadata", false);
        let timeout = s.duration("wait_for_metadata_timeout", Duration::from_secs(10));
        let exclude = s.section("exclude", excludes);
        K8sAttributesConfig {
            access,
            passthrough: s.bool("passthrough", false),
            filter: s.section("filter", filter),
            wait_at_start: wait.then_some(timeout),
            late: s.duration("late_metadata_timeout", Duration::from_secs(5)),
            wanted: Wanted {
                rules: s.section("extract", rules),
                associations: associations(s),
                exclude,
                grace: s.duration("deleted_pod_grace_period", Duration::from_secs(3600)),
            },
        }
    }
}

/// What its options do.
const EXTRACT: &[(&str, &str)] = &[
    (
        "metadata",
        "Names of what is added; unless set `k8s.namespace.name`, `k8s.pod.name`, `k8s.pod.uid`, `k8s.pod.start_time`, `k8s.deployment.name`, `k8s.node.name`, `container.image.name`, `container.image.tag`. Also `k8s.pod.hostname`, `k8s.pod.ip`, name and uid of `k8s.replicaset`, `k8s.deployment`, `k8s.statefulset`, `k8s.daemonset`, `k8s.job`, `k8s.cronjob`, `k8s.node.uid`, `k8s.cluster.uid`, `k8s.container.name`, `container.id`, `container.image.repo_digests`, `service.namespace`, `service.name`, `service.version`, `service.instance.id`.",
    ),
    ("labels", "Labels that become attributes."),
    ("annotations", "Annotations that become attributes."),
    ("labels::0::key", "The key. It or `key_regex` is required."),
    (
        "annotations::0::key",
        "The key. It or `key_regex` is required.",
    ),
    ("labels::0::key_regex", "An expression for whole keys."),
    ("annotations::0::key_regex", "An expression for whole keys."),
    (
        "labels::0::tag_name",
        "Name of the attribute, with `$1` for groups. Unless set, of pods `k8s.pod.labels.KEY`, of what pods belong to `k8s.deployment.label.KEY` and so on.",
    ),
    (
        "annotations::0::tag_name",
        "Name of the attribute, with `$1` for groups. Unless set, of pods `k8s.pod.labels.KEY`, of what pods belong to `k8s.deployment.label.KEY` and so on.",
    ),
    ("labels::0::from", "Whose."),
    ("annotations::0::from", "Whose."),
    (
        "otel_annotations",
        "`resource.opentelemetry.io/NAME` of pods is added as `NAME`.",
    ),
    (
        "deployment_name_from_replicaset",
        "Names of deployments are those of ReplicaSets without their end, so that no ReplicaSets are followed.",
    ),
];

fn rules(s: &mut Section<'_, '_>) -> Rules {
    s.describe(EXTRACT);
    let mut fields = fields(s, "labels", FieldKind::Label);
    fields.extend(self::fields(s, "annotations", FieldKind::Annotation));
    if s.bool("otel_annotations", false) {
        fields.push(FieldRule::otel_annotations());
    }
    Rules {
        metadata: metadata(s),
        fields,
        deployment_from_replicaset: s.bool("deployment_name_from_replicaset", false),
    }
}

fn metadata(s: &mut Section<'_, '_>) -> Vec<&'static str> {
    let path = s.path().child("metadata");
    let Some(names) = s.text_nodes("metadata") else {
        return DEFAULT_METADATA.to_vec();
    };
    let mut wanted = Vec::new();
    for (i, (name, node)) in names.iter().enumerate() {
        match METADATA.iter().find(|known| *known == name) {
            Some(known) => wanted.push(*known),
            None => {
                let error = ConfigError::new(node.span.clone(), path.child(i), "");
                let error = error
                    .found(format!("{name:?}"))
                    .allowed(METADATA.join(", "));
                s.errors().push(error.suggest(nearest(name, METADATA)));
            }
        }
    }
    wanted
}

fn fields(s: &mut Section<'_, '_>, list: &str, kind: FieldKind) -> Vec<FieldRule> {
    let read = s.section_list(list, |s| {
        let name = s.string("tag_name", "");
        let from = s.choice("from", &Origin::NAMES, Origin::Pod);
        let key = non_empty(s.string_optional("key"));
        let expression = non_empty(s.string_optional("key_regex"));
        let keys = match (key, expression) {
            (Some(key), None) => Keys::One(key),
            (None, Some(text)) => Keys::Matching(whole(s, "key_regex", &text)?),
            (Some(_), Some(_)) => {
                s.invalid("key_regex", "cannot be used together with key");
                return None;
            }
            (None, None) => {
                s.error("needs key or key_regex");
                return None;
            }
        };
        Some(FieldRule {
            from,
            kind,
            keys,
            name,
        })
    });
    read.into_iter().flatten().flatten().collect()
}

/// An expression for all of a text.
fn whole(s: &mut Section<'_, '_>, key: &str, text: &str) -> Option<Regex> {
    // By itself first, so that what is said of it is about what was written.
    let made = regexp::compile(text).and_then(|_| regexp::compile(&format!("^(?:{text})$")));
    usable(s, key, made)
}

fn usable(s: &mut Section<'_, '_>, key: &str, made: Result<Regex, regex::Error>) -> Option<Regex> {
    match made {
        Ok(regex) => Some(regex),
        Err(e) => {
            s.invalid(key, format!("is not a valid regular expression: {e}"));
            None
        }
    }
}

fn excludes(s: &mut Section<'_, '_>) -> Vec<Regex> {
    let read = s.section_list("pods", |s| {
        let name = s.string_required("name")?;
        usable(s, "name", regexp::compile(&name))
    });
    let named: Vec<Regex> = read.into_iter().flatten().flatten().collect();
    match named.is_empty() {
        true => {
            let default = EXCLUDED.iter().map(|name| Regex::new(name));
            default
                .map(|regex| regex.expect("a valid expression"))
                .collect()
        }
        false => named,
    }
}

fn associations(s: &mut Section<'_, '_>) -> Vec<Association> {
    let read = s.section_list("pod_association", |s| {
        let sources = s.section_list("sources", source).unwrap_or_default();
        if sources.is_empty() {
            s.invalid("sources", "must not be empty");
        }
        if sources.len() > SOURCES_MAX {
            s.invalid("sources", format!("has more than {SOURCES_MAX}"));
        }
        sources.into_iter().flatten().collect::<Association>()
    });
    read.unwrap_or_default()
}

fn source(s: &mut Section<'_, '_>) -> Option<Source> {
    let name = non_empty(s.string_optional("name"));
    let kinds = [("connection", false), ("resource_attribute", true)];
    match s.choice_optional("from", &kinds) {
        Some(false) => Some(Source::Connection),
        Some(true) => {
            if name.is_none() {
                s.invalid("name", "must be set with from: resource_attribute");
            }
            name.map(Source::Attribute)
        }
        None => {
            if !s.has("from") {
                s.invalid("from", "must be connection or resource_attribute");
            }
            None
        }
    }
}

/// How a filter compares.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Op {
    Equals,
    NotEquals,
    Exists,
    DoesNotExist,
}

const OPS: [(&str, Op); 4] = [
    ("equals", Op::Equals),
    ("not-equals", Op::NotEquals),
    ("exists", Op::Exists),
    ("does-not-exist", Op::DoesNotExist),
];

fn filter(s: &mut Section<'_, '_>) -> Filter {
    Filter {
        node: non_empty(s.string_optional("node")),
        node_variable: non_empty(s.string_optional("node_from_env_var")),
        namespace: non_empty(s.string_optional("namespace")),
        labels: terms(s, "labels", &OPS, false),
        fields: terms(s, "fields", &OPS[..2], true),
    }
}

/// A selector of the terms in a list.
fn terms(s: &mut Section<'_, '_>, list: &str, ops: &[(&str, Op)], escape: bool) -> String {
    let read = s.section_list(list, |s| {
        // All is read first, or what is not would be unknown options besides.
        let key = s.string_required("key");
        let mut value = s.string("value", "");
        let op = s.choice("op", ops, Op::Equals);
        let key = key?;
        if escape {
            for special in ['\\', ',', '='] {
                value = value.replace(special, &format!("\\{special}"));
            }
        } else if !value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            s.invalid("value", "is no value that a label can have");
        }
        Some(match op {
            Op::Equals => format!("{key}={value}"),
            Op::NotEquals => format!("{key}!={value}"),
            Op::Exists => key,
            Op::DoesNotExist => format!("!{key}"),
        })
    });
    let terms: Vec<String> = read.into_iter().flatten().flatten().collect();
    terms.join(",")
}
