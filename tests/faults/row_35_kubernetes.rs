//! Row 35: an API server of Kubernetes that is slow, refuses, forgets and lies, while pods come and go.

use std::time::Duration;

use serde_json::json;
use tailwater_testkit::kubernetes::FakeKubernetes;
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::pods::{NODE, PODS, Pods};
use tailwater_tests::wait;

const PASS: &str = "loss 0; metadata on >= 99.9 % of lines of 2 s pods; <= 1 list, and one for each time the server forgot or lied";
/// How long a pod lives.
const LIFE: Duration = Duration::from_secs(2);
/// Between two of them.
const EVERY: Duration = Duration::from_millis(600);

/// What the server does before the n-th pod, in turn; it is slow all the time. Counts what makes another list necessary.
fn trouble(api: &FakeKubernetes, n: u32, lists: &mut usize) {
    match n % 20 {
        1 => {
            api.set_trouble(|t| (t.refuse, t.status, t.retry_after) = (1, 429, Some(1)));
            api.end_watches();
        }
        6 => {
            api.set_trouble(|t| (t.refuse, t.status, t.retry_after) = (1, 500, None));
            api.end_watches();
        }
        11 => {
            api.forget();
            *lists += 1;
        }
        16 => {
            api.set_trouble(|t| t.nonsense = 1);
            api.end_watches();
            *lists += 1;
        }
        _ => {}
    }
}

/// Pods that are not of the node are told of all the same.
fn crowd(node: &Pods) {
    for n in 0..200 {
        node.set(&format!("other-{n}"), |pod| {
            pod["spec"]["nodeName"] = json!(format!("n{}", n + 2));
        });
    }
    node.api.set_trouble(|t| {
        t.delay = Duration::from_millis(200);
        t.ignores_selectors = true;
    });
}

fn how(pods: u32, who: &str) -> String {
    format!(
        "{pods} pods, one every 600 ms, live for 2 s, write and are deleted, their files 1 s later; each answer of the API server \
         takes 200 ms more, and every 3 s it does one of: refuse with 429 or 500, forget its history (410), talk \
         nonsense; it tells of 200 pods of other nodes; {who}"
    )
}

/// Guarantees that `up` loses no line of pods that live for two seconds, each with its pod, and asks for no more lists than
/// it is made to.
#[test]
fn discovery_of_pods_withstands_its_server() {
    let pods = scaled(17, 200);
    let mut row = Row::new(35, "slow or lying Kubernetes API: discovery")
        .how(how(pods, "tailwater up finds them"))
        .pass(PASS);
    let node = Pods::new("row35-up");
    crowd(&node);
    let agent = node.up(&[]);
    assert!(node.api.wait(wait::BOUND, |api| api.watches(PODS) > 0));
    let mut allowed = 1;
    node.come_and_go(pods, EVERY, LIFE, |api, n| trouble(api, n, &mut allowed));
    node.rig.wait_delivered(&agent);
    agent.stop_clean();
    let totals = node.rig.assert_faultless().totals;
    let (all, with) = node.lines_with("service", "k8s_pod_name");
    let lists = node.api.lists(PODS);
    row.reached(format!("0 of {} lines lost or shown twice", totals.written));
    row.held(
        with as f64 >= all as f64 * 0.999,
        format!("metadata on {with} of {all} lines"),
    );
    row.held(
        lists <= allowed,
        format!(
            "{lists} lists, {} of them for what the server forgot or said",
            lists - 1
        ),
    );
    row.record();
}

/// Guarantees that `k8s_attributes` knows the pods of lines that are delivered while its server is in trouble, and
/// asks for no more lists than it is made to.
#[test]
fn metadata_of_pods_withstands_its_server() {
    let pods = scaled(17, 200);
    let mut row = Row::new(35, "slow or lying Kubernetes API: k8s_attributes")
        .how(how(pods, "file_log finds their files by a pattern"))
        .pass(PASS);
    let node = Pods::new("row35-k8s");
    crowd(&node);
    let mut config = node.rig.container_config("containerd");
    let receiver = &mut config["receivers"]["filelog"];
    receiver["include"] = json!([node.rig.logs("pods/*/*/*.log")]);
    receiver["include_file_path"] = json!(true);
    receiver["operators"] = json!([{"type": "container"}]);
    config["processors"]["k8s_attributes"] = json!({
        "auth_type": "kubeConfig",
        "kube_config_path": node.rig.path("kubeconfig"),
        "filter": {"node": NODE},
        "pod_association": [{"sources": [{"from": "resource_attribute", "name": "k8s.pod.uid"}]}],
        "extract": {"metadata": ["k8s.pod.name"], "labels": [{"tag_name": "app", "key": "app"}]},
    });
    config["service"]["pipelines"]["logs"]["processors"] = json!(["k8s_attributes", "batch"]);
    config["exporters"]["loki"]["labels"] =
        json!({"static": {"job": "e2e"}, "resource": {"app": "app"}});
    let agent = node.rig.start(&config);
    let mut allowed = 1;
    node.come_and_go(pods, EVERY, LIFE, |api, n| trouble(api, n, &mut allowed));
    node.rig.wait_delivered(&agent);
    let failures = agent.scrape().sum("tailwater_k8sattributes_failures", &[]);
    let totals = node.rig.finish(agent).totals;
    let (all, with) = node.lines_with("app", "");
    let lists = node.api.lists(PODS);
    row.reached(format!(
        "0 of {} lines lost or shown twice; {failures} failures counted",
        totals.written
    ));
    row.held(
        with as f64 >= all as f64 * 0.999,
        format!("metadata on {with} of {all} lines"),
    );
    row.held(
        lists <= allowed,
        format!(
            "{lists} lists, {} of them for what the server forgot or said",
            lists - 1
        ),
    );
    row.record();
}
