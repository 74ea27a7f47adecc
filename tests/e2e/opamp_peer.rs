//! The agent of OpAMP against messages that others generated from the specification: what it says has no field
//! that these do not have, and what they say is understood.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tailwater_tests::agent::free_port;
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

/// Guarantee: every message is one by the definitions of another implementation, and a configuration that is
/// made with them comes into force.
#[test]
fn messages_are_those_of_another_implementation() {
    let Some(python) = std::env::var_os("TAILWATER_OPAMP_PYTHON") else {
        println!(
            "SKIPPED: OpAMP against another implementation: TAILWATER_OPAMP_PYTHON names no Python that has \
             opentelemetry-opamp-client"
        );
        return;
    };
    let port = free_port().expect("a port");
    let mut server = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/opamp_peer.py"))
        .arg(port.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let lines = BufReader::new(server.stdout.take().expect("a pipe")).lines();
    let messages: Arc<Mutex<Vec<Value>>> = Arc::default();
    let kept = messages.clone();
    let reader = std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let value = serde_json::from_str(&line).expect("JSON");
            kept.lock().expect("no panic").push(value);
        }
    });
    let rig = Rig::new("opamp-peer");
    let mut config = rig.config();
    config["extensions"]["opamp"] = json!({
        "server": {"http": {
            "endpoint": format!("http://127.0.0.1:{port}/v1/opamp"), "polling_interval": "1s",
        }},
        "capabilities": {"accepts_remote_config": true},
    });
    config["service"]["extensions"] = json!(["opamp"]);
    let agent = rig.start(&config);
    let find = |good: &dyn Fn(&Value) -> bool| {
        wait::for_some(wait::BOUND, || {
            let all = messages.lock().expect("no panic");
            all.iter().map(|m| &m["message"]).find(|m| good(m)).cloned()
        })
    };
    let first = find(&|m| m["agent_description"].is_object());
    let first = first.unwrap_or_else(|| panic!("{}", tail(&agent.log())));
    assert_eq!(
        first["health"]["component_health_map"]["exporter:loki"]["healthy"], true,
        "{first:#}"
    );
    assert!(first["effective_config"]["config_map"]["config_map"][""]["body"].is_string());
    let offer = json!({"hash": "h1", "files": {"a.yaml": "processors: {batch: {timeout: 161ms}}"}});
    let stdin = server.stdin.as_mut().expect("a pipe");
    writeln!(stdin, "{offer}").expect("it reads");
    let applied = find(&|m| m["remote_config_status"]["status"] == "RemoteConfigStatuses_APPLIED");
    let applied = applied.unwrap_or_else(|| panic!("{}", tail(&agent.log())));
    // "h1" in base64.
    assert_eq!(
        applied["remote_config_status"]["last_remote_config_hash"],
        "aDE="
    );
    rig.finish(agent);
    assert!(find(&|m| m["agent_disconnect"].is_object()).is_some());
    server.kill().expect("it runs");
    server.wait().expect("it ends");
    reader.join().expect("no panic");
    let all = messages.lock().expect("no panic");
    for message in all.iter() {
        assert_eq!(message["unknown"], false, "{message:#}");
    }
}
