//! Processors of data points in the real binary: OTLP in, each of them alone and in chains, OTLP out.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use serde_json::{Value, json};
use tailwater_testkit::otlp::OtlpStandIn;
use tailwater_tests::agent::{Agent, free_port, run_once};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

/// Where requests go in, and where they come out as JSON.
struct Way {
    backend: OtlpStandIn,
    receive: SocketAddr,
    agent: Agent,
    _rig: Rig,
}

impl Way {
    /// An agent with these processors, in this order, and two shards.
    fn new(label: &str, processors: &[(&str, Value)]) -> Way {
        let rig = Rig::new(label);
        let backend = OtlpStandIn::start(None).expect("free ports");
        let receive = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().expect("a port")));
        let names: Vec<&str> = processors.iter().map(|(name, _)| *name).collect();
        let sections: serde_json::Map<String, Value> = processors
            .iter()
            .map(|(name, section)| ((*name).to_owned(), section.clone()))
            .collect();
        let config = json!({
            "receivers": {"otlp": {"protocols": {"http": {"endpoint": receive.to_string()}}}},
            "processors": sections,
            "exporters": {"otlp_http": {"endpoint": backend.http_url(), "encoding": "json", "compression": "none"}},
            "service": {"pipelines": {"metrics": {
                "receivers": ["otlp"], "processors": names, "exporters": ["otlp_http"],
            }}},
        });
        let agent = rig.start(&config);
        Way {
            backend,
            receive,
            agent,
            _rig: rig,
        }
    }

    /// The status of the answer to metrics of one resource and scope; `None` without one.
    fn post(&self, metrics: &Value) -> Option<u16> {
        post(self.receive, metrics)
    }

    /// Posts, and asserts success.
    fn send(&self, metrics: &Value) {
        let status = self.post(metrics);
        assert_eq!(status, Some(200), "{}", tail(&self.agent.log()));
    }

    /// All metrics that came out, in order.
    fn out(&self) -> Vec<Value> {
        metrics_at(&self.backend)
    }

    /// Stops the agent; nothing was lost or out of account.
    fn end(self) {
        let faults = self.agent.scrape().faults();
        assert!(faults.is_empty(), "{faults:?}");
        self.agent.stop_clean();
        assert_eq!(self.backend.errors(), Vec::<String>::new());
    }
}

/// All metrics that came to a destination, in order.
fn metrics_at(backend: &OtlpStandIn) -> Vec<Value> {
    let mut all = Vec::new();
    for record in backend.records() {
        let request: Value = serde_json::from_slice(&record.body).expect("JSON");
        for resource in array(&request, "resourceMetrics") {
            for scope in array(resource, "scopeMetrics") {
                all.extend(array(scope, "metrics").iter().cloned());
            }
        }
    }
    all
}

fn array<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn post(to: SocketAddr, metrics: &Value) -> Option<u16> {
    let body = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]}).to_string();
    let head = format!(
        "POST /v1/metrics HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(to).ok()?;
    stream.set_read_timeout(Some(wait::BOUND)).ok()?;
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let text = String::from_utf8_lossy(&answer);
    text.split(' ').nth(1)?.parse().ok()
}

const DELTA: u8 = 1;
const CUMULATIVE: u8 = 2;

fn number(start: u64, time: u64, value: u64) -> Value {
    json!({"startTimeUnixNano": start.to_string(), "timeUnixNano": time.to_string(), "asInt": value.to_string()})
}

fn sum(name: &str, temporality: u8, points: Vec<Value>) -> Value {
    json!({"name": name, "sum": {
        "dataPoints": points, "aggregationTemporality": temporality, "isMonotonic": true,
    }})
}

