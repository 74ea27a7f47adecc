//! Guarantee: in the steady state a record costs fewer than 0.05 allocations on its whole way,
//! from the read of a container log to the body of a request and the answer to it.
//!
//! Everything of the agent's that runs in this process counts: shard, sockets, positions. The
//! writer of the files and the sink are taken out.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tailwater_benches::allocations::{self, CountingAllocator};
use tailwater_benches::content::{Format, generate};
use tailwater_benches::sink::Sink;
use tailwater_config::{Errors, MemoryEnvironment, Source, load};
use tailwater_pipeline::checkpoint::{
    CheckpointHandle, CheckpointStore, CheckpointWriter, StoreOptions, WriterOptions,
};
use tailwater_pipeline::clock::{Clock, SystemClock};
use tailwater_pipeline::factory::{NodeCx, Registry};
use tailwater_pipeline::fs::OsFs;
use tailwater_pipeline::graph::{Graph, resolve};
use tailwater_pipeline::storage::Storages;
use tailwater_pipeline::{Budget, BuildError};
use tailwater_telemetry::health::HealthRegistry;
use tailwater_telemetry::metrics::MetricsRegistry;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// What the promise is.
const PER_RECORD_MAX: f64 = 0.05;
/// Fewer records than this are no steady state.
const RECORDS_MIN: u64 = 200_000;
/// Longest wait for the sink, in a build without optimisation on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

#[test]
fn a_container_line_costs_nearly_no_allocations() {
    allocations::exclude_this_thread();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (logs, later) = (dir.path().join("logs"), dir.path().join("later"));
    std::fs::create_dir(&logs).expect("created");
    std::fs::create_dir(&later).expect("created");
    let warm_up = generate(&logs, Format::Cri, 1, 24 << 20).expect("written");
    let measured = generate(&later, Format::Cri, 1, 64 << 20).expect("written");
    assert!(measured.messages >= RECORDS_MIN, "{}", measured.messages);

    let sink = Sink::start_with(allocations::exclude_this_thread).expect("started");
    let agent = Agent::start(&config(&logs, &sink), &dir.path().join("state"));
    arrive(&sink, warm_up.messages);
    let before = allocations::count();
    for file in std::fs::read_dir(&later).expect("listed") {
        let from = file.expect("an entry").path();
        std::fs::rename(&from, logs.join("measured.log")).expect("moved");
    }
    arrive(&sink, warm_up.messages + measured.messages);
    let count = allocations::count() - before;
    agent.stop();

    let per_record = count as f64 / measured.messages as f64;
    println!(
        "{count} allocations for {} records: {per_record:.4} per record",
        measured.messages
    );
    assert!(count > 0, "nothing was counted, so nothing was shown");
    assert!(per_record < PER_RECORD_MAX, "{per_record:.4} per record");
}

/// Waits until `entries` have arrived.
fn arrive(sink: &Sink, entries: u64) {
    let arrived = sink.wait(PATIENCE, |a| a.count.entries >= entries);
    assert_eq!(arrived.problem, None);
    assert_eq!(arrived.count.entries, entries);
}

/// What a cluster would use: container lines, both attribute processors, batching, labels.
fn config(logs: &Path, sink: &Sink) -> String {
    format!(
        r#"receivers:
  file_log:
    include: ["{}/*.log"]
    start_at: beginning
    include_file_path: true
    include_file_name: false
    resource: {{job: bench, cluster: c1}}
    poll_interval: 50ms
    operators:
      - {{type: container, format: containerd, add_metadata_from_filepath: false}}
processors:
  attributes:
    actions:
      - {{key: env, value: prod, action: insert}}
      - {{key: logtag, action: delete}}
  resource:
    attributes:
      - {{key: region, value: eu, action: upsert}}
  batch: {{send_batch_size: 8192, timeout: 200ms}}
exporters:
  loki:
    endpoint: http://{}/loki/api/v1/push
    labels:
      resource: {{job: job, cluster: cluster, region: region}}
      attributes: {{filename: log.file.path, stream: log.iostream}}
service:
  pipelines:
    logs: {{receivers: [file_log], processors: [attributes, resource, batch], exporters: [loki]}}
"#,
        logs.display(),
        sink.address()
    )
}

