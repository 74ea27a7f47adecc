//! Metrics of the agent itself.
//!
//! A component resolves its handles once when it is built ([`ReceiverMetrics::new`] and the like)
//! and then only adds to atomics: no lookup, no lock, no allocation on the data path. Its series
//! live exactly as long as its handles, so they disappear with the component or file group.

mod accounting;
#[cfg(test)]
mod accounting_tests;
mod component;
mod exposition;
mod family;
mod group;
mod points;
mod process;
mod records;
mod registry;
mod value;

pub use accounting::{Accounting, Amount, FilterCount, Settlement, Snapshot};
pub use component::{
    ActivityMetrics, BatchMetrics, CertificateMetrics, CheckpointMetrics, ConnectorMetrics,
    ConnectorOttlMetrics, ConnectorOutputMetrics, ControlPlaneMetrics, EngineMetrics,
    ExporterMetrics, ExporterPointsMetrics, ExporterSpansMetrics, FilesMetrics,
    FilteredLogsMetrics, FilteredPointsMetrics, FilteredSpansMetrics, IntakeMetrics,
    JournalMetrics, LabelBudgetMetrics, LagMetrics, ListenerMetrics, MemoryLimiterMetrics,
    MemoryLimiterPointsMetrics, MemoryLimiterSpansMetrics, MessageMetrics, OttlMetrics,
    PartialSuccessMetrics, ProcessorMetrics, QueueLeftMetrics, QueueMetrics,
    RECEIVER_TRANSPORT_FILE, ReceiverMetrics, ReceiverPointMetrics, ReceiverSpanMetrics,
    SampledLogsMetrics, SampledSpansMetrics, SelfLogMetrics, SourcesMetrics, StoredQueueMetrics,
};
pub use exposition::{ConstantLabels, Exposition};
pub use family::{Collect, Family, Gather, Kind, Labels, Level, Unit};
pub use points::{
    CumulativePointsMetrics, CumulativeToDeltaMetrics, DeltaDropsMetrics, DeltaPointsMetrics,
    DeltaToCumulativeMetrics, IntervalMetrics, MetricsTransformMetrics,
};
pub use process::{ProcessMetrics, ProcessUsage};
pub use records::{
    GroupedLogsMetrics, GroupedPointsMetrics, GroupedSpansMetrics, K8sClusterMetrics,
    K8sWaitingMetrics, LogDedupMetrics, RedactionMetrics, ResourceDetectionMetrics,
};
pub use registry::{MetricsRegistry, SERIES_MAX_DEFAULT, Sample};
pub use value::{BytesHistogram, Counter, FloatCounter, FloatGauge, Gauge, RecordsHistogram};

/// The content type of [`MetricsRegistry::render`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Every metric there is, sorted by name; reference pages are made from it.
pub fn families() -> Vec<&'static Family> {
    let groups = component::FAMILIES
        .iter()
        .chain(points::FAMILIES)
        .chain(records::FAMILIES);
    let groups = groups.copied().flatten();
    let accounts = accounting::ACCOUNTING_FAMILIES.iter().flatten();
    let single = process::families().chain([&registry::SERIES_REFUSED]);
    let mut all: Vec<_> = groups.chain(accounts).chain(single).collect();
    all.sort_unstable_by_key(|family| family.name);
    all
}

#[cfg(test)]
mod tests {
    use super::{Family, Kind, Level};

    fn row(family: &Family) -> String {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let known = Level::NAMES.iter().find(|(_, l)| *l == family.level);
        let level = known.map_or("", |(name, _)| name);
        format!("| `{}` | {kind} | {level} | {} |", family.name, family.help)
    }

    /// Guarantee: the reference page has every metric as it is, and no other.
    #[test]
    fn the_reference_page_lists_every_metric() {
        let page = include_str!("../../../docs/METRICS.md");
        let listed = page.lines().filter(|l| {
            ["| `otelcol_", "| `tailwater_"]
                .iter()
                .any(|p| l.starts_with(p))
        });
        let listed: std::collections::BTreeSet<String> = listed.map(str::to_owned).collect();
        let wanted = super::families().into_iter().map(row).collect();
        let differ: Vec<_> = listed.symmetric_difference(&wanted).collect();
        assert!(differ.is_empty(), "docs/METRICS.md: {differ:#?}");
    }

    #[test]
    fn every_metric_has_a_name_of_its_own_and_a_help_text() {
        let all = super::families();
        assert!(
            all.windows(2).all(|pair| pair[0].name < pair[1].name),
            "{all:?}"
        );
        for family in all {
            let known = ["otelcol_", "tailwater_"]
                .iter()
                .any(|p| family.name.starts_with(p));
            assert!(known && family.help.ends_with('.'), "{family:?}");
        }
    }
}
