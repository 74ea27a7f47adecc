//! The handles of processors that change or regroup what they are given.

use super::family::Family;
use super::group::{Group, metric_group};

metric_group! {
    /// What `redaction` did.
    pub struct RedactionMetrics { processor, otel_signal }
    /// Values that were masked or hashed. Resources that many batches share count once.
    values_masked: Counter, Basic, Count, "tailwater_redaction_values_masked";
    /// Attributes and fields of bodies that were removed.
    attributes_removed: Counter, Basic, Count, "tailwater_redaction_attributes_removed";
}

metric_group! {
    /// What `log_dedup` holds and merges.
    pub struct LogDedupMetrics { processor }
    /// Log records that became one, for each that was passed on.
    aggregated: RecordsHistogram, Normal, Count, "otelcol_dedup_processor_aggregated_logs";
    /// Log records that became one with others that were the same. They count as filtered.
    records_merged: Counter, Basic, Count, "tailwater_logdedup_records_merged";
    /// Log records that wait for the end of the interval.
    records_held: Gauge, Basic, Count, "tailwater_logdedup_records_held";
    /// Bytes of memory of these records.
    bytes_held: Gauge, Basic, Bytes, "tailwater_logdedup_bytes_held";
    /// Times that records were passed on before their time, for memory or for sources that would have to wait.
    early_emissions: Counter, Basic, Count, "tailwater_logdedup_early_emissions";
}

metric_group! {
    /// What `groupbyattrs` did to logs.
    pub struct GroupedLogsMetrics { processor }
    /// Log records whose attributes moved to a resource.
    grouped: Counter, Basic, Count, "otelcol_processor_groupbyattrs_num_grouped_logs";
    /// Log records without an attribute to group by.
    not_grouped: Counter, Basic, Count, "otelcol_processor_groupbyattrs_num_non_grouped_logs";
    /// Log records that were not grouped because the request would have become too large.
    left: Counter, Basic, Count, "tailwater_groupbyattrs_logs_left";
    /// Resources of what was passed on together.
    groups: RecordsHistogram, Normal, Count, "otelcol_processor_groupbyattrs_log_groups";
}

metric_group! {
    /// What `groupbyattrs` did to spans.
    pub struct GroupedSpansMetrics { processor }
    /// Spans whose attributes moved to a resource.
    grouped: Counter, Basic, Count, "otelcol_processor_groupbyattrs_num_grouped_spans";
    /// Spans without an attribute to group by.
    not_grouped: Counter, Basic, Count, "otelcol_processor_groupbyattrs_num_non_grouped_spans";
    /// Spans that were not grouped because the request would have become too large.
    left: Counter, Basic, Count, "tailwater_groupbyattrs_spans_left";
    /// Resources of what was passed on together.
    groups: RecordsHistogram, Normal, Count, "otelcol_processor_groupbyattrs_span_groups";
}

metric_group! {
    /// What `groupbyattrs` did to metrics.
    pub struct GroupedPointsMetrics { processor }
    /// Data points whose attributes moved to a resource.
    grouped: Counter, Basic, Count, "otelcol_processor_groupbyattrs_num_grouped_metrics";
    /// Data points without an attribute to group by.
    not_grouped: Counter, Basic, Count, "otelcol_processor_groupbyattrs_num_non_grouped_metrics";
    /// Data points that were not grouped because the request would have become too large.
    left: Counter, Basic, Count, "tailwater_groupbyattrs_metrics_left";
    /// Resources of what was passed on together.
    groups: RecordsHistogram, Normal, Count, "otelcol_processor_groupbyattrs_metric_groups";
}

metric_group! {
    /// What `resource_detection` does.
    pub struct ResourceDetectionMetrics { processor }
    /// Attempts of detectors that failed.
    failures: Counter, Basic, Count, "tailwater_resourcedetection_failures";
    /// Attributes that were detected.
    attributes: Gauge, Basic, Count, "tailwater_resourcedetection_attributes";
}

metric_group! {
    /// What `k8s_attributes` knows of the cluster.
    pub struct K8sClusterMetrics { processor }
    /// Pods that were new.
    pods_added: Counter, Basic, Count, "otelcol_otelsvc_k8s_pod_added";
    /// Changes of pods.
    pods_updated: Counter, Basic, Count, "otelcol_otelsvc_k8s_pod_updated";
    /// Pods that were deleted.
    pods_deleted: Counter, Basic, Count, "otelcol_otelsvc_k8s_pod_deleted";
    /// Pods that are known, the deleted ones that are remembered included.
    pod_table_size: Gauge, Basic, Count, "otelcol_otelsvc_k8s_pod_table_size";
    /// Times that a resource belonged to no pod that is known.
    lookup_misses: Counter, Basic, Count, "otelcol_otelsvc_k8s_ip_lookup_miss";
    /// Lists that the API server was asked for, of any kind of object.
    lists: Counter, Basic, Count, "tailwater_k8sattributes_lists";
    /// Requests to the API server that failed, watches that broke off included.
    failures: Counter, Basic, Count, "tailwater_k8sattributes_failures";
    /// Whether everything that is asked for was told at least once: 1, or 0.
    synced: Gauge, Basic, Count, "tailwater_k8sattributes_synced";
    /// Deleted pods that were forgotten before their time, for lack of room.
    pods_forgotten: Counter, Basic, Count, "tailwater_k8sattributes_pods_forgotten";
}

metric_group! {
    /// What waits in `k8s_attributes`.
    pub struct K8sWaitingMetrics { processor, otel_signal }
    /// Items that wait for metadata of their pod.
    waiting: Gauge, Basic, Count, "tailwater_k8sattributes_items_waiting";
    /// Items that were passed on without metadata of a pod after they had waited for it.
    without: Counter, Basic, Count, "tailwater_k8sattributes_items_without_metadata";
}

/// The metrics of all groups of this module.
pub(crate) const FAMILIES: &[&[Family]] = &[
    RedactionMetrics::FAMILIES,
    LogDedupMetrics::FAMILIES,
    GroupedLogsMetrics::FAMILIES,
    GroupedSpansMetrics::FAMILIES,
    GroupedPointsMetrics::FAMILIES,
    ResourceDetectionMetrics::FAMILIES,
    K8sClusterMetrics::FAMILIES,
    K8sWaitingMetrics::FAMILIES,
];
