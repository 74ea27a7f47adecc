//! The exporter as a node: what the shards share, and the sender.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
use std::time::Duration;

use tailwater_config::Section;
use tailwater_pdata::Signal;
use tailwater_pipeline::auth::Authenticators;
use tailwater_pipeline::clock::{Clock, Mono};
use tailwater_pipeline::connections::Connections;
use tailwater_pipeline::factory::{ExporterFactory, ExporterSettings, Factory, NodeCx};
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::{BuildError, Exporter, ExporterNode, ShardHandle, Stored};
use tailwater_telemetry::metrics::{LabelBudgetMetrics, MetricsRegistry};
use tokio::runtime::Handle;

use crate::client::{ClientParts, Expiry, HttpClient, HttpSender};
use crate::delivery::{Acks, Delivery, DeliveryHandle, DeliveryParts, Judge, Outbox, OutboxParts};

use super::config::LokiSettings;
use super::dead_letter::DeadLetters;
use super::front::{LokiFront, Shared};
use super::judge::LokiJudge;
use super::stats::LokiStats;
use super::streams::ParkedLanes;

/// Largest dead letter file; one older one is kept.
const DEAD_LETTER_BYTES_MAX: u64 = 64 << 20;

const KIND: &str = "loki";

/// The kind of exporter, for the agent's registry.
pub fn factory() -> ExporterFactory {
    Factory {
        kind: KIND,
        about: "pushes logs to Loki",
        signals: &["logs"],
        decode: |node, path, errors| {
            let mut section = Section::new(node, path, errors);
            let settings = LokiSettings::decode(&mut section);
            section.finish();
            Some(Box::new(settings?))
        },
    }
}

impl ExporterSettings for LokiSettings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn ExporterNode>, BuildError> {
        let parts = LokiParts {
            name: cx.id.clone(),
            settings: self.clone(),
            clock: cx.clock.clone(),
            seed: cx.seed,
            runtime: cx.runtime.clone(),
            authenticators: cx.authenticators.clone(),
            connections: cx.connections.clone(),
            queue_dir: Outbox::dir(cx, KIND, &self.queue, Signal::Logs)?,
        };
        Ok(Box::new(LokiExporter::new(parts, &cx.metrics)?))
    }

    fn reach(&self, reach: &mut Reach) {
        self.client.reach(reach);
        reach.connects_to(self.endpoint.host_port());
        if let Some(path) = &self.options.dead_letter_file {
            reach.writes_file(path, false);
        }
    }
}

fn node_name(id: &str) -> String {
    format!("exporter {id:?}")
}

/// What an exporter is made of.
pub struct LokiParts {
    /// The component's id, e.g. `loki/main`.
    pub name: Arc<str>,
    /// Its settings.
    pub settings: LokiSettings,
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
    /// Where the queue is, if it is on disk.
    pub queue_dir: Option<PathBuf>,
}

/// A Loki exporter.
pub struct LokiExporter {
    name: Arc<str>,
    shared: Arc<Shared>,
    outbox: Outbox,
    sender: Arc<HttpSender>,
    judge: Arc<LokiJudge>,
    runtime: Handle,
}

impl LokiExporter {
    /// An exporter; connects to nothing before it is started. Reads certificate and secret files.
    pub fn new(
        parts: LokiParts,
        metrics: &Arc<MetricsRegistry>,
    ) -> Result<LokiExporter, BuildError> {
        let LokiSettings {
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
        let client = HttpClient::new(client)
            .map_err(|e| BuildError::new(node_name(&parts.name), e.to_string()))?;
        let letters = options.dead_letter_file.clone();
        let dead_letters = letters.map(|p| Arc::new(DeadLetters::new(p, DEAD_LETTER_BYTES_MAX)));
        let parked = Arc::new(ParkedLanes::default());
        let budget = LabelBudgetMetrics::new(metrics, &parts.name);
        budget
            .streams_max
            .set(i64::try_from(options.streams_max).unwrap_or(i64::MAX));
        let judge = LokiJudge {
            success: options.success_status.clone(),
            encoder: options.compression_encoder,
            dead_letters: dead_letters.clone(),
            clock: parts.clock.clone(),
            parked: parked.clone(),
            rejections: AtomicU32::new(0),
            parkings: AtomicU64::new(0),
        };
        let shared = Shared {
            options,
            stats: Arc::default(),
            budget: Some(budget),
            dead_letters,
            parked,
            streams: AtomicUsize::new(0),
            clock: parts.clock.clone(),
        };
        let name = parts.name.clone();
        let delivery = DeliveryParts {
            name: parts.name,
            queue,
            retry,
            seed: parts.seed,
            clock: parts.clock,
        };
        let outbox = Outbox::new(OutboxParts {
            delivery,
            signal: Signal::Logs,
            metrics: metrics.clone(),
            dir: parts.queue_dir,
        });
        Ok(LokiExporter {
            shared: Arc::new(shared),
            outbox,
            name,
            sender: Arc::new(HttpSender::new(Arc::new(client), endpoint)),
            judge: Arc::new(judge),
            runtime: parts.runtime,
        })
    }

    /// What happened before requests were handed to delivery.
    pub fn stats(&self) -> &Arc<LokiStats> {
        &self.shared.stats
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

impl ExporterNode for LokiExporter {
    fn front(&mut self, shard: &ShardHandle) -> Box<dyn Exporter> {
        let intake = self.outbox.intake();
        intake.add_waker(shard.waker.clone());
        Box::new(LokiFront::new(self.shared.clone(), intake))
    }

    fn start(&mut self) -> Result<(), BuildError> {
        let (sender, judge) = (self.sender.clone(), self.judge.clone());
        let started = self.outbox.start(&self.runtime, sender, judge);
        started.map_err(|e| BuildError::new(node_name(&self.name), format!("sending_queue: {e}")))
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
