//! An exporter of remote write without its sockets, and requests for it: requests of OTLP as bytes in,
//! finished requests through the queue out, each answered with success.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use tailwater_config::{Errors, KeyPath, Section, parse};
use tailwater_exporters::delivery::{Acks, Courier, Judge, Reply};
use tailwater_exporters::prometheusremotewrite::{
    RemoteWriteExporter, RemoteWriteParts, RemoteWriteSettings,
};
use tailwater_pdata::Signal;
use tailwater_pdata::otlp::{Encoded, Limits, json as otlp_json};
use tailwater_pipeline::ack::NoSink;
use tailwater_pipeline::clock::{Clock, SystemClock};
use tailwater_pipeline::shard::ShardWaker;
use tailwater_pipeline::{AckToken, Batch, Exporter, ExporterNode, Part, Permit, ShardHandle};
use tailwater_telemetry::metrics::MetricsRegistry;

/// Requests of a case: the same series at different times.
pub const ROUNDS: u64 = 8;
/// Bounds of the buckets of classic histograms.
const BOUNDS: usize = 12;
/// Buckets of exponential histograms.
const BUCKETS: usize = 40;
/// Points per metric.
const POINTS: usize = 80;

/// What the points are of.
#[derive(Clone, Copy, Debug)]
pub enum Case {
    /// Gauges and counters.
    Numbers,
    /// Histograms with bounds.
    Histograms,
    /// Exponential histograms.
    Native,
}

impl Case {
    fn metrics(self) -> usize {
        match self {
            Case::Numbers => 100,
            Case::Histograms | Case::Native => 10,
        }
    }

    /// Samples that a point becomes.
    pub fn samples(self) -> u64 {
        match self {
            Case::Numbers | Case::Native => 1,
            // Buckets with the last one, sum and count.
            Case::Histograms => BOUNDS as u64 + 3,
        }
    }

    /// A request of all series at one time.
    ///
    /// # Errors
    /// None: what is made is OTLP.
    pub fn request(self, round: u64) -> Result<Encoded> {
        let metrics: Vec<Value> = (0..self.metrics()).map(|m| self.metric(m, round)).collect();
        let resource = attributes(&[
            ("service.name", "checkout"),
            ("service.namespace", "shop"),
            ("service.instance.id", "checkout-5f7d9c6b8-x2x4z"),
            ("k8s.node.name", "node-17"),
        ]);
        let scope = json!({"name": "io.opentelemetry.runtime", "version": "1.2.3"});
        let request = json!({"resourceMetrics": [{
            "resource": {"attributes": resource},
            "scopeMetrics": [{"scope": scope, "metrics": metrics}],
        }]});
        let limits = Limits::default();
        let json = request.to_string();
        let body = otlp_json::to_proto(Signal::Metrics, json.as_bytes(), &limits)?;
        Ok(Encoded::parse(Signal::Metrics, body, &limits)?)
    }

    fn metric(self, metric: usize, round: u64) -> Value {
        let points: Vec<Value> = (0..POINTS).map(|p| self.point(metric, p, round)).collect();
        let mut data = json!({"dataPoints": points, "aggregationTemporality": 2});
        let (name, kind) = match self {
            Case::Numbers if metric.is_multiple_of(2) => {
                data["isMonotonic"] = true.into();
                (format!("http.server.requests.{metric}"), "sum")
            }
            Case::Numbers => {
                data = json!({"dataPoints": data["dataPoints"]});
                (format!("process.memory.usage.{metric}"), "gauge")
            }
            Case::Histograms => (format!("http.server.duration.{metric}"), "histogram"),
            Case::Native => (format!("rpc.size.{metric}"), "exponentialHistogram"),
        };
        json!({"name": name, "unit": "s", "description": "What is measured here.", kind: data})
    }

