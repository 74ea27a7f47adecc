use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value as Json, json};
use tailwater_config::{Errors, KeyPath, Section, parse};
use tailwater_kubernetes::model::{Named, Pod};
use tailwater_kubernetes::{ApiError, Change};
use tailwater_pdata::otlp::{Encoded, Limits};
use tailwater_pdata::{LogsBatch, Map, Signal};
use tailwater_pipeline::ack::{AckSink, Counts};
use tailwater_pipeline::client::ClientInfo;
use tailwater_pipeline::clock::{Clock, Mono, SimClock};
use tailwater_pipeline::{AckToken, Admission, Batch, Budget, LogsPart, Outcome, Output, Part};
use tailwater_telemetry::metrics::MetricsRegistry;

use super::table::{DELETED_MAX, Kind};
use super::*;

const SECOND: u64 = 1_000_000_000;
const BY_UID: &str =
    "pod_association: [{sources: [{from: resource_attribute, name: k8s.pod.uid}]}]";

fn read(yaml: &str) -> (K8sAttributesConfig, Errors) {
    let node = parse(yaml, "a.yaml").unwrap();
    let mut errors = Errors::new();
    let path = KeyPath::from("processors::k8s_attributes");
    let mut section = Section::new(&node, &path, &mut errors);
    let config = K8sAttributesConfig::decode(&mut section);
    section.finish();
    (config, errors)
}

#[test]
fn defaults_are_those_of_the_collector() {
    let (config, errors) = read("{}");
    assert!(errors.is_empty(), "{errors}");
    let rules = &config.wanted.rules;
    let mut metadata = rules.metadata.clone();
    metadata.sort_unstable();
    assert_eq!(metadata, rules::DEFAULT_METADATA);
    assert!(config.wanted.associations.is_empty() && !config.passthrough);
    assert_eq!(config.wanted.exclude.len(), 2);
    assert_eq!(
        (config.wait_at_start, config.late),
        (None, Duration::from_secs(5))
    );
    let (config, _) = read("wait_for_metadata: true");
    assert_eq!(config.wait_at_start, Some(Duration::from_secs(10)));
}

#[test]
fn mistakes_are_named() {
    let cases = [
        ("extract: {metadata: [k8s.pod.nam]}", "k8s.pod.name"),
        (
            "extract: {labels: [{tag_name: x}]}",
            "needs key or key_regex",
        ),
        (
            "extract: {labels: [{key: a, key_regex: b}]}",
            "cannot be used together",
        ),
        (
            "extract: {annotations: [{key_regex: '('}]}",
            "regular expression",
        ),
        ("extract: {labels: [{key: a, from: pods}]}", "pod"),
        ("filter: {labels: [{key: a, op: in}]}", "equals"),
        ("filter: {fields: [{key: a, op: exists}]}", "not-equals"),
        (
            "filter: {labels: [{key: a, value: 'b,c'}]}",
            "no value that a label",
        ),
        ("pod_association: [{sources: []}]", "must not be empty"),
        (
            "pod_association: [{sources: [{from: resource_attribute}]}]",
            "name",
        ),
        (
            "pod_association: [{sources: [{from: header, name: x}]}]",
            "connection",
        ),
        (
            "pod_association: [{sources: [{from: connection}, {from: connection}, {from: connection}, {from: connection}, \
             {from: connection}]}]",
            "more than 4",
        ),
        ("exclude: {pods: [{name: '['}]}", "regular expression"),
        ("auth_type: tls", "tls is not supported"),
        ("auth_type: token", "serviceAccount"),
        ("unknown: 1", "unknown"),
    ];
    for (yaml, wanted) in cases {
        let (_, errors) = read(yaml);
        assert!(errors.to_string().contains(wanted), "{yaml}: {errors}");
    }
}

struct Out {
    parts: Vec<Part>,
    clock: Arc<SimClock>,
}

impl Output for Out {
    fn emit(&mut self, batch: Batch) {
        self.parts.extend(batch.parts);
    }
    fn now(&self) -> Mono {
        self.clock.now()
    }
}

/// Who sent it.
struct From(Arc<ClientInfo>);

impl AckSink for From {
    fn settled(&self, _: u64, _: Outcome, _: &Counts) {}
    fn client(&self) -> Option<Arc<ClientInfo>> {
        Some(self.0.clone())
    }
}

