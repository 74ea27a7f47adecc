//! Connectors that look at what goes through them, with the real binary: records go where a table says, and
//! are counted.

use std::time::Duration;

use serde_json::{Value, json};
use tailwater_testkit::loki::behaviour::Reach;
use tailwater_testkit::otlp::{Answer, Kind, OtlpStandIn};
use tailwater_testkit::rng::Rng;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_tests::agent::free_port;
use tailwater_tests::otlp_client::HttpClient;
use tailwater_tests::rig::{Rig, add_exporter, sink_beside, tail};
use tailwater_tests::wait;

/// A request in JSON; the status of its answer.
fn post(port: u16, signal: &str, request: &Value) -> u16 {
    let mut client = HttpClient::connect(port).expect("the receiver listens");
    let body = request.to_string();
    let path = format!("/v1/{signal}");
    let answer = client.post(&path, "application/json", "identity", body.as_bytes());
    answer.expect("an answer").status
}

/// Guarantees that lines which a route copies reach its destination, and all lines the default one, each
/// once, over kills; and that what is for one destination alone is filtered on the way to the other.
#[test]
fn lines_go_where_the_table_says_over_kills() {
    const KILLS: u64 = 8;
    let (rig, other) = (Rig::new("routing"), sink_beside(Reach::Up));
    let mut config = rig.config();
    add_exporter(&mut config, "loki/other", &other);
    config["connectors"] = json!({"routing": {
        "default_pipelines": ["logs/all"],
        "table": [{
            "context": "log", "action": "copy", "pipelines": ["logs/other"],
            "condition": "attributes[\"log.file.name\"] == \"app2.log\"",
        }],
    }});
    config["service"]["pipelines"] = json!({
        "logs": {"receivers": ["filelog"], "processors": ["batch"], "exporters": ["routing"]},
        "logs/all": {"receivers": ["routing"], "exporters": ["loki"]},
        "logs/other": {"receivers": ["routing"], "exporters": ["loki/other"]},
    });
    config["service"]["shutdown_timeout"] = json!("1s");
    let live = [1, 2].map(|id| {
        let writer = rig.writer(id, &format!("app{id}.log"), |_| {});
        let options = LiveOptions {
            lines_per_second: 1_000,
            rotate_every_lines: None,
            lines_max: None,
        };
        LiveWriter::start(writer, options).expect("a thread")
    });
    let mut rng = Rng::new(5);
    for _ in 0..KILLS {
        let agent = rig.spawn(&config);
        wait::let_pass(Duration::from_millis(100 + rng.below(500)));
        agent.kill();
    }
    let agent = rig.start(&config);
    let [_, second] = live.map(|w| w.stop().expect("written").lines_written());
    rig.wait_delivered(&agent);
    let has_all = || other.stats().entries_distinct == Some(second);
    let all = wait::within(wait::BOUND, has_all);
    assert!(
        all,
        "{:?} of {second}\n{}",
        other.stats(),
        tail(&agent.log())
    );
    let scrape = agent.scrape();
    let sum = |name: &str, pipeline: &str| {
        let labels = [("connector", "routing"), ("otelcol_pipeline_id", pipeline)];
        scrape.sum(&format!("otelcol_connector_{name}_items"), &labels)
    };
    assert!(sum("produced", "logs/all") > 0.0);
    assert_eq!(scrape.sum("tailwater_records_dropped", &[]), 0.0);
    rig.finish(agent);
    assert_eq!(other.stats().entries_distinct, Some(second));
}

fn spans(names: &[&str]) -> Value {
    let span = |name: &&str| {
        json!({"name": name, "traceId": "0102030405060708090a0b0c0d0e0f10",
            "spanId": "0102030405060708", "startTimeUnixNano": "5", "endTimeUnixNano": "9"})
    };
    let spans: Vec<Value> = names.iter().map(span).collect();
    let service = json!([{"key": "service.name", "value": {"stringValue": "shop"}}]);
    json!({"resourceSpans": [{
        "resource": {"attributes": service}, "scopeSpans": [{"spans": spans}],
    }]})
}

/// Guarantees that a request is answered when all that was made of it is delivered: what the table moved,
/// what was counted of it; that a change of the table comes into force while the agent runs; that what no
/// route takes is counted; and that a refusal of any of it is the answer.
#[test]
fn a_request_is_answered_when_all_that_was_made_of_it_is_delivered() {
    let rig = Rig::new("routing-count");
    let (one, two) = (
        OtlpStandIn::start(None).expect("free ports"),
        OtlpStandIn::start(None).expect("free ports"),
    );
    let counts = OtlpStandIn::start(None).expect("free ports");
    let port = free_port().expect("a port");
    let retry = json!({"initial_interval": "20ms", "max_interval": "100ms"});
    let exporter =
        |backend: &OtlpStandIn| json!({"endpoint": backend.http_url(), "retry_on_failure": retry});
    let mut config = json!({
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": format!("127.0.0.1:{port}")}}}},
        "exporters": {
            "otlp_http/1": exporter(&one), "otlp_http/2": exporter(&two),
            "otlp_http/counts": exporter(&counts),
        },
        "connectors": {
            "routing": {"table": [
                {"context": "span", "condition": "name == \"a\"", "pipelines": ["traces/1"]},
                {"context": "span", "condition": "name == \"b\"", "pipelines": ["traces/2"]},
            ]},
            "count": null,
        },
        "service": {"pipelines": {
            "traces": {"receivers": ["otlp"], "exporters": ["routing", "count"]},
            "traces/1": {"receivers": ["routing"], "exporters": ["otlp_http/1"]},
            "traces/2": {"receivers": ["routing"], "exporters": ["otlp_http/2"]},
            "metrics": {"receivers": ["count"], "exporters": ["otlp_http/counts"]},
        }},
    });
    let agent = rig.start(&config);
    let status = post(port, "traces", &spans(&["a", "b", "a", "c"]));
    assert_eq!(status, 200, "{}", tail(&agent.log()));
    assert_eq!((one.items(Kind::Traces), two.items(Kind::Traces)), (2, 1));
    assert_eq!(
        counts.items(Kind::Metrics),
        1,
        "trace.span.count, and no events"
    );
    let body = counts.records().pop().expect("it was sent").body;
    let is_in = |text: &str| body.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(is_in("trace.span.count") && is_in("shop"));
    // In the account of each destination that a table leads to.
    let labels = [("kind", "receiver"), ("reason", "unrouted")];
    let counted = || agent.scrape().sum("tailwater_records_dropped", &labels) == 2.0;
    assert!(wait::within(wait::BOUND, counted), "{}", tail(&agent.log()));

    config["connectors"]["routing"]["default_pipelines"] = json!(["traces/2"]);
    assert!(agent.reload(&config), "{}", tail(&agent.log()));
    assert_eq!(post(port, "traces", &spans(&["c", "c", "a"])), 200);
    assert_eq!((one.items(Kind::Traces), two.items(Kind::Traces)), (3, 3));
    assert!(counted(), "nothing is unrouted now");

    counts.set_answer(Answer::Refuse {
        http: 400,
        grpc: 3,
        message: "never".into(),
        retry_after: None,
    });
    let status = post(port, "traces", &spans(&["a"]));
    assert!(status >= 400, "{status}");
    let faults = agent.scrape().faults();
    assert!(faults.is_empty(), "{faults:?}");
    agent.stop_clean();
}
