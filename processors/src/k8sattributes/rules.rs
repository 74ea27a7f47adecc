//! What is taken of objects: metadata, labels and annotations, as attributes.

use std::collections::BTreeMap;

use regex::bytes::Regex;
use tailwater_kubernetes::model::{Meta, Owner, Pod};
use tailwater_pdata::{Key, Map};

/// Where labels or annotations are taken from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Origin {
    /// The pod.
    Pod,
    /// Its namespace.
    Namespace,
    /// The node it is on.
    Node,
    /// What it belongs to.
    Deployment,
    /// What it belongs to.
    StatefulSet,
    /// What it belongs to.
    DaemonSet,
    /// What it belongs to.
    Job,
}

impl Origin {
    /// All, by name.
    pub const NAMES: [(&'static str, Origin); 7] = [
        ("pod", Origin::Pod),
        ("namespace", Origin::Namespace),
        ("node", Origin::Node),
        ("deployment", Origin::Deployment),
        ("statefulset", Origin::StatefulSet),
        ("daemonset", Origin::DaemonSet),
        ("job", Origin::Job),
    ];

    fn name(self) -> &'static str {
        let found = Self::NAMES.iter().find(|(_, from)| *from == self);
        found.map_or("pod", |(name, _)| name)
    }

    /// What keys of attributes begin with that have no name of their own. Those of pods, namespaces and nodes are older than the
    /// conventions, which have the singular.
    fn prefix(self, of: FieldKind) -> String {
        let many = matches!(self, Origin::Pod | Origin::Namespace | Origin::Node);
        let of = match of {
            FieldKind::Label => "label",
            FieldKind::Annotation => "annotation",
        };
        format!("k8s.{}.{of}{}.", self.name(), if many { "s" } else { "" })
    }
}

/// Labels or annotations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FieldKind {
    /// Labels.
    Label,
    /// Annotations.
    Annotation,
}

/// Which keys a rule is for.
#[derive(Clone, Debug)]
pub enum Keys {
    /// This one.
    One(String),
    /// Those that match as a whole.
    Matching(Regex),
}

/// A rule for labels or annotations.
#[derive(Clone, Debug)]
pub struct FieldRule {
    /// Of what.
    pub from: Origin,
    /// Labels or annotations.
    pub kind: FieldKind,
    /// Which of them.
    pub keys: Keys,
    /// The attribute, with `$1` for what groups matched; empty for the usual name.
    pub name: String,
}

impl FieldRule {
    /// The attributes of the OpenTelemetry operator: `resource.opentelemetry.io/service.name` is `service.name`.
    pub fn otel_annotations() -> FieldRule {
        FieldRule {
            from: Origin::Pod,
            kind: FieldKind::Annotation,
            keys: Keys::Matching(
                Regex::new(r"^resource\.opentelemetry\.io/(.+)$").expect("a valid expression"),
            ),
            name: "$1".into(),
        }
    }

    fn apply(&self, meta: &Meta, to: &mut Map) {
        let fields: &BTreeMap<String, String> = match self.kind {
            FieldKind::Label => &meta.labels,
            FieldKind::Annotation => &meta.annotations,
        };
        let usual = |key: &str| format!("{}{key}", self.from.prefix(self.kind));
        match &self.keys {
            Keys::One(key) => {
                if let Some(value) = fields.get(key) {
                    let name = match self.name.is_empty() {
                        true => usual(key),
                        false => self.name.clone(),
                    };
                    to.insert(name, value.as_str());
                }
            }
            Keys::Matching(regex) => {
                for (key, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
                    let Some(groups) = regex.captures(key.as_bytes()) else {
                        continue;
                    };
                    // Without groups there is nothing that would tell names apart.
                    let name = match self.name.is_empty() || groups.len() == 1 {
                        true => usual(key),
                        false => {
                            let mut name = Vec::new();
                            groups.expand(self.name.as_bytes(), &mut name);
                            String::from_utf8_lossy(&name).into_owned()
                        }
                    };
                    if !name.is_empty() {
                        to.insert(name, value.as_str());
                    }
                }
            }
        }
    }
}

/// What is taken.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Names of metadata, as the attributes are called.
    pub metadata: Vec<&'static str>,
    /// Labels and annotations, in order.
    pub fields: Vec<FieldRule>,
    /// Names of deployments are those of ReplicaSets without their end.
    pub deployment_from_replicaset: bool,
}

