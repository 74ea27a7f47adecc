//! `metricstransform`: renames, copies, combines and regroups metrics, and changes their labels and
//! values, within one request.
//!
//! Scopes of which no metric has a name that any transform is about keep their bytes, as do other
//! metrics of those that are changed.

mod combine;
mod config;
mod operations;

use std::sync::Arc;

use tailwater_config::{Errors, KeyPath, Node, Section};
use tailwater_pdata::otlp::Encoded;
use tailwater_pdata::otlp::metrics::{ResourceMetrics, ScopeMetrics};
use tailwater_pdata::otlp::rewrite::{Entry, Metric, Rewrite, put_metric, put_resource, put_scope};
use tailwater_pdata::{Signal, Value};
use tailwater_pipeline::factory::{Factory, NodeCx, ProcessorFactory, ProcessorSettings};
use tailwater_pipeline::{Batch, BuildError, Output, Part, Payload, Processor};
use tailwater_telemetry::metrics::MetricsTransformMetrics;

use combine::combine;
pub use config::{Action, Case, Filter, Operation, Text, Transform};
use operations::apply;

/// The factory of this processor.
pub fn factory() -> ProcessorFactory {
    Factory {
        kind: "metricstransform",
        about: "Renames, copies, combines, regroups and aggregates metrics of a request.",
        signals: &["metrics"],
        decode,
    }
}

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Box<dyn ProcessorSettings>> {
    let before = errors.len();
    let mut section = Section::new(node, path, errors);
    let transforms = config::decode(&mut section);
    section.finish();
    let settings = Settings(transforms.into());
    (errors.len() == before).then(|| Box::new(settings) as Box<dyn ProcessorSettings>)
}

struct Settings(Arc<[Transform]>);

impl ProcessorSettings for Settings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn Processor>, BuildError> {
        Ok(Box::new(MetricsTransform {
            transforms: self.0.clone(),
            meters: MetricsTransformMetrics::new(&cx.metrics, &cx.id),
        }))
    }
}

/// Points that are not what they were.
#[derive(Clone, Copy, Default, Debug)]
struct Counted {
    /// Gone, because they are in another one.
    merged: usize,
    /// Left out.
    deleted: usize,
    /// Made.
    inserted: usize,
    /// Metrics that could not become one.
    not_combined: usize,
}

struct MetricsTransform {
    transforms: Arc<[Transform]>,
    meters: Arc<MetricsTransformMetrics>,
}

impl Processor for MetricsTransform {
    fn process(&mut self, batch: Batch, out: &mut dyn Output) {
        let parts = batch.parts.into_iter();
        let parts: Vec<Part> = parts.filter_map(|part| self.transform(part)).collect();
        if !parts.is_empty() {
            out.emit(Batch { parts });
        }
    }
}

impl MetricsTransform {
    fn transform(&self, mut part: Part) -> Option<Part> {
        let Payload::Encoded(encoded) = &mut part.data else {
            return Some(part);
        };
        let before = encoded.items();
        let mut changing = Changing {
            transforms: &self.transforms,
            grouped: Encoded::empty(Signal::Metrics),
            counted: Counted::default(),
        };
        encoded.rewrite(&mut changing);
        let Changing {
            grouped, counted, ..
        } = changing;
        encoded.append(grouped);
        let gone = before.saturating_sub(encoded.items());
        part.ack
            .count_filtered(u32::try_from(gone).unwrap_or(u32::MAX));
        let meters = &self.meters;
        meters.datapoints_merged.inc_by(counted.merged as u64);
        meters.datapoints_deleted.inc_by(counted.deleted as u64);
        meters.datapoints_inserted.inc_by(counted.inserted as u64);
        let not_combined = counted.not_combined as u64;
        meters.metrics_not_combined.inc_by(not_combined);
        part.non_empty()
    }
}

/// One request on its way through.
struct Changing<'t> {
    transforms: &'t [Transform],
    /// What got a resource of its own.
    grouped: Encoded,
    counted: Counted,
}

/// The metric to be changed.
fn opened<'e, 'a>(entry: &'e mut Entry<'a>) -> &'e mut Metric<'a> {
    if let Entry::Same(metric) = entry {
        *entry = Entry::New(Metric::of(*metric));
    }
    match entry {
        Entry::New(metric) => metric,
        Entry::Same(_) => unreachable!("it was made a new one above"),
    }
}

