//! Which labels a source has: few, and of few values.
//!
//! A label makes streams, and each value of it another one, so what has a value of its own for every
//! container or day is none. Names of pods are attributes that a base makes no label of. Ids of containers are never a label, tags and digests of images are no part of
//! one, and of names of files what counts up (numbers of two digits and more, dates, ids) is cut out.

use std::collections::BTreeMap;

use tailwater_kubernetes::model::Meta;

/// Attribute with the name of a container.
pub const CONTAINER: &str = "container.name";
/// Attribute with the name of its image, without tag and digest.
pub const IMAGE: &str = "container.image.name";
/// Attribute with what it is part of.
pub const SERVICE: &str = "service.name";
/// Attribute with what that is part of.
pub const PROJECT: &str = "service.namespace";
/// Attribute with the path of a file, without what counts up in it.
pub const FILE: &str = "log.file.pattern";
/// Attribute with the tenant that lines go to, where a container names one that is allowed.
pub const TENANT: &str = "tailwater.tenant";
/// Attribute with the namespace of a pod.
pub const NAMESPACE: &str = "k8s.namespace.name";
/// Attribute with the name of a pod. It is no label: each pod has its own.
pub const POD: &str = "k8s.pod.name";
/// Attribute with the uid of a pod. It is no label.
pub const POD_UID: &str = "k8s.pod.uid";
/// Attribute with the name of a container of a pod.
pub const K8S_CONTAINER: &str = "k8s.container.name";
/// Attribute with how often that was started before. It is no label.
pub const RESTARTS: &str = "k8s.container.restart_count";
/// Attribute with the node of a pod.
pub const NODE: &str = "k8s.node.name";

/// Labels that Docker Compose gives to its containers.
const COMPOSE: [(&str, &str); 2] = [
    ("com.docker.compose.service", SERVICE),
    ("com.docker.compose.project", PROJECT),
];

/// Labels of a container. Of its own labels only those that Compose gives are taken.
pub fn of_container(
    name: &str,
    image: &str,
    own: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let name = name.trim_start_matches('/');
    let mut labels = BTreeMap::from([(SERVICE.to_owned(), name.to_owned())]);
    labels.insert(CONTAINER.to_owned(), name.to_owned());
    labels.insert(IMAGE.to_owned(), repository(image).to_owned());
    for (label, attribute) in COMPOSE {
        if let Some(value) = own.get(label) {
            labels.insert(attribute.to_owned(), value.clone());
        }
    }
    labels.retain(|_, value| !value.is_empty());
    labels
}

/// Labels of a file.
pub fn of_file(path: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(FILE.to_owned(), without_counters(path))])
}

/// What a pod belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Workload {
    /// The attribute with its name; none for kinds that have none.
    pub attribute: Option<&'static str>,
    /// Its name.
    pub name: String,
}

/// What a pod on this node belongs to: a name that its next pod has, too. It is told by the names of its owners alone,
/// in which a Deployment leaves a hash and a CronJob a time.
pub fn workload(meta: &Meta, node: &str) -> Workload {
    let of = |attribute, name: &str| Workload {
        attribute,
        name: name.to_owned(),
    };
    let mut owners = meta.owner_references.iter();
    let Some(owner) = owners.find(|o| o.controller) else {
        return of(None, without_node(&meta.name, node));
    };
    match &*owner.kind {
        "ReplicaSet" => {
            let hash = meta.labels.get("pod-template-hash");
            let deployment = hash.and_then(|h| owner.name.strip_suffix(&**h)?.strip_suffix('-'));
            match deployment.filter(|name| !name.is_empty()) {
                Some(name) => of(Some("k8s.deployment.name"), name),
                None => of(Some("k8s.replicaset.name"), &owner.name),
            }
        }
        "Job" => match without_time(&owner.name) {
            Some(name) => of(Some("k8s.cronjob.name"), name),
            None => of(Some("k8s.job.name"), &owner.name),
        },
        "StatefulSet" => of(Some("k8s.statefulset.name"), &owner.name),
        "DaemonSet" => of(Some("k8s.daemonset.name"), &owner.name),
        // A pod that the node started by itself.
        "Node" => of(None, without_node(&meta.name, node)),
        _ => of(None, &owner.name),
    }
}

/// The name of a job without the minutes since the epoch that a CronJob puts behind it.
fn without_time(job: &str) -> Option<&str> {
    let (name, time) = job.rsplit_once('-')?;
    let is_time = time.len() >= 8 && time.bytes().all(|b| b.is_ascii_digit());
    (is_time && !name.is_empty()).then_some(name)
}

fn without_node<'n>(pod: &'n str, node: &str) -> &'n str {
    let name = pod.strip_suffix(node).and_then(|n| n.strip_suffix('-'));
    name.filter(|n| !n.is_empty() && !node.is_empty())
        .unwrap_or(pod)
}

/// An image's name without tag and digest; nothing of one that has no name.
pub fn repository(image: &str) -> &str {
    if image.starts_with("sha256:") {
        return "";
    }
    let name = image.split('@').next().unwrap_or(image);
    // A colon before a slash is of a port.
    match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    }
}

