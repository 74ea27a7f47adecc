//! The shard's half of the file receiver while the nodes behind it have little room left.

use std::path::Path;
use std::sync::{Arc, Mutex};

use tailwater_config::{Errors, KeyPath, parse};
use tailwater_pdata::Signal;
use tailwater_pipeline::checkpoint::{
    CheckpointHandle, CheckpointStore, CheckpointWriter, StoreOptions, WriterOptions,
};
use tailwater_pipeline::clock::{Clock, Mono, SystemClock};
use tailwater_pipeline::factory::NodeCx;
use tailwater_pipeline::fs::SimFs;
use tailwater_pipeline::lanes::Lane;
use tailwater_pipeline::storage::Storages;
use tailwater_pipeline::{
    Admission, Batch, Budget, BuildError, Outcome, Output, Progress, ShardHandle, SourceCx, Wake,
};
use tailwater_telemetry::health::HealthRegistry;
use tailwater_telemetry::metrics::MetricsRegistry;
use tailwater_testkit::tempdir::TempDir;
use tailwater_tests::wait;

/// Takes everything at once, and always says that there is little room.
struct Scarce {
    now: Mono,
    bodies: Vec<Vec<u8>>,
}

impl Output for Scarce {
    fn emit(&mut self, batch: Batch) {
        for part in batch.into_logs() {
            for row in 0..part.logs.rows() {
                let body = part.logs.body(row).and_then(|b| b.as_text());
                self.bodies.push(body.expect("text").to_vec());
            }
            part.ack.resolve(Outcome::Delivered);
        }
    }

    fn now(&self) -> Mono {
        self.now
    }
}

impl SourceCx for Scarce {
    fn admission(&self) -> Admission {
        Admission::Scarce
    }
}

struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

struct Stores(Mutex<CheckpointWriter>);

impl Storages for Stores {
    fn open(&self, _id: Option<&str>) -> Result<CheckpointHandle, BuildError> {
        Ok(self.0.lock().expect("no panic").handle())
    }
}

fn stores(clock: Arc<dyn Clock>) -> Arc<Stores> {
    let fs = Arc::new(SimFs::new(0));
    let opened = CheckpointStore::open(fs, Path::new("/s"), StoreOptions::default());
    let (store, _) = opened.expect("an empty disk");
    let writer = CheckpointWriter::spawn(store, clock, WriterOptions::default());
    Arc::new(Stores(Mutex::new(writer.expect("a thread"))))
}

/// Guarantees that a line longer than what is read at once when room is scarce comes whole and
/// without turns that get nowhere: shorter and longer than a usual read.
#[test]
fn a_long_line_is_read_whole_when_room_is_scarce() {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime");
    for (long, max_log_size) in [(100 << 10, "200KiB"), (3 << 20, "4MiB")] {
        let dir = TempDir::new("scarce").expect("a directory");
        let long = vec![b'z'; long];
        let content = [b"first\n", &long[..], b"\nlast\n"].concat();
        std::fs::write(dir.path().join("a.log"), content).expect("written");
        let yaml = format!(
            "include: ['{}/*.log']\nstart_at: beginning\nmax_log_size: {max_log_size}\n",
            dir.path().display()
        );
        let node = parse(&yaml, "test.yaml").expect("YAML");
        let mut errors = Errors::new();
        let decode = tailwater_receivers::filelog::factory().decode;
        let settings = decode(&node, &KeyPath::from("receivers::file_log"), &mut errors);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let cx = NodeCx {
            id: "file_log".into(),
            pipeline: None,
            signal: None,
            shards: 1,
            clock: clock.clone(),
            seed: 1,
            budget: Budget::new(64 << 20),
            metrics: Arc::new(MetricsRegistry::default()),
            health: Arc::new(HealthRegistry::new()),
            runtime: runtime.handle().clone(),
            listeners: Default::default(),
            connections: Default::default(),
            storages: stores(clock.clone()),
            authenticators: Default::default(),
            agent: None,
        };
        let lane = Lane {
            exporter: "loki".into(),
            metrics: cx.metrics.clone(),
            budget: cx.budget.clone(),
            alone: true,
            signals: vec![Signal::Logs],
        };
        let nodes = settings.expect("valid").build(&cx, &[lane]);
        let mut node = nodes.expect("built").remove(0);
        let waker = Arc::new(Nobody);
        let mut source = node.source(&ShardHandle { index: 0, waker });
        node.start().expect("started");
        let (now, bodies) = (clock.now(), Vec::new());
        let mut room = Scarce { now, bodies };
        let mut busy = 0;
        let done = wait::within(wait::BOUND, || {
            room.now = clock.now();
            busy += u32::from(source.poll(&mut room) == Progress::Busy);
            room.bodies.len() >= 3
        });
        node.stop();
        let lengths: Vec<usize> = room.bodies.iter().map(Vec::len).collect();
        assert!(done, "{lengths:?} after {busy} busy turns");
        assert_eq!(room.bodies, [&b"first"[..], &long, b"last"], "{lengths:?}");
        assert!(busy < 30, "{busy} busy turns");
    }
}
