//! The Loki exporter in this process, without an agent around it, on a clock that tests move.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tailwater_config::{Errors, KeyPath, Section, parse};
use tailwater_exporters::delivery::{Acks, DeliveryStats, OutgoingRequest};
use tailwater_exporters::loki::{LokiExporter, LokiParts, LokiSettings};
use tailwater_pdata::{Entry, LogsBatch};
use tailwater_pipeline::ack::NoSink;
use tailwater_pipeline::clock::{Clock, SimClock};
use tailwater_pipeline::{
    AckWindow, Batch, DropReason, Exporter, ExporterNode, Front, LogsPart, Permit, ShardHandle,
    Wake,
};
use tailwater_telemetry::metrics::MetricsRegistry;

use crate::wait;

struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}

/// The runtime for sockets, on a thread of its own until this is dropped.
pub struct Sockets {
    /// Where to spawn.
    pub handle: tokio::runtime::Handle,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Sockets {
    /// Starts the thread.
    ///
    /// # Panics
    /// When there is no runtime to be had.
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let handle = runtime.handle().clone();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || {
            // Dropping the sender is the signal.
            let _ = runtime.block_on(stopped);
        });
        Self {
            handle,
            _stop: stop,
        }
    }
}

/// A running exporter.
pub struct LokiBench {
    exporter: LokiExporter,
    front: Box<dyn Exporter>,
    window: AckWindow<()>,
    clock: Arc<SimClock>,
    _sockets: Sockets,
}

impl LokiBench {
    /// An exporter as `config` says.
    ///
    /// # Panics
    /// When the configuration is refused.
    pub fn start(config: &Value, clock: Arc<SimClock>) -> Self {
        let node = parse(&config.to_string(), "test").expect("JSON is YAML");
        let mut errors = Errors::new();
        let path = KeyPath::from("exporters::loki");
        let mut section = Section::new(&node, path, &mut errors);
        let settings = LokiSettings::decode(&mut section);
        section.finish();
        assert!(errors.is_empty(), "{errors}");
        let sockets = Sockets::start();
        let parts = LokiParts {
            name: "loki".into(),
            settings: settings.expect("no error, so settings"),
            clock: clock.clone(),
            seed: 1,
            runtime: sockets.handle.clone(),
            authenticators: Default::default(),
            connections: Default::default(),
            queue_dir: None,
        };
        let metrics = Arc::new(MetricsRegistry::default());
        let mut exporter = LokiExporter::new(parts, &metrics).expect("an exporter");
        let shard = ShardHandle {
            index: 0,
            waker: Arc::new(NoWake),
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

    /// Hands entries over and makes the exporter send them.
    pub fn send(&mut self, entries: &[Entry]) {
        let logs = LogsBatch::from_entries(entries);
        let records = u32::try_from(entries.len()).expect("few entries");
        let ack = self.window.reserve((), records, 1);
        let permit = Permit::none();
        let part = LogsPart { logs, ack, permit };
        let now = self.clock.now();
        self.front.export(Batch::of(part), now);
        self.front.flush(now);
    }

    /// Waits, while time goes on, until everything is settled; the records dropped, by reason.
    ///
    /// # Panics
    /// When that takes longer than [`wait::BOUND`], or something was handed back.
    pub fn settle(&mut self) -> BTreeMap<&'static str, u64> {
        let mut dropped = BTreeMap::new();
        let done = wait::within(wait::BOUND, || {
            self.advance(Duration::from_millis(250));
            let front = self.window.advance(|settled| {
                for (reason, n) in DropReason::NAMES.iter().zip(settled.counts.dropped) {
                    if n > 0 {
                        *dropped.entry(*reason).or_default() += u64::from(n);
                    }
                }
            });
            assert!(!matches!(front, Front::Rewind(_)), "{front:?}");
            matches!(front, Front::Empty)
        });
        assert!(done, "not settled: {:?}", self.stats());
        dropped
    }

    /// Lets time pass for the exporter.
    pub fn advance(&self, time: Duration) {
        self.clock.advance(time);
        // A request with nothing in it only makes the sender look at the clock.
        let nothing = OutgoingRequest::new(vec![], Arc::default(), None, vec![], 0, Acks::new());
        self.exporter.delivery().submit(nothing);
    }

    /// Records that are not settled.
    pub fn open_records(&self) -> u64 {
        self.window.records()
    }

    /// What happened to requests.
    pub fn stats(&self) -> Arc<DeliveryStats> {
        self.exporter.delivery().stats().clone()
    }

    /// Stops it, with what it cannot send within `grace` handed back; how many records that was.
    pub fn stop(mut self, grace: Duration) -> u64 {
        self.exporter.stop(self.clock.now().after(grace))
    }
}
