//! What is known of the cluster: a state that is told of objects and asked about resources. No I/O, and time comes as an
//! argument.
//!
//! A deleted pod is remembered, as its last lines may come late: until none of its lines came for a time. Their number
//! has a limit; beyond it the one goes that was not used for longest.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foldhash::fast::RandomState;
use tailwater_kubernetes::model::{Meta, Named, Pod};
use tailwater_pdata::{Key, Map, Value};
use tailwater_pipeline::clock::Mono;

use super::association::{Association, Ident, Resource, idents_of};
use super::rules::{Image, Origin, Rules, deployment_of, owner, repo_digest};

/// Deleted pods that are remembered.
pub const DELETED_MAX: usize = 4096;
const CLUSTER_NAMESPACE: &str = "kube-system";

type Fast<K, V> = HashMap<K, V, RandomState>;

/// A pod, as much of it as is used.
#[derive(Debug)]
pub struct PodEntry {
    uid: Box<str>,
    name: String,
    namespace: String,
    node: String,
    /// When its node took it; RFC 3339, so that later is greater.
    started: String,
    /// It is left alone: it was found, but nothing is added.
    ignored: bool,
    /// What it says itself.
    attributes: Map,
    owners: BTreeMap<Origin, String>,
    /// Name and uid.
    replicaset: Option<(String, String)>,
    containers: Vec<ContainerEntry>,
    idents: Vec<Ident>,
    /// When something of it was passed on last; ns.
    used: AtomicU64,
}

impl PodEntry {
    /// Something of it is passed on at `now`.
    pub fn touch(&self, now: Mono) {
        self.used.fetch_max(now.0, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct ContainerEntry {
    name: String,
    image: Option<Image>,
    id: String,
    restarts: Option<u32>,
    digest: Option<String>,
}

/// What is followed beside pods.
#[derive(Debug, Default)]
struct Around {
    /// Labels and annotations, by name for namespaces and nodes, else by uid.
    fields: BTreeMap<String, (String, Map)>,
    /// The owner that is looked for, name and uid.
    owner: BTreeMap<String, Option<(String, String)>>,
}

/// What the table is to know.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What is taken of objects.
    pub rules: Rules,
    /// How resources lead to pods.
    pub associations: Vec<Association>,
    /// Names of pods that are left alone.
    pub exclude: Vec<regex::bytes::Regex>,
    /// For how long a deleted pod is remembered that nothing comes of.
    pub grace: Duration,
}

/// What a resource gets, and from which pod.
#[derive(Debug, Default)]
pub struct Found {
    /// In order; those that a resource has already come last to nothing.
    pub attributes: Vec<(Key, Value)>,
    /// The pod.
    pub pod: Option<Arc<PodEntry>>,
}

/// The table.
#[derive(Debug)]
pub struct Table {
    wanted: Wanted,
    pods: Fast<Box<str>, Arc<PodEntry>>,
    by_ident: Fast<Ident, Arc<PodEntry>>,
    /// Deleted ones, with the time of that.
    deleted: Fast<Box<str>, Mono>,
    around: BTreeMap<Kind, Around>,
    /// Kinds that nothing can be waited for of.
    unavailable: HashSet<Kind>,
}

/// A kind of object beside pods.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Namespaces.
    Namespace,
    /// Nodes.
    Node,
    /// ReplicaSets, for their deployments.
    ReplicaSet,
    /// Deployments.
    Deployment,
    /// StatefulSets.
    StatefulSet,
    /// DaemonSets.
    DaemonSet,
    /// Jobs, for their CronJobs as well.
    Job,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 7] = [
        Kind::Namespace,
        Kind::Node,
        Kind::ReplicaSet,
        Kind::Deployment,
        Kind::StatefulSet,
        Kind::DaemonSet,
        Kind::Job,
    ];

    fn origin(self) -> Option<Origin> {
        Some(match self {
            Kind::Namespace => Origin::Namespace,
            Kind::Node => Origin::Node,
            Kind::ReplicaSet => return None,
            Kind::Deployment => Origin::Deployment,
            Kind::StatefulSet => Origin::StatefulSet,
            Kind::DaemonSet => Origin::DaemonSet,
            Kind::Job => Origin::Job,
        })
    }

