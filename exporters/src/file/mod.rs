//! The exporter `file`: logs as OTLP/JSON, one `ExportLogsServiceRequest` object per line.
//!
//! Shards encode; one thread per exporter writes. A batch is acknowledged when `write` has taken
//! all of it: it then survives the end of the process, not the loss of power (there is no fsync
//! per batch; a file is synced when it is rotated and when the exporter stops). Nothing is
//! buffered in the process beyond the queue. When the disk is full or the file cannot be opened,
//! batches are kept and tried again, and sources pause when the queue is full; nothing is dropped.

mod config;
mod options;
mod rotate;
mod worker;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::thread::JoinHandle;

use tailwater_config::Section;
use tailwater_pdata::{LogsBatch, write_logs_json};
use tailwater_pipeline::clock::{Clock, Mono};
use tailwater_pipeline::factory::{ExporterFactory, ExporterSettings, Factory, NodeCx};
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::{Admission, Batch, BuildError, Exporter, ExporterNode, ShardHandle};
use tailwater_telemetry::metrics::{ExporterMetrics, MetricsRegistry};

pub use config::decode;
pub use options::{FileOptions, RotationOptions};
pub use rotate::FileError;

use rotate::LogFile;
use worker::{Job, Lines};

/// The kind of exporter, for the agent's registry.
pub fn factory() -> ExporterFactory {
    Factory {
        kind: "file",
        about: "writes logs to a file as OTLP/JSON, one request per line",
        signals: &["logs"],
        decode: |node, path, errors| {
            let mut section = Section::new(node, path, errors);
            let options = decode(&mut section);
            section.finish();
            Some(Box::new(options?))
        },
    }
}

impl ExporterSettings for FileOptions {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn ExporterNode>, BuildError> {
        let (id, clock) = (cx.id.clone(), cx.clock.clone());
        Ok(Box::new(FileExporter::new(
            id,
            self.clone(),
            clock,
            &cx.metrics,
        )))
    }

    fn reach(&self, reach: &mut Reach) {
        reach.writes_file(&self.path, self.create_directory);
    }
}

/// A `file` exporter.
pub struct FileExporter {
    name: Arc<str>,
    options: FileOptions,
    clock: Arc<dyn Clock>,
    lines: Arc<Lines>,
    worker: Option<JoinHandle<()>>,
}

impl FileExporter {
    /// An exporter called `name` (such as `file/archive`); opens nothing before it is started.
    pub fn new(
        name: Arc<str>,
        options: FileOptions,
        clock: Arc<dyn Clock>,
        registry: &MetricsRegistry,
    ) -> FileExporter {
        let metrics = ExporterMetrics::new(registry, &name);
        let lines = Arc::new(Lines::new(options.queue_bytes_max, metrics));
        FileExporter {
            name,
            options,
            clock,
            lines,
            worker: None,
        }
    }
}

impl ExporterNode for FileExporter {
    fn front(&mut self, shard: &ShardHandle) -> Box<dyn Exporter> {
        self.lines.add_waker(shard.waker.clone());
        Box::new(FileFront {
            lines: self.lines.clone(),
        })
    }

    fn start(&mut self) -> Result<(), BuildError> {
        if self.worker.is_some() {
            return Ok(());
        }
        let node = format!("exporter {:?}", &*self.name);
        let file = LogFile::open(self.options.clone())
            .map_err(|e| BuildError::new(&*node, e.to_string()))?;
        let (lines, clock, name) = (self.lines.clone(), self.clock.clone(), self.name.clone());
        let spawned = std::thread::Builder::new()
            .name("file-exporter".to_owned())
            .spawn(move || worker::run(&lines, file, &*clock, &name));
        let worker = spawned
            .map_err(|e| BuildError::new(&*node, format!("cannot start its thread: {e}")))?;
        self.worker = Some(worker);
        Ok(())
    }

    fn stop(&mut self, deadline: Mono) -> u64 {
        self.lines.finish();
        if let Some(worker) = self.worker.take() {
            // A worker that hangs in a write (a dead network file system) is left behind.
            if self.lines.wait_idle(deadline.since(self.clock.now())) && worker.join().is_err() {
                tracing::error!(exporter = &*self.name, "the writing thread panicked");
            }
        }
        self.lines.hand_back()
    }
}

/// A shard's half.
struct FileFront {
    lines: Arc<Lines>,
}

impl Exporter for FileFront {
    fn export(&mut self, batch: Batch, _now: Mono) {
        let records = batch.items() as u64;
        let mut job = Job::new(records, batch.bytes());
        let mut logs: Vec<LogsBatch> = Vec::with_capacity(batch.parts.len());
        for part in batch.into_logs() {
            logs.extend(part.logs.split_by_resource());
            job.keep(part.ack, part.permit);
        }
        write_logs_json(&logs, &mut job.bytes);
        job.bytes.push(b'\n');
        self.lines.push(job);
    }

    fn admission(&self) -> Admission {
        self.lines.admission()
    }
}
