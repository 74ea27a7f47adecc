//! What an agent does for a control plane besides configurations: it begins anew, tries out a configuration, and
//! injects sample lines.

use serde_json::{Value, json};
use tailwater_opamp::proto::CustomMessage;
use tailwater_testkit::loki::DEFAULT_TENANT;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_tests::agent::Agent;
use tailwater_tests::opamp::{Fault, OpAmpServer, Seen};
use tailwater_tests::rig::Rig;
use tailwater_tests::wait;

const STATE: &str = "io.tailwater.state/v1";
const DRY_RUN: &str = "io.tailwater.dry-run/v1";

struct Stand {
    rig: Rig,
    server: OpAmpServer,
    agent: Agent,
}

fn stand(label: &str, restarts: bool) -> Stand {
    let (rig, server) = (Rig::new(label), OpAmpServer::start());
    server.announce(STATE);
    server.announce(DRY_RUN);
    let mut config = rig.config();
    config["extensions"]["opamp"] = json!({
        "server": {"ws": {"endpoint": server.url("ws")}},
        "heartbeat_interval": "1s",
        "capabilities": {"accepts_remote_config": true, "accepts_restart_command": restarts},
    });
    config["receivers"]["probe"] = Value::Null;
    config["service"]["pipelines"]["logs"]["receivers"] = json!(["filelog", "probe"]);
    config["service"]["extensions"] = json!(["opamp"]);
    let agent = rig.start(&config);
    server.wait("the agent", |s| !s.results.is_empty());
    Stand { rig, server, agent }
}

fn live(rig: &Rig) -> LiveWriter {
    let options = LiveOptions {
        lines_per_second: 1_000,
        rotate_every_lines: Some(700),
        lines_max: None,
    };
    LiveWriter::start(rig.writer(1, "app.log", |_| {}), options).expect("a thread")
}

fn say(server: &OpAmpServer, capability: &str, kind: &str, value: &Value) {
    server.fault(Fault::Say(CustomMessage {
        capability: capability.to_owned(),
        r#type: kind.to_owned(),
        data: value.to_string().into_bytes(),
    }));
}

/// Processes of the agent that have said something.
fn processes(seen: &Seen) -> Vec<u64> {
    let mut found: Vec<u64> = seen
        .results
        .iter()
        .filter_map(|r| r["process"].as_u64())
        .collect();
    found.dedup();
    found
}

/// Guarantee: told to, an agent begins anew under the same process id, twice, while lines come and logs rotate: no line
/// is lost, and none comes twice.
#[test]
fn a_restart_that_is_told_loses_nothing() {
    let stand = stand("opamp-restart", true);
    let (agent, pid) = (&stand.agent, stand.agent.pid());
    let live = live(&stand.rig);
    for restarts in 1..=2 {
        let before = stand.rig.loki.stats().entries_accepted;
        let flows = || stand.rig.loki.stats().entries_accepted > before + 200;
        assert!(wait::within(wait::BOUND, flows), "{}", agent.log());
        stand.server.fault(Fault::Restart);
        stand
            .server
            .wait("the next process", |s| processes(s).len() == restarts + 1);
    }
    assert_eq!(agent.pid(), pid);
    assert!(agent.log().contains("the server has this agent begin anew"));
    live.stop().expect("written");
    stand.rig.wait_delivered(&stand.agent);
    stand.rig.finish(stand.agent);
    stand.server.assert_strict();
}

/// Guarantee: who does not say that it can be restarted is not.
#[test]
fn a_restart_that_was_not_claimed_is_ignored() {
    let stand = stand("opamp-no-restart", false);
    stand.server.fault(Fault::Restart);
    let ignored = || {
        stand
            .agent
            .log()
            .contains("a restart, which this agent does not claim")
    };
    assert!(wait::within(wait::BOUND, ignored), "{}", stand.agent.log());
    let seen = stand.server.seen().expect("an agent");
    assert_eq!(processes(&seen).len(), 1);
    stand.agent.stop_clean();
}

fn checked(server: &OpAmpServer, id: &str, file: &str) -> Value {
    let question = json!({"id": id, "files": [{"name": "pipeline.yaml", "body": file}]});
    say(server, DRY_RUN, "check", &question);
    let is_it = |r: &&Value| r["id"] == id;
    let seen = server.wait(id, |s| s.results.iter().any(|r| is_it(&r)));
    let answer = seen.results.iter().find(is_it);
    answer.expect("just seen").clone()
}

/// Guarantee: a dry run says what an offer would come to, by the rules of offers, and changes nothing.
#[test]
fn a_dry_run_touches_nothing() {
    let stand = stand("opamp-dry-run", false);
    let good = checked(
        &stand.server,
        "good",
        "processors: {batch: {timeout: 222ms}}",
    );
    assert_eq!(good["accepted"], true, "{good}");
    assert!(
        good["changes"].as_array().is_some_and(|c| !c.is_empty()),
        "{good}"
    );
    for (id, file, reason) in [
        ("option", "processors: {batch: {timeot: 1s}}", "timeot"),
        ("yaml", "processors: [", "pipeline.yaml"),
        (
            "reach",
            "exporters: {loki: {endpoint: 'http://elsewhere.example:3100/loki/api/v1/push'}}",
            "allow_endpoints",
        ),
    ] {
        let bad = checked(&stand.server, id, file);
        assert_eq!(bad["accepted"], false, "{bad}");
        assert!(bad["reasons"].to_string().contains(reason), "{bad}");
    }
    let generation = stand.agent.scrape().sum("tailwater_config_generation", &[]);
    assert_eq!(generation, 1.0);
    let seen = stand.server.seen().expect("an agent");
    assert!(!seen.effective_text().contains("222ms"));
    stand.agent.stop_clean();
    stand.server.assert_strict();
}

/// Guarantee: sample lines come when they are asked for, as a stream of their own; each is acknowledged; lines of users
/// are counted without them.
#[test]
fn sample_lines_are_a_stream_of_their_own() {
    let stand = stand("opamp-probe", false);
    assert_eq!(stand.rig.loki.stats().entries_accepted, 0);
    let wish = json!({"interval_ms": 1000, "duration_ms": 60000, "probe_interval_ms": 1000});
    say(&stand.server, STATE, "sample", &wish);
    let seen = stand.server.wait("sample lines", |s| {
        s.results
            .last()
            .is_some_and(|r| r["probes"]["delivered"].as_u64() >= Some(2))
    });
    let newest = seen.results.last().expect("just seen");
    let counters = &newest["counters"];
    assert_eq!(counters["records_read"], 0, "{newest}");
    assert!(counters["memory_bytes"].as_u64() > Some(0), "{newest}");
    let streams = stand.rig.loki.streams(DEFAULT_TENANT);
    assert_eq!(streams.len(), 1, "{streams:?}");
    assert!(
        streams[0].contains("tailwater_probe=\"true\""),
        "{streams:?}"
    );
    let entries = stand.rig.loki.entries(DEFAULT_TENANT, &streams[0]);
    let uid = seen.messages[0].instance_uid.clone();
    let uid = tailwater_opamp::InstanceUid::from_bytes(&uid).expect("16 bytes");
    for (i, entry) in entries.iter().enumerate() {
        let wanted = format!(
            "tailwater sample line {uid} {} {}",
            newest["process"],
            i + 1
        );
        assert_eq!(String::from_utf8_lossy(entry.line.as_ref()), wanted);
    }
    stand.agent.stop_clean();
}
