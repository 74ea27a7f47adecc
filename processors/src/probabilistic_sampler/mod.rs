//! `probabilistic_sampler`: passes on a part of the spans or log records, chosen by chance that is the
//! same wherever it is thrown.
//!
//! By a hash of 14 bits (`hash_seed`), or by the 56 random bits of a trace id, so that samplers one
//! behind the other, and those of the SDKs, choose the same traces (`equalizing`, `proportional`).
//! What an item says about how it was sampled before, and is told, is in the member `ot` of a span's
//! trace state and in the attributes `sampling.threshold` and `sampling.randomness` of a record.
//! Decisions are those of the collector. What is not sampled counts as filtered.

mod config;
mod counts;
mod probability;
mod records;
mod sampler;
mod spans;
mod tracestate;

#[cfg(test)]
mod record_tests;
#[cfg(test)]
mod tests;

use tailwater_config::{Errors, KeyPath, Node, Section};
use tailwater_pdata::Signal;
use tailwater_pipeline::factory::{Factory, NodeCx, ProcessorFactory, ProcessorSettings};
use tailwater_pipeline::{Batch, BuildError, Output, Part, Payload, Processor};

pub use config::{Mode, SamplerSettings};

use counts::{Sampled, Tally};
use records::{Records, Rules};
use sampler::Sampler;
use spans::Spans;

/// The factory of this processor.
pub fn factory() -> ProcessorFactory {
    Factory {
        kind: "probabilistic_sampler",
        about: "Passes on a percentage of spans or log records.",
        signals: &["logs", "traces"],
        decode,
    }
}

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Box<dyn ProcessorSettings>> {
    let before = errors.len();
    let mut section = Section::new(node, path, errors);
    let settings = SamplerSettings::decode(&mut section);
    section.finish();
    (errors.len() == before).then(|| Box::new(settings) as Box<dyn ProcessorSettings>)
}

impl ProcessorSettings for SamplerSettings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn Processor>, BuildError> {
        let signal = cx.signal.unwrap_or(Signal::Logs);
        let sampled = Sampled::new(cx, signal, self.from_attribute.as_ref());
        Ok(Box::new(ProbabilisticSampler::new(
            self,
            signal,
            Some(sampled),
        )))
    }
}

/// Samples in one chain of one shard.
pub struct ProbabilisticSampler {
    rules: Rules,
    sampled: Option<Sampled>,
    keep: Vec<bool>,
}

impl ProbabilisticSampler {
    fn new(
        settings: &SamplerSettings,
        signal: Signal,
        sampled: Option<Sampled>,
    ) -> ProbabilisticSampler {
        ProbabilisticSampler {
            rules: Rules {
                sampler: Sampler::new(settings, signal == Signal::Traces),
                from_attribute: settings.from_attribute.clone(),
                sampling_priority: settings.sampling_priority.clone(),
            },
            sampled,
            keep: Vec::new(),
        }
    }

    /// Leaves in `data` what is sampled.
    fn sample(&mut self, data: &mut Payload) -> Tally {
        match data {
            Payload::Logs(logs) => records::sample(&self.rules, logs, &mut self.keep),
            Payload::Encoded(encoded) if encoded.signal() == Signal::Traces => {
                let mut spans = Spans::new(&self.rules.sampler);
                encoded.edit(&mut spans);
                spans.tally
            }
            Payload::Encoded(encoded) => {
                let mut records = Records::new(&self.rules);
                encoded.edit(&mut records);
                records.tally
            }
        }
    }
}

impl Processor for ProbabilisticSampler {
    fn process(&mut self, batch: Batch, out: &mut dyn Output) {
        let mut parts: Vec<Part> = Vec::with_capacity(batch.parts.len());
        for mut part in batch.parts {
            let tally = self.sample(&mut part.data);
            let dropped = u32::try_from(tally.dropped()).unwrap_or(u32::MAX);
            part.ack.count_filtered(dropped);
            if let Some(sampled) = &self.sampled {
                sampled.count(&tally);
            }
            parts.extend(part.non_empty());
        }
        if !parts.is_empty() {
            out.emit(Batch { parts });
        }
    }
}
