//! Processors in the running agent, where what they do to sources and to delivery shows.

use serde_json::{Value, json};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::stand::Stand;
use tailwater_tests::wait;

/// Guarantees that `memory_limiter` pauses the reading and loses nothing: with a limit that the
/// process is always above and a sink that is down, most of the files stays where it is, and all
/// of it arrives when the sink is back.
#[test]
fn a_memory_limiter_pauses_the_files_and_loses_nothing() {
    const LINES: u64 = 20_000;
    let rig = Rig::new("limiter");
    let mut writer = rig.writer(1, "app.log", |_| {});
    writer.write_lines(LINES).expect("written");
    let mut config = rig.config();
    config["processors"]["memory_limiter"] =
        json!({"check_interval": "20ms", "limit_mib": 2, "spike_limit_mib": 1});
    config["service"]["pipelines"]["logs"]["processors"] = json!(["memory_limiter", "batch"]);
    rig.loki.set_faults(|f| f.status_503 = 1.0);
    let agent = rig.start(&config);
    let limited = || agent.scrape().sum("tailwater_memory_limiter_limited", &[]) == 1.0;
    let paused = wait::within(wait::BOUND, || {
        limited() && agent.scrape().account("receiver").read > 0.0
    });
    assert!(paused, "not limited:\n{}", tail(&agent.log()));
    let read = agent.scrape().account("receiver").read;
    assert!(
        read < LINES as f64 / 2.0,
        "{read} lines were read all the same"
    );
    rig.loki.set_faults(|f| f.status_503 = 0.0);
    rig.wait_delivered(&agent);
    let refused = agent
        .scrape()
        .sum("otelcol_processor_memory_limiter_refused_log_records", &[]);
    assert_eq!(refused, 0.0, "a pause is no refusal");
    agent.stop_clean();
    rig.assert_faultless();
}

/// A reader of files with one processor behind it.
fn stand(name: &str, section: &Value, receiver: &Value) -> Stand {
    let mut stand = Stand::new(receiver);
    stand.config["processors"][name] = section.clone();
    stand.config["service"]["pipelines"]["logs"]["processors"] = json!([name]);
    stand
}

/// Guarantees that `redaction` masks in the lines of files, in what was parsed of them and in the
/// resource, and counts what it did.
#[test]
fn what_is_blocked_does_not_leave_the_machine() {
    let section = json!({
        "allow_all_keys": true, "patterns": ["email", "card"], "blocked_key_patterns": ["^token$"],
        "summary": "info",
    });
    let receiver = json!({
        "resource": {"owner": "ann@example.com"},
        "operators": [{"type": "json_parser", "if": "body startsWith '{'"}],
    });
    let stand = stand("redaction", &section, &receiver);
    stand.write(
        "a.log",
        "paid with 4111 1111 1111 1111 by bob@example.org\n{\"token\":\"s3cret\",\"n\":1}\n",
    );
    let records = stand.run(2);
    assert_eq!(records[0].body, json!("paid with **** by ****"));
    let told = json!({"redaction.body.masked.count": 1});
    assert_eq!(records[0].attributes, told);
    let told = json!({"token": "****", "n": 1, "redaction.masked.count": 1});
    assert_eq!(records[1].attributes, told);
    for record in &records {
        let told = json!({"owner": "****", "redaction.masked.count": 1});
        assert_eq!(record.resource, told);
    }
}

/// Guarantees that lines which became one are not delivered, and not passed by positions, until that one is: a
/// kill in the middle of an interval loses none, and a stop passes on what is held.
#[test]
fn lines_that_became_one_are_counted_over_a_kill() {
    let section = json!({"interval": "1h", "acknowledge": "delivered"});
    let stand = stand("logdedup", &section, &json!({}));
    stand.write("a.log", "same\nsame\nother\n");
    let agent = stand.rig.start(&stand.config);
    let held = || agent.scrape().sum("tailwater_logdedup_records_held", &[]) == 2.0;
    assert!(wait::within(wait::BOUND, held), "{}", tail(&agent.log()));
    assert_eq!(agent.scrape().account("receiver").delivered, 0.0);
    agent.kill();
    stand.append("a.log", "same\n");
    let agent = stand.rig.start(&stand.config);
    let merged = || agent.scrape().sum("tailwater_logdedup_records_merged", &[]) == 2.0;
    assert!(wait::within(wait::BOUND, merged), "{}", tail(&agent.log()));
    agent.stop_clean();
    let mut counts: Vec<(Value, Value)> = stand
        .records()
        .into_iter()
        .map(|record| (record.body, record.attributes["log_count"].clone()))
        .collect();
    counts.sort_by_key(|(body, _)| body.to_string());
    let want = [(json!("other"), json!(1)), (json!("same"), json!(3))];
    assert_eq!(counts, want);
}

/// Guarantees that attributes of lines move to resources, and that all of the lines arrive.
#[test]
fn attributes_of_lines_move_to_their_resource() {
    let section = json!({"keys": ["tenant"]});
    let stand = stand(
        "groupbyattrs",
        &section,
        &json!({"operators": [{"type": "json_parser"}]}),
    );
    stand.write(
        "a.log",
        "{\"tenant\":\"x\",\"n\":1}\n{\"tenant\":\"y\",\"n\":2}\n{\"tenant\":\"x\",\"n\":3}\n{\"n\":4}\n",
    );
    let seen: Vec<(Value, Value)> = stand
        .run(4)
        .into_iter()
        .map(|record| (record.resource, record.attributes))
        .collect();
    let want = [
        (json!({"tenant": "x"}), json!({"n": 1})),
        (json!({"tenant": "x"}), json!({"n": 3})),
        (json!({"tenant": "y"}), json!({"n": 2})),
        (json!({}), json!({"n": 4})),
    ];
    assert_eq!(seen, want);
}