    fn key(self, meta: &Meta) -> &str {
        match self {
            Kind::Namespace | Kind::Node => &meta.name,
            _ => &meta.uid,
        }
    }
}

/// What became of a pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// It is new.
    Added,
    /// It was known.
    Updated,
}

impl Table {
    /// An empty table.
    pub fn new(wanted: Wanted) -> Table {
        Table {
            wanted,
            pods: Fast::default(),
            by_ident: Fast::default(),
            deleted: Fast::default(),
            around: BTreeMap::new(),
            unavailable: HashSet::new(),
        }
    }

    /// Pods that are known, deleted ones included.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// The uids of pods that are not deleted.
    pub fn living(&self) -> HashSet<Box<str>> {
        let living = self
            .pods
            .keys()
            .filter(|uid| !self.deleted.contains_key(*uid));
        living.cloned().collect()
    }

    /// A pod is new or changed.
    pub fn set_pod(&mut self, pod: &Pod) -> Told {
        let entry = Arc::new(self.entry(pod));
        let before = self.pods.insert(entry.uid.clone(), entry.clone());
        self.deleted.remove(&entry.uid);
        if let Some(before) = &before {
            entry
                .used
                .store(before.used.load(Ordering::Relaxed), Ordering::Relaxed);
            self.forget_idents(before, Some(&entry));
        }
        for ident in &entry.idents {
            // An address may have been another pod's; news of that one may come after news of this one.
            let taken = self.by_ident.get(ident);
            let newer = taken.is_some_and(|other| {
                other.uid != entry.uid
                    && other.started > entry.started
                    && !self.deleted.contains_key(&other.uid)
            });
            if !newer {
                self.by_ident.insert(ident.clone(), entry.clone());
            }
        }
        match before {
            None => Told::Added,
            Some(_) => Told::Updated,
        }
    }

    /// A pod is no more; it is remembered. True if it was known.
    pub fn delete_pod(&mut self, uid: &str, now: Mono) -> bool {
        let known = self.pods.contains_key(uid) && !self.deleted.contains_key(uid);
        if known {
            self.deleted.insert(uid.into(), now);
        }
        known
    }

    /// Forgets deleted pods of which nothing came for a time, and those that are too many: how many of these.
    pub fn forget(&mut self, now: Mono) -> usize {
        let grace = u64::try_from(self.wanted.grace.as_nanos()).unwrap_or(u64::MAX);
        let mut last: Vec<(u64, Box<str>)> = Vec::with_capacity(self.deleted.len());
        for (uid, at) in &self.deleted {
            let used = self
                .pods
                .get(uid)
                .map_or(0, |p| p.used.load(Ordering::Relaxed));
            last.push((used.max(at.0), uid.clone()));
        }
        last.sort_unstable();
        let over = last
            .iter()
            .take_while(|(at, _)| at.saturating_add(grace) <= now.0);
        let over = over.count();
        let too_many = last.len().saturating_sub(DELETED_MAX);
        for (_, uid) in &last[..over.max(too_many)] {
            self.deleted.remove(uid);
            if let Some(pod) = self.pods.remove(uid) {
                self.forget_idents(&pod, None);
            }
        }
        too_many.saturating_sub(over)
    }

    fn forget_idents(&mut self, pod: &PodEntry, but: Option<&PodEntry>) {
        for ident in &pod.idents {
            let stays = but.is_some_and(|but| but.idents.contains(ident));
            let is_its = self.by_ident.get(ident).is_some_and(|p| p.uid == pod.uid);
            if is_its && !stays {
                self.by_ident.remove(ident);
            }
        }
    }

    /// An object beside pods is new or changed. With it come those pods that something was missing of.
    pub fn set(&mut self, kind: Kind, object: &Named) {
        let (meta, rules) = (&object.metadata, &self.wanted.rules);
        let key = kind.key(meta).to_owned();
        let fields = kind.origin().map(|origin| rules.fields_of(origin, meta));
        let of = match kind {
            Kind::ReplicaSet => "Deployment",
            Kind::Job => "CronJob",
            _ => "",
        };
        let managed = owner(meta, of).filter(|owner| owner.controller);
        let managed = managed.map(|owner| (owner.name.clone(), owner.uid.clone()));
        let around = self.around.entry(kind).or_default();
        let fields = (meta.uid.clone(), fields.unwrap_or_default());
        around.fields.insert(key.clone(), fields);
        around.owner.insert(key, managed);
    }

