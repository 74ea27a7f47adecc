//! Remote write to a real Prometheus of the distribution: its query API returns what was sent. Without
//! one on this machine, and none to be had from the distribution, the tests say so and do nothing.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tailwater_testkit::tempdir::TempDir;
use tailwater_tests::agent::{self, Agent};
use tailwater_tests::prometheus::{self, Prometheus};
use tailwater_tests::remote_write::RemoteWriteBench;
use tailwater_tests::wait;

/// Cumulative, in OTLP.
const CUMULATIVE: u32 = 2;

/// A server, unless there is none to be had here.
fn server(rules: Option<&str>) -> Option<Prometheus> {
    match prometheus::find() {
        Ok(binary) => Some(Prometheus::start(&binary, rules)),
        Err(why) => {
            println!("skipped: no Prometheus: {why}");
            None
        }
    }
}

fn exporter(server: &Prometheus, options: Value) -> RemoteWriteBench {
    let mut config = json!({"endpoint": server.write_url()});
    if let (Some(config), Some(options)) = (config.as_object_mut(), options.as_object()) {
        config.extend(options.clone());
    }
    RemoteWriteBench::start(&config)
}

/// Now, in whole ms since the epoch.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.expect("after 1970").as_millis()).expect("before the year 500 million")
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

fn attributes(pairs: &[(&str, &str)]) -> Value {
    let pair = |(key, value): &(&str, &str)| json!({"key": key, "value": {"stringValue": value}});
    pairs.iter().map(pair).collect()
}

/// A data point of `fields`, at `ms`.
fn point(ms: u64, pairs: &[(&str, &str)], fields: Value) -> Value {
    let mut point = json!({
        "timeUnixNano": (ms * 1_000_000).to_string(), "attributes": attributes(pairs),
    });
    if let (Some(point), Some(fields)) = (point.as_object_mut(), fields.as_object()) {
        point.extend(fields.clone());
    }
    point
}

fn request(metrics: Value) -> Value {
    let resource = attributes(&[
        ("service.name", "shop"),
        ("service.namespace", "eu"),
        ("service.instance.id", "i-1"),
        ("host.name", "h1"),
    ]);
    let scopes = json!([{"scope": {"name": "lib"}, "metrics": metrics}]);
    json!({"resourceMetrics": [{"resource": {"attributes": resource}, "scopeMetrics": scopes}]})
}

fn gauge(name: &str, points: Value) -> Value {
    json!({"name": name, "gauge": {"dataPoints": points}})
}

/// A request with a metric of each kind.
fn all_kinds(at: u64) -> Value {
    let cumulative =
        |points: Value| json!({"aggregationTemporality": CUMULATIVE, "dataPoints": points});
    let mut sum = cumulative(json!([
        point(
            at,
            &[("http.method", "GET")],
            json!({"asInt": "9007199254740993"})
        ),
        point(at, &[("http.method", "PUT")], json!({"asDouble": 0.1})),
    ]));
    sum["isMonotonic"] = true.into();
    let trace = "0102030405060708090a0b0c0d0e0f10";
    let histogram = cumulative(json!([point(
        at,
        &[],
        json!({
            "count": "10", "sum": 12.25, "bucketCounts": ["1", "2", "3", "4"],
            "explicitBounds": [0.005, 0.5, 10],
            "exemplars": [{
                "timeUnixNano": (at * 1_000_000).to_string(), "asDouble": 0.25, "traceId": trace,
                "spanId": "0102030405060708",
            }],
        })
    )]));
    let exponential = cumulative(json!([point(
        at,
        &[],
        json!({
            "count": "12", "sum": 20.5, "scale": 0, "zeroCount": "2",
            "positive": {"offset": 0, "bucketCounts": ["3", "0", "0", "0", "4"]},
            "negative": {"offset": 1, "bucketCounts": ["3"]},
        })
    )]));
    let summary = json!([point(
        at,
        &[],
        json!({
            "count": "7", "sum": 3.5,
            "quantileValues": [{"quantile": 0.5, "value": 0.25}, {"quantile": 0.99, "value": 2}],
        })
    )]);
    request(json!([
        {"name": "http.requests", "description": "Requests.", "sum": sum},
        gauge("room.temperature", json!([point(at, &[], json!({"asDouble": -2.5}))])),
        {"name": "http.duration", "unit": "s", "histogram": histogram},
        {"name": "size", "unit": "By", "exponentialHistogram": exponential},
        {"name": "latency", "summary": {"dataPoints": summary}},
    ]))
}