/// A processor, and a cluster that it is told of by the test.
struct Stand {
    processor: K8sAttributes,
    cluster: Arc<Cluster>,
    out: Out,
    metrics: MetricsRegistry,
    _runtime: tokio::runtime::Runtime,
}

impl Stand {
    fn new(yaml: &str) -> Stand {
        let (config, errors) = read(yaml);
        assert!(errors.is_empty(), "{yaml}: {errors}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let metrics = MetricsRegistry::default();
        let clock = Arc::new(SimClock::new(0));
        let meters = K8sClusterMetrics::new(&metrics, "x");
        let cluster = Cluster::new(config.clone(), None, 1, meters, clock.clone(), true);
        let waits = config.wait_at_start.unwrap_or(config.late);
        cluster.pretend_started(Mono(0).after(waits));
        let cluster = Arc::new(cluster);
        let meters = K8sWaitingMetrics::new(&metrics, "x", "logs");
        let handle = runtime.handle().clone();
        Stand {
            processor: K8sAttributes::new(cluster.clone(), &config, handle, meters),
            cluster,
            out: Out {
                parts: Vec::new(),
                clock,
            },
            metrics,
            _runtime: runtime,
        }
    }

    /// One that was told of everything.
    fn synced(yaml: &str, pods: Vec<Json>) -> Stand {
        let stand = Stand::new(yaml);
        stand.all(pods);
        for kind in Kind::ALL {
            stand.cluster.told(kind, Change::All(Vec::new()));
        }
        stand
    }

    fn all(&self, pods: Vec<Json>) {
        let pods = pods.into_iter().map(|p| serde_json::from_value(p).unwrap());
        self.cluster.told_pod(Change::All(pods.collect()));
    }

    fn set(&self, pod: Json) {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.cluster.told_pod(Change::Set(pod));
    }

    fn gone(&self, pod: Json) {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.cluster.told_pod(Change::Gone(pod));
    }

    fn object(&self, kind: Kind, object: Json) {
        let object: Named = serde_json::from_value(object).unwrap();
        self.cluster.told(kind, Change::Set(object));
    }

    fn at(&mut self, now: u64) {
        let passed = now.saturating_sub(self.out.clock.now().0);
        self.out.clock.advance(Duration::from_nanos(passed));
        self.processor.tick(&mut self.out);
    }

    fn send(&mut self, resource: &Arc<Map>, text: &'static str, client: Option<&str>) {
        let lines = [(0, text.len() as u32)];
        let mut logs = LogsBatch::from_lines(Bytes::from_static(text.as_bytes()), &lines);
        logs.resource = resource.clone();
        let part = LogsPart {
            logs,
            ack: token(client),
            permit: Budget::new(1 << 30).take(text.len()),
        };
        self.processor.process(Batch::of(part), &mut self.out);
    }

    fn line(&mut self, resource: &[(&str, &str)], text: &'static str) {
        let resource = Arc::new(Map::from_iter(resource.iter().copied()));
        self.send(&resource, text, None);
    }

    /// Text and resource of what was passed on.
    fn passed(&mut self) -> Vec<(String, Arc<Map>)> {
        let mut found = Vec::new();
        for part in self.out.parts.drain(..) {
            for part in part.into_logs() {
                let text = part.logs.body(0).unwrap().to_display_string();
                found.push((text, part.logs.resource.clone()));
                part.ack.resolve(Outcome::Delivered);
            }
        }
        found
    }

    /// Of the only thing that was passed on.
    fn resource(&mut self) -> Map {
        let passed = self.passed();
        assert_eq!(passed.len(), 1, "{passed:?}");
        (*passed[0].1).clone()
    }

    fn texts(&mut self) -> Vec<String> {
        self.passed().into_iter().map(|(text, _)| text).collect()
    }

    fn metric(&self, name: &str) -> f64 {
        let samples = self.metrics.samples();
        let found = samples.iter().filter(|s| s.name == name);
        found.map(|s| s.value).sum()
    }
}

fn token(client: Option<&str>) -> AckToken {
    match client {
        None => AckToken::detached(),
        Some(address) => {
            let info = ClientInfo::at(Some(address.parse().unwrap()));
            AckToken::new(Arc::new(From(Arc::new(info))), 0)
        }
    }
}

fn pod(uid: &str) -> Json {
    json!({
        "metadata": {
            "name": format!("web-{uid}"), "namespace": "shop", "uid": uid,
            "creationTimestamp": "2026-01-02T03:04:05Z", "labels": {"app": "web"},
        },
        "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": "r.io/web:1.2"}]},
        "status": {"podIP": format!("10.0.0.{}", uid.len()), "startTime": "2026-01-02T03:04:06Z"},
    })
}