    /// An object beside pods is no more. Pods that belonged to it may be written of later, so those that are
    /// remembered keep it.
    pub fn delete(&mut self, kind: Kind, object: &Named) {
        let key = kind.key(&object.metadata);
        let used = self.pods.values().any(|pod| pod.refers_to(kind, key));
        if !used && let Some(around) = self.around.get_mut(&kind) {
            around.fields.remove(key);
            around.owner.remove(key);
        }
    }

    /// Objects of a kind are not to be had, as may be for lack of rights.
    pub fn set_unavailable(&mut self, kind: Kind) {
        self.unavailable.insert(kind);
    }

    /// Objects of a kind are these and no others, but for those that pods refer to.
    pub fn keep_only(&mut self, kind: Kind, objects: &[Named]) {
        self.unavailable.remove(&kind);
        let there: HashSet<&str> = objects.iter().map(|o| kind.key(&o.metadata)).collect();
        let referred = |key: &str| self.pods.values().any(|pod| pod.refers_to(kind, key));
        let Some(around) = self.around.get(&kind) else {
            return;
        };
        let gone = around
            .fields
            .keys()
            .filter(|key| !there.contains(key.as_str()));
        let gone: Vec<String> = gone.filter(|key| !referred(key)).cloned().collect();
        if let Some(around) = self.around.get_mut(&kind) {
            for key in gone {
                around.fields.remove(&key);
                around.owner.remove(&key);
            }
        }
    }

    /// What is known of a pod by its ident; none if it is not known.
    pub fn pod(&self, ident: &str) -> Option<&Arc<PodEntry>> {
        self.by_ident.get(ident)
    }

    fn managed_by(&self, kind: Kind, uid: &str) -> Option<&(String, String)> {
        self.around.get(&kind)?.owner.get(uid)?.as_ref()
    }

    fn entry(&self, pod: &Pod) -> PodEntry {
        let (meta, rules) = (&pod.metadata, &self.wanted.rules);
        let ignored = meta
            .annotations
            .get("opentelemetry.io/k8s-processor.ignore");
        let ignored = ignored.is_some_and(|v| v.trim().eq_ignore_ascii_case("true"))
            || self
                .wanted
                .exclude
                .iter()
                .any(|name| name.is_match(meta.name.as_bytes()));
        let replicaset = owner(meta, "ReplicaSet");
        // By its name at once, or by the ReplicaSet itself, which may be told of later.
        let deployment = match rules.deployment_from_replicaset {
            true => replicaset.and_then(|o| deployment_of(&o.name)),
            false => None,
        };
        let attributes = match ignored {
            true => Map::new(),
            false => rules.of_pod(pod, deployment),
        };
        let mut owners = BTreeMap::new();
        for (kind, origin) in [
            ("StatefulSet", Origin::StatefulSet),
            ("DaemonSet", Origin::DaemonSet),
            ("Job", Origin::Job),
        ] {
            if let Some(owner) = owner(meta, kind) {
                owners.insert(origin, owner.uid.clone());
            }
        }
        let containers = containers_of(pod);
        let ids = containers
            .iter()
            .map(|c| &*c.id)
            .filter(|id| !id.is_empty());
        let ids: Vec<&str> = ids.collect();
        let mut all = attributes.clone();
        if let Some((name, uid)) =
            replicaset.and_then(|o| self.managed_by(Kind::ReplicaSet, &o.uid))
        {
            all.insert("k8s.deployment.name", name.as_str());
            all.insert("k8s.deployment.uid", uid.as_str());
        }
        let idents = idents_of(&self.wanted.associations, pod, &all, &ids);
        PodEntry {
            uid: meta.uid.as_str().into(),
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            node: pod.spec.node_name.clone(),
            started: pod.status.start_time.clone(),
            ignored,
            attributes,
            owners,
            replicaset: replicaset.map(|o| (o.name.clone(), o.uid.clone())),
            containers,
            idents,
            used: AtomicU64::new(0),
        }
    }

