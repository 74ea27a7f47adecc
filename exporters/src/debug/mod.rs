//! The exporter `debug`: shows what passes, for people.
//!
//! With `use_internal_logger` (the default) the text goes to the agent's own log, otherwise to
//! `output_paths`. It is written by the shard itself, so a slow terminal slows the pipeline; that
//! is what a debugging aid is for. Control characters in data are shown as escapes, as log lines
//! are not to be trusted with a terminal. What sampling leaves out counts as delivered: the data
//! is not lost, it is not shown.

mod options;
mod output;
mod sampler;
mod text;

use std::sync::Arc;

use tailwater_config::Section;
use tailwater_pdata::LogsBatch;
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::factory::{ExporterFactory, ExporterSettings, Factory, NodeCx};
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::{
    Admission, Batch, BuildError, DropReason, Exporter, ExporterNode, Outcome, ShardHandle,
};
use tailwater_telemetry::metrics::{ExporterMetrics, MetricsRegistry};

pub use options::{DebugOptions, Verbosity};

use output::Output;
use sampler::Sampler;

struct Shared {
    name: Arc<str>,
    verbosity: Verbosity,
    sampler: Sampler,
    output: Output,
    metrics: Arc<ExporterMetrics>,
}

/// The kind of exporter, for the agent's registry.
pub fn factory() -> ExporterFactory {
    Factory {
        kind: "debug",
        about: "shows logs on the console or in the agent's own log",
        signals: &["logs"],
        decode: |node, path, errors| {
            let mut section = Section::new(node, path, errors);
            let options = DebugOptions::decode(&mut section);
            section.finish();
            Some(Box::new(options))
        },
    }
}

impl ExporterSettings for DebugOptions {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn ExporterNode>, BuildError> {
        Ok(Box::new(DebugExporter::new(
            cx.id.clone(),
            self,
            &cx.metrics,
        )?))
    }

    fn reach(&self, reach: &mut Reach) {
        if !self.use_internal_logger {
            Output::files(self).for_each(|path| reach.writes_file(path, false));
        }
    }
}

/// A `debug` exporter.
pub struct DebugExporter(Arc<Shared>);

impl DebugExporter {
    /// An exporter called `name`; opens the files of `output_paths`.
    pub fn new(
        name: Arc<str>,
        options: &DebugOptions,
        registry: &MetricsRegistry,
    ) -> Result<DebugExporter, BuildError> {
        let metrics = ExporterMetrics::new(registry, &name);
        let output = Output::open(options)
            .map_err(|e| BuildError::new(format!("exporter {:?}", &*name), e))?;
        let sampler = Sampler::new(options.sampling_initial, options.sampling_thereafter);
        Ok(DebugExporter(Arc::new(Shared {
            name,
            verbosity: options.verbosity,
            sampler,
            output,
            metrics,
        })))
    }
}

impl ExporterNode for DebugExporter {
    fn front(&mut self, _shard: &ShardHandle) -> Box<dyn Exporter> {
        Box::new(DebugFront {
            shared: self.0.clone(),
            text: Vec::new(),
        })
    }

    fn start(&mut self) -> Result<(), BuildError> {
        Ok(())
    }

    /// Nothing is ever left: batches are shown when they come.
    fn stop(&mut self, _deadline: Mono) -> u64 {
        0
    }
}

/// A shard's half.
struct DebugFront {
    shared: Arc<Shared>,
    text: Vec<u8>,
}

impl Exporter for DebugFront {
    fn export(&mut self, batch: Batch, now: Mono) {
        let mut logs: Vec<LogsBatch> = Vec::new();
        let mut duties = Vec::with_capacity(batch.parts.len());
        for part in batch.into_logs() {
            duties.push((part.ack, part.logs.rows() as u32));
            logs.extend(part.logs.split_by_resource());
        }
        let shared = &*self.shared;
        let mut shown = Ok(());
        if shared.sampler.admits(now) {
            self.text.clear();
            text::render(shared.verbosity, &logs, &mut self.text);
            let records = logs.iter().map(LogsBatch::rows).sum();
            shown = shared
                .output
                .show(&shared.name, logs.len(), records, &self.text);
        }
        if let Err(e) = &shown {
            tracing::warn!(exporter = &*shared.name, error = %e, "cannot show data; it is dropped");
        }
        for (ack, rows) in duties {
            if shown.is_ok() {
                shared.metrics.sent_log_records.inc_by(u64::from(rows));
                ack.resolve(Outcome::Delivered);
            } else {
                shared
                    .metrics
                    .send_failed_log_records
                    .inc_by(u64::from(rows));
                // Trying again would show the same to nobody.
                ack.count_dropped(DropReason::Rejected, rows);
                ack.resolve(Outcome::Refused);
            }
        }
    }

    fn admission(&self) -> Admission {
        Admission::Open
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use bytes::Bytes;
    use tailwater_pipeline::ack::NoSink;
    use tailwater_pipeline::{AckWindow, LogsPart, Permit, Wake};
    use tailwater_telemetry::metrics::{Exposition, SERIES_MAX_DEFAULT};

    use super::*;

    struct NoWake;
    impl Wake for NoWake {
        fn wake(&self) {}
    }

    fn exporter(options: &DebugOptions) -> Result<DebugExporter, BuildError> {
        let registry = MetricsRegistry::new(Exposition::default(), SERIES_MAX_DEFAULT);
        DebugExporter::new("debug".into(), options, &registry)
    }

    fn front(options: &DebugOptions) -> Box<dyn Exporter> {
        let mut node = exporter(options).unwrap();
        node.start().unwrap();
        node.front(&ShardHandle {
            index: 0,
            waker: Arc::new(NoWake),
        })
    }

    fn batch(window: &mut AckWindow<u32>) -> Batch {
        let logs = LogsBatch::from_lines(Bytes::from_static(b"ab"), &[(0, 1), (1, 1)]);
        let ack = window.reserve(1, 2, 2);
        Batch::of(LogsPart {
            logs,
            ack,
            permit: Permit::none(),
        })
    }

    fn settled(window: &mut AckWindow<u32>) -> Vec<u32> {
        let mut dropped = Vec::new();
        window.advance(|s| dropped.push(s.counts.dropped_total()));
        dropped
    }

    fn to(path: &str, sampling: (u64, u64)) -> DebugOptions {
        DebugOptions {
            use_internal_logger: false,
            output_paths: vec![path.to_owned()],
            sampling_initial: sampling.0,
            sampling_thereafter: sampling.1,
            ..DebugOptions::default()
        }
    }

    #[test]
    fn batches_are_shown_and_delivered_whether_sampled_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out").display().to_string();
        let mut window = AckWindow::new(Arc::new(NoSink), 0);
        let mut front = front(&to(&path, (1, 0)));
        for _ in 0..3 {
            front.export(batch(&mut window), Mono(5));
        }
        assert_eq!(settled(&mut window), [0, 0, 0]);
        let line = "Logs {\"resource logs\": 1, \"log records\": 2}\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), line);
    }

    #[test]
    fn what_cannot_be_shown_is_counted_as_dropped() {
        let mut window = AckWindow::new(Arc::new(NoSink), 0);
        front(&to("/dev/full", (1, 1))).export(batch(&mut window), Mono(0));
        assert_eq!(settled(&mut window), [2]);
    }

    #[test]
    fn a_path_that_cannot_be_opened_is_an_error_with_its_name() {
        let error = exporter(&to("/absent/x", (1, 1))).err().unwrap();
        assert!(error.to_string().contains("/absent/x"), "{error}");
    }
}