fn of_replicaset(mut pod: Json) -> Json {
    let owner = json!({"kind": "ReplicaSet", "name": "web-6c45", "uid": "rs1", "controller": true});
    pod["metadata"]["ownerReferences"] = json!([owner]);
    pod
}

fn replicaset() -> Json {
    let owner = json!({"kind": "Deployment", "name": "web", "uid": "d1", "controller": true});
    json!({"metadata": {"name": "web-6c45", "namespace": "shop", "uid": "rs1", "ownerReferences": [owner]}})
}

fn map(pairs: &[(&str, &str)]) -> Map {
    Map::from_iter(pairs.iter().copied())
}

#[test]
fn a_resource_gets_what_is_known_of_its_pod() {
    let mut stand = Stand::synced(BY_UID, vec![of_replicaset(pod("u1"))]);
    stand.object(Kind::ReplicaSet, replicaset());
    let resource = Arc::new(map(&[
        ("k8s.pod.uid", "u1"),
        ("k8s.pod.name", ""),
        ("k8s.node.name", "own"),
    ]));
    stand.send(&resource, "a", None);
    stand.send(&resource, "b", None);
    let passed = stand.passed();
    let want = map(&[
        ("k8s.pod.uid", "u1"),
        ("k8s.pod.name", "web-u1"),
        ("k8s.node.name", "own"),
        ("k8s.namespace.name", "shop"),
        ("k8s.pod.start_time", "2026-01-02T03:04:05Z"),
        ("k8s.deployment.name", "web"),
        ("container.image.name", "r.io/web"),
        ("container.image.tag", "1.2"),
    ]);
    assert_eq!(*passed[0].1, want);
    assert!(
        Arc::ptr_eq(&passed[0].1, &passed[1].1),
        "one resource becomes one"
    );
    // What changes elsewhere leaves it the same one; what changes in it does not.
    stand.set(pod("u22"));
    stand.send(&resource, "c", None);
    assert!(Arc::ptr_eq(&stand.passed()[0].1, &passed[0].1));
    let mut other = of_replicaset(pod("u1"));
    other["metadata"]["namespace"] = "other".into();
    stand.set(other);
    stand.send(&resource, "d", None);
    let now = stand.resource();
    assert_eq!(now.get("k8s.namespace.name"), Some(&"other".into()));
}

/// Guarantee: at the start data waits until the cluster was told of, and no longer than it may.
#[test]
fn data_waits_for_the_first_lists() {
    let mut stand = Stand::new(BY_UID);
    stand.line(&[("k8s.pod.uid", "u1")], "a");
    assert_eq!(stand.processor.admission(), Admission::Closed);
    stand.all(vec![pod("u1")]);
    stand.at(SECOND);
    assert!(stand.passed().is_empty(), "ReplicaSets are still to come");
    stand
        .cluster
        .told(Kind::ReplicaSet, Change::All(Vec::new()));
    stand.at(SECOND + 1);
    assert_eq!(stand.resource().get("k8s.pod.name"), Some(&"web-u1".into()));
    assert_eq!(stand.processor.admission(), Admission::Open);
    assert_eq!(stand.processor.deadline(), None);

    let mut stand = Stand::new(BY_UID);
    stand.line(&[("k8s.pod.uid", "u1")], "a");
    stand.at(5 * SECOND - 1);
    assert!(stand.passed().is_empty());
    stand.at(5 * SECOND);
    assert_eq!(stand.texts(), ["a"]);
    // Nobody waits a second time while there is no API.
    stand.line(&[("k8s.pod.uid", "u2")], "b");
    assert_eq!(stand.texts(), ["b"]);
}