#[test]
fn the_query_api_returns_what_was_sent() {
    let Some(server) = server(None) else { return };
    let at = now_ms();
    let mut exporter = exporter(&server, common_options());
    exporter.send(&all_kinds(at));
    assert_eq!(exporter.settle(), 0);
    expect_all_kinds(&server, at);
}

fn common_options() -> Value {
    json!({"external_labels": {"region": "r"}, "send_metadata": true})
}

/// Asks for all that [`all_kinds`] is made of.
fn expect_all_kinds(server: &Prometheus, at: u64) {
    let values = |expression: &str, by: &str| server.values(expression, by, seconds(at));
    let pair = |label: &str, value: f64| (label.to_owned(), value);
    let requests = values(
        r#"http_requests_total{job="eu/shop",instance="i-1",region="r",otel_scope_name="lib"}"#,
        "http_method",
    );
    assert_eq!(
        requests,
        [pair("GET", 9_007_199_254_740_992.0), pair("PUT", 0.1)]
    );
    assert_eq!(values("room_temperature", "region"), [pair("r", -2.5)]);
    let mut buckets = values("http_duration_seconds_bucket", "le");
    buckets.sort_by(|a, b| a.1.total_cmp(&b.1));
    let want = [
        pair("0.005", 1.0),
        pair("0.5", 3.0),
        pair("10", 6.0),
        pair("+Inf", 10.0),
    ];
    assert_eq!(buckets, want);
    assert_eq!(values("http_duration_seconds_sum", ""), [pair("", 12.25)]);
    assert_eq!(values("http_duration_seconds_count", ""), [pair("", 10.0)]);
    let quantiles = [pair("0.5", 0.25), pair("0.99", 2.0)];
    assert_eq!(values("latency", "quantile"), quantiles);
    assert_eq!(values("latency_sum", ""), [pair("", 3.5)]);
    assert_eq!(values("latency_count", ""), [pair("", 7.0)]);
    assert_eq!(values("target_info", "host_name"), [pair("h1", 1.0)]);
    // A join by what resources have, as users do it.
    let joined = "room_temperature * on (job, instance) group_left (host_name) target_info";
    assert_eq!(values(joined, "host_name"), [pair("h1", -2.5)]);

    let native = server.query("size_bytes", seconds(at));
    let histogram = &native[0]["histogram"][1];
    assert_eq!(
        (&histogram["count"], &histogram["sum"]),
        (&json!("12"), &json!("20.5"))
    );
    // Boundaries: 0 = open below, 1 = open above, 3 = closed.
    let threshold = "1e-128";
    let want = json!([
        [1, "-4", "-2", "3"],
        [3, format!("-{threshold}"), threshold, "2"],
        [0, "1", "2", "3"],
        [0, "16", "32", "4"],
    ]);
    let near = |text: &Value| text.as_str().and_then(|t| t.parse::<f64>().ok());
    let got = histogram["buckets"].as_array().cloned().unwrap_or_default();
    assert_eq!(got.len(), 4, "{histogram}");
    for (got, want) in got.iter().zip(want.as_array().expect("a list")) {
        assert_eq!(got[0], want[0], "{got}");
        for i in 1..4 {
            assert_eq!(near(&got[i]), near(&want[i]), "{got}");
        }
    }
    let count = values("histogram_count(size_bytes)", "");
    assert_eq!(count, [pair("", 12.0)]);

    let range = format!("start={}&end={}", seconds(at) - 60.0, seconds(at) + 60.0);
    let query = prometheus::escaped("http_duration_seconds_bucket");
    let exemplars = server.data(&format!("query_exemplars?query={query}&{range}"));
    assert_eq!(exemplars[0]["seriesLabels"]["le"], "0.5", "{exemplars}");
    let exemplar = &exemplars[0]["exemplars"][0];
    assert_eq!(
        exemplar["labels"]["trace_id"],
        "0102030405060708090a0b0c0d0e0f10"
    );
    assert_eq!(exemplar["value"], "0.25");
}

