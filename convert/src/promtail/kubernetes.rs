//! `kubernetes_sd_configs`: pods of this node, found by the paths of their logs. What a path says is known to
//! operators; what only the API knows is set by `k8s_attributes`, and rules on it become statements of
//! `transform` behind it.

use std::collections::BTreeSet;

use super::relabel::{self, Rule};
use super::stages::Stages;
use crate::expr;
use crate::note::Weight;
use crate::yaml::{Item, Map, Value, map};

const META: &str = "__meta_kubernetes_";

/// What is in the path of a log.
fn in_path(label: &str) -> Option<&'static str> {
    Some(match label.strip_prefix(META)? {
        "namespace" => "k8s.namespace.name",
        "pod_name" => "k8s.pod.name",
        "pod_container_name" => "k8s.container.name",
        "pod_uid" => "k8s.pod.uid",
        _ => return None,
    })
}

/// The field of a label that the path gives.
pub fn lookup(label: &str) -> Option<String> {
    in_path(label).map(|name| expr::field("resource", name))
}

/// What is set behind the receiver.
#[derive(Default)]
pub struct Late {
    /// Labels of it.
    pub labels: BTreeSet<String>,
    /// Of `extract::metadata`.
    metadata: BTreeSet<&'static str>,
    /// Of `extract::labels` and `annotations`: section, tag, key.
    tags: BTreeSet<(&'static str, String, String)>,
    statements: Vec<String>,
}

impl Late {
    /// Whether there is anything.
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    /// The processors, in order, by kind.
    pub fn processors(&self) -> Vec<(&'static str, Map)> {
        let mut extract = Map::default();
        let metadata: Vec<&str> = self.metadata.iter().copied().collect();
        extract.set("metadata", metadata);
        for section in ["labels", "annotations"] {
            let of = self.tags.iter().filter(|(s, ..)| *s == section);
            let items: Vec<Map> = of
                .map(|(_, tag, key)| {
                    map([
                        ("tag_name", tag.as_str().into()),
                        ("key", key.as_str().into()),
                        ("from", "pod".into()),
                    ])
                })
                .collect();
            if !items.is_empty() {
                extract.set(section, items);
            }
        }
        let source = map([
            ("from", "resource_attribute".into()),
            ("name", "k8s.pod.uid".into()),
        ]);
        let association = map([("sources", vec![source].into())]);
        let mut k8s = map([("auth_type", "serviceAccount".into())]);
        k8s.comment(
            "The variable has to be set to spec.nodeName in the manifest of the DaemonSet.",
        );
        k8s.set("filter", map([("node_from_env_var", "NODE_NAME".into())]));
        k8s.set("extract", extract);
        k8s.set("pod_association", vec![association]);
        let group = map([
            ("context", "resource".into()),
            (
                "statements",
                Value::List(
                    self.statements
                        .iter()
                        .map(|s| Item::of(s.as_str()))
                        .collect(),
                ),
            ),
        ]);
        let transform = map([
            ("error_mode", "ignore".into()),
            ("log_statements", vec![group].into()),
        ]);
        vec![("k8s_attributes", k8s), ("transform", transform)]
    }

