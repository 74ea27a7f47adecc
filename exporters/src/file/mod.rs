//! The exporter `file`: requests of OTLP in a file, as JSON, one per line, or as protobuf, each behind
//! its length.
//!
//! All signals of an exporter go to one file. Shards encode; one thread per exporter writes, so
//! requests never mix. A batch is acknowledged when `write` has taken
//! all of it: it then survives the end of the process, not the loss of power (there is no fsync
//! per batch; a file is synced when it is rotated and when the exporter stops). Nothing is
//! buffered in the process beyond the queue. When the disk is full or the file cannot be opened,
//! batches are kept and tried again, and sources pause when the queue is full; nothing is dropped.

mod config;
mod framing;
mod options;
mod rotate;
mod worker;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::thread::JoinHandle;

use tailwater_config::Section;
use tailwater_pdata::Signal;
use tailwater_pdata::otlp::Encoded;
use tailwater_pipeline::clock::{Clock, Mono};
use tailwater_pipeline::factory::{ExporterFactory, ExporterSettings, Factory, NodeCx};
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::{
    Admission, Batch, BuildError, DropReason, Exporter, ExporterNode, Outcome, Payload, ShardHandle,
};
use tailwater_telemetry::metrics::{ExporterMetrics, MetricsRegistry};

pub use config::decode;
pub use options::{FileOptions, Form, RotationOptions};
pub use rotate::FileError;

use crate::delivery::ItemMetrics;
use rotate::LogFile;
use worker::{Job, Lines};

/// The kind of exporter, for the agent's registry.
pub fn factory() -> ExporterFactory {
    Factory {
        kind: "file",
        about: "writes logs, metrics and traces to a file as OTLP, JSON lines or protobuf",
        signals: &["logs", "metrics", "traces"],
        decode: |node, path, errors| {
            let mut section = Section::new(node, path, errors);
            let options = decode(&mut section);
            section.finish();
            Some(Box::new(FileSettings::new(options?)))
        },
    }
}

/// The settings of one `file` exporter. What is built from them for each signal shares one file.
pub struct FileSettings {
    options: FileOptions,
    shared: Mutex<Weak<Shared>>,
}

impl FileSettings {
    /// Settings nothing was built from yet.
    pub fn new(options: FileOptions) -> FileSettings {
        FileSettings {
            options,
            shared: Mutex::default(),
        }
    }

    /// The node of `signal` of the exporter called `name` (such as `file/archive`); opens nothing
    /// before it is started.
    pub fn node(
        &self,
        name: &Arc<str>,
        signal: Signal,
        clock: &Arc<dyn Clock>,
        registry: &MetricsRegistry,
    ) -> FileExporter {
        let mut known = self.shared.lock().unwrap_or_else(|e| e.into_inner());
        let shared = known.upgrade().unwrap_or_else(|| {
            let metrics = ExporterMetrics::new(registry, name);
            Arc::new(Shared {
                name: name.clone(),
                lines: Arc::new(Lines::new(self.options.queue_bytes_max, metrics)),
                options: self.options.clone(),
                clock: clock.clone(),
                running: Mutex::default(),
            })
        });
        *known = Arc::downgrade(&shared);
        FileExporter {
            items: Arc::new(ItemMetrics::new(registry, name, signal)),
            shared,
            signal,
        }
    }
}

impl ExporterSettings for FileSettings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn ExporterNode>, BuildError> {
        let signal = cx.signal.unwrap_or(Signal::Logs);
        Ok(Box::new(self.node(&cx.id, signal, &cx.clock, &cx.metrics)))
    }

    fn reach(&self, reach: &mut Reach) {
        reach.writes_file(&self.options.path, self.options.create_directory);
    }
}

/// What the nodes of all signals share.
struct Shared {
    name: Arc<str>,
    options: FileOptions,
    clock: Arc<dyn Clock>,
    lines: Arc<Lines>,
    running: Mutex<Running>,
}

/// The writing thread, and how many nodes it works for.
#[derive(Default)]
struct Running {
    nodes: usize,
    worker: Option<JoinHandle<()>>,
}

impl Shared {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn spawn(&self) -> Result<JoinHandle<()>, BuildError> {
        let node = format!("exporter {:?}", &*self.name);
        let file = LogFile::open(self.options.clone())
            .map_err(|e| BuildError::new(&*node, e.to_string()))?;
        let (lines, clock, name) = (self.lines.clone(), self.clock.clone(), self.name.clone());
        std::thread::Builder::new()
            .name("file-exporter".to_owned())
            .spawn(move || worker::run(&lines, file, &*clock, &name))
            .map_err(|e| BuildError::new(&*node, format!("cannot start its thread: {e}")))
    }
}

/// A `file` exporter, for one signal.
pub struct FileExporter {
    shared: Arc<Shared>,
    signal: Signal,
    items: Arc<ItemMetrics>,
}

impl ExporterNode for FileExporter {
    fn front(&mut self, shard: &ShardHandle) -> Box<dyn Exporter> {
        self.shared.lines.add_waker(shard.waker.clone());
        Box::new(FileFront {
            shared: self.shared.clone(),
            signal: self.signal,
            items: self.items.clone(),
        })
    }

    fn start(&mut self) -> Result<(), BuildError> {
        let mut running = self.shared.running();
        if running.worker.is_none() {
            running.worker = Some(self.shared.spawn()?);
        }
        running.nodes += 1;
        Ok(())
    }

    /// The last one to stop waits for the writer; what is left is left of all.
    fn stop(&mut self, deadline: Mono) -> u64 {
        let shared = &*self.shared;
        let mut running = shared.running();
        running.nodes = running.nodes.saturating_sub(1);
        if running.nodes > 0 {
            return 0;
        }
        shared.lines.finish();
        if let Some(worker) = running.worker.take() {
            // A worker that hangs in a write (a dead network file system) is left behind.
            let ended = shared.lines.wait_idle(deadline.since(shared.clock.now()));
            if ended && worker.join().is_err() {
                tracing::error!(exporter = &*shared.name, "the writing thread panicked");
            }
        }
        shared.lines.hand_back()
    }
}

/// A shard's half.
struct FileFront {
    shared: Arc<Shared>,
    signal: Signal,
    items: Arc<ItemMetrics>,
}

impl Exporter for FileFront {
    fn export(&mut self, batch: Batch, _now: Mono) {
        let mut job = Job::new(self.items.clone());
        let mut encoded = Encoded::empty(self.signal);
        for part in batch.parts {
            job.keep(part.ack, part.data.items(), part.permit);
            encoded.append(match part.data {
                Payload::Logs(logs) => Encoded::from_logs([&logs]),
                Payload::Encoded(encoded) => encoded,
            });
        }
        if encoded.items() == 0 {
            // There is nothing in it that anybody counts.
            return job.resolve(Outcome::Delivered);
        }
        let options = &self.shared.options;
        match framing::framed(&encoded, options.form, options.compressed) {
            Ok(bytes) => {
                job.bytes = bytes;
                self.shared.lines.push(job);
            }
            Err(e) => {
                let exporter = &*self.shared.name;
                tracing::warn!(exporter, error = %e, "cannot encode a batch; it is dropped");
                job.give_up(DropReason::EncodeError);
            }
        }
    }

    fn admission(&self) -> Admission {
        self.shared.lines.admission()
    }
}
