//! A control plane, three agents, and changes of their pipeline: as processes, by their command lines.

use std::fs;

use serde_json::json;
use tailwater_testkit::loki::DEFAULT_TENANT;
use tailwater_tests::fleet::Fleet;
use tailwater_tests::wait;

/// Labels of a stream under a pipeline that does well.
const GOOD: &str = "exporters: {loki: {labels: {static: {release: good}}}}\n";
/// Under one that is valid, comes into force, and whose lines the destination refuses.
const BAD: &str =
    "exporters: {loki: {labels: {static: {a: '1', b: '2', c: '3', d: '4', e: '5'}}}}\n";

/// Guarantee: a pipeline that does harm reaches one agent of three and is taken back by itself, is never offered
/// again, and hurts nobody else; one that does well reaches all, one after the other.
#[test]
fn a_bad_pipeline_reaches_one_agent_and_a_good_one_all() {
    let mut fleet = Fleet::new(&[], |_| ());
    let bad = fleet.apply("bad.yaml", BAD);
    let is_on = |f: &Fleet, digest: &str| f.runs().values().filter(|r| *r == digest).count();
    fleet.wait("the way back", |f| {
        let group = f.group();
        let is_over = group["phase"] == "idle" && group["quarantine"][&bad].is_string();
        is_over && group["candidate"].is_null() && is_on(f, "own") == 3
    });
    let group = fleet.group();
    let reason = group["quarantine"][&bad]
        .as_str()
        .expect("it is quarantined");
    assert!(reason.contains("rejected lines"), "{reason}");
    let order = fleet.order();
    assert_eq!(
        order.iter().filter(|o| o.contains(&bad)).count(),
        1,
        "{order:?}"
    );
    let again = fleet.control.run(&[
        "apply",
        fleet.home.path("bad.yaml").to_str().expect("a path"),
        "--group",
        "shop",
    ]);
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("quarantined"));

    let good = fleet.apply("good.yaml", GOOD);
    fleet.wait("the canary", |f| is_on(f, &good) >= 1);
    assert!(is_on(&fleet, &good) < 3, "not all at once");
    fleet.wait("the promotion", |f| {
        f.group()["good"]["digest"] == good.as_str() && is_on(f, &good) == 3
    });
    let table = fleet.table();
    println!("{table}");
    let own = "own".to_owned();
    for order in fleet.order() {
        let expected = match order.contains(&bad) {
            true => vec![own.clone(), bad.clone(), own.clone(), good.clone()],
            false => vec![own.clone(), good.clone()],
        };
        assert_eq!(order, expected, "{table}");
    }
    // And so does the destination see it.
    for host in &fleet.hosts {
        let has = || {
            host.rig
                .loki
                .streams(DEFAULT_TENANT)
                .iter()
                .any(|s| s.contains("release=\"good\""))
        };
        assert!(wait::within(wait::BOUND, has), "{}", host.agent.log());
    }
    // Who was under test has said how long it took.
    let took = |uid: &String| {
        let agent = fleet.control.ask(&["agents", uid]);
        agent["counters"]["apply_ms"].as_u64() > Some(0)
    };
    assert!(fleet.runs().keys().any(took), "{table}");
    let audit = fleet.control.ask(&["audit"]);
    let actions: Vec<_> = audit["entries"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|e| e["action"].clone())
        .collect();
    for action in ["apply", "alert rolled_back", "promote"] {
        assert!(actions.contains(&json!(action)), "{action}: {actions:?}");
    }
}

/// Guarantee: what is good outlives a control plane that is killed: the next one knows it, and finds nothing to do.
#[test]
fn what_runs_outlives_the_control_plane() {
    let mut fleet = Fleet::new(&["--canary", "2"], |_| ());
    let good = fleet.apply("good.yaml", GOOD);
    let is_on = |f: &Fleet, digest: &str| f.runs().values().filter(|r| *r == digest).count();
    fleet.wait("the promotion", |f| {
        f.group()["good"]["digest"] == good.as_str() && is_on(f, &good) == 3
    });
    let before = fleet.control.log().matches("is offered").count();
    fleet.control.restart();
    fleet.wait("all agents again", |f| is_on(f, &good) == 3);
    fleet.wait("a comparison", |f| {
        let steps = f.group()["steps"].clone();
        let newest = steps[0]["epoch"].as_u64();
        newest > Some(1)
    });
    assert_eq!(fleet.group()["good"]["digest"], good.as_str());
    assert_eq!(fleet.control.log().matches("is offered").count(), before);
}

/// Guarantee: with an approval, no agent is offered anything before somebody said yes; a mistake that can be seen
/// is refused with its place; pausing keeps it where it is, and taking it back brings all back.
#[test]
fn nothing_begins_before_somebody_approves() {
    let mut fleet = Fleet::new(&["--approval", "10m"], |_| ());
    let wrong = fleet.home.path("wrong.yaml");
    fs::write(&wrong, "exporter: {}\n").expect("a file");
    let path = wrong.to_str().expect("a path");
    let refused = fleet.control.run(&["apply", path, "--group", "shop"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("pipeline:1:1: unknown section"));
    let good = fleet.apply("good.yaml", GOOD);
    fleet.wait("the gate", |f| f.group()["phase"] == "approve");
    assert!(fleet.runs().values().all(|r| r == "own"));
    assert!(!fleet.control.log().contains("is offered"));
    fleet.control.tell(&["approve", "--group", "shop"]);
    fleet.wait("the canary", |f| f.runs().values().any(|r| *r == good));
    fleet.control.tell(&["pause", "--group", "shop"]);
    fleet.wait("the pause", |f| !f.group()["candidate"]["paused"].is_null());
    let twice = fleet.control.run(&["approve", "--group", "shop"]);
    assert!(String::from_utf8_lossy(&twice.stderr).contains("nothing waits for an approval"));
    fleet.control.tell(&["rollback", "--group", "shop"]);
    fleet.wait("the way back", |f| {
        f.group()["phase"] == "idle" && f.runs().values().all(|r| r == "own")
    });
    assert!(fleet.group()["quarantine"][&good].is_string());
}
