//! The exporters as nodes: what the shards share, and the sender. One node per signal.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;
use tailwater_config::Section;
use tailwater_pdata::Signal;
use tailwater_pipeline::client::ContextKey;
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::factory::{ExporterFactory, ExporterSettings, Factory, NodeCx};
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::{BuildError, Exporter, ExporterNode, ShardHandle, Stored};
use tailwater_telemetry::metrics::PartialSuccessMetrics;
use tokio::runtime::Handle;

use crate::client::{
    ClientParts, Expiry, GrpcClient, GrpcParts, GrpcSender, HttpClient, HttpSender,
};
use crate::delivery::{DeliveryParts, Outbox, OutboxParts, Reply, SendError, Transport};

use super::config::{Common, OtlpGrpcSettings, OtlpHttpSettings};
use super::front::{OtlpFront, Shared};
use super::judge::OtlpJudge;
use super::packing::{Carrier, Form, Packing};

const HTTP: &str = "otlp_http";
const GRPC: &str = "otlp_grpc";
const SIGNALS: &[&str] = &["logs", "metrics", "traces"];

/// `otlp_http`, for the agent's registry.
pub fn http_factory() -> ExporterFactory {
    Factory {
        kind: HTTP,
        about: "sends OTLP over HTTP",
        signals: SIGNALS,
        decode: |node, path, errors| {
            let mut section = Section::new(node, path, errors);
            let settings = OtlpHttpSettings::decode(&mut section);
            section.finish();
            Some(Box::new(settings?))
        },
    }
}

/// `otlp_grpc`, for the agent's registry.
pub fn grpc_factory() -> ExporterFactory {
    Factory {
        kind: GRPC,
        about: "sends OTLP over gRPC",
        signals: SIGNALS,
        decode: |node, path, errors| {
            let mut section = Section::new(node, path, errors);
            let settings = OtlpGrpcSettings::decode(&mut section);
            section.finish();
            Some(Box::new(settings?))
        },
    }
}

fn failed(id: &str, e: impl ToString) -> BuildError {
    BuildError::new(format!("exporter {id:?}"), e.to_string())
}

impl ExporterSettings for OtlpHttpSettings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn ExporterNode>, BuildError> {
        let signal = cx.signal.unwrap_or(Signal::Logs);
        let Some(endpoint) = self.endpoint(signal) else {
            let text = format!("either endpoint or {signal}_endpoint must be specified");
            return Err(failed(&cx.id, text));
        };
        let client = ClientParts {
            expiry: Some(Expiry::new(cx.metrics.clone(), cx.id.clone())),
            authenticators: cx.authenticators.clone(),
            kept: Some((cx.connections.clone(), format!("{} {signal}", cx.id))),
            ..ClientParts::new(self.client.clone())
        };
        let client = HttpClient::new(client).map_err(|e| failed(&cx.id, e))?;
        let sender = HttpSender::new(Arc::new(client), endpoint.clone());
        let packing = Packing::new(signal, Carrier::Http, self.form, self.common.compression);
        let reads = self.client.auth.reads(&cx.authenticators);
        let node = OtlpExporter::new(cx, &self.common, packing, reads, Sender::Http(sender));
        Ok(Box::new(node?))
    }

    fn carries_clients(&self) -> bool {
        true
    }

    fn reach(&self, reach: &mut Reach) {
        self.client.reach(reach);
        for endpoint in [&self.logs, &self.metrics, &self.traces]
            .into_iter()
            .flatten()
        {
            reach.connects_to(endpoint.host_port());
        }
    }
}

