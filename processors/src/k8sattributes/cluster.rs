//! The cluster as all instances of a processor see it, and the tasks that are told what happens there.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tailwater_kubernetes::model::{Named, Pod};
use tailwater_kubernetes::{ApiError, Change, Client, Form, Watch, follow};
use tailwater_pipeline::clock::{Clock, Mono};
use tailwater_telemetry::metrics::K8sClusterMetrics;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::access::USER_AGENT;
use super::association::Source;
use super::config::K8sAttributesConfig;
use super::rules::Origin;
use super::table::{Kind, Table, Told};

/// How often it is looked which deleted pods are to be forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(30);
/// How long pods wait for ReplicaSets, where it depends on these which resources lead to them.
const REPLICASETS_FIRST: Duration = Duration::from_secs(5);

/// What is known, and how it comes to be known.
pub(super) struct Cluster {
    shared: Arc<Shared>,
    config: K8sAttributesConfig,
    node: Option<String>,
    seed: u64,
    /// Nobody is asked, as without an agent.
    runs: bool,
    started: Mutex<Started>,
}

#[derive(Default)]
struct Started {
    tasks: Vec<AbortHandle>,
    /// Until when data waits at most for the first lists.
    until: Option<Mono>,
}

/// What tasks and instances have in common.
struct Shared {
    table: RwLock<Table>,
    /// Goes up with each change of the table.
    number: AtomicU64,
    /// What was not told yet; pods are `None`.
    awaited: Mutex<BTreeSet<Option<Kind>>>,
    synced: AtomicBool,
    /// Data passes.
    open: AtomicBool,
    meters: Arc<K8sClusterMetrics>,
    clock: Arc<dyn Clock>,
}

impl Shared {
    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the table.
    fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let mut table: RwLockWriteGuard<'_, Table> =
            self.table.write().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut table);
        let size = i64::try_from(table.len()).unwrap_or(i64::MAX);
        drop(table);
        self.number.fetch_add(1, Ordering::Release);
        self.meters.pod_table_size.set(size);
        changed
    }

    /// Something was told, or was not to be had.
    fn arrived(&self, kind: Option<Kind>) {
        let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        awaited.remove(&kind);
        if awaited.is_empty() && !self.synced.swap(true, Ordering::AcqRel) {
            self.meters.synced.set(1);
            self.open.store(true, Ordering::Release);
            tracing::info!("metadata of the cluster is there");
        }
    }

    fn failed(&self, path: &str, error: &ApiError, pause: Duration) {
        self.meters.failures.inc();
        tracing::warn!(path, %error, again_in = ?pause, "the Kubernetes API");
    }

    fn tell_pod(&self, path: &str, change: Change<'_, Pod>) {
        let now = self.clock.now();
        match change {
            Change::All(pods) => {
                self.meters.lists.inc();
                self.change(|table| {
                    let mut gone = table.living();
                    for pod in &pods {
                        gone.remove(&*pod.metadata.uid);
                        self.count(table.set_pod(pod));
                    }
                    for uid in gone {
                        self.delete(table, &uid, now);
                    }
                });
                self.arrived(None);
            }
            Change::Set(pod) => self.count(self.change(|table| table.set_pod(&pod))),
            Change::Gone(pod) => self.change(|table| {
                // It may never have been told of before.
                table.set_pod(&pod);
                self.delete(table, &pod.metadata.uid, now);
            }),
            Change::Failed(error, pause) => self.failed(path, error, pause),
        }
    }

    fn forget(&self) {
        let now = self.clock.now();
        let forgotten = self.change(|table| table.forget(now));
        self.meters.pods_forgotten.inc_by(forgotten as u64);
    }

    fn count(&self, told: Told) {
        match told {
            Told::Added => self.meters.pods_added.inc(),
            Told::Updated => self.meters.pods_updated.inc(),
        }
    }

    fn delete(&self, table: &mut Table, uid: &str, now: Mono) {
        if table.delete_pod(uid, now) {
            self.meters.pods_deleted.inc();
        }
    }

    fn tell(&self, kind: Kind, path: &str, change: Change<'_, Named>) {
        match change {
            Change::All(objects) => {
                self.meters.lists.inc();
                self.change(|table| {
                    table.keep_only(kind, &objects);
                    objects.iter().for_each(|object| table.set(kind, object));
                });
                self.arrived(Some(kind));
            }
            Change::Set(object) => self.change(|table| table.set(kind, &object)),
            Change::Gone(object) => self.change(|table| table.delete(kind, &object)),
            Change::Failed(error, pause) => {
                self.failed(path, error, pause);
                // Nothing waits for what one may not see.
                if error.is_denied() && self.awaits(kind) {
                    self.change(|table| table.set_unavailable(kind));
                    self.arrived(Some(kind));
                }
            }
        }
    }

    fn awaits(&self, kind: Kind) -> bool {
        let awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        awaited.contains(&Some(kind))
    }

    async fn arrives(&self, kind: Kind) {
        let arrived = async {
            while self.awaits(kind) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // What is late is told of later.
        let _ = tokio::time::timeout(REPLICASETS_FIRST, arrived).await;
    }
}