/// Guarantees that totals come out as differences, and that what is left out is counted.
#[test]
fn cumulativetodelta() {
    let way = Way::new("cumulativetodelta", &[("cumulativetodelta", json!({}))]);
    for (time, value) in [(10, 5), (20, 7), (30, 12)] {
        way.send(&json!([sum("m", CUMULATIVE, vec![number(1, time, value)])]));
    }
    let want = [
        sum("m", DELTA, vec![number(10, 20, 2)]),
        sum("m", DELTA, vec![number(20, 30, 5)]),
    ];
    assert_eq!(way.out(), want);
    let page = way.agent.scrape();
    let dropped = "otelcol_cumulativetodelta_datapoints_dropped";
    assert_eq!(page.sum(dropped, &[("reason", "initial")]), 1.0);
    assert_eq!(page.sum("otelcol_cumulativetodelta_datapoints", &[]), 2.0);
    way.end();
}

/// Guarantees that differences from several clients at the same time, taken by whichever shard, are
/// all in the totals, once.
#[test]
fn deltatocumulative() {
    const CLIENTS: u64 = 4;
    const EACH: u64 = 25;
    let way = Way::new("deltatocumulative", &[("deltatocumulative", json!({}))]);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let receive = way.receive;
            scope.spawn(move || {
                let name = format!("m{client}");
                for i in 1..=EACH {
                    let both = vec![number(2 * i, 2 * i + 1, i), number(2 * i + 1, 2 * i + 2, 1)];
                    let status = post(receive, &json!([sum(&name, DELTA, both)]));
                    assert_eq!(status, Some(200));
                }
            });
        }
    });
    let out = way.out();
    for client in 0..CLIENTS {
        let name = format!("m{client}");
        let of = out.iter().filter(|m| m["name"] == *name);
        let points: Vec<&Value> = of.flat_map(|m| array(&m["sum"], "dataPoints")).collect();
        let mut total = 0;
        let want: Vec<Value> = (1..=EACH)
            .flat_map(|i| {
                total += i;
                let first = number(2, 2 * i + 1, total);
                total += 1;
                [first, number(2, 2 * i + 2, total)]
            })
            .collect();
        assert_eq!(points, want.iter().collect::<Vec<_>>(), "{name}");
    }
    way.end();
}

/// Guarantees that metrics are renamed, aggregated and regrouped, and that what no transform is about
/// comes out as it came.
#[test]
fn metricstransform() {
    let transforms = json!({"transforms": [
        {"include": "^app_(.*)$", "match_type": "regexp", "action": "update", "new_name": "app.$${1}",
         "operations": [{"action": "aggregate_labels", "label_set": ["code"], "aggregation_type": "sum"}]},
        {"include": "host", "action": "group", "group_resource_labels": {"kind": "host"}},
    ]});
    let way = Way::new("metricstransform", &[("metricstransform", transforms)]);
    let point = |code: &str, path: &str, value: u64| {
        let mut point = number(1, 2, value);
        let label = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
        point["attributes"] = match path {
            "" => json!([label("code", code)]),
            _ => json!([label("code", code), label("path", path)]),
        };
        point
    };
    let requests = vec![
        point("200", "/a", 1),
        point("200", "/b", 2),
        point("500", "/a", 4),
    ];
    let other =
        json!({"name": "other", "description": "text", "gauge": {"dataPoints": [number(1, 2, 9)]}});
    let host = json!({"name": "host", "gauge": {"dataPoints": [number(1, 2, 8)]}});
    way.send(&json!([
        sum("app_requests", CUMULATIVE, requests),
        host,
        other
    ]));
    let merged = vec![point("200", "", 3), point("500", "", 4)];
    let want = [sum("app.requests", CUMULATIVE, merged), other, host];
    assert_eq!(way.out(), want);
    way.end();
}