impl ExporterSettings for OtlpGrpcSettings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn ExporterNode>, BuildError> {
        let signal = cx.signal.unwrap_or(Signal::Logs);
        let client = GrpcParts {
            expiry: Some(Expiry::new(cx.metrics.clone(), cx.id.clone())),
            authenticators: cx.authenticators.clone(),
            kept: Some((cx.connections.clone(), format!("{} {signal}", cx.id))),
            ..GrpcParts::new(self.client.clone())
        };
        let client = GrpcClient::new(client).map_err(|e| failed(&cx.id, e))?;
        let sender = GrpcSender::new(Arc::new(client), method(signal));
        let packing = Packing::new(signal, Carrier::Grpc, Form::Proto, self.common.compression);
        let reads = self.client.auth.reads(&cx.authenticators);
        let node = OtlpExporter::new(cx, &self.common, packing, reads, Sender::Grpc(sender));
        Ok(Box::new(node?))
    }

    fn carries_clients(&self) -> bool {
        true
    }

    fn reach(&self, reach: &mut Reach) {
        self.client.reach(reach);
    }
}

/// The method of `opentelemetry/proto/collector/*/v1/*_service.proto`.
fn method(signal: Signal) -> &'static str {
    match signal {
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    }
}

/// What carries the requests.
enum Sender {
    Http(HttpSender),
    Grpc(GrpcSender),
}

impl Transport for Sender {
    async fn send(&self, headers: &HeaderMap, body: Vec<Bytes>) -> Result<Reply, SendError> {
        match self {
            Sender::Http(sender) => sender.send(headers, body).await,
            Sender::Grpc(sender) => sender.send(headers, body).await,
        }
    }
}

/// An exporter of one signal.
struct OtlpExporter {
    shared: Arc<Shared>,
    outbox: Outbox,
    sender: Arc<Sender>,
    judge: Arc<OtlpJudge>,
    runtime: Handle,
}

impl OtlpExporter {
    fn new(
        cx: &NodeCx,
        common: &Common,
        packing: Packing,
        reads: Vec<ContextKey>,
        sender: Sender,
    ) -> Result<OtlpExporter, BuildError> {
        let signal = packing.signal();
        let (kind, carrier) = match sender {
            Sender::Http(_) => (HTTP, Carrier::Http),
            Sender::Grpc(_) => (GRPC, Carrier::Grpc),
        };
        let outbox = Outbox::new(OutboxParts {
            delivery: DeliveryParts {
                name: cx.id.clone(),
                queue: common.queue.clone(),
                retry: common.retry.clone(),
                seed: cx.seed,
                clock: cx.clock.clone(),
            },
            signal,
            metrics: cx.metrics.clone(),
            dir: Outbox::dir(cx, kind, &common.queue, signal)?,
        });
        let bytes_max = Arc::new(AtomicUsize::new(usize::MAX));
        let judge = OtlpJudge {
            name: cx.id.clone(),
            carrier,
            packing: packing.clone(),
            on_configuration_error: common.on_configuration_error,
            bytes_max: bytes_max.clone(),
            clock: cx.clock.clone(),
            partial: PartialSuccessMetrics::new(&cx.metrics, &cx.id, signal.as_str()),
        };
        let shared = Shared {
            name: cx.id.clone(),
            packing,
            batch: common.queue.batch.clone(),
            reads,
            bytes_max,
        };
        Ok(OtlpExporter {
            shared: Arc::new(shared),
            outbox,
            sender: Arc::new(sender),
            judge: Arc::new(judge),
            runtime: cx.runtime.clone(),
        })
    }
}

impl ExporterNode for OtlpExporter {
    fn front(&mut self, shard: &ShardHandle) -> Box<dyn Exporter> {
        let intake = self.outbox.intake();
        intake.add_waker(shard.waker.clone());
        Box::new(OtlpFront::new(self.shared.clone(), intake))
    }

    fn start(&mut self) -> Result<(), BuildError> {
        let (sender, judge) = (self.sender.clone(), self.judge.clone());
        let started = self.outbox.start(&self.runtime, sender, judge);
        started.map_err(|e| failed(&self.shared.name, format!("sending_queue: {e}")))
    }

    fn stalled_for(&self) -> Duration {
        self.outbox.stalled_for()
    }

    fn stored(&self) -> Stored {
        self.outbox.on_disk()
    }

    fn queue_dir(&self) -> Option<&Path> {
        self.outbox.queue_dir()
    }

    fn stop(&mut self, deadline: Mono) -> u64 {
        self.outbox.stop(deadline)
    }
}
