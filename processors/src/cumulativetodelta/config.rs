//! The section of a `cumulativetodelta` processor.

use std::time::Duration;

use tailwater_config::Section;
use tailwater_pdata::otlp::metrics::{Metric, MetricKind};

use crate::matching::{TextMatch, decode_names};
use crate::streams::STREAMS_MAX;

/// Names of the kinds of metrics that can be selected, as in the collector.
pub(super) const METRIC_TYPES: [(&str, MetricKind); 3] = [
    ("sum", MetricKind::Sum),
    ("histogram", MetricKind::Histogram),
    ("exponentialhistogram", MetricKind::ExponentialHistogram),
];

/// What becomes of the first point of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum InitialValue {
    /// It is passed on if what it counts began after this agent did.
    #[default]
    Auto,
    /// It is passed on.
    Keep,
    /// It is left out.
    Drop,
}

/// Which metrics are meant. Empty lists do not count.
#[derive(Clone, Debug, Default)]
pub struct MetricChoice {
    /// By name.
    pub names: Vec<TextMatch>,
    /// By kind.
    pub kinds: Vec<MetricKind>,
}

impl MetricChoice {
    fn decode(s: &mut Section<'_, '_>) -> MetricChoice {
        let mut kinds = Vec::new();
        let allowed = METRIC_TYPES.map(|(name, _)| name).join(", ");
        for text in s.string_list("metric_types").unwrap_or_default() {
            let lower = text.to_lowercase();
            match METRIC_TYPES.iter().find(|(name, _)| *name == lower) {
                Some((_, kind)) => kinds.push(*kind),
                None => s.invalid("metric_types", format!("{text:?} is none of {allowed}")),
            }
        }
        MetricChoice {
            names: decode_names(s, "metrics"),
            kinds,
        }
    }

    fn is_given(&self) -> bool {
        !self.names.is_empty() || !self.kinds.is_empty()
    }

    fn has_name(&self, metric: &Metric<'_>) -> bool {
        self.names.iter().any(|name| name.matches(metric.name))
    }

    fn has_kind(&self, metric: &Metric<'_>) -> bool {
        metric.kind.is_some_and(|kind| self.kinds.contains(&kind))
    }
}

/// What is converted, and how.
#[derive(Clone, Debug)]
pub struct CumulativeToDeltaConfig {
    /// Metrics to convert; all, if nothing is given. Each list that is given must have the metric.
    pub include: MetricChoice,
    /// Metrics to leave alone: those in any of its lists.
    pub exclude: MetricChoice,
    /// How long a stream is remembered after its last point; zero: for ever.
    pub max_staleness: Duration,
    /// What becomes of first points.
    pub initial_value: InitialValue,
    /// Streams that are remembered at most.
    pub streams_max: usize,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "include",
        "What becomes delta: what is in each list that is given.",
    ),
    ("exclude", "What does not: what is in any of the lists."),
    ("include::metrics", "Names of metrics."),
    ("exclude::metrics", "Names of metrics."),
    (
        "include::metric_types",
        "sum, histogram, exponentialhistogram.",
    ),
    (
        "exclude::metric_types",
        "sum, histogram, exponentialhistogram.",
    ),
    (
        "max_staleness",
        "How long a stream is remembered after its last point; 0 = for ever.",
    ),
    (
        "initial_value",
        "What becomes of the first point of a stream: passed on if what it counts began after the agent did, passed on, or left out.",
    ),
    (
        "streams_max",
        "own: Streams that are remembered; beyond it those that were not seen for the longest time are forgotten, and counted.",
    ),
];

impl CumulativeToDeltaConfig {
    /// Reads the section; mistakes are in it.
    pub fn decode(s: &mut Section<'_, '_>) -> CumulativeToDeltaConfig {
        s.describe(OPTIONS);
        let initial = [
            ("auto", InitialValue::Auto),
            ("keep", InitialValue::Keep),
            ("drop", InitialValue::Drop),
        ];
        CumulativeToDeltaConfig {
            include: s.section("include", MetricChoice::decode),
            exclude: s.section("exclude", MetricChoice::decode),
            max_staleness: s.duration("max_staleness", Duration::ZERO),
            initial_value: s.choice("initial_value", &initial, InitialValue::default()),
            streams_max: s.usize("streams_max", STREAMS_MAX, 1..),
        }
    }

    /// Whether a metric of this name and kind is converted.
    pub fn converts(&self, metric: &Metric<'_>) -> bool {
        let (include, exclude) = (&self.include, &self.exclude);
        (include.names.is_empty() || include.has_name(metric))
            && (include.kinds.is_empty() || include.has_kind(metric))
            && !(exclude.is_given() && (exclude.has_name(metric) || exclude.has_kind(metric)))
    }
}
