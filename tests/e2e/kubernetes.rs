//! Container logs of a node with metadata of the cluster, against a stand-in for its API server.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use serde_json::{Value, json};
use tailwater_testkit::kubernetes::FakeKubernetes;
use tailwater_testkit::loki::DEFAULT_TENANT;
use tailwater_tests::agent::Agent;
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

const PODS: &str = "/api/v1/pods";
const REPLICASETS: &str = "/apis/apps/v1/replicasets";
const UID: &str = "aaaaaaaa-0000-4000-8000-00000000000";

/// A node with an API server, and an agent that follows it.
struct Node {
    rig: Rig,
    api: FakeKubernetes,
    config: Value,
}

impl Node {
    fn new(section: Value) -> Node {
        let rig = Rig::new("kubernetes");
        let api = FakeKubernetes::start().expect("a port");
        let kubeconfig = rig.path("kubeconfig");
        fs::write(&kubeconfig, api.kubeconfig()).expect("written");
        let mut config = rig.config();
        config["receivers"]["filelog"]["include"] = json!([rig.logs("pods/*/*/*.log")]);
        config["receivers"]["filelog"]["include_file_path"] = json!(true);
        config["receivers"]["filelog"]["operators"] = json!([{"type": "container"}]);
        let mut k8s = json!({
            "auth_type": "kubeConfig",
            "kube_config_path": kubeconfig,
            "filter": {"node": "n1"},
            "pod_association": [{"sources": [{"from": "resource_attribute", "name": "k8s.pod.uid"}]}],
            "extract": {
                "metadata": ["k8s.pod.name", "k8s.node.name", "k8s.deployment.name", "container.image.tag"],
                "labels": [{"tag_name": "app", "key": "app"}],
            },
        });
        for (key, value) in section.as_object().into_iter().flatten() {
            k8s[key] = value.clone();
        }
        config["processors"]["k8s_attributes"] = k8s;
        config["service"]["pipelines"]["logs"]["processors"] = json!(["k8s_attributes", "batch"]);
        config["exporters"]["loki"]["labels"] = json!({
            "static": {"job": "e2e"},
            "resource": {"pod": "k8s.pod.name", "node": "k8s.node.name", "app": "app", "deployment": "k8s.deployment.name",
                         "tag": "container.image.tag"},
        });
        Node { rig, api, config }
    }

    fn replicaset(&self) {
        let owner = json!({"kind": "Deployment", "name": "web", "uid": "d1", "controller": true});
        let metadata = json!({"name": "web-6c45", "namespace": "shop", "uid": "rs1", "ownerReferences": [owner]});
        self.api.set(REPLICASETS, json!({"metadata": metadata}));
    }

    fn pod(&self, n: u32) {
        self.api.set(PODS, pod(n));
    }

    /// Where the log of a container is.
    fn log(&self, n: u32) -> PathBuf {
        self.rig
            .logs(&format!("pods/shop_web-{n}_{UID}{n}/main/0.log"))
    }

    fn write(&self, n: u32, lines: &[&str]) {
        let path = self.log(n);
        fs::create_dir_all(path.parent().expect("below logs")).expect("a directory");
        let file = OpenOptions::new().create(true).append(true).open(path);
        let mut file = file.expect("a file");
        for line in lines {
            writeln!(file, "2026-01-02T03:04:05.{n:09}Z stdout F {line}").expect("written");
        }
    }

    /// Lines in the sink, by the labels of their stream.
    fn lines(&self, labels: &[(&str, &str)]) -> Vec<String> {
        let mut found = Vec::new();
        for stream in self.rig.loki.streams(DEFAULT_TENANT) {
            if labels
                .iter()
                .all(|(k, v)| stream.contains(&format!("{k}=\"{v}\"")))
            {
                let entries = self.rig.loki.entries(DEFAULT_TENANT, &stream);
                found.extend(
                    entries
                        .iter()
                        .map(|e| String::from_utf8_lossy(&e.line).into_owned()),
                );
            }
        }
        found
    }

    fn expect(&self, agent: &Agent, labels: &[(&str, &str)], lines: &[&str]) {
        let arrived = wait::within(wait::BOUND, || self.lines(labels) == lines);
        assert!(
            arrived,
            "{labels:?}: {:?} of {:?}\n{}",
            self.lines(labels),
            self.rig.loki.streams(DEFAULT_TENANT),
            tail(&agent.log())
        );
    }
}

fn pod(n: u32) -> Value {
    let owner = json!({"kind": "ReplicaSet", "name": "web-6c45", "uid": "rs1", "controller": true});
    json!({
        "metadata": {
            "name": format!("web-{n}"), "namespace": "shop", "uid": format!("{UID}{n}"),
            "labels": {"app": format!("shop-{n}")}, "ownerReferences": [owner],
        },
        "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": format!("r.io/web:{n}")}]},
        "status": {"podIP": "10.0.0.1", "startTime": "2026-01-02T03:04:05Z"},
    })
}