/// Metadata of pods, and of what is around them.
pub const METADATA: [&str; 30] = [
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.pod.uid",
    "k8s.pod.hostname",
    "k8s.pod.start_time",
    "k8s.pod.ip",
    "k8s.deployment.name",
    "k8s.deployment.uid",
    "k8s.replicaset.name",
    "k8s.replicaset.uid",
    "k8s.daemonset.name",
    "k8s.daemonset.uid",
    "k8s.statefulset.name",
    "k8s.statefulset.uid",
    "k8s.job.name",
    "k8s.job.uid",
    "k8s.cronjob.name",
    "k8s.cronjob.uid",
    "k8s.node.name",
    "k8s.node.uid",
    "k8s.cluster.uid",
    "k8s.container.name",
    "container.id",
    "container.image.name",
    "container.image.tag",
    "container.image.repo_digests",
    "service.namespace",
    "service.name",
    "service.version",
    "service.instance.id",
];

/// What is taken unless something else is said.
pub const DEFAULT_METADATA: [&str; 8] = [
    "container.image.name",
    "container.image.tag",
    "k8s.deployment.name",
    "k8s.namespace.name",
    "k8s.node.name",
    "k8s.pod.name",
    "k8s.pod.start_time",
    "k8s.pod.uid",
];

impl Rules {
    /// Whether metadata of this name is wanted.
    pub fn wants(&self, name: &str) -> bool {
        self.metadata.contains(&name)
    }

    /// Whether labels or annotations of such an object are.
    pub fn wants_fields_of(&self, from: Origin) -> bool {
        self.fields.iter().any(|rule| rule.from == from)
    }

    /// ReplicaSets have to be known, as they know their deployment.
    pub fn needs_replicasets(&self) -> bool {
        let by_name = self.wants("k8s.deployment.name") || self.wants("service.name");
        self.wants("k8s.deployment.uid")
            || self.wants_fields_of(Origin::Deployment)
            || (by_name && !self.deployment_from_replicaset)
    }

    /// Jobs have to be known, as they know their CronJob.
    pub fn needs_jobs(&self) -> bool {
        self.wants("k8s.cronjob.uid") || self.wants_fields_of(Origin::Job)
    }

    /// Anything of single containers is wanted.
    pub fn needs_containers(&self) -> bool {
        let of_container = |name: &&str| {
            name.starts_with("container.")
                || [
                    "k8s.container.name",
                    "service.version",
                    "service.instance.id",
                ]
                .contains(name)
        };
        self.metadata.iter().any(of_container)
    }

    /// Labels and annotations of an object.
    pub fn fields_of(&self, from: Origin, meta: &Meta) -> Map {
        let mut map = Map::new();
        self.add_fields(from, meta, &mut map);
        map
    }

    fn add_fields(&self, from: Origin, meta: &Meta, to: &mut Map) {
        for rule in self.fields.iter().filter(|rule| rule.from == from) {
            rule.apply(meta, to);
        }
    }

    /// What a pod itself says. `deployment` is the name of its deployment, as far as that is known.
    pub fn of_pod(&self, pod: &Pod, deployment: Option<&str>) -> Map {
        let (meta, mut to) = (&pod.metadata, Map::new());
        let mut put = |name: &'static str, value: &str| {
            if self.wants(name) && !value.is_empty() {
                to.insert(Key::from(name), value);
            }
        };
        put("k8s.pod.name", &meta.name);
        put("service.name", &meta.name);
        put("k8s.pod.hostname", &pod.spec.hostname);
        put("k8s.pod.ip", &pod.status.pod_ip);
        put("k8s.namespace.name", &meta.namespace);
        put("service.namespace", &meta.namespace);
        put("k8s.pod.start_time", &meta.creation_timestamp);
        put("k8s.pod.uid", &meta.uid);
        for owner in &meta.owner_references {
            let (name, uid) = match &*owner.kind {
                "ReplicaSet" => ("k8s.replicaset.name", "k8s.replicaset.uid"),
                "DaemonSet" => ("k8s.daemonset.name", "k8s.daemonset.uid"),
                "StatefulSet" => ("k8s.statefulset.name", "k8s.statefulset.uid"),
                "Job" => ("k8s.job.name", "k8s.job.uid"),
                _ => continue,
            };
            put(name, &owner.name);
            put(uid, &owner.uid);
            put("service.name", &owner.name);
            // What it belongs to in turn counts more.
            if owner.kind == "ReplicaSet"
                && let Some(deployment) = deployment
            {
                put("k8s.deployment.name", deployment);
                put("service.name", deployment);
            }
            if owner.kind == "Job"
                && let Some(cron) = cronjob_of(&owner.name)
            {
                put("k8s.cronjob.name", cron);
                put("service.name", cron);
            }
        }
        put("k8s.node.name", &pod.spec.node_name);
        for rule in self.of_kind(FieldKind::Label) {
            rule.apply(meta, &mut to);
        }
        let mut label = |label: &str, name: &'static str| {
            if let Some(value) = meta.labels.get(label).filter(|_| self.wants(name)) {
                to.insert(Key::from(name), value.as_str());
            }
        };
        label("app.kubernetes.io/name", "service.name");
        label("app.kubernetes.io/instance", "service.name");
        label("app.kubernetes.io/version", "service.version");
        for rule in self.of_kind(FieldKind::Annotation) {
            rule.apply(meta, &mut to);
        }
        to
    }

    fn of_kind(&self, kind: FieldKind) -> impl Iterator<Item = &FieldRule> {
        let rules = self.fields.iter();
        rules.filter(move |rule| rule.from == Origin::Pod && rule.kind == kind)
    }
}

