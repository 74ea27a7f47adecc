//! MB per second of CPU of the codec of OTLP: what each function does with requests of 1,000 items,
//! against `prost` decoding the same bytes into structures.
//!
//! CPU time of this thread, the best and the median of several passes.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::Parser;
use prost::Message;
use rustix::time::{ClockId, clock_gettime};
use tailwater_benches::report::{median, table};
use tailwater_pdata::otlp::edit::{Attributes, Edit, Next};
use tailwater_pdata::otlp::oracle::{self as o, Any, Data, Number};
use tailwater_pdata::otlp::{Encoded, Limits, decode_logs, encode_logs, json};
use tailwater_pdata::{LogsBatch, Signal};

/// Items of a request.
const ITEMS: u64 = 1000;

/// MB per second of CPU of the codec of OTLP.
#[derive(Parser)]
struct Options {
    /// MB of requests in each pass.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    mb: u64,
    /// Passes.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    passes: u32,
}

fn main() -> Result<()> {
    let options = Options::parse();
    for signal in Signal::ALL {
        let mut bench = Bench::new(signal, &options)?;
        println!(
            "{signal}: {} bytes of protobuf and {} of JSON for {} items",
            bench.proto.len(),
            bench.json.len(),
            bench.encoded.items()
        );
        bench.run()?;
        print!(
            "{}",
            table(
                &["function", "MB/s (best)", "MB/s (median)", "ratio"],
                &bench.rows
            )
        );
    }
    Ok(())
}

struct Bench {
    signal: Signal,
    proto: Bytes,
    json: Vec<u8>,
    encoded: Encoded,
    rounds: u64,
    passes: u32,
    reference: Option<f64>,
    rows: Vec<Vec<String>>,
}

impl Bench {
    fn new(signal: Signal, options: &Options) -> Result<Bench> {
        let proto = Bytes::from(match signal {
            Signal::Logs => logs().encode_to_vec(),
            Signal::Metrics => metrics().encode_to_vec(),
            Signal::Traces => traces().encode_to_vec(),
        });
        let encoded = Encoded::parse(signal, proto.clone(), &Limits::default())?;
        let mut json = Vec::new();
        json::from_proto(signal, &proto, &mut json)?;
        Ok(Bench {
            signal,
            rounds: options.mb * 1_000_000 / proto.len() as u64 + 1,
            passes: options.passes,
            proto,
            json,
            encoded,
            reference: None,
            rows: Vec::new(),
        })
    }

    fn run(&mut self) -> Result<()> {
        let (signal, limits) = (self.signal, Limits::default());
        let (proto, encoded, text) = (self.proto.clone(), self.encoded.clone(), self.json.clone());
        self.measure("prost decodes", proto.len(), || {
            match signal {
                Signal::Logs => drop(black_box(o::Logs::decode(&*proto)?)),
                Signal::Metrics => drop(black_box(o::Metrics::decode(&*proto)?)),
                Signal::Traces => drop(black_box(o::Traces::decode(&*proto)?)),
            }
            Ok(())
        })?;
        self.measure("parse", proto.len(), || {
            let encoded = Encoded::parse(signal, proto.clone(), &limits)?;
            ensure!(black_box(encoded).items() == ITEMS as usize);
            Ok(())
        })?;
        if signal == Signal::Logs {
            self.measure("decode_logs", proto.len(), || {
                black_box(decode_logs(black_box(&encoded)));
                Ok(())
            })?;
            let batches = decode_logs(&encoded);
            ensure!(batches.iter().map(LogsBatch::rows).sum::<usize>() == ITEMS as usize);
            let mut out = Vec::new();
            self.measure("encode_logs", proto.len(), || {
                out.clear();
                batches.iter().for_each(|b| encode_logs(b, &mut out));
                black_box(&out);
                Ok(())
            })?;
        }
        self.measure("split into pieces of 100", proto.len(), || {
            ensure!(black_box(encoded.clone().split(100)).len() == ITEMS as usize / 100);
            Ok(())
        })?;
        self.measure("edit of each resource", proto.len(), || {
            let mut edited = encoded.clone();
            edited.edit(&mut Change { items: false });
            black_box(edited);
            Ok(())
        })?;
        self.measure("edit of each item", proto.len(), || {
            let mut edited = encoded.clone();
            edited.edit(&mut Change { items: true });
            black_box(edited);
            Ok(())
        })?;
        self.measure("JSON to protobuf (MB of JSON)", text.len(), || {
            black_box(json::to_proto(signal, &text, &limits)?);
            Ok(())
        })?;
        let mut out = Vec::new();
        self.measure("protobuf to JSON (MB of JSON)", text.len(), || {
            out.clear();
            encoded.write_json(&mut out);
            ensure!(black_box(&out).len() == text.len());
            Ok(())
        })
    }

    /// Measures `work`, which is done to so many bytes. The ratio is that to the first measured.
    fn measure(
        &mut self,
        name: &str,
        bytes: usize,
        mut work: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let mut rates = Vec::new();
        for _ in 0..self.passes {
            let start = thread_cpu();
            for _ in 0..self.rounds {
                work().with_context(|| name.to_owned())?;
            }
            let took = thread_cpu() - start;
            rates.push(bytes as f64 * self.rounds as f64 / 1e6 / took.as_secs_f64());
        }
        let best = rates.iter().copied().fold(0.0, f64::max);
        let median = median(rates);
        let reference = *self.reference.get_or_insert(median);
        self.rows.push(vec![
            name.to_owned(),
            format!("{best:.0}"),
            format!("{median:.0}"),
            format!("{:.2}", median / reference),
        ]);
        Ok(())
    }
}

/// Adds an attribute to resources, or to items.
struct Change {
    items: bool,
}

impl Edit for Change {
    fn resource(&mut self, attributes: &mut Attributes<'_>) -> Next {
        if self.items {
            return Next::Look;
        }
        add(attributes);
        Next::Leave
    }

    fn item(
        &mut self,
        _: &tailwater_pdata::otlp::edit::View<'_>,
        list: &mut Attributes<'_>,
    ) -> bool {
        add(list);
        true
    }
}

fn add(attributes: &mut Attributes<'_>) {
    attributes.update(|map| {
        map.insert("deployment.environment", "production");
        true
    });
}

/// CPU time of this thread.
fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
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

fn logs() -> o::Logs {
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
                log_records: (0..ITEMS).map(record).collect(),
                ..Default::default()
            }],
            ..Default::default()
        }],
    }
}

fn metrics() -> o::Metrics {
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
        let range = m * 5..(m + 1) * 5;
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
                metrics: (0..ITEMS / 5).map(metric).collect(),
                ..Default::default()
            }],
            ..Default::default()
        }],
    }
}

fn traces() -> o::Traces {
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
                spans: (0..ITEMS).map(span).collect(),
                ..Default::default()
            }],
            ..Default::default()
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_does_its_work() -> Result<()> {
        for signal in Signal::ALL {
            let options = Options { mb: 1, passes: 1 };
            Bench::new(signal, &options)?.run()?;
        }
        Ok(())
    }
}