/// Guarantees that lines have the metadata of their pod: of one that is there, of one that appears after its first lines,
/// and of one that is deleted before its last ones; with one list of each kind.
#[test]
fn lines_have_the_metadata_of_their_pod() {
    let node = Node::new(json!({}));
    node.replicaset();
    node.pod(1);
    node.write(1, &["one"]);
    let agent = node.rig.start(&node.config);
    let of = |n: u32| {
        [
            ("app".to_owned(), format!("shop-{n}")),
            ("tag".into(), n.to_string()),
        ]
    };
    let expect = |n: u32, lines: &[&str]| {
        let own = of(n);
        let mut labels = vec![("deployment", "web"), ("node", "n1")];
        labels.extend(own.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        node.expect(&agent, &labels, lines);
    };
    expect(1, &["one"]);

    node.write(2, &["early"]);
    let waits = || {
        agent
            .scrape()
            .sum("tailwater_k8sattributes_items_waiting", &[])
            == 1.0
    };
    assert!(wait::within(wait::BOUND, waits), "{}", tail(&agent.log()));
    node.pod(2);
    expect(2, &["early"]);

    node.api.delete(PODS, "shop", "web-1");
    let gone = || agent.scrape().sum("otelcol_otelsvc_k8s_pod_deleted", &[]) == 1.0;
    assert!(wait::within(wait::BOUND, gone), "{}", tail(&agent.log()));
    node.write(1, &["last"]);
    expect(1, &["one", "last"]);

    let scrape = agent.scrape();
    assert_eq!(
        scrape.sum("tailwater_k8sattributes_items_without_metadata", &[]),
        0.0
    );
    assert_eq!((node.api.lists(PODS), node.api.lists(REPLICASETS)), (1, 1));
    agent.stop_clean();
}

/// Guarantees that an API that is away at the start, or all the time, costs no line and no more than some seconds, and that
/// what it says later is used.
#[test]
fn an_api_that_is_away_costs_time_only() {
    let mut node = Node::new(json!({"late_metadata_timeout": "300ms"}));
    node.replicaset();
    node.pod(1);
    node.api.leave();
    node.write(1, &["one", "two"]);
    let agent = node.rig.start(&node.config);
    node.expect(&agent, &[("pod", "web-1")], &["one", "two"]);
    assert!(node.lines(&[("app", "shop-1")]).is_empty());
    node.api.come_back().expect("its port");
    let synced = || {
        agent
            .scrape()
            .sum("otelcol_otelsvc_k8s_pod_table_size", &[])
            == 1.0
    };
    assert!(wait::within(wait::BOUND, synced), "{}", tail(&agent.log()));
    node.write(1, &["three"]);
    node.expect(&agent, &[("app", "shop-1")], &["three"]);
    agent.stop_clean();
}

/// Guarantees that a server that refuses, is slow and forgets is asked for no more lists than needed, over a change of the
/// configuration as well, and that lines have their metadata all the same.
#[test]
fn a_server_in_trouble_is_not_asked_more() {
    let node = Node::new(json!({}));
    node.replicaset();
    node.pod(1);
    node.api.set_trouble(|t| {
        (t.refuse, t.status, t.retry_after) = (2, 429, Some(1));
        t.delay = std::time::Duration::from_millis(200);
    });
    node.write(1, &["one"]);
    let agent = node.rig.start(&node.config);
    node.expect(
        &agent,
        &[("app", "shop-1"), ("deployment", "web")],
        &["one"],
    );
    assert_eq!((node.api.lists(PODS), node.api.lists(REPLICASETS)), (1, 1));
    // Another configuration with the same processor in it goes on with what is known.
    let mut changed = node.config.clone();
    changed["exporters"]["loki"]["labels"]["static"]["job"] = json!("other");
    assert!(agent.reload(&changed), "{}", tail(&agent.log()));
    node.write(1, &["two"]);
    node.expect(&agent, &[("app", "shop-1"), ("job", "other")], &["two"]);
    assert_eq!(node.api.lists(PODS), 1);
    node.api.forget();
    let again = node.api.wait(wait::BOUND, |api| api.lists(PODS) == 2);
    assert!(again, "{}", tail(&agent.log()));
    node.pod(3);
    node.write(3, &["three"]);
    node.expect(&agent, &[("app", "shop-3")], &["three"]);
    assert_eq!(node.api.lists(PODS), 2);
    agent.stop_clean();
}

/// Guarantees that the node and what `OTEL_RESOURCE_ATTRIBUTES` says are found, and that a Docker Engine that is not there
/// stops nothing.
#[test]
fn what_the_agent_runs_on_is_detected() {
    let mut node = Node::new(json!({}));
    node.api.set(
        "/api/v1/nodes",
        json!({"metadata": {"name": "n1", "uid": "node-uid"}}),
    );
    let kubeconfig = node.rig.path("kubeconfig");
    node.config["processors"]["resource_detection"] = json!({
        "detectors": ["env", "system", "k8s_api", "docker"],
        "timeout": "2s",
        "k8s_api": {"auth_type": "kubeConfig", "kube_config_path": kubeconfig, "node_from_env_var": "TEST_NODE"},
        "system": {"hostname_sources": ["os"]},
    });
    node.config["service"]["pipelines"]["logs"]["processors"] =
        json!(["resource_detection", "batch"]);
    node.config["exporters"]["loki"]["labels"]["resource"] = json!({
        "pod": "k8s.pod.name", "host": "host.name", "os": "os.type", "zone": "zone", "node": "k8s.node.name",
        "uid": "k8s.node.uid",
    });
    node.write(1, &["one"]);
    let docker = format!("unix://{}", node.rig.path("no-docker.sock").display());
    let agent = node.rig.start_by(&node.config, |mut command| {
        command
            .env("OTEL_RESOURCE_ATTRIBUTES", "zone=z1,host.name=mine")
            .env("TEST_NODE", "n1")
            .env("DOCKER_HOST", docker);
        command
    });
    let labels = [
        ("host", "mine"),
        ("os", "linux"),
        ("zone", "z1"),
        ("node", "n1"),
        ("uid", "node-uid"),
        ("pod", "web-1"),
    ];
    node.expect(&agent, &labels, &["one"]);
    assert!(
        agent
            .scrape()
            .sum("tailwater_resourcedetection_failures", &[])
            > 0.0
    );
    agent.stop_clean();
}