/// The owner of a kind.
pub fn owner<'m>(meta: &'m Meta, kind: &str) -> Option<&'m Owner> {
    meta.owner_references
        .iter()
        .find(|owner| owner.kind == kind)
}

/// The CronJob that made a job: the job's name without the time at its end.
fn cronjob_of(job: &str) -> Option<&str> {
    let (name, time) = job.rsplit_once('-')?;
    (!time.is_empty() && time.bytes().all(|b| b.is_ascii_digit())).then_some(name)
}

/// The deployment that made a ReplicaSet: the ReplicaSet's name without the hash at its end.
pub fn deployment_of(replicaset: &str) -> Option<&str> {
    let (name, hash) = replicaset.rsplit_once('-')?;
    let is_hash = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (!hash.is_empty() && hash.bytes().all(is_hash)).then_some(name)
}

/// A reference to an image.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Image {
    /// Without tag and digest.
    pub name: String,
    /// The tag; `latest` if there is neither tag nor digest.
    pub tag: String,
    /// What says the version: tag, digest, or both; empty without either.
    pub version: String,
}

impl Image {
    /// Takes a reference apart. `None` if it has no name.
    pub fn parse(reference: &str) -> Option<Image> {
        let (named, digest) = match reference.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (reference, None),
        };
        let slash = named.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match named[slash..].split_once(':') {
            Some((_, tag)) => (&named[..named.len() - tag.len() - 1], Some(tag)),
            None => (named, None),
        };
        if name.is_empty() || name.ends_with('/') {
            return None;
        }
        let parts = [tag, digest].into_iter().flatten();
        let version = parts.filter(|part| !part.is_empty());
        Some(Image {
            name: name.to_owned(),
            tag: tag
                .unwrap_or(if digest.is_some() { "" } else { "latest" })
                .to_owned(),
            version: version.collect::<Vec<_>>().join("@"),
        })
    }
}