/// Guarantee: what comes before its pod is known waits, by itself and in order, and then has its metadata.
#[test]
fn a_pod_that_is_late_is_waited_for() {
    let mut stand = Stand::synced(BY_UID, vec![pod("u1")]);
    let late = [("k8s.pod.uid", "u2")];
    stand.line(&late, "a");
    stand.line(&[("k8s.pod.uid", "u1")], "other");
    stand.at(SECOND);
    stand.line(&late, "b");
    assert_eq!(stand.texts(), ["other"]);
    assert_eq!(stand.metric("tailwater_k8sattributes_items_waiting"), 2.0);
    stand.set(pod("u2"));
    stand.line(&late, "c");
    let passed = stand.passed();
    let texts: Vec<&str> = passed.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(texts, ["a", "b", "c"]);
    for (_, resource) in &passed {
        assert_eq!(resource.get("k8s.pod.name"), Some(&"web-u2".into()));
    }
    assert_eq!(stand.metric("tailwater_k8sattributes_items_waiting"), 0.0);
    assert_eq!(
        stand.metric("tailwater_k8sattributes_items_without_metadata"),
        0.0
    );
}

#[test]
fn a_pod_that_never_comes_costs_time_once() {
    let mut stand = Stand::synced(BY_UID, Vec::new());
    let unknown = [("k8s.pod.uid", "u9")];
    stand.line(&unknown, "a");
    stand.at(4 * SECOND);
    stand.line(&unknown, "b");
    assert!(stand.processor.deadline().is_some());
    stand.at(5 * SECOND);
    assert_eq!(stand.texts(), ["a", "b"]);
    stand.line(&unknown, "c");
    assert_eq!(stand.texts(), ["c"]);
    assert_eq!(
        stand.metric("tailwater_k8sattributes_items_without_metadata"),
        2.0
    );
    // It comes after all.
    stand.set(pod("u9"));
    stand.line(&unknown, "d");
    assert_eq!(stand.resource().get("k8s.pod.name"), Some(&"web-u9".into()));
}

#[test]
fn what_is_late_of_a_pod_is_waited_for_as_well() {
    let mut stand = Stand::synced(BY_UID, vec![of_replicaset(pod("u1"))]);
    stand.line(&[("k8s.pod.uid", "u1")], "a");
    stand.at(SECOND);
    assert!(stand.passed().is_empty());
    stand.object(Kind::ReplicaSet, replicaset());
    stand.at(SECOND + 1);
    assert_eq!(
        stand.resource().get("k8s.deployment.name"),
        Some(&"web".into())
    );
}

/// Guarantee: what one may not see holds up nothing, what is refused for the moment is waited for.
#[test]
fn what_may_not_be_seen_is_not_waited_for() {
    let refused = |code| ApiError::Refused {
        path: "/apis/apps/v1/replicasets".into(),
        code,
        message: "no".into(),
        retry_after: None,
    };
    let mut stand = Stand::new(BY_UID);
    stand.all(vec![of_replicaset(pod("u1"))]);
    let fails = |stand: &Stand, code| {
        let failed = Change::Failed(&refused(code), Duration::ZERO);
        stand.cluster.told(Kind::ReplicaSet, failed);
    };
    fails(&stand, 500);
    stand.line(&[("k8s.pod.uid", "u1")], "a");
    assert!(stand.passed().is_empty());
    fails(&stand, 403);
    stand.at(1);
    assert_eq!(stand.resource().get("k8s.pod.name"), Some(&"web-u1".into()));
}

#[test]
fn what_waits_holds_back_its_own_sources_first() {
    let mut stand = Stand::synced(BY_UID, Vec::new());
    let text: &'static str = "x".repeat(SCARCE_BYTES).leak();
    stand.line(&[("k8s.pod.uid", "u9")], text);
    assert_eq!(stand.processor.admission(), Admission::Open);
    stand.line(&[("k8s.pod.uid", "u9")], "y");
    assert_eq!(stand.processor.admission(), Admission::Scarce);
    stand.at(5 * SECOND);
    assert_eq!(stand.processor.admission(), Admission::Open);
    assert_eq!(stand.passed().len(), 2);
}