/// Replaces what counts up by a star: runs of letters and digits with two digits or more that are digits alone
/// or hexadecimal and long, and what joins them.
fn without_counters(path: &str) -> String {
    let mut out = String::new();
    let mut rest = path;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric());
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        if counts_up(word) {
            // Parts of a date are one.
            let joined = out
                .strip_suffix(['-', '_', '.', ':', '+'])
                .is_some_and(|before| before.ends_with('*'));
            match joined {
                true => {
                    out.pop();
                }
                false => out.push('*'),
            }
        } else {
            out.push_str(word);
        }
        let mut chars = after.chars();
        out.extend(chars.next());
        rest = chars.as_str();
    }
    out
}

fn counts_up(word: &str) -> bool {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let hex = word.bytes().all(|b| b.is_ascii_hexdigit());
    let is_time = word
        .bytes()
        .all(|b| b.is_ascii_digit() || b"TZtz".contains(&b));
    digits >= 2 && (is_time || hex && word.len() >= 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_few_labels() {
        let own = BTreeMap::from([
            ("com.docker.compose.service".into(), "web".into()),
            ("com.docker.compose.project".into(), "shop".into()),
            ("com.docker.compose.container-number".into(), "7".into()),
            ("build".into(), "8861".into()),
        ]);
        let labels = of_container("/shop-web-1", "registry:5000/team/web:1.2.3", &own);
        let expect = [
            (CONTAINER, "shop-web-1"),
            (IMAGE, "registry:5000/team/web"),
            (SERVICE, "web"),
            (PROJECT, "shop"),
        ];
        let expect = expect.map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(labels, BTreeMap::from(expect));
        let plain = of_container("/db", "sha256:0123", &BTreeMap::new());
        assert_eq!(plain.get(SERVICE).map(String::as_str), Some("db"));
        assert_eq!(plain.get(IMAGE), None);
    }

    #[test]
    fn pods_have_the_name_of_what_made_them() {
        use tailwater_kubernetes::model::Owner;
        for (pod, kind, owner, hash, attribute, name) in [
            (
                "web-6c45-x2",
                "ReplicaSet",
                "web-6c45",
                "6c45",
                "k8s.deployment.name",
                "web",
            ),
            (
                "a-b-6c45-x2",
                "ReplicaSet",
                "a-b-6c45",
                "6c45",
                "k8s.deployment.name",
                "a-b",
            ),
            (
                "web-x2",
                "ReplicaSet",
                "web-6c45",
                "",
                "k8s.replicaset.name",
                "web-6c45",
            ),
            (
                "web-x2",
                "ReplicaSet",
                "6c45",
                "6c45",
                "k8s.replicaset.name",
                "6c45",
            ),
            (
                "b-28412345-x",
                "Job",
                "b-28412345",
                "",
                "k8s.cronjob.name",
                "b",
            ),
            ("b-2-x", "Job", "b-2", "", "k8s.job.name", "b-2"),
            (
                "db-0",
                "StatefulSet",
                "db",
                "",
                "k8s.statefulset.name",
                "db",
            ),
            ("ds-x", "DaemonSet", "ds", "", "k8s.daemonset.name", "ds"),
            ("proxy-n1", "Node", "n1", "", "", "proxy"),
            ("w-1", "Workflow", "w", "", "", "w"),
            ("alone", "", "", "", "", "alone"),
            ("n1", "", "", "", "", "n1"),
        ] {
            let mut meta = Meta {
                name: pod.into(),
                ..Meta::default()
            };
            if !kind.is_empty() {
                meta.owner_references.push(Owner {
                    kind: kind.into(),
                    name: owner.into(),
                    uid: String::new(),
                    controller: true,
                });
            }
            if !hash.is_empty() {
                meta.labels.insert("pod-template-hash".into(), hash.into());
            }
            let expect = Workload {
                attribute: (!attribute.is_empty()).then_some(attribute),
                name: name.into(),
            };
            assert_eq!(workload(&meta, "n1"), expect, "{pod}");
        }
    }

    #[test]
    fn images_lose_tags_and_digests() {
        for (image, name) in [
            ("nginx", "nginx"),
            ("nginx:1.25", "nginx"),
            ("host:5000/nginx", "host:5000/nginx"),
            ("nginx:1@sha256:00", "nginx"),
            ("sha256:00", ""),
        ] {
            assert_eq!(repository(image), name, "{image}");
        }
    }

    #[test]
    fn names_of_files_lose_what_counts_up() {
        for (path, label) in [
            ("/var/log/app.log", "/var/log/app.log"),
            ("/var/log/web1.log", "/var/log/web1.log"),
            ("/var/log/app-2026-05-01.log", "/var/log/app-*.log"),
            ("/var/log/app-20260501T101112Z.log", "/var/log/app-*.log"),
            ("/jobs/4711/out_12.txt", "/jobs/*/out_*.txt"),
            ("/c/0123456789abcdef/x.log", "/c/*/x.log"),
            ("/a/deadbeef/x", "/a/deadbeef/x"),
            ("/ä/ß-11.log", "/ä/ß-*.log"),
        ] {
            assert_eq!(without_counters(path), label, "{path}");
        }
    }
}