impl Cluster {
    pub fn new(
        config: K8sAttributesConfig,
        node: Option<String>,
        seed: u64,
        meters: Arc<K8sClusterMetrics>,
        clock: Arc<dyn Clock>,
        runs: bool,
    ) -> Cluster {
        let awaited = watches(&config, node.as_deref());
        let awaited = awaited.into_iter().map(|(kind, _)| kind).collect();
        let shared = Shared {
            table: RwLock::new(Table::new(config.wanted.clone())),
            number: AtomicU64::new(1),
            awaited: Mutex::new(awaited),
            synced: AtomicBool::new(false),
            open: AtomicBool::new(false),
            meters,
            clock,
        };
        Cluster {
            shared: Arc::new(shared),
            config,
            node,
            seed,
            runs,
            started: Mutex::default(),
        }
    }

    /// Begins to follow what is needed, unless that was begun.
    pub fn start(&self, runtime: &Handle, now: Mono) {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.runs || started.until.is_some() {
            return;
        }
        let waits = self.config.wait_at_start.unwrap_or(self.config.late);
        started.until = Some(now.after(waits));
        let client = Client::new(self.config.access.clone(), USER_AGENT);
        for (i, (kind, watch)) in watches(&self.config, self.node.as_deref())
            .into_iter()
            .enumerate()
        {
            let (shared, client) = (self.shared.clone(), client.clone());
            let seed = self.seed.wrapping_add(i as u64);
            let path = watch.path.clone();
            let task = match kind {
                Some(kind) => runtime.spawn(async move {
                    let tell = |change: Change<'_, Named>| shared.tell(kind, &path, change);
                    follow(client, watch, seed, tell).await;
                }),
                None => {
                    let replicasets_first = self.looked_up_by_deployment();
                    runtime.spawn(async move {
                        if replicasets_first {
                            shared.arrives(Kind::ReplicaSet).await;
                        }
                        let tell = |change: Change<'_, Pod>| shared.tell_pod(&path, change);
                        follow(client, watch, seed, tell).await;
                    })
                }
            };
            started.tasks.push(task.abort_handle());
        }
        let shared = self.shared.clone();
        let forget = runtime.spawn(async move {
            loop {
                tokio::time::sleep(FORGET_EVERY).await;
                shared.forget();
            }
        });
        started.tasks.push(forget.abort_handle());
    }

    /// Resources lead to pods by something that only ReplicaSets know.
    fn looked_up_by_deployment(&self) -> bool {
        let wanted = &self.config.wanted;
        let mut sources = wanted.associations.iter().flatten();
        let derived = ["k8s.deployment.name", "k8s.deployment.uid", "service.name"];
        wanted.rules.needs_replicasets()
            && sources.any(|s| matches!(s, Source::Attribute(name) if derived.contains(&&**name)))
    }

