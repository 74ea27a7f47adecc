//! The exporter as a node: what the shards share, and the sender.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use tailwater_config::Section;
use tailwater_pdata::Signal;
use tailwater_pipeline::auth::Authenticators;
use tailwater_pipeline::clock::{Clock, Mono};
use tailwater_pipeline::connections::Connections;
use tailwater_pipeline::factory::{ExporterFactory, ExporterSettings, Factory, NodeCx};
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::{BuildError, Exporter, ExporterNode, ShardHandle, Stored};
use tailwater_telemetry::metrics::MetricsRegistry;
use tokio::runtime::Handle;

use crate::client::{ClientParts, Expiry, HttpClient, HttpSender};
use crate::delivery::{Acks, Delivery, DeliveryHandle, DeliveryParts, Judge, Outbox, OutboxParts};

use super::config::RemoteWriteSettings;
use super::front::RemoteWriteFront;
use super::judge::RemoteWriteJudge;
use super::options::{Protocol, RemoteWriteOptions};

/// The kind of exporter, for the agent's registry.
pub fn factory() -> ExporterFactory {
    Factory {
        kind: "prometheus_remote_write",
        about: "pushes metrics to receivers of Prometheus remote write",
        signals: &["metrics"],
        decode: |node, path, errors| {
            let mut section = Section::new(node, path, errors);
            let settings = RemoteWriteSettings::decode(&mut section);
            section.finish();
            Some(Box::new(settings?))
        },
    }
}

impl ExporterSettings for RemoteWriteSettings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn ExporterNode>, BuildError> {
        let queue_dir = match &self.queue.storage {
            None => None,
            Some(id) => Some(cx.storages.queue_dir(id, &format!("{} metrics", cx.id))?),
        };
        let parts = RemoteWriteParts {
            queue_dir,
            name: cx.id.clone(),
            settings: self.clone(),
            clock: cx.clock.clone(),
            seed: cx.seed,
            runtime: cx.runtime.clone(),
            authenticators: cx.authenticators.clone(),
            connections: cx.connections.clone(),
        };
        Ok(Box::new(RemoteWriteExporter::new(parts, &cx.metrics)?))
    }

    fn reach(&self, reach: &mut Reach) {
        self.client.reach(reach);
        reach.connects_to(self.endpoint.host_port());
    }
}

/// What an exporter is made of.
pub struct RemoteWriteParts {
    /// The component's id, e.g. `prometheus_remote_write/main`.
    pub name: Arc<str>,
    /// Its settings.
    pub settings: RemoteWriteSettings,
    /// The agent's clock.
    pub clock: Arc<dyn Clock>,
    /// Determines the jitter of retries.
    pub seed: u64,
    /// The runtime for sockets.
    pub runtime: Handle,
    /// The extensions that authenticate.
    pub authenticators: Authenticators,
    /// Connections that outlive exporters.
    pub connections: Arc<Connections>,
    /// The directory of the queue, if it is on disk.
    pub queue_dir: Option<PathBuf>,
}

/// An exporter of remote write.
pub struct RemoteWriteExporter {
    options: Arc<RemoteWriteOptions>,
    headers: Arc<HeaderMap>,
    name: Arc<str>,
    outbox: Outbox,
    sender: Arc<HttpSender>,
    judge: Arc<RemoteWriteJudge>,
    runtime: Handle,
}

fn failed(id: &str, e: impl ToString) -> BuildError {
    BuildError::new(format!("exporter {id:?}"), e.to_string())
}

/// What the protocol wants every request to say.
fn headers(protocol: Protocol) -> HeaderMap {
    let version = match protocol {
        Protocol::V1 => "0.1.0",
        Protocol::V2 => "2.0.0",
    };
    let text = HeaderValue::from_static;
    let version_name = HeaderName::from_static("x-prometheus-remote-write-version");
    HeaderMap::from_iter([
        (CONTENT_ENCODING, text("snappy")),
        (CONTENT_TYPE, text(protocol.content_type())),
        (version_name, text(version)),
    ])
}

impl RemoteWriteExporter {
    /// An exporter; connects to nothing before it is started. Reads certificate and secret files.
    pub fn new(
        parts: RemoteWriteParts,
        metrics: &Arc<MetricsRegistry>,
    ) -> Result<RemoteWriteExporter, BuildError> {
        let RemoteWriteSettings {
            endpoint,
            client,
            queue,
            retry,
            options,
        } = parts.settings;
        let client = ClientParts {
            expiry: Some(Expiry::new(metrics.clone(), parts.name.clone())),
            authenticators: parts.authenticators,
            kept: Some((parts.connections, parts.name.to_string())),
            ..ClientParts::new(client)
        };
        let client = HttpClient::new(client).map_err(|e| failed(&parts.name, e))?;
        let judge = RemoteWriteJudge {
            clock: parts.clock.clone(),
        };
        let outbox = Outbox::new(OutboxParts {
            delivery: DeliveryParts {
                name: parts.name.clone(),
                queue,
                retry,
                seed: parts.seed,
                clock: parts.clock,
            },
            signal: Signal::Metrics,
            metrics: metrics.clone(),
            dir: parts.queue_dir,
        });
        Ok(RemoteWriteExporter {
            name: parts.name,
            outbox,
            headers: Arc::new(headers(options.protocol)),
            options: Arc::new(options),
            sender: Arc::new(HttpSender::new(Arc::new(client), endpoint)),
            judge: Arc::new(judge),
            runtime: parts.runtime,
        })
    }

    /// The queue of requests.
    pub fn delivery(&self) -> DeliveryHandle<Acks> {
        self.outbox.delivery().handle()
    }

    /// What sends the requests, and what decides about answers, for who has no runtime: see
    /// [`Delivery::courier`].
    pub fn sender(&self) -> (&Delivery<Acks>, Arc<dyn Judge<Acks>>) {
        (self.outbox.delivery(), self.judge.clone())
    }
}

impl ExporterNode for RemoteWriteExporter {
    fn front(&mut self, shard: &ShardHandle) -> Box<dyn Exporter> {
        let intake = self.outbox.intake();
        intake.add_waker(shard.waker.clone());
        let (options, headers) = (self.options.clone(), self.headers.clone());
        Box::new(RemoteWriteFront::new(options, headers, intake))
    }

    fn start(&mut self) -> Result<(), BuildError> {
        let (sender, judge) = (self.sender.clone(), self.judge.clone());
        let started = self.outbox.start(&self.runtime, sender, judge);
        started.map_err(|e| failed(&self.name, format!("remote_write_queue: {e}")))
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

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