/// The same through the agent: a success of the receiver means that Prometheus has it.
#[test]
fn the_agent_passes_metrics_on() {
    let rules = "groups: [{name: g, rules: [{alert: Cold, expr: room_temperature < 0}]}]\n";
    let Some(server) = server(Some(rules)) else {
        return;
    };
    let state = TempDir::new("remote-write").expect("a directory");
    let port = agent::free_port().expect("a port");
    let mut exporter = common_options();
    exporter["endpoint"] = server.write_url().into();
    let config = json!({
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": format!("127.0.0.1:{port}")}}}},
        "exporters": {"prometheusremotewrite": exporter},
        "service": {"pipelines": {"metrics": {
            "receivers": ["otlp"], "exporters": ["prometheusremotewrite"],
        }}},
    });
    let agent = Agent::start(&config, &state.join("state"), state.path());
    let at = now_ms() - 5000;
    assert_eq!(post(port, &all_kinds(at)), 200, "{}", agent.log());
    expect_all_kinds(&server, at);
    let ended = json!([point(at + 2000, &[], json!({"flags": 1}))]);
    assert_eq!(
        post(port, &request(json!([gauge("room.temperature", ended)]))),
        200
    );
    let value = |ms: u64| server.values("room_temperature", "region", seconds(ms));
    assert_eq!(value(at + 1999), [("r".to_owned(), -2.5)]);
    assert_eq!(value(at + 2000), []);
    // One that goes on, for the alert, with one that Prometheus cannot have.
    let again = json!([point(now_ms(), &[], json!({"asDouble": -3}))]);
    let delta =
        json!({"aggregationTemporality": 1, "dataPoints": [point(at, &[], json!({"asInt": "1"}))]});
    let both = json!([gauge("room.temperature", again), {"name": "delta", "sum": delta}]);
    assert_eq!(post(port, &request(both)), 200);
    let firing = wait::within(wait::BOUND, || {
        let alerts = server.data("alerts")["alerts"].take();
        alerts
            .as_array()
            .is_some_and(|all| all.iter().any(|a| a["state"] == "firing"))
    });
    assert!(firing);
    let scrape = agent.scrape();
    let sum = |name: &str| -> f64 {
        let of_name = scrape.samples.iter().filter(|s| s.name == name);
        of_name.map(|s| s.value).sum()
    };
    assert_eq!(
        sum("otelcol_exporter_sent_metric_points"),
        8.0,
        "{}",
        agent.log()
    );
    agent.stop_clean();
}

/// What the receiver answered with success is on disk, and arrives though the agent is killed. All
/// points are of one series, so none but the first is sent before.
#[test]
fn the_queue_on_disk_outlives_a_kill() {
    const POINTS: u64 = 5;
    let Some(server) = server(None) else { return };
    let state = TempDir::new("remote-write").expect("a directory");
    let port = agent::free_port().expect("a port");
    let storage = json!({"directory": state.join("queue"), "create_directory": true});
    let config = json!({
        "extensions": {"file_storage": storage},
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": format!("127.0.0.1:{port}")}}}},
        "exporters": {"prometheus_remote_write": {
            "endpoint": server.write_url(), "timeout": "1m",
            "remote_write_queue": {"storage": "file_storage"},
        }},
        "service": {"extensions": ["file_storage"], "pipelines": {"metrics": {
            "receivers": ["otlp"], "exporters": ["prometheus_remote_write"],
        }}},
    });
    let start = || Agent::start(&config, &state.join("state"), state.path());
    server.pause();
    let agent = start();
    let at = now_ms() - 30_000;
    for i in 0..POINTS {
        let point = json!([point(at + i * 1000, &[], json!({"asInt": i.to_string()}))]);
        assert_eq!(
            post(port, &request(json!([gauge("kept", point)]))),
            200,
            "{}",
            agent.log()
        );
    }
    agent.kill();
    server.resume();
    let agent = start();
    let arrived = wait::within(wait::BOUND, || {
        let counted = server.values("count_over_time(kept[1m])", "", seconds(at + 20_000));
        counted == [(String::new(), POINTS as f64)]
    });
    assert!(arrived, "{}", agent.log());
    agent.stop_clean();
}