/// The name and digest of an image as the runtime says it, with the registry that is meant where none is named.
pub fn repo_digest(image_id: &str) -> Option<String> {
    let bare = image_id
        .split_once("://")
        .map_or(image_id, |(_, rest)| rest);
    let (named, digest) = bare.split_once('@')?;
    let name = Image::parse(named)?.name;
    if digest.is_empty() {
        return None;
    }
    let first = name.split('/').next().unwrap_or_default();
    let is_registry = first.contains(['.', ':']) || first == "localhost";
    Some(match (name.contains('/'), is_registry) {
        (false, _) => format!("docker.io/library/{name}@{digest}"),
        (true, false) => format!("docker.io/{name}@{digest}"),
        (true, true) => format!("{name}@{digest}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_taken_apart() {
        let cases = [
            ("nginx", Some(("nginx", "latest", ""))),
            ("nginx:1.2", Some(("nginx", "1.2", "1.2"))),
            ("r:5000/a/b", Some(("r:5000/a/b", "latest", ""))),
            ("r:5000/a/b:x", Some(("r:5000/a/b", "x", "x"))),
            ("a/b@sha256:12", Some(("a/b", "", "sha256:12"))),
            ("a/b:x@sha256:12", Some(("a/b", "x", "x@sha256:12"))),
            ("", None),
            (":x", None),
            ("a/", None),
        ];
        for (reference, want) in cases {
            let image = Image::parse(reference);
            let found = image.as_ref().map(|i| (&*i.name, &*i.tag, &*i.version));
            assert_eq!(found, want, "{reference}");
        }
    }

    #[test]
    fn digests_have_their_registry() {
        let cases = [
            (
                "docker-pullable://nginx@sha256:1",
                Some("docker.io/library/nginx@sha256:1"),
            ),
            ("a/b@sha256:1", Some("docker.io/a/b@sha256:1")),
            ("ghcr.io/a/b@sha256:1", Some("ghcr.io/a/b@sha256:1")),
            ("localhost/b:x@sha256:1", Some("localhost/b@sha256:1")),
            ("sha256:1", None),
            ("@sha256:1", None),
            ("", None),
        ];
        for (id, want) in cases {
            assert_eq!(repo_digest(id).as_deref(), want, "{id}");
        }
    }

    #[test]
    fn names_of_owners_of_owners() {
        assert_eq!(cronjob_of("backup-28391040"), Some("backup"));
        assert_eq!(cronjob_of("backup-once"), None);
        assert_eq!(deployment_of("web-front-6c45f8d6f6"), Some("web-front"));
        assert_eq!(deployment_of("web"), None);
    }

    fn meta() -> Meta {
        let pairs = |pairs: &[(&str, &str)]| {
            let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
            pairs.iter().map(owned).collect()
        };
        Meta {
            name: "web-6c45-x".into(),
            namespace: "shop".into(),
            uid: "u1".into(),
            labels: pairs(&[
                ("app", "web"),
                ("app.kubernetes.io/name", "front"),
                ("empty", ""),
            ]),
            annotations: pairs(&[
                ("resource.opentelemetry.io/service.version", "9"),
                ("team", "a"),
            ]),
            owner_references: vec![Owner {
                kind: "ReplicaSet".into(),
                name: "web-6c45".into(),
                uid: "r1".into(),
                controller: true,
            }],
            ..Meta::default()
        }
    }

    #[test]
    fn fields_have_the_names_that_rules_give_them() {
        let rule = |from, kind, keys, name: &str| FieldRule {
            from,
            kind,
            keys,
            name: name.into(),
        };
        let one = |key: &str| Keys::One(key.into());
        let matching = |text: &str| Keys::Matching(Regex::new(&format!("^(?:{text})$")).unwrap());
        let label = FieldKind::Label;
        let cases = [
            (rule(Origin::Pod, label, one("app"), "a"), "a", "web"),
            (
                rule(Origin::Pod, label, one("app"), ""),
                "k8s.pod.labels.app",
                "web",
            ),
            (
                rule(Origin::Job, label, one("app"), ""),
                "k8s.job.label.app",
                "web",
            ),
            (
                rule(Origin::Node, FieldKind::Annotation, one("team"), ""),
                "k8s.node.annotations.team",
                "a",
            ),
            (
                rule(Origin::Pod, label, matching("(a)pp"), "x.$1"),
                "x.a",
                "web",
            ),
            (
                rule(Origin::Pod, label, matching("app"), "ignored"),
                "k8s.pod.labels.app",
                "web",
            ),
            (
                rule(Origin::Pod, label, matching("(app)"), ""),
                "k8s.pod.labels.app",
                "web",
            ),
            (FieldRule::otel_annotations(), "service.version", "9"),
        ];
        for (rule, name, value) in cases {
            let mut map = Map::new();
            rule.apply(&meta(), &mut map);
            assert_eq!(map, Map::from_iter([(name.to_owned(), value)]), "{rule:?}");
        }
        let mut map = Map::new();
        rule(Origin::Pod, label, matching("em(p)ty|gone"), "$1").apply(&meta(), &mut map);
        rule(Origin::Pod, label, one("gone"), "").apply(&meta(), &mut map);
        assert_eq!(map, Map::new());
    }

    #[test]
    fn what_a_service_is_called() {
        let rules = |metadata: &[&'static str], fields| Rules {
            metadata: metadata.to_vec(),
            fields,
            deployment_from_replicaset: false,
        };
        let mut pod = Pod {
            metadata: meta(),
            ..Pod::default()
        };
        let wanted = ["service.name", "service.version", "k8s.deployment.name"];
        let map = rules(&wanted, vec![FieldRule::otel_annotations()]).of_pod(&pod, Some("web"));
        let want = [
            ("service.name", "front"),
            ("k8s.deployment.name", "web"),
            ("service.version", "9"),
        ];
        assert_eq!(map, Map::from_iter(want));
        pod.metadata.labels.clear();
        let name = |deployment| {
            let map = rules(&["service.name"], Vec::new()).of_pod(&pod, deployment);
            map.get("service.name")
                .map(|v| v.as_ref().to_display_string())
        };
        assert_eq!(name(Some("web")).as_deref(), Some("web"));
        assert_eq!(name(None).as_deref(), Some("web-6c45"));
    }
}