#[test]
fn a_flush_passes_on_what_waits() {
    let mut stand = Stand::synced(BY_UID, Vec::new());
    stand.line(&[("k8s.pod.uid", "u9")], "a");
    stand.processor.flush(&mut stand.out);
    assert_eq!(stand.texts(), ["a"]);
    let mut early = Stand::new(BY_UID);
    early.line(&[("k8s.pod.uid", "u9")], "b");
    early.processor.flush(&mut early.out);
    assert_eq!(early.texts(), ["b"]);
}

/// Guarantee: the last lines of a deleted pod have its metadata, however long they go on coming; a pod
/// of which nothing comes any more is forgotten.
#[test]
fn a_deleted_pod_is_remembered_while_it_is_used() {
    let mut stand = Stand::synced(
        &format!("{BY_UID}\ndeleted_pod_grace_period: 60s"),
        vec![pod("u1"), pod("u22")],
    );
    let resource = Arc::new(map(&[("k8s.pod.uid", "u1")]));
    stand.send(&resource, "a", None);
    stand.at(10 * SECOND);
    stand.gone(pod("u1"));
    stand.gone(pod("u22"));
    // Each a little before it would be forgotten; the resource is remembered meanwhile.
    for n in 1..5 {
        stand.at(10 * SECOND + n * 50 * SECOND);
        stand.send(&resource, "b", None);
        stand.cluster.forget_now();
    }
    let passed = stand.passed();
    assert!(
        passed
            .iter()
            .all(|(_, r)| r.get("k8s.pod.name") == Some(&"web-u1".into()))
    );
    assert_eq!(
        stand.metric("otelcol_otelsvc_k8s_pod_table_size"),
        1.0,
        "the other one is forgotten"
    );
    stand.at(10 * SECOND + 261 * SECOND);
    stand.cluster.forget_now();
    assert_eq!(stand.metric("otelcol_otelsvc_k8s_pod_table_size"), 0.0);
}

#[test]
fn deleted_pods_are_no_more_than_so_many() {
    let stand = Stand::synced(BY_UID, Vec::new());
    for n in 0..DELETED_MAX + 10 {
        let pod = pod(&format!("u{n}"));
        stand.set(pod.clone());
        stand.gone(pod);
    }
    stand.cluster.forget_now();
    assert_eq!(
        stand.metric("otelcol_otelsvc_k8s_pod_table_size"),
        DELETED_MAX as f64
    );
    assert_eq!(stand.metric("tailwater_k8sattributes_pods_forgotten"), 10.0);
}

/// Guarantee: a list is the truth: what is not in it was deleted.
#[test]
fn a_list_heals_what_was_missed() {
    let stand = Stand::synced(BY_UID, vec![pod("u1"), pod("u22")]);
    stand.all(vec![pod("u22"), pod("u333")]);
    assert_eq!(stand.metric("otelcol_otelsvc_k8s_pod_deleted"), 1.0);
    assert_eq!(stand.metric("otelcol_otelsvc_k8s_pod_added"), 3.0);
    assert_eq!(stand.metric("otelcol_otelsvc_k8s_pod_updated"), 1.0);
    assert_eq!(stand.metric("otelcol_otelsvc_k8s_pod_table_size"), 3.0);
}

#[test]
fn an_address_leads_to_the_pod_that_has_it_now() {
    let mut stand = Stand::synced("{}", Vec::new());
    let named = |name: &str, started: &str| {
        let mut pod = pod(name);
        pod["status"] = json!({"podIP": "10.0.0.1", "startTime": started});
        pod
    };
    let name = |stand: &mut Stand| {
        let resource = Arc::new(Map::new());
        stand.send(&resource, "a", Some("10.0.0.1"));
        let resource = stand.resource();
        assert_eq!(resource.get("k8s.pod.ip"), Some(&"10.0.0.1".into()));
        resource
            .get("k8s.pod.name")
            .map(|v| v.as_ref().to_display_string())
    };
    assert_eq!(
        name(&mut stand),
        None,
        "who has no more than an address is not waited for"
    );
    let old = named("old", "2026-01-01T00:00:00Z");
    stand.set(old.clone());
    assert_eq!(name(&mut stand).as_deref(), Some("web-old"));
    stand.set(named("new", "2026-01-02T00:00:00Z"));
    assert_eq!(name(&mut stand).as_deref(), Some("web-new"));
    // News of the old one that is late changes nothing, nor does its end.
    stand.set(old.clone());
    assert_eq!(name(&mut stand).as_deref(), Some("web-new"));
    stand.gone(old);
    assert_eq!(name(&mut stand).as_deref(), Some("web-new"));
}