/// Sends a request of OTLP in JSON; the status of the answer.
fn post(port: u16, request: &Value) -> u16 {
    let body = request.to_string();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the receiver listens");
    let head = "POST /v1/metrics HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                Connection: close\r\n";
    let length = body.len();
    write!(stream, "{head}Content-Length: {length}\r\n\r\n{body}").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
    status.expect("a status")
}

#[test]
fn a_stale_marker_ends_a_series() {
    let Some(server) = server(None) else { return };
    let mut exporter = exporter(&server, json!({}));
    let begin = now_ms() - 10_000;
    let stale = |fields: Value| {
        let mut fields = fields;
        fields["flags"] = 1.into();
        fields
    };
    let both = |ms, g: Value, e: Value| {
        let e = json!({"aggregationTemporality": CUMULATIVE, "dataPoints": [point(ms, &[], e)]});
        request(json!([
            gauge("g", json!([point(ms, &[], g)])),
            {"name": "e", "exponentialHistogram": e},
        ]))
    };
    let buckets = json!({"count": "1", "sum": 1.5, "positive": {"bucketCounts": ["1"]}});
    exporter.send(&both(begin, json!({"asDouble": 7}), buckets.clone()));
    exporter.send(&both(begin + 2000, stale(json!({})), stale(json!({}))));
    exporter.send(&both(begin + 4000, json!({"asDouble": 8}), buckets));
    assert_eq!(exporter.settle(), 0);
    for (expression, first, last) in [("g", 7.0, 8.0), ("histogram_count(e)", 1.0, 1.0)] {
        let value = |after: u64| {
            let values = server.values(expression, "", seconds(begin + after));
            values.first().map(|(_, value)| *value)
        };
        let seen = [0, 1999, 2000, 3999, 4000].map(value);
        let want = [Some(first), Some(first), None, None, Some(last)];
        assert_eq!(seen, want, "{expression}");
    }
}

#[test]
fn an_alert_fires_on_what_was_sent() {
    let rules = "groups: [{name: g, rules: [{alert: TooHot, expr: room_temperature > 40, \
                 labels: {severity: page}}]}]\n";
    let Some(server) = server(Some(rules)) else {
        return;
    };
    let mut exporter = exporter(&server, json!({}));
    let hot = json!([point(now_ms(), &[("room", "a")], json!({"asDouble": 41.5}))]);
    exporter.send(&request(json!([gauge("room.temperature", hot)])));
    assert_eq!(exporter.settle(), 0);
    let firing = wait::for_some(wait::BOUND, || {
        let alerts = server.data("alerts")["alerts"].take();
        let found = alerts.as_array()?.iter().find(|a| a["state"] == "firing");
        found.cloned()
    });
    let alert = firing.expect("an alert");
    assert_eq!(alert["labels"]["alertname"], "TooHot");
    assert_eq!(
        (&alert["labels"]["room"], &alert["value"]),
        (&json!("a"), &json!("4.15e+01"))
    );
}

/// Prometheus refuses a request with a sample that is older than another of its series: so nothing
/// is dropped only if every series is in order. Requests wait until all are there, then go as fast
/// as they can: those of five at once would overtake each other.
#[test]
fn series_are_in_order_though_requests_go_in_parallel() {
    const SERIES: usize = 2000;
    const ROUNDS: u64 = 24;
    let Some(server) = server(None) else { return };
    let options = json!({"disable_scope_info": true, "timeout": "1m"});
    let mut exporter = exporter(&server, options);
    let begin = now_ms() - 60_000;
    server.pause();
    for round in 0..ROUNDS {
        let at = begin + round * 1000;
        let one = |i: usize| {
            let value = json!({"asInt": round.to_string()});
            point(at, &[("i", &i.to_string())], value)
        };
        let points: Value = (0..SERIES).map(one).collect();
        exporter.send(&request(json!([gauge("ordered", points)])));
    }
    server.resume();
    assert_eq!(exporter.settle(), 0);
    assert_eq!(exporter.requests(), 2 * ROUNDS, "two requests for a batch");
    let end = seconds(begin) + Duration::from_secs(30).as_secs_f64();
    let counted = server.values("count_over_time(ordered[1m])", "i", end);
    let by_count = counted.iter().fold(BTreeMap::new(), |mut all, (_, n)| {
        *all.entry(*n as u64).or_insert(0) += 1;
        all
    });
    assert_eq!(by_count, BTreeMap::from([(ROUNDS, SERIES)]));
}