    /// What `resource` gets, if it is of `pod`.
    pub fn of(&self, pod: Option<&Arc<PodEntry>>, resource: &dyn Resource) -> Found {
        let mut found = Found::default();
        let pod = pod.filter(|pod| !pod.ignored);
        if let Some(pod) = pod {
            self.add_pod(pod, resource, &mut found);
        }
        let set = |text: Option<String>| text.filter(|text| !text.is_empty());
        let namespace = pod
            .map(|pod| pod.namespace.clone())
            .filter(|n| !n.is_empty());
        let namespace = namespace.or_else(|| set(resource.text("k8s.namespace.name")));
        self.add_fields(Kind::Namespace, namespace.as_deref(), &mut found);
        let node = pod.map(|pod| pod.node.clone()).filter(|n| !n.is_empty());
        let node = node.or_else(|| set(resource.text("k8s.node.name")));
        self.add_fields(Kind::Node, node.as_deref(), &mut found);
        if self.wanted.rules.wants("k8s.node.uid")
            && let Some(node) = node
            && let Some((uid, _)) = self.around(Kind::Node, &node)
        {
            found.put("k8s.node.uid", uid.as_str());
        }
        let deployment = pod.and_then(|pod| pod.replicaset.as_ref());
        let deployment = deployment.and_then(|(_, rs)| self.managed_by(Kind::ReplicaSet, rs));
        let deployment = deployment.map(|(_, uid)| uid.clone());
        let deployment = deployment.or_else(|| set(resource.text("k8s.deployment.uid")));
        self.add_fields(Kind::Deployment, deployment.as_deref(), &mut found);
        for (kind, origin, attribute) in [
            (
                Kind::StatefulSet,
                Origin::StatefulSet,
                "k8s.statefulset.uid",
            ),
            (Kind::DaemonSet, Origin::DaemonSet, "k8s.daemonset.uid"),
            (Kind::Job, Origin::Job, "k8s.job.uid"),
        ] {
            let owner = pod.and_then(|pod| pod.owners.get(&origin).cloned());
            let owner = owner.or_else(|| set(resource.text(attribute)));
            self.add_fields(kind, owner.as_deref(), &mut found);
        }
        found
    }

    /// Nothing of a pod is missing that may be told soon.
    pub fn is_complete(&self, pod: &PodEntry) -> bool {
        let rules = &self.wanted.rules;
        let is_told = |kind, uid: &String| {
            let around = self.around.get(&kind);
            let told = around.is_some_and(|around| around.owner.contains_key(uid));
            told || self.unavailable.contains(&kind)
        };
        let replicaset = pod
            .replicaset
            .as_ref()
            .filter(|_| rules.needs_replicasets());
        let job = pod.owners.get(&Origin::Job).filter(|_| rules.needs_jobs());
        pod.ignored
            || (replicaset.is_none_or(|(_, uid)| is_told(Kind::ReplicaSet, uid))
                && job.is_none_or(|uid| is_told(Kind::Job, uid)))
    }

    fn around(&self, kind: Kind, key: &str) -> Option<&(String, Map)> {
        self.around.get(&kind)?.fields.get(key)
    }

    fn add_fields(&self, kind: Kind, key: Option<&str>, found: &mut Found) {
        if let Some((_, fields)) = key.and_then(|key| self.around(kind, key)) {
            let fields = fields.iter().map(|(k, v)| (k.clone(), v.clone()));
            found.attributes.extend(fields);
        }
    }

    fn add_pod(&self, pod: &Arc<PodEntry>, resource: &dyn Resource, found: &mut Found) {
        let rules = &self.wanted.rules;
        found.pod = Some(pod.clone());
        let own = pod.attributes.iter().map(|(k, v)| (k.clone(), v.clone()));
        let mut own: Vec<(Key, Value)> = own.collect();
        if let Some((called, replicaset)) = &pod.replicaset {
            let known = self.around.get(&Kind::ReplicaSet);
            let known = known.and_then(|around| around.owner.get(replicaset));
            if let Some(Some((name, uid))) = known {
                if rules.wants("k8s.deployment.name") && !rules.deployment_from_replicaset {
                    found.put("k8s.deployment.name", name.as_str());
                }
                if rules.wants("k8s.deployment.uid") {
                    found.put("k8s.deployment.uid", uid.as_str());
                }
                if rules.wants("service.name") && !rules.deployment_from_replicaset {
                    rename_service(&mut own, called, name);
                }
            }
        }
        found.attributes.append(&mut own);
        if let Some(job) = pod.owners.get(&Origin::Job)
            && rules.wants("k8s.cronjob.uid")
        {
            let known = self.around.get(&Kind::Job).and_then(|a| a.owner.get(job));
            if let Some(Some((_, uid))) = known {
                found.put("k8s.cronjob.uid", uid.as_str());
            }
        }
        if rules.wants("k8s.cluster.uid")
            && let Some((uid, _)) = self.around(Kind::Namespace, CLUSTER_NAMESPACE)
        {
            found.put("k8s.cluster.uid", uid.as_str());
        }
        if rules.needs_containers() {
            self.add_container(pod, resource, found);
        }
    }