    /// Where a label is found in OTTL; `None` if it is nowhere.
    fn source(&mut self, label: &str, early: &BTreeSet<String>) -> Option<Vec<String>> {
        let attribute = |name: &str| format!("resource.attributes[{}]", expr::quoted(name));
        if let Some(name) = in_path(label) {
            return Some(vec![attribute(name)]);
        }
        if self.labels.contains(label) || (early.contains(label) && !label.starts_with("__")) {
            return Some(vec![attribute(label)]);
        }
        let name = label.strip_prefix(META)?;
        if let Some(name) = name.strip_prefix("pod_label_") {
            let tag = format!("k8s.pod.label.{name}");
            self.tags.insert(("labels", tag.clone(), key_of(name)));
            return Some(vec![attribute(&tag)]);
        }
        if let Some(name) = name.strip_prefix("pod_annotation_") {
            let tag = format!("k8s.pod.annotation.{name}");
            self.tags.insert(("annotations", tag.clone(), key_of(name)));
            return Some(vec![attribute(&tag)]);
        }
        let all: &[&'static str] = match name {
            "pod_node_name" => &["k8s.node.name"],
            "pod_controller_name" => &[
                "k8s.deployment.name",
                "k8s.statefulset.name",
                "k8s.daemonset.name",
                "k8s.cronjob.name",
                "k8s.job.name",
                "k8s.replicaset.name",
            ],
            _ => return None,
        };
        self.metadata.extend(all);
        Some(all.iter().map(|name| attribute(name)).collect())
    }
}

/// The name of a Kubernetes label or annotation, of which discovery leaves letters and digits.
fn key_of(name: &str) -> String {
    match name.strip_prefix("app_kubernetes_io_") {
        Some(name) => format!("app.kubernetes.io/{}", name.replace('_', "-")),
        None => name.to_owned(),
    }
}

/// Converts a rule: as operators if the path says enough, else for later.
pub fn rule(rule: &Rule, stages: &mut Stages<'_>, late: &mut Late) {
    if rule.target == "__path__" {
        let say = "logs of pods are found below /var/log/pods; which of them, say include and exclude of the receiver";
        return stages.remark(Weight::NotNeeded, &rule.span, &rule.path, say);
    }
    let known = |s: &String| lookup(s).is_some() || stages.labels.contains(s);
    let early = rule.sources.iter().all(known);
    let touches_late = rule.sources.iter().any(|s| late.labels.contains(s));
    if early && !touches_late {
        return relabel::operators(rule, &lookup, stages);
    }
    let whole = |stages: &mut Stages<'_>, why: &str| {
        let say = format!("{why}; the rule was left out");
        stages.remark(Weight::Decide, &rule.span, &rule.path, say);
    };
    if rule.action != "replace" {
        let say = "it is about what only the API of Kubernetes knows: write it as a filter processor behind k8s_attributes";
        return whole(stages, say);
    }
    let mut sources = Vec::new();
    for label in &rule.sources {
        let ambiguous = label.contains("_label_") || label.contains("_annotation_");
        let name = label
            .rsplit_once("_label_")
            .or(label.rsplit_once("_annotation_"));
        if let Some((_, name)) = name.filter(|_| ambiguous)
            && name.contains('_')
            && !name.starts_with("app_kubernetes_io_")
        {
            let say = format!(
                "the underscores of {name} may stand for other characters of the name in Kubernetes: see key in extract of \
                 k8s_attributes"
            );
            stages.remark(Weight::Decide, &rule.span, &rule.path, say);
        }
        match late.source(label, &stages.labels) {
            Some(found) => sources.push(found),
            None => return whole(stages, &format!("nothing here sets {label}")),
        }
    }
    let strips_hash = rule.sources == ["__meta_kubernetes_pod_controller_name"];
    let target = format!("resource.attributes[{}]", expr::quoted(&rule.target));
    if rule.chooses() || rule.joins() && rule.sources.len() == 1 || strips_hash {
        let mut first = true;
        for source in sources.iter().flatten() {
            let mut statement =
                format!("set({target}, {source}) where {source} != nil and {source} != \"\"");
            if !first {
                statement.push_str(&format!(" and {target} == nil"));
            }
            first = false;
            late.statements.push(statement);
        }
    } else if rule.joins() {
        let parts: Vec<&str> = sources
            .iter()
            .filter_map(|s| s.first())
            .map(String::as_str)
            .collect();
        let separator = expr::quoted(&rule.separator);
        late.statements.push(format!(
            "set({target}, Concat([{}], {separator}))",
            parts.join(", ")
        ));
    } else {
        let say = format!(
            "its regex {:?} wants a statement of transform of its own",
            rule.regex
        );
        return whole(stages, &say);
    }
    late.labels.insert(rule.target.clone());
}