#[test]
fn containers_are_told_apart() {
    let yaml = format!(
        "{BY_UID}\nextract: {{metadata: [k8s.container.name, container.id, container.image.name, container.image.tag, \
         container.image.repo_digests, service.version, service.instance.id]}}"
    );
    let mut two = pod("u1");
    two["spec"]["containers"] =
        json!([{"name": "a", "image": "x:1"}, {"name": "b", "image": "y@sha256:7"}]);
    two["status"]["containerStatuses"] = json!([
        {"name": "a", "containerID": "containerd://ida", "restartCount": 2, "imageID": "docker.io/library/x@sha256:9"},
        {"name": "b", "containerID": "containerd://idb", "restartCount": 0},
    ]);
    let mut stand = Stand::synced(&yaml, vec![two, pod("u22")]);
    let mut of = |pairs: &[(&str, &str)]| {
        stand.line(pairs, "a");
        let resource = stand.resource();
        let text = |key: &str| {
            let value = resource.get(key).map(|v| v.as_ref().to_display_string());
            value.unwrap_or_default()
        };
        [
            "k8s.container.name",
            "container.id",
            "container.image.name",
            "container.image.tag",
            "service.version",
        ]
        .map(text)
    };
    let uid = ("k8s.pod.uid", "u1");
    assert_eq!(
        of(&[uid, ("k8s.container.name", "a")]),
        ["a", "ida", "x", "1", "1"]
    );
    assert_eq!(
        of(&[uid, ("container.id", "idb")]),
        ["b", "idb", "y", "", "sha256:7"]
    );
    let restart = ("k8s.container.restart_count", "1");
    assert_eq!(
        of(&[uid, ("k8s.container.name", "a"), restart])[1],
        "",
        "it runs no more"
    );
    let restart = ("k8s.container.restart_count", "2");
    assert_eq!(of(&[uid, ("k8s.container.name", "a"), restart])[1], "ida");
    assert_eq!(of(&[uid])[0], "", "it may be either");
    assert_eq!(of(&[("k8s.pod.uid", "u22")])[..3], ["main", "", "r.io/web"]);
    stand.line(&[uid, ("k8s.container.name", "a")], "a");
    let resource = stand.resource();
    assert_eq!(
        resource.get("service.instance.id"),
        Some(&"shop.web-u1.a".into())
    );
    let digests = resource.get("container.image.repo_digests").unwrap();
    assert_eq!(
        digests.as_ref().to_display_string(),
        r#"["docker.io/library/x@sha256:9"]"#
    );
}

#[test]
fn what_is_around_pods_has_labels_too() {
    let yaml = format!(
        "{BY_UID}\nextract: {{metadata: [k8s.node.uid, k8s.cluster.uid, k8s.cronjob.uid], labels: [{{key: team, from: namespace}}, \
         {{tag_name: zone, key: zone, from: node}}, {{key: tier, from: deployment}}, {{key: batch, from: job}}]}}"
    );
    let mut of_job = pod("u22");
    of_job["metadata"]["ownerReferences"] = json!([{"kind": "Job", "name": "b-1", "uid": "j1"}]);
    let mut stand = Stand::synced(&yaml, vec![of_replicaset(pod("u1")), of_job]);
    let labelled = |name: &str, uid: &str, label: &str| json!({"metadata": {"name": name, "uid": uid, "labels": {label: format!("{label} of {name}")}}});
    stand.object(Kind::ReplicaSet, replicaset());
    stand.object(Kind::Namespace, labelled("shop", "ns1", "team"));
    stand.object(Kind::Namespace, labelled("kube-system", "c1", "x"));
    stand.object(Kind::Node, labelled("n1", "node1", "zone"));
    stand.object(Kind::Deployment, labelled("web", "d1", "tier"));
    let mut job = labelled("b-1", "j1", "batch");
    job["metadata"]["ownerReferences"] =
        json!([{"kind": "CronJob", "name": "b", "uid": "cj1", "controller": true}]);
    stand.object(Kind::Job, job);
    stand.line(&[("k8s.pod.uid", "u1")], "a");
    let common = [
        ("k8s.namespace.labels.team", "team of shop"),
        ("zone", "zone of n1"),
        ("k8s.node.uid", "node1"),
        ("k8s.cluster.uid", "c1"),
    ];
    let want = [
        &common[..],
        &[
            ("k8s.pod.uid", "u1"),
            ("k8s.deployment.label.tier", "tier of web"),
        ],
    ];
    assert_eq!(stand.resource(), map(&want.concat()));
    stand.line(&[("k8s.pod.uid", "u22")], "a");
    let own = [
        ("k8s.pod.uid", "u22"),
        ("k8s.job.label.batch", "batch of b-1"),
        ("k8s.cronjob.uid", "cj1"),
    ];
    assert_eq!(stand.resource(), map(&[&common[..], &own].concat()));
    // Without a pod, by what the resource says itself.
    let pairs = [("k8s.namespace.name", "shop"), ("k8s.node.name", "n1")];
    stand.line(&pairs, "a");
    assert_eq!(stand.resource(), map(&[&pairs[..], &common[..3]].concat()));
}