    /// Whether data passes at `now`.
    pub fn is_open(&self, now: Mono) -> bool {
        if !self.runs || self.shared.open.load(Ordering::Acquire) {
            return true;
        }
        let started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        let over = started.until.is_some_and(|until| until <= now);
        // Once for all instances: none that is built later waits again.
        if over && !self.shared.open.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                "metadata of the cluster takes too long: data passes without it until it is there"
            );
        }
        over
    }

    /// Everything was told at least once, or is not to be had.
    pub fn is_synced(&self) -> bool {
        self.shared.synced.load(Ordering::Acquire)
    }

    /// Changes with what is known.
    pub fn number(&self) -> u64 {
        self.shared.number.load(Ordering::Acquire)
    }

    /// What is known now.
    pub fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.shared.read()
    }

    /// A resource belonged to no pod that is known.
    pub fn missed(&self) {
        self.shared.meters.lookup_misses.inc();
    }

    /// For tests and vectors: nobody is asked, and data waits until then.
    pub fn pretend_started(&self, until: Mono) {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.until = Some(until);
    }

    /// For tests: what is done from time to time.
    #[cfg(test)]
    pub fn forget_now(&self) {
        self.shared.forget();
    }

    /// For tests and vectors: what a task would tell.
    pub fn told_pod(&self, change: Change<'_, Pod>) {
        self.shared.tell_pod("test", change);
    }

    /// For tests and vectors: what a task would tell.
    pub fn told(&self, kind: Kind, change: Change<'_, Named>) {
        self.shared.tell(kind, "test", change);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let started = self
            .started
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        started.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// What is followed; pods are `None`.
fn watches(config: &K8sAttributesConfig, node: Option<&str>) -> Vec<(Option<Kind>, Watch)> {
    let (rules, filter) = (&config.wanted.rules, &config.filter);
    let namespaced = |group: &str, plural: &str| match &filter.namespace {
        Some(namespace) => format!("{group}/namespaces/{namespace}/{plural}"),
        None => format!("{group}/{plural}"),
    };
    let metadata = |path: String, fields: String| Watch {
        path,
        labels: String::new(),
        fields,
        form: Form::Metadata,
    };
    let named = |name: &str| format!("metadata.name={name}");
    let mut watches = Vec::new();
    if rules.wants_fields_of(Origin::Namespace) {
        let watch = metadata("/api/v1/namespaces".into(), String::new());
        watches.push((Some(Kind::Namespace), watch));
    } else if rules.wants("k8s.cluster.uid") {
        let watch = metadata("/api/v1/namespaces".into(), named("kube-system"));
        watches.push((Some(Kind::Namespace), watch));
    }
    if rules.wants_fields_of(Origin::Node) || rules.wants("k8s.node.uid") {
        let fields = node.map(named).unwrap_or_default();
        watches.push((Some(Kind::Node), metadata("/api/v1/nodes".into(), fields)));
    }
    for (kind, wanted, group, plural) in [
        (
            Kind::ReplicaSet,
            rules.needs_replicasets(),
            "/apis/apps/v1",
            "replicasets",
        ),
        (
            Kind::Deployment,
            rules.wants_fields_of(Origin::Deployment),
            "/apis/apps/v1",
            "deployments",
        ),
        (
            Kind::StatefulSet,
            rules.wants_fields_of(Origin::StatefulSet),
            "/apis/apps/v1",
            "statefulsets",
        ),
        (
            Kind::DaemonSet,
            rules.wants_fields_of(Origin::DaemonSet),
            "/apis/apps/v1",
            "daemonsets",
        ),
        (Kind::Job, rules.needs_jobs(), "/apis/batch/v1", "jobs"),
    ] {
        if wanted {
            let watch = metadata(namespaced(group, plural), String::new());
            watches.push((Some(kind), watch));
        }
    }
    let of_node = node.map(|node| format!("spec.nodeName={node}"));
    let fields = [Some(filter.fields.clone()), of_node];
    let fields = fields.into_iter().flatten().filter(|term| !term.is_empty());
    let pods = Watch {
        path: namespaced("/api/v1", "pods"),
        labels: filter.labels.clone(),
        fields: fields.collect::<Vec<_>>().join(","),
        form: Form::Whole,
    };
    watches.push((None, pods));
    watches
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_config::{Errors, KeyPath, Section, parse};

    fn paths(yaml: &str, node: Option<&str>) -> Vec<String> {
        let node_tree = parse(yaml, "a.yaml").unwrap();
        let mut errors = Errors::new();
        let path = KeyPath::from("processors::k8s_attributes");
        let mut section = Section::new(&node_tree, &path, &mut errors);
        let config = K8sAttributesConfig::decode(&mut section);
        section.finish();
        assert!(errors.is_empty(), "{errors}");
        let watches = watches(&config, node).into_iter();
        let text = |(_, w): (_, Watch)| format!("{}?{}&{}", w.path, w.labels, w.fields);
        watches.map(text).collect()
    }

    #[test]
    fn no_more_is_followed_than_is_needed() {
        assert_eq!(
            paths("{}", Some("n1")),
            [
                "/apis/apps/v1/replicasets?&",
                "/api/v1/pods?&spec.nodeName=n1"
            ]
        );
        let by_name = "{extract: {deployment_name_from_replicaset: true}, filter: {namespace: shop, labels: [{key: a, \
                       value: b}, {key: c, op: does-not-exist}], fields: [{key: status.phase, value: 'x,y', op: not-equals}]}}";
        assert_eq!(
            paths(by_name, None),
            ["/api/v1/namespaces/shop/pods?a=b,!c&status.phase!=x\\,y"]
        );
        let all = "{extract: {metadata: [k8s.cluster.uid, k8s.node.uid, k8s.cronjob.uid], labels: [{key: x, from: deployment}, \
                   {key: x, from: statefulset}, {key: x, from: daemonset}]}}";
        assert_eq!(
            paths(all, Some("n1")),
            [
                "/api/v1/namespaces?&metadata.name=kube-system",
                "/api/v1/nodes?&metadata.name=n1",
                "/apis/apps/v1/replicasets?&",
                "/apis/apps/v1/deployments?&",
                "/apis/apps/v1/statefulsets?&",
                "/apis/apps/v1/daemonsets?&",
                "/apis/batch/v1/jobs?&",
                "/api/v1/pods?&spec.nodeName=n1",
            ]
        );
    }
}
