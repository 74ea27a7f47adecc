//! The handles of processors of data points.

use super::family::Family;
use super::group::{Group, metric_group};

metric_group! {
    /// What `cumulativetodelta` remembers.
    pub struct CumulativeToDeltaMetrics { processor }
    /// Streams of which the last value is remembered.
    streams_tracked: Gauge, Basic, Count, "otelcol_cumulativetodelta_streams_tracked";
    /// Streams that were forgotten because there were too many. Their next value is a first one.
    streams_evicted: Counter, Basic, Count, "tailwater_cumulativetodelta_streams_evicted";
    /// Differences that were passed on, not delivered, and are in the next one of their stream again.
    datapoints_returned: Counter, Basic, Count, "tailwater_cumulativetodelta_datapoints_returned";
}

metric_group! {
    /// What `cumulativetodelta` passes on.
    pub struct DeltaPointsMetrics { processor, metric_type }
    /// Data points that became differences.
    datapoints: Counter, Basic, Count, "otelcol_cumulativetodelta_datapoints";
}

metric_group! {
    /// What `cumulativetodelta` leaves out.
    pub struct DeltaDropsMetrics { processor, metric_type, reason }
    /// Data points that are not passed on, by reason.
    datapoints_dropped: Counter, Basic, Count, "otelcol_cumulativetodelta_datapoints_dropped";
}

metric_group! {
    /// What `deltatocumulative` remembers.
    pub struct DeltaToCumulativeMetrics { processor }
    /// Streams of which the total is remembered.
    streams_tracked: Gauge, Basic, Count, "otelcol_deltatocumulative_streams_tracked";
    /// Streams that are remembered at most.
    streams_limit: Gauge, Basic, Count, "otelcol_deltatocumulative_streams_limit";
    /// Seconds after its last point at which a stream is forgotten.
    streams_max_stale: Gauge, Basic, Seconds, "otelcol_deltatocumulative_streams_max_stale";
    /// Data points that came again because their total was not delivered: it is passed on once more.
    datapoints_repeated: Counter, Basic, Count, "tailwater_deltatocumulative_datapoints_repeated";
}

metric_group! {
    /// What `deltatocumulative` passes on and leaves out.
    pub struct CumulativePointsMetrics { processor, error }
    /// Data points that became totals, and with an error those that were left out.
    datapoints: Counter, Basic, Count, "otelcol_deltatocumulative_datapoints";
}

metric_group! {
    /// What `interval` holds.
    pub struct IntervalMetrics { processor }
    /// Streams of which a point waits for the end of the interval.
    streams_held: Gauge, Basic, Count, "tailwater_interval_streams_held";
    /// Bytes of memory of these points.
    bytes_held: Gauge, Basic, Bytes, "tailwater_interval_bytes_held";
    /// Data points left out because there was a newer one of their stream in the same interval.
    datapoints_superseded: Counter, Basic, Count, "tailwater_interval_datapoints_superseded";
    /// Times that points were passed on before their time because they took too much memory.
    early_emissions: Counter, Basic, Count, "tailwater_interval_early_emissions";
}

metric_group! {
    /// What `metricstransform` did.
    pub struct MetricsTransformMetrics { processor }
    /// Data points that are gone because they were put together with others.
    datapoints_merged: Counter, Basic, Count, "tailwater_metricstransform_datapoints_merged";
    /// Data points that were left out.
    datapoints_deleted: Counter, Basic, Count, "tailwater_metricstransform_datapoints_deleted";
    /// Data points that were made by copying others.
    datapoints_inserted: Counter, Basic, Count, "tailwater_metricstransform_datapoints_inserted";
    /// Metrics that were to be combined and could not be. They stay as they were.
    metrics_not_combined: Counter, Basic, Count, "tailwater_metricstransform_metrics_not_combined";
}

/// The metrics of all groups of this module.
pub(crate) const FAMILIES: &[&[Family]] = &[
    CumulativeToDeltaMetrics::FAMILIES,
    DeltaPointsMetrics::FAMILIES,
    DeltaDropsMetrics::FAMILIES,
    DeltaToCumulativeMetrics::FAMILIES,
    CumulativePointsMetrics::FAMILIES,
    IntervalMetrics::FAMILIES,
    MetricsTransformMetrics::FAMILIES,
];
