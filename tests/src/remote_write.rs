//! The exporter of remote write in this process, without an agent around it.

use std::sync::Arc;

use serde_json::Value;
use tailwater_config::{Errors, KeyPath, Section, parse};
use tailwater_exporters::prometheusremotewrite::{
    RemoteWriteExporter, RemoteWriteParts, RemoteWriteSettings,
};
use tailwater_pdata::Signal;
use tailwater_pdata::otlp::{Encoded, Limits, json};
use tailwater_pipeline::ack::NoSink;
use tailwater_pipeline::clock::{Clock, SystemClock};
use tailwater_pipeline::shard::ShardWaker;
use tailwater_pipeline::{
    AckWindow, Batch, Exporter, ExporterNode, Front, Part, Permit, ShardHandle,
};
use tailwater_telemetry::metrics::MetricsRegistry;

use crate::exporter::Sockets;
use crate::wait;

/// A running exporter.
pub struct RemoteWriteBench {
    exporter: RemoteWriteExporter,
    front: Box<dyn Exporter>,
    window: AckWindow<()>,
    clock: Arc<SystemClock>,
    _sockets: Sockets,
}

impl RemoteWriteBench {
    /// An exporter as `config` says.
    ///
    /// # Panics
    /// When the configuration is refused.
    pub fn start(config: &Value) -> Self {
        let node = parse(&config.to_string(), "test").expect("JSON is YAML");
        let mut errors = Errors::new();
        let path = KeyPath::from("exporters::prometheus_remote_write");
        let mut section = Section::new(&node, path, &mut errors);
        let settings = RemoteWriteSettings::decode(&mut section);
        section.finish();
        assert!(errors.is_empty(), "{errors}");
        let (sockets, clock) = (Sockets::start(), Arc::new(SystemClock::default()));
        let parts = RemoteWriteParts {
            name: "prometheus_remote_write".into(),
            settings: settings.expect("no error, so settings"),
            clock: clock.clone(),
            seed: 1,
            runtime: sockets.handle.clone(),
            authenticators: Default::default(),
            connections: Default::default(),
            queue_dir: None,
        };
        let metrics = Arc::new(MetricsRegistry::default());
        let mut exporter = RemoteWriteExporter::new(parts, &metrics).expect("an exporter");
        let shard = ShardHandle {
            index: 0,
            waker: Arc::new(ShardWaker::default()),
        };
        let front = exporter.front(&shard);
        exporter.start().expect("started");
        Self {
            exporter,
            front,
            window: AckWindow::new(Arc::new(NoSink), 0),
            clock,
            _sockets: sockets,
        }
    }

    /// Hands over a request of OTLP in JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn send(&mut self, request: &Value) {
        let (signal, limits) = (Signal::Metrics, Limits::default());
        let body = json::to_proto(signal, request.to_string().as_bytes(), &limits);
        let data = Encoded::parse(signal, body.expect("OTLP"), &limits).expect("OTLP");
        let points = u32::try_from(data.items()).expect("few points");
        let part = Part {
            data: data.into(),
            ack: self.window.reserve((), points, 1),
            permit: Permit::none(),
        };
        self.front.export(Batch::of(part), self.clock.now());
    }

    /// Waits until everything is settled; the number of points that were dropped.
    ///
    /// # Panics
    /// When that takes longer than [`wait::BOUND`], or something was handed back.
    pub fn settle(&mut self) -> u64 {
        let mut dropped = 0;
        let window = &mut self.window;
        let done = wait::within(wait::BOUND, || {
            let front = window.advance(|s| dropped += u64::from(s.counts.dropped_total()));
            assert!(!matches!(front, Front::Rewind(_)), "{front:?}");
            matches!(front, Front::Empty)
        });
        let stats = self.exporter.delivery().stats().clone();
        assert!(done, "not settled: {stats:?}");
        dropped
    }

    /// Requests that were accepted.
    pub fn requests(&self) -> u64 {
        self.exporter.delivery().stats().sent_requests()
    }
}