fn name_matches(transform: &Transform, entry: &Entry<'_>) -> bool {
    let name = &transform.filter.name;
    match entry {
        Entry::Same(metric) => {
            // Text that was walked is UTF-8.
            std::str::from_utf8(metric.name).is_ok_and(|text| name.matches(text))
        }
        Entry::New(metric) => name.matches(&metric.name),
    }
}

/// Whether any point is meant; a metric without points is.
fn is_meant(transform: &Transform, entry: &mut Entry<'_>) -> bool {
    name_matches(transform, entry)
        && (transform.filter.labels.is_empty() || {
            let metric = opened(entry);
            let (points, meant) = transform.filter.points(metric);
            points.is_empty() || meant > 0
        })
}

/// Leaves of a metric the points that are meant. Returns how many are gone.
fn keep_meant(transform: &Transform, metric: &mut Metric<'_>) -> usize {
    let (meant, n) = transform.filter.points(metric);
    let gone = meant.len() - n;
    let mut meant = meant.into_iter();
    metric.points.retain(|_| meant.next().unwrap_or(true));
    gone
}

impl Changing<'_> {
    /// Takes the metrics that are meant out of `entries`. Of each, points that are not meant are left
    /// out, as in the collector.
    fn take_out<'a>(
        &mut self,
        transform: &Transform,
        entries: &mut Vec<Entry<'a>>,
    ) -> Vec<Metric<'a>> {
        let mut taken = Vec::new();
        let mut left = Vec::with_capacity(entries.len());
        for mut entry in entries.drain(..) {
            if !is_meant(transform, &mut entry) {
                left.push(entry);
                continue;
            }
            let metric = opened(&mut entry);
            self.counted.deleted += keep_meant(transform, metric);
            taken.push(metric.clone());
        }
        *entries = left;
        taken
    }

    fn update(&mut self, transform: &Transform, entries: &mut Vec<Entry<'_>>) {
        entries.retain_mut(|entry| {
            !is_meant(transform, entry) || apply(opened(entry), transform, &mut self.counted)
        });
    }

    fn insert<'a>(&mut self, transform: &Transform, entries: &mut Vec<Entry<'a>>) {
        for i in 0..entries.len() {
            if !is_meant(transform, &mut entries[i]) {
                continue;
            }
            let mut copy = opened(&mut entries[i]).clone();
            keep_meant(transform, &mut copy);
            let made = copy.points.len();
            let mut counted = Counted::default();
            if apply(&mut copy, transform, &mut counted) {
                self.counted.inserted += made - counted.merged - counted.deleted;
                entries.push(Entry::New(copy));
            }
        }
    }

    fn group<'a>(
        &mut self,
        transform: &Transform,
        labels: &[(String, String)],
        (resource, scope): (ResourceMetrics<'a>, ScopeMetrics<'a>),
        entries: &mut Vec<Entry<'a>>,
    ) {
        let metrics = self.take_out(transform, entries);
        if metrics.is_empty() {
            return;
        }
        let labels = labels.iter();
        let labels = labels.map(|(label, value)| (label.as_str(), Value::str(value)));
        let mut body = Vec::new();
        put_resource(&mut body, &resource.heading_with(labels), |out| {
            put_scope(out, &scope.heading(), |out| {
                metrics.iter().for_each(|metric| put_metric(out, metric));
            });
        });
        self.grouped.append(Encoded::of_metrics(body));
    }
}

impl Rewrite for Changing<'_> {
    fn scope<'a>(
        &mut self,
        resource: ResourceMetrics<'a>,
        scope: ScopeMetrics<'a>,
    ) -> Option<Vec<Entry<'a>>> {
        let transforms = self.transforms;
        let any = |entry: &Entry<'a>| transforms.iter().any(|t| name_matches(t, entry));
        if !scope.metrics().map(Entry::Same).any(|e| any(&e)) {
            return None;
        }
        let mut entries: Vec<Entry<'a>> = scope.metrics().map(Entry::Same).collect();
        for transform in transforms {
            match &transform.action {
                Action::Update => self.update(transform, &mut entries),
                Action::Insert => self.insert(transform, &mut entries),
                Action::Group(labels) => {
                    self.group(transform, labels, (resource, scope), &mut entries);
                }
                Action::Combine { aggregation, case } => {
                    combine(self, transform, (*aggregation, *case), &mut entries);
                }
            }
        }
        Some(entries)
    }
}