/// Guarantees of `interval` that success is answered when the newest point was delivered, not before,
/// and that a stop passes on what is held.
#[test]
fn interval() {
    let way = Way::new("interval", &[("interval", json!({"interval": "1s"}))]);
    let later = way.receive;
    let superseded = std::thread::spawn(move || {
        post(
            later,
            &json!([sum("m", CUMULATIVE, vec![number(1, 10, 1)])]),
        )
    });
    way.send(&json!([
        sum("m", CUMULATIVE, vec![number(1, 20, 2)]),
        sum("d", DELTA, vec![number(1, 20, 2)]),
    ]));
    // It is there before the answer is; what does not wait is there, too.
    let out = way.out();
    let newest = sum("m", CUMULATIVE, vec![number(1, 20, 2)]);
    assert!(out.contains(&newest), "{out:?}");
    assert!(out.contains(&sum("d", DELTA, vec![number(1, 20, 2)])));
    assert_eq!(superseded.join().expect("no panic"), Some(200));
    way.end();

    let held = json!({"interval": "1h", "acknowledge": "held"});
    let way = Way::new("interval-held", &[("interval", held)]);
    for (time, value) in [(10, 1), (20, 2)] {
        way.send(&json!([sum("m", CUMULATIVE, vec![number(1, time, value)])]));
    }
    assert_eq!(way.out(), [Value::Null; 0], "held");
    let page = way.agent.scrape();
    assert_eq!(page.sum("tailwater_interval_streams_held", &[]), 1.0);
    way.agent.stop_clean();
    let requests = way.backend.records();
    let last: Value = serde_json::from_slice(&requests.last().expect("one").body).expect("JSON");
    let metrics = &last["resourceMetrics"][0]["scopeMetrics"][0]["metrics"];
    assert_eq!(*metrics, json!([newest]));
}

/// Guarantees that an agent which is killed while it holds points told nobody that they are safe.
#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    let way = Way::new("interval-kill", &[("interval", json!({"interval": "1h"}))]);
    let receive = way.receive;
    let waiting = std::thread::spawn(move || {
        post(
            receive,
            &json!([sum("m", CUMULATIVE, vec![number(1, 10, 1)])]),
        )
    });
    let held = || {
        way.agent
            .scrape()
            .sum("tailwater_interval_streams_held", &[])
            == 1.0
    };
    assert!(
        wait::within(wait::BOUND, held),
        "{}",
        tail(&way.agent.log())
    );
    way.agent.kill();
    assert_eq!(waiting.join().expect("no panic"), None, "no answer");
    assert!(way.backend.records().is_empty());
}

/// Guarantees of a chain as it is used in front of a store of totals: differences are added up, renamed,
/// and passed on once in an interval.
#[test]
fn a_chain_of_them() {
    let rename = json!({"transforms": [{"include": "in", "action": "update", "new_name": "out"}]});
    let way = Way::new(
        "chain-of-points",
        &[
            ("deltatocumulative", json!({})),
            ("metricstransform", rename),
            ("interval", json!({"interval": "1s", "acknowledge": "held"})),
            ("batch", json!({"timeout": "10ms"})),
        ],
    );
    const REQUESTS: u64 = 40;
    for i in 1..=REQUESTS {
        way.send(&json!([sum("in", DELTA, vec![number(i, i + 1, 2)])]));
    }
    let last = sum(
        "out",
        CUMULATIVE,
        vec![number(1, REQUESTS + 1, 2 * REQUESTS)],
    );
    let arrived = || way.out().last() == Some(&last);
    assert!(wait::within(wait::BOUND, arrived), "{:?}", way.out());
    let passed = way.out().len() as f64;
    let page = way.agent.scrape();
    let superseded = page.sum("tailwater_interval_datapoints_superseded", &[]);
    assert_eq!(
        superseded + passed,
        REQUESTS as f64,
        "each is accounted for"
    );
    way.end();

    let way = Way::new(
        "chain-back",
        &[
            ("cumulativetodelta", json!({"initial_value": "keep"})),
            ("deltatocumulative", json!({})),
        ],
    );
    for i in 1..=REQUESTS {
        way.send(&json!([sum(
            "m",
            CUMULATIVE,
            vec![number(1, i + 1, 3 * i)]
        )]));
    }
    let want: Vec<Value> = (1..=REQUESTS)
        .map(|i| sum("m", CUMULATIVE, vec![number(1, i + 1, 3 * i)]))
        .collect();
    assert_eq!(way.out(), want, "there and back");
    way.end();
}

