//! `tailwater up`: files that come and go are tailed without anybody touching a configuration.

use std::fs;
use std::process::Command;

use serde_json::Value;
use tailwater_tests::admin::Way;
use tailwater_tests::agent::{Agent, binary};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

/// Where a rig's `up` is asked.
fn way(rig: &Rig) -> Way {
    Way::Socket(rig.state().join("admin.sock"))
}

/// Starts `up` for all logs of a rig, in a mode of discovery.
fn up(rig: &Rig, mode: &str) -> Agent {
    let pattern = rig.logs("**/*.log").display().to_string();
    let args = ["--docker", "off", "--files", &pattern, "--loki"];
    let url = rig.loki.url();
    let args = [&args[..], &[&url, "--discovery", mode]].concat();
    Agent::up(&args, &rig.state(), &rig.path("run"))
}

/// How many files of its sources the agent reads.
fn tailed(rig: &Rig) -> usize {
    let config = way(rig)
        .ask("GET", "/v1/config", &[("accept", "application/json")], "")
        .json();
    let files = &config["receivers"]["file_log/files"]["files"];
    files.as_array().map_or(0, Vec::len)
}

/// Guarantees that in each mode files that are there and files that appear are delivered whole, also after a
/// restart of which the files know nothing and after a kill, and that each is once in Loki; that a file which
/// is deleted is drained and then no part of the configuration any more; and that one file more updates one
/// receiver and touches nothing else.
#[test]
fn files_are_tailed_as_they_come_and_go() {
    for mode in ["event_stream", "simple_polling", "hybrid"] {
        let rig = Rig::new("up-files");
        rig.writer(0, "there.log", |_| {})
            .write_lines(500)
            .expect("written");
        let agent = up(&rig, mode);
        rig.wait_delivered(&agent);
        fs::create_dir_all(rig.logs("a/b")).expect("made");
        let mut later = rig.writer(1, "a/b/later.log", |_| {});
        later.write_lines(500).expect("written");
        rig.wait_delivered(&agent);
        let shown = || tailed(&rig) == 2;
        assert!(wait::within(wait::BOUND, shown), "{}", agent.log());
        let changes = way(&rig).get("/v1/generations").json();
        let newest = changes["generations"]
            .as_array()
            .and_then(|all| all.iter().max_by_key(|g| g["generation"].as_u64()).cloned());
        let newest = newest.expect("a generation");
        let texts: Vec<&str> = newest["changes"]
            .as_array()
            .expect("changes")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert!(
            texts.len() == 1
                && texts[0].starts_with("update")
                && texts[0].contains("file_log/files"),
            "{texts:?}"
        );
        agent.stop_clean();
        later.write_lines(500).expect("written");
        let agent = up(&rig, mode);
        rig.wait_delivered(&agent);
        agent.kill();
        later.write_lines(500).expect("written");
        rig.writer(2, "new.log", |_| {})
            .write_lines(500)
            .expect("written");
        let agent = up(&rig, mode);
        rig.wait_delivered(&agent);
        fs::remove_file(rig.logs("there.log")).expect("removed");
        let left = || tailed(&rig) == 2 && agent.log().contains("it is not tailed any more");
        assert!(wait::within(wait::BOUND, left), "{}", tail(&agent.log()));
        agent.stop_clean();
        rig.assert_faultless();
    }
}

/// Guarantees that a file which is deleted while Loki is away is held, and delivered when Loki is back.
#[test]
fn what_is_deleted_during_an_outage_is_delivered_after_it() {
    use tailwater_testkit::loki::behaviour::Reach;
    let rig = Rig::new("up-outage");
    let agent = up(&rig, "event_stream");
    rig.loki.set_reach(Reach::Unavailable).expect("away");
    rig.writer(0, "short.log", |_| {})
        .write_lines(2_000)
        .expect("written");
    let is_open = || {
        let files = way(&rig).get("/v1/files").json();
        files["files"]
            .as_array()
            .is_some_and(|all| all.iter().any(|f| f["read"].as_u64() > Some(0)))
    };
    assert!(wait::within(wait::BOUND, is_open), "{}", agent.log());
    fs::remove_file(rig.logs("short.log")).expect("removed");
    rig.loki.set_reach(Reach::Up).expect("back");
    rig.wait_delivered(&agent);
    agent.stop_clean();
    rig.assert_faultless();
}

/// Guarantees that what cannot work is said before anything is started, with the code that the help states.
#[test]
fn what_cannot_work_is_said_at_once() {
    let rig = Rig::new("up-errors");
    let base = rig.path("base.yaml");
    fs::write(
        &base,
        "service: {pipelines: {metrics: {exporters: [debug]}}}",
    )
    .expect("written");
    let broken = rig.path("broken.yaml");
    let text =
        "exporters: {loki: {endpiont: x}}\nservice: {pipelines: {logs: {exporters: [loki]}}}";
    fs::write(&broken, text).expect("written");
    let nowhere = rig.path("no.sock").display().to_string();
    let (base, broken) = (base.display().to_string(), broken.display().to_string());
    for (args, code, about) in [
        (vec!["--docker", "off"], 1, "nothing to look for"),
        (vec!["--docker", &nowhere], 1, "no Docker Engine at"),
        (vec!["--docker", "off", "--files", "/x/[.log"], 1, "--files"),
        (
            vec!["--docker", "off", "--files", "/x", "--base", &base],
            1,
            "\"logs\"",
        ),
        (
            vec!["--docker", "off", "--files", "/x", "--base", &broken],
            1,
            "endpiont",
        ),
        (vec!["--loki", "x", "--base", "y"], 2, "cannot be used with"),
        (vec!["--discovery", "never"], 2, "event_stream"),
    ] {
        let output = Command::new(binary())
            .arg("up")
            .args(&args)
            .env("TAILWATER_STATE_DIR", rig.state())
            .output()
            .expect("it runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(about), "{args:?}: {text}");
    }
}

/// Guarantees that without an Engine files are tailed all the same, and that it is said.
#[test]
fn files_are_tailed_without_an_engine() {
    let rig = Rig::new("up-no-engine");
    rig.writer(0, "app.log", |_| {})
        .write_lines(100)
        .expect("written");
    let path = rig.logs("app.log").display().to_string();
    let socket = rig.path("no.sock").display().to_string();
    let url = rig.loki.url();
    let args = ["--docker", &socket, "--files", &path, "--loki", &url];
    let agent = Agent::up(&args, &rig.state(), &rig.path("run"));
    rig.wait_delivered(&agent);
    assert!(
        agent.log().contains("no Docker Engine at"),
        "{}",
        agent.log()
    );
    agent.stop_clean();
    rig.assert_faultless();
}