/// The graph of the agent in this process, with one shard.
struct Agent {
    graph: Graph,
    clock: Arc<dyn Clock>,
    _stores: Arc<Stores>,
    stop: tokio::sync::oneshot::Sender<()>,
    sockets: std::thread::JoinHandle<()>,
}

impl Agent {
    fn start(config: &str, state: &Path) -> Agent {
        let source = Source::parse(&format!("yaml:{config}")).expect("a source");
        let mut errors = Errors::new();
        let environment = MemoryEnvironment::new();
        let loaded = load(&[source], &[], &environment, &mut errors).expect("a tree");
        let registry = Registry {
            receivers: vec![tailwater_receivers::filelog::factory()],
            processors: vec![
                tailwater_processors::attributes::factory(),
                tailwater_processors::batch::factory(),
                tailwater_processors::resource::factory(),
            ],
            exporters: vec![tailwater_exporters::loki::factory()],
            connectors: Vec::new(),
            extensions: Vec::new(),
        };
        let resolved = resolve(&loaded.file, &registry, &mut errors);
        let mistakes: Vec<String> = errors.iter().map(|e| e.to_string()).collect();
        assert!(mistakes.is_empty(), "{mistakes:?}");
        let resolved = resolved.expect("without mistakes");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let handle = runtime.handle().clone();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let sockets = std::thread::spawn(move || {
            // An error means that the test ended early, which is reason enough to stop.
            let _ = runtime.block_on(stopped);
        });
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let stores = Arc::new(Stores {
            dir: state.to_path_buf(),
            clock: clock.clone(),
            writer: Mutex::default(),
        });
        let cx = NodeCx {
            id: "".into(),
            pipeline: None,
            signal: None,
            shards: 1,
            clock: clock.clone(),
            seed: 1,
            budget: Budget::new(64 << 20),
            metrics: Arc::new(MetricsRegistry::default()),
            health: Arc::new(HealthRegistry::new()),
            runtime: handle,
            listeners: Default::default(),
            connections: Default::default(),
            storages: stores.clone(),
            authenticators: Default::default(),
            agent: None,
        };
        let mut graph = Graph::new(cx).expect("a graph");
        let prepared = graph.prepare(resolved).expect("prepared");
        graph.commit(prepared).expect("running");
        Agent {
            graph,
            clock,
            _stores: stores,
            stop,
            sockets,
        }
    }

    fn stop(self) {
        let deadline = self.clock.now().after(PATIENCE);
        assert!(self.graph.stop(deadline, &|| false).clean);
        let _ = self.stop.send(());
        self.sockets.join().expect("no panic");
    }
}

/// The store of positions, in a folder of the test.
struct Stores {
    dir: PathBuf,
    clock: Arc<dyn Clock>,
    writer: Mutex<Option<CheckpointWriter>>,
}

impl Storages for Stores {
    fn open(&self, _id: Option<&str>) -> Result<CheckpointHandle, BuildError> {
        let mut writer = self.writer.lock().expect("no panic");
        let failed = |e: &dyn std::fmt::Display| BuildError::new("the store", e.to_string());
        if writer.is_none() {
            let fs = Arc::new(OsFs);
            let (store, _) = CheckpointStore::open(fs, &self.dir, StoreOptions::default())
                .map_err(|e| failed(&e))?;
            let clock = self.clock.clone();
            let started = CheckpointWriter::spawn(store, clock, WriterOptions::default());
            *writer = Some(started.map_err(|e| failed(&e))?);
        }
        Ok(writer.as_ref().expect("made above").handle())
    }
}