    fn point(self, metric: usize, point: usize, round: u64) -> Value {
        // Like values of a process: they differ by series and rise over time.
        let value = (metric * 7919 + point * 104_729) as u64 % 100_000 + round * 37;
        let time = 1_704_067_200_000_000_000 + round * 15_000_000_000;
        let methods = ["GET", "POST", "PUT", "DELETE"];
        let mut it = json!({
            "startTimeUnixNano": "1704060000000000000",
            "timeUnixNano": time.to_string(),
            "attributes": attributes(&[
                ("http.request.method", methods[point % 4]),
                ("http.route", &format!("/api/v1/orders/{{id}}/{}", point / 4 % 5)),
                ("http.response.status_code", ["200", "404"][point / 20 % 2]),
                ("network.protocol.version", "1.1"),
                ("server.address", &format!("10.0.{}.1", point / 40)),
            ]),
        });
        let counts = |n: usize| -> Vec<String> {
            (0..n as u64)
                .map(|i| (value / (i + 1)).to_string())
                .collect()
        };
        let fields = match self {
            Case::Numbers => json!({"asDouble": value as f64 * 0.25}),
            Case::Histograms => json!({
                "count": (value * 4).to_string(), "sum": value as f64 * 0.5,
                "bucketCounts": counts(BOUNDS + 1),
                "explicitBounds": (0..BOUNDS).map(|i| 0.005 * f64::from(1u32 << i)).collect::<Vec<_>>(),
            }),
            Case::Native => json!({
                "count": (value * 5).to_string(), "sum": value as f64 * 0.5, "scale": 3,
                "positive": {"offset": -20, "bucketCounts": counts(BUCKETS)},
            }),
        };
        if let (Some(it), Some(fields)) = (it.as_object_mut(), fields.as_object()) {
            it.extend(fields.clone());
        }
        it
    }
}

fn attributes(pairs: &[(&str, &str)]) -> Value {
    let pair = |(key, value): &(&str, &str)| json!({"key": key, "value": {"stringValue": value}});
    pairs.iter().map(pair).collect()
}

/// An exporter whose requests all succeed.
pub struct Bench {
    front: Box<dyn Exporter>,
    courier: Courier<Acks, dyn Judge<Acks>>,
    judge: Arc<dyn Judge<Acks>>,
    clock: Arc<SystemClock>,
    _exporter: RemoteWriteExporter,
}

impl Bench {
    /// An exporter of `protobuf_message: message`.
    ///
    /// # Errors
    /// None, if there is such a message.
    pub fn new(message: &str, runtime: &tokio::runtime::Runtime) -> Result<Bench> {
        let config = json!({
            "endpoint": "http://127.0.0.1:9/api/v1/write", "protobuf_message": message,
        });
        let node = parse(&config.to_string(), "bench").map_err(|e| anyhow!("{e}"))?;
        let mut errors = Errors::new();
        let path = KeyPath::from("exporters::prometheus_remote_write");
        let mut section = Section::new(&node, path, &mut errors);
        let settings = RemoteWriteSettings::decode(&mut section);
        section.finish();
        let settings = settings.context("a configuration")?;
        let clock = Arc::new(SystemClock::default());
        let parts = RemoteWriteParts {
            name: "prometheus_remote_write".into(),
            settings,
            clock: clock.clone(),
            seed: 1,
            runtime: runtime.handle().clone(),
            authenticators: Default::default(),
            connections: Default::default(),
            queue_dir: None,
        };
        let metrics = Arc::new(MetricsRegistry::default());
        let mut exporter = RemoteWriteExporter::new(parts, &metrics)?;
        let front = exporter.front(&ShardHandle {
            index: 0,
            waker: Arc::new(ShardWaker::default()),
        });
        let (delivery, judge) = exporter.sender();
        let courier = delivery.courier(judge.clone());
        Ok(Bench {
            front,
            courier,
            judge,
            clock,
            _exporter: exporter,
        })
    }

    /// Exports a request; the bytes that it became.
    pub fn export(&mut self, request: &Encoded) -> usize {
        let now = self.clock.now();
        let part = Part {
            data: request.clone().into(),
            ack: AckToken::new(Arc::new(NoSink), 0),
            permit: Permit::none(),
        };
        self.front.export(Batch::of(part), now);
        let mut bytes = 0;
        loop {
            let due = self.courier.due(now);
            if due.empty {
                return bytes;
            }
            for open in due.attempts {
                bytes += open.request().map_or(0, |request| request.body_bytes());
                open.answered(&*self.judge, Ok(written(u64::MAX)));
            }
        }
    }
}

/// Success, with all samples written.
fn written(samples: u64) -> Reply {
    let mut reply = Reply {
        status: Default::default(),
        headers: Default::default(),
        body: Default::default(),
        truncated: false,
    };
    let name = "x-prometheus-remote-write-samples-written";
    reply.headers.insert(name, samples.into());
    reply
}
