//! Requests as SDKs in a cluster send them, of each signal.

use prost::Message;
use tailwater_pdata::Signal;
use tailwater_pdata::otlp::oracle::{self as o, Any, Data, Number};

/// The body of a request of so many items: log records, data points (five to a metric) or spans.
pub fn request(signal: Signal, items: u64) -> Vec<u8> {
    match signal {
        Signal::Logs => logs(items).encode_to_vec(),
        Signal::Metrics => metrics(items).encode_to_vec(),
        Signal::Traces => traces(items).encode_to_vec(),
    }
}

fn string(text: impl Into<String>) -> Option<o::AnyValue> {
    let value = Some(Any::String(text.into()));
    Some(o::AnyValue { value })
}

fn pair(key: &str, value: Option<o::AnyValue>) -> o::KeyValue {
    let key = key.into();
    o::KeyValue { key, value }
}

fn int(value: u64) -> Option<o::AnyValue> {
    let value = Some(Any::Int(value as i64));
    Some(o::AnyValue { value })
}

/// As an SDK in a Kubernetes pod sends it.
fn resource() -> Option<o::Resource> {
    let attributes = [
        ("service.name", "checkout"),
        ("service.namespace", "shop"),
        (
            "service.instance.id",
            "0a1b2c3d-4e5f-6789-abcd-ef0123456789",
        ),
        ("k8s.pod.name", "checkout-5d9f6c7b8-x2x7q"),
        ("k8s.namespace.name", "shop"),
        ("telemetry.sdk.name", "opentelemetry"),
        ("telemetry.sdk.version", "1.30.0"),
    ];
    Some(o::Resource {
        attributes: attributes
            .iter()
            .map(|(k, v)| pair(k, string(*v)))
            .collect(),
        ..Default::default()
    })
}

fn scope() -> Option<o::Scope> {
    Some(o::Scope {
        name: "shop.checkout.http".into(),
        version: "2.3.1".into(),
        ..Default::default()
    })
}

fn time(i: u64) -> u64 {
    1_700_000_000_000_000_000 + i * 1_234_567
}

fn request_attributes(i: u64) -> Vec<o::KeyValue> {
    vec![
        pair(
            "http.request.method",
            string(if i.is_multiple_of(3) { "POST" } else { "GET" }),
        ),
        pair(
            "url.path",
            string(format!("/api/v1/cart/{}/items", i * 7919 % 1000)),
        ),
        pair("http.response.status_code", int(200 + i % 4)),
        pair("server.address", string("checkout.shop.svc.cluster.local")),
        pair("user.id", string(format!("user-{}", i * 104_729 % 100_000))),
    ]
}

fn logs(items: u64) -> o::Logs {
    let record = |i| o::LogRecord {
        time_unix_nano: time(i),
        observed_time_unix_nano: time(i) + 1000,
        severity_number: 9,
        severity_text: "INFO".into(),
        body: string(format!(
            "request {i} of user-{} took {} us: cart with {} items was priced and reserved",
            i * 104_729 % 100_000,
            i * 31 % 9000,
            i % 17
        )),
        attributes: request_attributes(i),
        flags: 1,
        trace_id: (0..16).map(|b| (i * 31 + b) as u8).collect(),
        span_id: (0..8).map(|b| (i * 17 + b) as u8).collect(),
        ..Default::default()
    };
    o::Logs {
        resource_logs: vec![o::ResourceLogs {
            resource: resource(),
            scope_logs: vec![o::ScopeLogs {
                scope: scope(),
                log_records: (0..items).map(record).collect(),
                ..Default::default()
            }],
            ..Default::default()
        }],
    }
}

fn metrics(items: u64) -> o::Metrics {
    let point = |i| o::NumberPoint {
        attributes: request_attributes(i),
        start_time_unix_nano: time(0),
        time_unix_nano: time(i),
        value: Some(Number::Double(i as f64 * 0.25)),
        ..Default::default()
    };
    let histogram = |i| o::HistogramPoint {
        attributes: request_attributes(i),
        start_time_unix_nano: time(0),
        time_unix_nano: time(i),
        count: 15 * i,
        sum: Some(i as f64 * 1.5),
        bucket_counts: (0..15).map(|b| b * i % 100).collect(),
        explicit_bounds: (0..14).map(|b| f64::from(1 << b) * 0.005).collect(),
        min: Some(0.001),
        max: Some(19.0),
        ..Default::default()
    };
    // Five points to a metric, three of four of plain numbers.
    let metric = |m: u64| {
        let range = m * 5..((m + 1) * 5).min(items);
        o::Metric {
            name: format!("http.server.request.metric_{m}"),
            description: "Something about the requests that a server has answered.".into(),
            unit: "s".into(),
            data: Some(match m % 4 {
                0 => Data::Histogram(o::Histogram {
                    data_points: range.map(histogram).collect(),
                    aggregation_temporality: 2,
                }),
                1 => Data::Gauge(o::Gauge {
                    data_points: range.map(point).collect(),
                }),
                _ => Data::Sum(o::Sum {
                    data_points: range.map(point).collect(),
                    aggregation_temporality: 2,
                    is_monotonic: true,
                }),
            }),
            ..Default::default()
        }
    };
    o::Metrics {
        resource_metrics: vec![o::ResourceMetrics {
            resource: resource(),
            scope_metrics: vec![o::ScopeMetrics {
                scope: scope(),
                metrics: (0..items.div_ceil(5)).map(metric).collect(),
                ..Default::default()
            }],
            ..Default::default()
        }],
    }
}

fn traces(items: u64) -> o::Traces {
    let span = |i| o::Span {
        trace_id: (0..16).map(|b| (i / 8 * 31 + b) as u8).collect(),
        span_id: (0..8).map(|b| (i * 17 + b) as u8).collect(),
        parent_span_id: (0..8).map(|b| (i / 2 * 17 + b) as u8).collect(),
        flags: 257,
        name: "POST /api/v1/cart/{id}/items".into(),
        kind: 2 + (i % 2) as i32,
        start_time_unix_nano: time(i),
        end_time_unix_nano: time(i) + 900_000,
        attributes: request_attributes(i),
        events: (0..i % 3)
            .map(|e| o::Event {
                time_unix_nano: time(i) + e,
                name: "cache.miss".into(),
                attributes: vec![pair("cache.key", string(format!("cart:{i}")))],
                ..Default::default()
            })
            .collect(),
        status: Some(o::Status::default()),
        ..Default::default()
    };
    o::Traces {
        resource_spans: vec![o::ResourceSpans {
            resource: resource(),
            scope_spans: vec![o::ScopeSpans {
                scope: scope(),
                spans: (0..items).map(span).collect(),
                ..Default::default()
            }],
            ..Default::default()
        }],
    }
}