/// Guarantees that each destination gets all differences: what is remembered is remembered for each.
#[test]
fn several_destinations() {
    let rig = Rig::new("points-fan-out");
    let backends = [(); 2].map(|()| OtlpStandIn::start(None).expect("free ports"));
    let receive = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().expect("a port")));
    let to = |backend: &OtlpStandIn| json!({"endpoint": backend.http_url(), "encoding": "json", "compression": "none"});
    let agent = rig.start(&json!({
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": receive.to_string()}}}},
        "processors": {"cumulativetodelta": {}},
        "exporters": {"otlp_http/a": to(&backends[0]), "otlp_http/b": to(&backends[1])},
        "service": {"pipelines": {"metrics": {
            "receivers": ["otlp"], "processors": ["cumulativetodelta"],
            "exporters": ["otlp_http/a", "otlp_http/b"],
        }}},
    }));
    for (time, value) in [(10, 5), (20, 7), (30, 12)] {
        let metrics = json!([sum("m", CUMULATIVE, vec![number(1, time, value)])]);
        assert_eq!(post(receive, &metrics), Some(200), "{}", tail(&agent.log()));
    }
    let want = [
        sum("m", DELTA, vec![number(10, 20, 2)]),
        sum("m", DELTA, vec![number(20, 30, 5)]),
    ];
    for backend in &backends {
        assert_eq!(metrics_at(backend), want);
    }
    agent.stop_clean();
}

/// Guarantees that they are refused for other signals, by name.
#[test]
fn they_are_for_metrics() {
    let rig = Rig::new("points-refused");
    for name in [
        "cumulativetodelta",
        "deltatocumulative",
        "interval",
        "metricstransform",
    ] {
        for signal in ["logs", "traces"] {
            let pipeline =
                json!({"receivers": ["otlp"], "processors": [name], "exporters": ["debug"]});
            let config = json!({
                "receivers": {"otlp": {"protocols": {"http": {"endpoint": "127.0.0.1:4318"}}}},
                "processors": {name: {}},
                "exporters": {"debug": {}},
                "service": {"pipelines": {signal: pipeline}},
            });
            let file = rig.path("refused.yaml");
            std::fs::write(&file, config.to_string()).expect("a directory of our own");
            let file = file.to_string_lossy();
            let args = ["validate", "--config", &*file];
            let output = run_once(&args, &rig.state()).expect("it runs");
            let output = String::from_utf8_lossy(&output.stderr).into_owned();
            let want = format!("processor \"{name}\" does not support {signal} yet");
            assert!(output.contains(&want), "{output}");
        }
    }
}

/// Guarantees that statements of OTTL change metrics and their points in a chain, and that a metric that is
/// added is delivered once.
#[test]
fn transform() {
    let first = json!([
        "set(metric.description, \"in bytes\") where metric.name == \"a\"",
        "copy_metric(name=\"b\") where metric.name == \"a\"",
    ]);
    let statements = ["set(attributes[\"metric\"], metric.name)"];
    let second = json!([{"context": "datapoint", "statements": statements}]);
    let way = Way::new(
        "transform-metrics",
        &[
            (
                "transform/1",
                json!({"error_mode": "propagate", "metric_statements": first}),
            ),
            (
                "transform/2",
                json!({"error_mode": "propagate", "metric_statements": second}),
            ),
        ],
    );
    way.send(&json!([sum("a", CUMULATIVE, vec![number(1, 2, 7)])]));
    let want = |name: &str| {
        let mut point = number(1, 2, 7);
        point["attributes"] = json!([{"key": "metric", "value": {"stringValue": name}}]);
        let mut metric = sum(name, CUMULATIVE, vec![point]);
        metric["description"] = json!("in bytes");
        metric
    };
    assert_eq!(way.out(), [want("a"), want("b")]);
    way.end();
}
