//! The `container` operator: lines that the runtime has split, in every format.

use std::fs;

use serde_json::{Value, json};
use tailwater_tests::agent::Agent;
use tailwater_tests::stand::{Record, Stand};
use tailwater_tests::wait;

/// A CRI line of second `second`.
fn cri(second: u32, stream: &str, tag: &str, text: &str) -> String {
    format!("2026-01-02T03:04:{second:02}.5Z {stream} {tag} {text}\n")
}

fn told(records: &[Record]) -> Vec<(String, String)> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let mut out: Vec<_> = records
        .iter()
        .map(|r| (text(&r.attributes["log.iostream"]), text(&r.body)))
        .collect();
    out.sort();
    out
}

fn want(list: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut out: Vec<_> = list
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect();
    out.sort();
    out
}

const DIR: &str = "pods/ns_pod-1_0a1b2c/app";

fn pods() -> Stand {
    let mut stand = Stand::new(&json!({
        "include_file_path": true, "operators": [{"type": "container"}],
    }));
    stand.set(&json!({"include": [stand.rig.logs("pods/*/*/*.log")]}));
    stand
}

/// Guarantees that parts of lines are joined per stream over reads, restarts and rotations, with
/// the time of the first part and what the path says of the container.
#[test]
fn parts_are_joined_over_reads_restarts_and_rotations() {
    let stand = pods();
    let live = format!("{DIR}/0.log");
    stand.write(
        &live,
        cri(1, "stdout", "P", "one ") + &cri(2, "stderr", "P", "uno "),
    );
    let agent = stand.start();
    stand.wait_open(&agent, 1.0);
    stand.append(
        &live,
        cri(3, "stdout", "F", "two") + &cri(4, "stderr", "F", "due"),
    );
    stand.append(&live, cri(5, "stdout", "P", "left "));
    stand.wait(&agent, 2);
    // What was begun is not lost by the stop, and not passed on by it either.
    agent.stop_clean();
    assert_eq!(stand.records().len(), 2);
    stand.append(
        &live,
        cri(6, "stdout", "P", "over ") + &cri(7, "stderr", "F", "whole"),
    );
    let old = stand.rig.logs(&format!("{DIR}/0.log.20260102-030405"));
    fs::rename(stand.rig.logs(&live), &old).expect("renamed");
    stand.write(&live, cri(8, "stdout", "F", "restart and rotation"));
    let agent = stand.start();
    stand.wait(&agent, 4);
    agent.stop_clean();
    let records = stand.records();
    let lines = [
        ("stdout", "one two"),
        ("stderr", "uno due"),
        ("stderr", "whole"),
        ("stdout", "left over restart and rotation"),
    ];
    assert_eq!(told(&records), want(&lines));
    for r in &records {
        let resource = json!({
            "k8s.namespace.name": "ns", "k8s.pod.name": "pod-1", "k8s.pod.uid": "0a1b2c",
            "k8s.container.name": "app", "k8s.container.restart_count": "0",
        });
        assert_eq!(r.resource, resource);
    }
}

/// Guarantees that a line whose end never comes is passed on, and that its end is a record then.
#[test]
fn a_part_without_an_end_is_passed_on_after_a_while() {
    let stand = pods();
    let live = format!("{DIR}/0.log");
    stand.write(&live, cri(1, "stdout", "P", "never "));
    let agent = stand.start();
    stand.wait(&agent, 1);
    stand.append(&live, cri(2, "stdout", "F", "ended"));
    stand.wait(&agent, 2);
    agent.stop_clean();
    let lines = [("stdout", "never "), ("stdout", "ended")];
    assert_eq!(told(&stand.records()), want(&lines));
}

/// Ends the agent; all it has logged.
fn log_of(mut agent: Agent) -> String {
    agent.terminate();
    let status = agent.wait_end(wait::BOUND);
    assert!(status.is_some_and(|s| s.success()), "{}", agent.log());
    agent.log()
}

/// Guarantees that each format is found out for each line, and that what is no container line
/// follows `on_error`.
#[test]
fn formats_are_found_out_and_errors_follow_on_error() {
    let content = [
        r#"{"log":"docker\n","stream":"stdout","time":"2026-01-02T03:04:05.6Z"}"#,
        "2026-01-02T03:04:05.6+01:00 stderr F crio",
        "2026-01-02T03:04:05.6Z stdout F containerd",
        "none of them",
    ]
    .join("\n");
    for (on_error, kept) in [
        ("send", 4),
        ("send_quiet", 4),
        ("drop", 3),
        ("drop_quiet", 3),
    ] {
        let stand = Stand::new(&json!({"operators": [{
            "type": "container", "add_metadata_from_filepath": false, "on_error": on_error,
        }]}));
        stand.write("a.log", format!("{content}\n"));
        let agent = stand.start();
        stand.wait(&agent, kept);
        let dropped = || agent.scrape().account("receiver").dropped;
        let counted = wait::within(wait::BOUND, || dropped() == (4 - kept) as f64);
        assert!(counted, "{on_error}: {} dropped", dropped());
        let log = log_of(agent);
        let said = log.contains("could not treat some records");
        assert_eq!(said, !on_error.ends_with("quiet"), "{on_error}: {log}");
        let mut lines = vec![
            ("stdout", "docker"),
            ("stderr", "crio"),
            ("stdout", "containerd"),
        ];
        lines.extend((kept == 4).then_some(("", "none of them")));
        assert_eq!(told(&stand.records()), want(&lines), "{on_error}");
    }
    // A path that says nothing is an error of each record, too; here it has none.
    let stand = Stand::new(&json!({"operators": [{"type": "container", "on_error": "drop"}]}));
    stand.write(
        "a.log",
        cri(1, "stdout", "F", "a") + &cri(2, "stdout", "F", "b"),
    );
    let agent = stand.start();
    let dropped = || agent.scrape().account("receiver").dropped;
    assert!(
        wait::within(wait::BOUND, || dropped() == 2.0),
        "{} dropped",
        dropped()
    );
    let log = log_of(agent);
    assert!(log.contains("include_file_path: true"), "{log}");
    assert_eq!(stand.records(), []);
}
