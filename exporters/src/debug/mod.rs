//! The exporter `debug`: shows what passes, for people.
//!
//! With `use_internal_logger` (the default) the text goes to the agent's own log, otherwise to
//! `output_paths`. It is written by the shard itself, so a slow terminal slows the pipeline; that
//! is what a debugging aid is for. Control characters in data are shown as escapes, as log lines
//! are not to be trusted with a terminal. What sampling leaves out counts as delivered: the data
//! is not lost, it is not shown.

mod logs;
mod metrics;
mod numbers;
mod options;
mod output;
mod sampler;
mod summary;
mod text;
mod traces;

use std::sync::Arc;

use tailwater_config::Section;
use tailwater_pdata::Signal;
use tailwater_pdata::otlp::Encoded;
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::factory::{ExporterFactory, ExporterSettings, Factory, NodeCx};
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::{
    Admission, Batch, BuildError, DropReason, Exporter, ExporterNode, Outcome, Payload, ShardHandle,
};
use tailwater_telemetry::metrics::MetricsRegistry;

pub use options::{DebugOptions, Verbosity};

use crate::delivery::ItemMetrics;
use output::Output;
use sampler::Sampler;
use summary::Summary;

struct Shared {
    name: Arc<str>,
    signal: Signal,
    verbosity: Verbosity,
    sampler: Sampler,
    output: Output,
    metrics: ItemMetrics,
}

/// The kind of exporter, for the agent's registry.
pub fn factory() -> ExporterFactory {
    Factory {
        kind: "debug",
        about: "shows logs, metrics and traces on the console or in the agent's own log",
        signals: &["logs", "metrics", "traces"],
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
            cx.signal.unwrap_or(Signal::Logs),
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
    /// An exporter of `signal` called `name`; opens the files of `output_paths`.
    pub fn new(
        name: Arc<str>,
        signal: Signal,
        options: &DebugOptions,
        registry: &MetricsRegistry,
    ) -> Result<DebugExporter, BuildError> {
        let metrics = ItemMetrics::new(registry, &name, signal);
        let output = Output::open(options)
            .map_err(|e| BuildError::new(format!("exporter {:?}", &*name), e))?;
        let sampler = Sampler::new(options.sampling_initial, options.sampling_thereafter);
        Ok(DebugExporter(Arc::new(Shared {
            name,
            signal,
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

impl DebugFront {
    fn show(&mut self, batch: &Batch) -> std::io::Result<()> {
        let shared = &*self.shared;
        let mut summary = Summary::empty(shared.signal);
        batch.parts.iter().for_each(|part| summary.add(&part.data));
        self.text.clear();
        if shared.verbosity != Verbosity::Basic {
            let mut all = Encoded::empty(shared.signal);
            for part in &batch.parts {
                all.append(match &part.data {
                    Payload::Logs(logs) => Encoded::from_logs([logs]),
                    Payload::Encoded(encoded) => encoded.clone(),
                });
            }
            text::render(shared.verbosity, &all, &mut self.text);
        }
        shared.output.show(&shared.name, &summary, &self.text)
    }
}

impl Exporter for DebugFront {
    fn export(&mut self, batch: Batch, now: Mono) {
        let shown = match self.shared.sampler.admits(now) {
            true => self.show(&batch),
            false => Ok(()),
        };
        let shared = &*self.shared;
        if let Err(e) = &shown {
            tracing::warn!(exporter = &*shared.name, error = %e, "cannot show data; it is dropped");
        }
        for part in batch.parts {
            let items = part.data.items();
            if shown.is_ok() {
                shared.metrics.sent().inc_by(items as u64);
                part.ack.resolve(Outcome::Delivered);
            } else {
                shared.metrics.failed().inc_by(items as u64);
                // Trying again would show the same to nobody.
                let items = u32::try_from(items).unwrap_or(u32::MAX);
                part.ack.count_dropped(DropReason::Rejected, items);
                part.ack.resolve(Outcome::Refused);
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
    use tailwater_pdata::LogsBatch;
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
        DebugExporter::new("debug".into(), Signal::Logs, options, &registry)
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
    fn the_summary_has_the_names_of_its_signal() {
        use tailwater_pdata::otlp::{Limits, json};
        let dir = tempfile::tempdir().unwrap();
        let registry = MetricsRegistry::new(Exposition::default(), SERIES_MAX_DEFAULT);
        for (signal, text, expect) in [
            (
                Signal::Metrics,
                r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"gauge":{"dataPoints":[{},{}]}},{}]}]}]}"#,
                "Metrics {\"resource metrics\": 1, \"metrics\": 2, \"data points\": 2}\n",
            ),
            (
                Signal::Traces,
                r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{},{},{}]}]},{}]}"#,
                "Traces {\"resource spans\": 2, \"spans\": 3}\n",
            ),
        ] {
            let path = dir.path().join(signal.as_str()).display().to_string();
            let options = to(&path, (1, 0));
            let mut node = DebugExporter::new("debug".into(), signal, &options, &registry).unwrap();
            let mut front = node.front(&ShardHandle {
                index: 0,
                waker: Arc::new(NoWake),
            });
            let body = json::to_proto(signal, text.as_bytes(), &Limits::default()).unwrap();
            let mut window: AckWindow<u32> = AckWindow::new(Arc::new(NoSink), 0);
            let part = tailwater_pipeline::Part {
                data: Encoded::parse(signal, body, &Limits::default())
                    .unwrap()
                    .into(),
                ack: window.reserve(1, 2, 2),
                permit: Permit::none(),
            };
            front.export(Batch::of(part), Mono(5));
            assert_eq!(fs::read_to_string(&path).unwrap(), expect);
            assert_eq!(settled(&mut window), [0]);
        }
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