    fn add_container(&self, pod: &PodEntry, resource: &dyn Resource, found: &mut Found) {
        let rules = &self.wanted.rules;
        let set = |key: &str| resource.text(key).filter(|text| !text.is_empty());
        let (name, id) = (set("k8s.container.name"), set("container.id"));
        let mut all = pod.containers.iter();
        let container = match (&name, &id) {
            (Some(name), _) => all.find(|c| c.name == *name),
            (None, Some(id)) => all.find(|c| c.id == *id),
            (None, None) if pod.containers.len() == 1 => all.next(),
            _ => None,
        };
        let Some(container) = container else { return };
        let mut put = |key: &'static str, value: &str| {
            if rules.wants(key) && !value.is_empty() {
                found.put(key, value);
            }
        };
        put("k8s.container.name", &container.name);
        if let Some(image) = &container.image {
            put("container.image.name", &image.name);
            put("container.image.tag", &image.tag);
            put("service.version", &image.version);
        }
        let instance = format!("{}.{}.{}", pod.namespace, pod.name, container.name);
        put("service.instance.id", &instance);
        // Without a number of restarts it is the container that runs now.
        let restarts = resource.number("k8s.container.restart_count");
        if restarts.is_none_or(|n| n.is_some() && n == container.restarts) {
            put("container.id", &container.id);
            if rules.wants("container.image.repo_digests")
                && let Some(digest) = &container.digest
            {
                let list = Value::List(vec![digest.as_str().into()]);
                found.put("container.image.repo_digests", list);
            }
        }
    }
}

/// The deployment's name in place of the ReplicaSet's, where that is what the service is called by.
fn rename_service(own: &mut [(Key, Value)], replicaset: &str, deployment: &str) {
    let replicaset = Value::from(replicaset);
    for (key, value) in own {
        if &**key == "service.name" && *value == replicaset {
            *value = deployment.into();
        }
    }
}

impl Found {
    fn put(&mut self, key: &'static str, value: impl Into<Value>) {
        self.attributes.push((Key::from(key), value.into()));
    }
}

impl PodEntry {
    fn refers_to(&self, kind: Kind, key: &str) -> bool {
        match kind {
            Kind::Namespace => self.namespace == key,
            Kind::Node => self.node == key,
            Kind::ReplicaSet => self.replicaset.as_ref().is_some_and(|(_, uid)| uid == key),
            Kind::Deployment => false,
            kind => {
                let owner = kind.origin().and_then(|origin| self.owners.get(&origin));
                owner.is_some_and(|uid| uid == key)
            }
        }
    }
}

fn containers_of(pod: &Pod) -> Vec<ContainerEntry> {
    let mut found: Vec<ContainerEntry> = Vec::new();
    for spec in pod.spec.containers.iter().chain(&pod.spec.init_containers) {
        found.push(ContainerEntry {
            name: spec.name.clone(),
            image: Image::parse(&spec.image),
            ..ContainerEntry::default()
        });
    }
    let status = &pod.status;
    for is in status
        .container_statuses
        .iter()
        .chain(&status.init_container_statuses)
    {
        let known = found.iter().position(|c| c.name == is.name);
        let at = known.unwrap_or_else(|| {
            found.push(ContainerEntry {
                name: is.name.clone(),
                ..ContainerEntry::default()
            });
            found.len() - 1
        });
        let entry = &mut found[at];
        let id = is.container_id.split_once("://");
        entry.id = id.map_or(&*is.container_id, |(_, id)| id).to_owned();
        entry.restarts = Some(is.restart_count);
        entry.digest = repo_digest(&is.image_id);
    }
    found
}