#[test]
fn pods_that_are_left_alone_get_nothing_and_wait_for_nothing() {
    let mut asks = pod("u1");
    asks["metadata"]["annotations"] = json!({"opentelemetry.io/k8s-processor.ignore": " TRUE "});
    let mut named = pod("u22");
    named["metadata"]["name"] = "my-jaeger-agent-x".into();
    let mut stand = Stand::synced(BY_UID, vec![of_replicaset(asks), named]);
    for uid in ["u1", "u22"] {
        stand.line(&[("k8s.pod.uid", uid)], "a");
        assert_eq!(stand.resource(), map(&[("k8s.pod.uid", uid)]));
    }
}

#[test]
fn passthrough_adds_addresses_only_and_asks_nobody() {
    let mut stand = Stand::new("passthrough: true");
    assert_eq!(stand.processor.admission(), Admission::Open);
    stand.send(&Arc::new(Map::new()), "a", Some("10.0.0.7"));
    assert_eq!(stand.resource(), map(&[("k8s.pod.ip", "10.0.0.7")]));
    stand.send(
        &Arc::new(map(&[("k8s.pod.ip", "10.0.0.8")])),
        "a",
        Some("10.0.0.7"),
    );
    assert_eq!(stand.resource(), map(&[("k8s.pod.ip", "10.0.0.8")]));
}

/// Guarantee: requests of any signal wait and get metadata as lines do, and stay the bytes they were but for that.
#[test]
fn requests_are_looked_up_resource_by_resource() {
    for signal in [Signal::Logs, Signal::Metrics, Signal::Traces] {
        let mut stand = Stand::synced(BY_UID, vec![pod("u1")]);
        // { resource { attributes { k8s.pod.uid: u1 } } scope { item } }, and the same of u2.
        let resource = |uid: &str| {
            let value = [b"\x12\x04\x0a\x02".as_slice(), uid.as_bytes()].concat();
            let pair = [b"\x0a\x0bk8s.pod.uid".as_slice(), &value].concat();
            let pair = [&[0x0a, pair.len() as u8][..], &pair].concat();
            let inner = [&[0x0a, pair.len() as u8][..], &pair, b"\x12\x02\x12\x00"].concat();
            [&[0x0a, inner.len() as u8][..], &inner].concat()
        };
        let body = [resource("u1"), resource("u2")].concat();
        let encoded = Encoded::parse(signal, body.into(), &Limits::default()).unwrap();
        let part = Part {
            data: encoded.into(),
            ack: AckToken::detached(),
            permit: Budget::new(100).take(1),
        };
        stand.processor.process(Batch::of(part), &mut stand.out);
        assert!(stand.out.parts.is_empty(), "one of its pods is not known");
        stand.set(pod("u2"));
        stand.at(SECOND);
        let part = stand.out.parts.pop().unwrap();
        let Payload::Encoded(encoded) = part.data else {
            panic!("decoded");
        };
        part.ack.resolve(Outcome::Delivered);
        let body = encoded.body();
        let has = |text: &[u8]| body.windows(text.len()).any(|w| w == text);
        assert!(has(b"web-u1") && has(b"web-u2"), "{signal:?}");
    }
}
