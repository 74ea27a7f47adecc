//! `tailwater up` on a node of Kubernetes: pods come and go, and what their containers write is delivered.

use std::fs;

use serde_json::{Value, json};
use tailwater_testkit::loki::DEFAULT_TENANT;
use tailwater_testkit::loki::behaviour::Reach;
use tailwater_tests::agent::Agent;
use tailwater_tests::pods::{PODS, Pods};
use tailwater_tests::rig::tail;
use tailwater_tests::wait;

fn restarted(restarts: u32) -> impl FnOnce(&mut Value) {
    move |pod| {
        pod["status"]["containerStatuses"] =
            json!([{"name": "main", "restartCount": restarts, "state": {"running": {}}}]);
    }
}

fn expect(agent: &Agent, what: &str, holds: impl Fn() -> bool) {
    assert!(
        wait::within(wait::BOUND, holds),
        "{what}\n{}",
        tail(&agent.log())
    );
}

/// How many sources have left so far.
fn left(agent: &Agent) -> usize {
    agent.log().matches("it is not tailed any more").count()
}

/// Guarantees that pods which are there, which appear, whose containers are started again and which are deleted with their
/// files while Loki is away are delivered whole and once, with what they belong to as labels; that one which wants to be
/// left alone is; that what ended is taken out; and that a server which forgets in the middle of it leaves no gap.
#[test]
fn pods_are_tailed_as_they_come_and_go() {
    let node = Pods::new("up-kubernetes");
    node.set("web-0", |_| {});
    let mut first = node.writer(0, "web-0", "main", 0);
    first.write_lines(200).expect("written");
    let quiet = |pod: &mut Value| {
        pod["metadata"]["annotations"] = json!({"tailwater.io/logs": "false"});
    };
    node.set("quiet", quiet);
    // What it writes is none of the oracle's: one line of it would be foreign.
    let file = node.writer(99, "quiet", "main", 0);
    let line = "2026-01-02T03:04:05.000000001Z stdout F nobody is to see this\n";
    fs::write(file.path(), line).expect("written");

    let agent = node.up(&[]);
    node.rig.wait_delivered(&agent);

    // Its file is there only some time after the pod.
    node.set("web-1", |_| {});
    expect(&agent, "web-1", || {
        agent.log().matches("it is tailed").count() == 2
    });
    let mut second = node.writer(1, "web-1", "main", 0);
    second.write_lines(200).expect("written");
    node.rig.wait_delivered(&agent);

    second.write_lines(3).expect("written");
    node.set("web-1", restarted(1));
    let mut third = node.writer(2, "web-1", "main", 1);
    third.write_lines(200).expect("written");
    node.rig.wait_delivered(&agent);
    expect(&agent, "its first start is over", || left(&agent) == 1);

    // The server forgets, and one pod went and another one came of which it cannot tell.
    node.api.set_trouble(|t| (t.refuse, t.status) = (1, 500));
    node.api.end_watches();
    node.delete("web-0");
    node.set("web-2", |_| {});
    node.api.forget();
    let mut fourth = node.writer(3, "web-2", "main", 0);
    fourth.write_lines(200).expect("written");
    node.rig.wait_delivered(&agent);
    expect(&agent, "web-0 is over", || left(&agent) == 2);
    assert_eq!(node.api.lists(PODS), 2);

    node.rig.loki.set_reach(Reach::Unavailable).expect("away");
    third.write_lines(500).expect("written");
    node.delete("web-1");
    node.remove_files("web-1");
    node.rig.loki.set_reach(Reach::Up).expect("back");
    node.rig.wait_delivered(&agent);
    agent.stop_clean();

    // What happened meanwhile is found.
    node.set("web-3", |_| {});
    node.writer(4, "web-3", "main", 0)
        .write_lines(100)
        .expect("written");
    fourth.write_lines(100).expect("written");
    let agent = node.up(&["--discovery", "hybrid"]);
    node.rig.wait_delivered(&agent);
    agent.stop_clean();
    node.rig.assert_faultless();

    let streams = node.rig.loki.streams(DEFAULT_TENANT);
    let labels =
        "{container=\"main\", namespace=\"shop\", node=\"n1\", service=\"web\", stream=\"stdout\"}";
    assert_eq!(streams, [labels], "few labels, of few values");
    let (all, with) = node.lines_with("service", "k8s_pod_name");
    assert!(all > 0 && all == with, "{with} of {all} know their pod");
}

/// Guarantees that what a pod asks for is done: lines of JSON are taken apart, and go to the tenant that it names; one that
/// names another one is reported and goes nowhere.
#[test]
fn annotations_choose_parser_and_tenant() {
    let node = Pods::new("up-annotations");
    node.rig.loki.set_behaviour(|b| b.auth_enabled = true);
    for (name, tenant) in [("api", "shop"), ("greedy", "bank")] {
        node.set(name, |pod| {
            pod["metadata"]["annotations"] =
                json!({"tailwater.io/parser": "json", "tailwater.io/tenant": tenant});
        });
        let file = node.writer(7, name, "main", 0);
        let body = r#"{"level":"warn","n":1}"#;
        fs::write(
            file.path(),
            format!("2026-01-02T03:04:05.1Z stdout F {body}\n"),
        )
        .expect("written");
    }
    let agent = node.up(&["--tenant", "shop"]);
    let entries = || {
        let streams = node.rig.loki.streams("shop");
        let all = streams.iter().map(|s| node.rig.loki.entries("shop", s));
        all.flatten().collect::<Vec<_>>()
    };
    expect(&agent, "one line of shop", || entries().len() == 1);
    let entry = entries().remove(0);
    let level = ("level".to_owned(), "warn".to_owned());
    assert!(entry.metadata.contains(&level), "{entry:?}");
    expect(&agent, "bank is reported", || {
        agent.log().contains("--tenant does not allow")
    });
    for tenant in ["bank", DEFAULT_TENANT] {
        assert!(node.rig.loki.streams(tenant).is_empty(), "{tenant}");
    }
    agent.stop_clean();
}

/// Guarantees that an API server which is away at the start is waited for, and costs no line.
#[test]
fn a_server_that_is_away_at_the_start_is_waited_for() {
    let mut node = Pods::new("up-kubernetes-away");
    node.set("web-0", |_| {});
    node.writer(0, "web-0", "main", 0)
        .write_lines(100)
        .expect("written");
    node.api.leave();
    let agent = node.up(&[]);
    expect(&agent, "it is said", || {
        agent.log().contains("it is asked again until it answers")
    });
    node.api.come_back().expect("its port");
    node.rig.wait_delivered(&agent);
    agent.stop_clean();
    node.rig.assert_faultless();
}
