//! The handles of every kind of component. The names that start with `otelcol_` are the
//! collector's, so that dashboards and alerts written for it go on working.

use super::family::Family;
use super::group::{Group, metric_group};

/// Value of the `transport` label of receivers that read files.
pub const RECEIVER_TRANSPORT_FILE: &str = "file";

metric_group! {
    /// What a receiver took in.
    pub struct ReceiverMetrics { receiver, transport }
    /// Log records passed into the pipelines.
    accepted_log_records: Counter, Basic, Count, "otelcol_receiver_accepted_log_records";
    /// Log records turned away for now: a pipeline had no room. Files are read again later.
    refused_log_records: Counter, Basic, Count, "otelcol_receiver_refused_log_records";
    /// Log records the receiver itself failed on.
    failed_log_records: Counter, Basic, Count, "otelcol_receiver_failed_log_records";
}

metric_group! {
    /// Data points that a receiver took in.
    pub struct ReceiverPointMetrics { receiver, transport }
    /// Data points passed into the pipelines.
    accepted_metric_points: Counter, Basic, Count, "otelcol_receiver_accepted_metric_points";
    /// Data points turned away for now: a pipeline had no room, or did not deliver them.
    refused_metric_points: Counter, Basic, Count, "otelcol_receiver_refused_metric_points";
}

metric_group! {
    /// Spans that a receiver took in.
    pub struct ReceiverSpanMetrics { receiver, transport }
    /// Spans passed into the pipelines.
    accepted_spans: Counter, Basic, Count, "otelcol_receiver_accepted_spans";
    /// Spans turned away for now: a pipeline had no room, or did not deliver them.
    refused_spans: Counter, Basic, Count, "otelcol_receiver_refused_spans";
}

metric_group! {
    /// A listener that clients send to.
    pub struct ListenerMetrics { receiver, transport }
    /// Requests that came in.
    requests: Counter, Basic, Count, "tailwater_receiver_requests";
    /// Requests turned away before their records were known: broken, too large, or no room.
    rejected_requests: Counter, Basic, Count, "tailwater_receiver_rejected_requests";
    /// Connections open now.
    connections: Gauge, Basic, Count, "tailwater_receiver_connections";
    /// Connections closed because there were too many: idle ones, or else the new one.
    connections_refused: Counter, Basic, Count, "tailwater_receiver_connections_refused";
}

metric_group! {
    /// Messages of text that a receiver gets over sockets.
    pub struct MessageMetrics { receiver, transport }
    /// Messages that were cut into several records: longer than allowed, or longer than there was room for.
    split_messages: Counter, Basic, Count, "tailwater_receiver_split_messages";
    /// Messages with bytes that are no characters in their encoding, which were replaced.
    repaired_messages: Counter, Basic, Count, "tailwater_receiver_repaired_messages";
    /// Datagrams that came while there was no room, for one destination at least.
    dropped_datagrams: Counter, Basic, Count, "tailwater_receiver_dropped_datagrams";
}

metric_group! {
    /// What is read of systemd's journal.
    pub struct JournalMetrics { receiver }
    /// Times that journalctl ended, or could not be started, and is started again.
    restarts: Counter, Basic, Count, "tailwater_receiver_journalctl_restarts";
    /// Entries that could not be read, and were left out.
    unreadable_entries: Counter, Basic, Count, "tailwater_receiver_unreadable_entries";
    /// Entries that were left out because they are longer than allowed.
    oversized_entries: Counter, Basic, Count, "tailwater_receiver_oversized_entries";
}

metric_group! {
    /// What a receiver that clients send to has under way.
    pub struct IntakeMetrics { receiver }
    /// Requests under way now.
    requests: Gauge, Basic, Count, "tailwater_receiver_requests_in_flight";
    /// Bytes of requests whose records are not encoded for their destination yet.
    in_flight_bytes: Gauge, Basic, Bytes, "tailwater_receiver_in_flight_bytes";
    /// Bytes of the same from which on requests are turned away.
    in_flight_bytes_max: Gauge, Basic, Bytes, "tailwater_receiver_in_flight_bytes_max";
    /// Bytes of bodies that are coming in or being inflated now.
    incoming_bytes: Gauge, Basic, Bytes, "tailwater_receiver_incoming_bytes";
    /// Requests that were answered with failure, or not at all, although some destinations have them.
    remembered: Gauge, Basic, Count, "tailwater_receiver_remembered_requests";
    /// Requests that came again after that and went only to destinations that do not have them.
    resumed: Counter, Basic, Count, "tailwater_receiver_resumed_requests";
}

metric_group! {
    /// What went through a processor.
    pub struct ProcessorMetrics { processor, otel_signal }
    /// Log records that came in.
    incoming_items: Counter, Basic, Count, "otelcol_processor_incoming_items";
    /// Log records that were passed on.
    outgoing_items: Counter, Basic, Count, "otelcol_processor_outgoing_items";
}

metric_group! {
    /// What went into a connector.
    pub struct ConnectorMetrics { connector, otel_signal }
    /// Items that went into the connector: log records, data points or spans.
    consumed_items: Counter, Basic, Count, "otelcol_connector_consumed_items";
}

metric_group! {
    /// What a connector passed on to a pipeline.
    pub struct ConnectorOutputMetrics { connector, otel_signal, otelcol_pipeline_id }
    /// Items that the connector passed on, by pipeline.
    produced_items: Counter, Basic, Count, "otelcol_connector_produced_items";
}

metric_group! {
    /// What went wrong in the statements and conditions of a connector.
    pub struct ConnectorOttlMetrics { connector, otel_signal }
    /// Statements and conditions of a connector that could not be carried out on a record.
    errors: Counter, Basic, Count, "tailwater_connector_ottl_errors";
}

metric_group! {
    /// How the batch processor works.
    pub struct BatchMetrics { processor }
    /// Log records per batch.
    send_size: RecordsHistogram, Normal, Count, "otelcol_processor_batch_batch_send_size";
    /// Bytes of memory per batch.
    send_size_bytes: BytesHistogram, Detailed, Bytes,
        "otelcol_processor_batch_batch_send_size_bytes";
    /// Batches sent because they were large enough.
    size_trigger_send: Counter, Normal, Count, "otelcol_processor_batch_batch_size_trigger_send";
    /// Batches sent because of the timeout.
    timeout_trigger_send: Counter, Normal, Count, "otelcol_processor_batch_timeout_trigger_send";
    /// Different combinations of metadata batches are kept for.
    metadata_cardinality: Gauge, Normal, Count, "otelcol_processor_batch_metadata_cardinality";
}

metric_group! {
    /// Data points that passed the memory limiter.
    pub struct MemoryLimiterPointsMetrics { processor }
    /// Data points passed on.
    accepted_metric_points: Counter, Basic, Count,
        "otelcol_processor_memory_limiter_accepted_metric_points";
    /// Data points of requests that were turned away.
    refused_metric_points: Counter, Basic, Count,
        "otelcol_processor_memory_limiter_refused_metric_points";
}

metric_group! {
    /// Spans that passed the memory limiter.
    pub struct MemoryLimiterSpansMetrics { processor }
    /// Spans passed on.
    accepted_spans: Counter, Basic, Count, "otelcol_processor_memory_limiter_accepted_spans";
    /// Spans of requests that were turned away.
    refused_spans: Counter, Basic, Count, "otelcol_processor_memory_limiter_refused_spans";
}

metric_group! {
    /// How the memory limiter decided.
    pub struct MemoryLimiterMetrics { processor }
    /// Log records passed on.
    accepted_log_records: Counter, Basic, Count,
        "otelcol_processor_memory_limiter_accepted_log_records";
    /// Log records of requests that were turned away. Files are not read meanwhile.
    refused_log_records: Counter, Basic, Count,
        "otelcol_processor_memory_limiter_refused_log_records";
    /// 1 while sources pause because of the limit.
    limited: Gauge, Basic, Count, "tailwater_memory_limiter_limited";
    /// Bytes at the last measurement: the larger of resident memory and data held.
    used_bytes: Gauge, Basic, Bytes, "tailwater_memory_limiter_used_bytes";
    /// Bytes from which on sources pause.
    soft_limit_bytes: Gauge, Basic, Bytes, "tailwater_memory_limiter_soft_limit_bytes";
}

metric_group! {
    /// What a sampler decided about spans.
    pub struct SampledSpansMetrics { processor, policy, sampled }
    /// Spans, by whether they were sampled and what decided it.
    sampled: Counter, Basic, Count, "otelcol_processor_probabilistic_sampler_count_traces_sampled";
}

metric_group! {
    /// What a sampler decided about log records.
    pub struct SampledLogsMetrics { processor, policy, sampled }
    /// Log records, by whether they were sampled and what decided it.
    sampled: Counter, Basic, Count, "otelcol_processor_probabilistic_sampler_count_logs_sampled";
}

metric_group! {
    /// What a filter left out of logs.
    pub struct FilteredLogsMetrics { filter }
    /// Log records that were left out.
    filtered: Counter, Basic, Count, "otelcol_processor_filter_logs_filtered";
}

metric_group! {
    /// What a filter left out of traces.
    pub struct FilteredSpansMetrics { filter }
    /// Spans that were left out.
    filtered: Counter, Basic, Count, "otelcol_processor_filter_spans_filtered";
}

metric_group! {
    /// What a filter left out of metrics.
    pub struct FilteredPointsMetrics { filter }
    /// Data points that were left out.
    filtered: Counter, Basic, Count, "otelcol_processor_filter_datapoints_filtered";
}

metric_group! {
    /// How OTTL fared in a processor.
    pub struct OttlMetrics { processor, otel_signal }
    /// Statements and conditions that could not be carried out on a record.
    errors: Counter, Basic, Count, "tailwater_processor_ottl_errors";
}

metric_group! {
    /// What an exporter sent.
    pub struct ExporterMetrics { exporter }
    /// Log records the destination accepted.
    sent_log_records: Counter, Basic, Count, "otelcol_exporter_sent_log_records";
    /// Log records given up after the last retry. Once per record, not per attempt.
    send_failed_log_records: Counter, Basic, Count, "otelcol_exporter_send_failed_log_records";
    /// Log records the queue did not take.
    enqueue_failed_log_records: Counter, Basic, Count,
        "otelcol_exporter_enqueue_failed_log_records";
    /// Requests under way.
    in_flight_requests: Gauge, Basic, Count, "otelcol_exporter_in_flight_requests";
    /// Requests that got any answer or none.
    requests: Counter, Basic, Count, "tailwater_exporter_requests";
    /// Requests that failed and are sent again.
    retries: Counter, Basic, Count, "tailwater_exporter_retries";
    /// Requests the destination answered with a wish to slow down.
    throttled: Counter, Basic, Count, "tailwater_exporter_throttled";
    /// Requests of which the destination refused something for good: records are given up, or made fewer.
    refused: Counter, Basic, Count, "tailwater_exporter_refused_requests";
    /// Bytes of request bodies that were accepted, as sent (compressed).
    sent_bytes: Counter, Basic, Bytes, "tailwater_exporter_sent_bytes";
    /// Seconds since the destination last accepted something while there is something to send.
    stalled_seconds: FloatGauge, Basic, Seconds, "tailwater_exporter_stalled_seconds";
}

metric_group! {
    /// What became of the data points of an exporter.
    pub struct ExporterPointsMetrics { exporter }
    /// Data points the destination accepted.
    sent: Counter, Basic, Count, "otelcol_exporter_sent_metric_points";
    /// Data points given up after the last retry. Once per data point, not per attempt.
    send_failed: Counter, Basic, Count, "otelcol_exporter_send_failed_metric_points";
    /// Data points the queue did not take.
    enqueue_failed: Counter, Basic, Count, "otelcol_exporter_enqueue_failed_metric_points";
}

metric_group! {
    /// What became of the spans of an exporter.
    pub struct ExporterSpansMetrics { exporter }
    /// Spans the destination accepted.
    sent: Counter, Basic, Count, "otelcol_exporter_sent_spans";
    /// Spans given up after the last retry. Once per span, not per attempt.
    send_failed: Counter, Basic, Count, "otelcol_exporter_send_failed_spans";
    /// Spans the queue did not take.
    enqueue_failed: Counter, Basic, Count, "otelcol_exporter_enqueue_failed_spans";
}

metric_group! {
    /// What servers say about parts of requests that they accepted.
    pub struct PartialSuccessMetrics { exporter, data_type }
    /// Items that the destination rejected of requests that it accepted. They count as sent, too.
    rejected: Counter, Basic, Count, "tailwater_exporter_partial_success_rejected_items";
}

metric_group! {
    /// A queue on disk in front of an exporter's sender.
    pub struct StoredQueueMetrics { exporter, data_type }
    /// Requests that are on disk and not settled.
    requests: Gauge, Basic, Count, "tailwater_queue_stored_requests";
    /// Bytes of the files of the queue.
    bytes: Gauge, Basic, Bytes, "tailwater_queue_stored_bytes";
    /// Stored requests that were damaged and had to be skipped.
    damaged: Counter, Basic, Count, "tailwater_queue_damaged_requests";
    /// Stored requests that cannot be read now. They are kept and tried again.
    unreadable: Gauge, Basic, Count, "tailwater_queue_unreadable_requests";
    /// Times the disk failed to store or to give back something.
    failures: Counter, Basic, Count, "tailwater_queue_disk_failures";
}

metric_group! {
    /// What stays on disk of an exporter that is not configured any more, or has another queue.
    pub struct QueueLeftMetrics { exporter, data_type }
    /// Requests in queues on disk that this exporter had and that no exporter has now, also over restarts.
    /// They are delivered when it is configured again under the same id and with the same storage.
    requests: Gauge, Basic, Count, "tailwater_queue_left_requests";
    /// Bytes of the files of these queues.
    bytes: Gauge, Basic, Bytes, "tailwater_queue_left_bytes";
}

metric_group! {
    /// A certificate that an exporter uses or meets.
    pub struct CertificateMetrics { exporter, certificate }
    /// Unix time in seconds at which the certificate ends.
    expiry: Gauge, Basic, Seconds, "tailwater_certificate_expiry_timestamp_seconds";
}

metric_group! {
    /// The conversation with a control plane.
    pub struct ControlPlaneMetrics { extension }
    /// 1 while the control plane answers.
    connected: Gauge, Basic, Count, "tailwater_opamp_connected";
    /// Times there was no connection, or no answer over it any more.
    connections_lost: Counter, Basic, Count, "tailwater_opamp_connections_lost";
    /// Messages that were sent.
    messages_sent: Counter, Basic, Count, "tailwater_opamp_messages_sent";
    /// Messages that were received.
    messages_received: Counter, Basic, Count, "tailwater_opamp_messages_received";
    /// Remote configurations that came into force.
    offers_applied: Counter, Basic, Count, "tailwater_opamp_offers_applied";
    /// Remote configurations that were refused.
    offers_refused: Counter, Basic, Count, "tailwater_opamp_offers_refused";
    /// Remote configurations that were refused as none of `public_keys` signed them.
    offers_unsigned: Counter, Basic, Count, "tailwater_opamp_offers_unsigned";
    /// Remote configurations that were refused as a newer version was in force.
    offers_outdated: Counter, Basic, Count, "tailwater_opamp_offers_outdated";
}

metric_group! {
    /// What the control plane does, by activity.
    pub struct ActivityMetrics { activity }
    /// Times it was done.
    runs: Counter, Basic, Count, "tailwater_control_activity_runs";
    /// Times it was done without success.
    failures: Counter, Basic, Count, "tailwater_control_activity_failures";
}

metric_group! {
    /// The sources that the control plane has found, by who found them.
    pub struct SourcesMetrics { origin }
    /// Sources that are there and of which the agent has not said yet that it reads them.
    starting: Gauge, Basic, Count, "tailwater_control_sources_starting";
    /// Sources that are there and read.
    live: Gauge, Basic, Count, "tailwater_control_sources_live";
    /// Sources that ended and of which something is left to be read or delivered.
    draining: Gauge, Basic, Count, "tailwater_control_sources_draining";
    /// Sources that are left out because no configuration can be made of them, or the agent refuses it.
    quarantined: Gauge, Basic, Count, "tailwater_control_sources_quarantined";
    /// Sources that ended and were read and delivered to their end.
    drained: Counter, Basic, Count, "tailwater_control_sources_drained";
    /// Sources that ended and of which the agent had opened no file: they went away before, or there were none.
    missed: Counter, Basic, Count, "tailwater_control_sources_missed";
    /// Sources that were let go at the deadline with something left.
    expired: Counter, Basic, Count, "tailwater_control_sources_expired";
    /// Sources whose logs cannot be read: a logging driver without files, a path that is no text, a tenant that is not allowed.
    unreadable: Counter, Basic, Count, "tailwater_control_sources_unreadable";
    /// Sources that ask for something that there is not, as a parser of another name, and are read without it.
    unheeded: Counter, Basic, Count, "tailwater_control_sources_unheeded";
}

metric_group! {
    /// The queue in front of an exporter's sender.
    pub struct QueueMetrics { exporter, data_type }
    /// What is in the queue now, in the unit of its sizer.
    queue_size: Gauge, Basic, Count, "otelcol_exporter_queue_size";
    /// What fits into the queue, in the unit of its sizer.
    queue_capacity: Gauge, Basic, Count, "otelcol_exporter_queue_capacity";
    /// Bytes of finished request bodies in the queue.
    queue_bytes: Gauge, Basic, Bytes, "tailwater_exporter_queue_bytes";
}

metric_group! {
    /// The files of one receiver.
    pub struct FilesMetrics { receiver }
    /// Files open now.
    open_files: Gauge, Basic, Count, "otelcol_fileconsumer_open_files";
    /// Files being read right now.
    reading_files: Gauge, Basic, Count, "otelcol_fileconsumer_reading_files";
    /// Files that are deleted but held until every byte is delivered.
    files_held_deleted: Gauge, Basic, Count, "tailwater_files_held_deleted";
    /// Bytes that could not be read before their file had to be let go.
    files_abandoned_bytes: Counter, Basic, Bytes, "tailwater_files_abandoned_bytes";
    /// Files that were rotated.
    files_rotated: Counter, Basic, Count, "tailwater_files_rotated";
    /// Files that were truncated.
    files_truncated: Counter, Basic, Count, "tailwater_files_truncated";
    /// Bytes of truncated files that were seen, but neither read in time nor found in a copy.
    files_truncated_bytes: Counter, Basic, Bytes, "tailwater_files_truncated_bytes";
    /// Files that could not be opened or read.
    file_errors: Counter, Basic, Count, "tailwater_file_errors";
    /// Lines with bytes that are not valid in their encoding; they were repaired and kept.
    invalid_utf8: Counter, Basic, Count, "tailwater_invalid_utf8";
    /// NUL bytes that were skipped (holes that a crash or a truncation left in a file).
    nul_bytes_skipped: Counter, Basic, Bytes, "tailwater_nul_bytes_skipped";
    /// Lines longer than the limit that were cut into several records.
    lines_split: Counter, Basic, Count, "tailwater_lines_split";
    /// Lines longer than the limit of which the rest was left out.
    lines_truncated: Counter, Basic, Count, "tailwater_lines_truncated";
}

metric_group! {
    /// How far behind one group of files is.
    pub struct LagMetrics { receiver, group }
    /// Bytes in the files that are not delivered yet.
    lag_bytes: Gauge, Basic, Bytes, "tailwater_lag_bytes";
    /// Age of the oldest byte that is not delivered yet.
    lag_seconds: FloatGauge, Basic, Seconds, "tailwater_lag_seconds";
    /// Files in the group.
    files: Gauge, Basic, Count, "tailwater_group_files";
}

metric_group! {
    /// The store of file positions.
    pub struct CheckpointMetrics { store }
    /// Times the positions were made durable.
    writes: Counter, Basic, Count, "tailwater_checkpoint_writes";
    /// Times that failed; the positions in memory stay right.
    write_failures: Counter, Basic, Count, "tailwater_checkpoint_write_failures";
    /// Time that writes took, synchronisation included, those that failed included.
    write_seconds: FloatCounter, Basic, Seconds, "tailwater_checkpoint_write_seconds";
    /// Bytes written.
    written_bytes: Counter, Basic, Bytes, "tailwater_checkpoint_written_bytes";
    /// Bytes of the store's files on disk.
    size_bytes: Gauge, Basic, Bytes, "tailwater_checkpoint_size_bytes";
    /// Files with a position in the store.
    entries: Gauge, Basic, Count, "tailwater_checkpoint_entries";
    /// Files whose newest position is not on disk yet.
    unsaved_entries: Gauge, Basic, Count, "tailwater_checkpoint_unsaved_entries";
    /// Age of the oldest change that is not on disk; 0 when the disk has everything.
    unsaved_seconds: FloatGauge, Basic, Seconds, "tailwater_checkpoint_unsaved_seconds";
    /// Positions that were refused: the store is full of files that exist, or one is too long.
    refused: Counter, Basic, Count, "tailwater_checkpoint_refused";
    /// Positions of files that are gone which made room for others.
    evicted: Counter, Basic, Count, "tailwater_checkpoint_evicted";
    /// 1 while positions cannot be saved.
    alarm: Gauge, Basic, Count, "tailwater_checkpoint_alarm";
    /// Stores found damaged at start and recovered as far as possible.
    recoveries: Counter, Basic, Count, "tailwater_checkpoint_recoveries";
}

metric_group! {
    /// The budget of labels of an exporter to Loki.
    pub struct LabelBudgetMetrics { exporter }
    /// Streams in use.
    streams: Gauge, Basic, Count, "tailwater_label_budget_streams";
    /// Streams allowed.
    streams_max: Gauge, Basic, Count, "tailwater_label_budget_streams_max";
    /// Records whose labels were cut down because the budget was used up.
    demoted_records: Counter, Basic, Count, "tailwater_label_budget_demoted_records";
    /// Label names that are no longer used as labels because of too many values.
    demoted_labels: Gauge, Basic, Count, "tailwater_label_budget_demoted_labels";
}

metric_group! {
    /// The engine as a whole.
    pub struct EngineMetrics { }
    /// Delivery duties that were dropped unresolved: a bug when not 0. The records are read again.
    tokens_lost: Counter, Basic, Count, "tailwater_tokens_lost";
    /// Panics of a component that were caught; its batches are read again.
    panics: Counter, Basic, Count, "tailwater_panics";
    /// Number of the configuration that runs.
    config_generation: Gauge, Basic, Count, "tailwater_config_generation";
    /// Bytes of records that are held: read from files and not encoded yet, or sent to the agent and not delivered yet.
    data_bytes: Gauge, Basic, Bytes, "tailwater_data_bytes";
    /// Bytes of records from files that are not encoded yet, from which on reading pauses.
    data_bytes_max: Gauge, Basic, Bytes, "tailwater_data_bytes_max";
}

metric_group! {
    /// The agent's own log.
    pub struct SelfLogMetrics { }
    /// Own log lines left out by sampling.
    lines_suppressed: Counter, Basic, Count, "tailwater_log_lines_suppressed";
    /// Own log lines lost because an output was blocked or failed.
    lines_lost: Counter, Basic, Count, "tailwater_log_lines_lost";
}

/// The metrics of all groups of this module.
pub(crate) const FAMILIES: &[&[Family]] = &[
    ReceiverMetrics::FAMILIES,
    ReceiverPointMetrics::FAMILIES,
    ReceiverSpanMetrics::FAMILIES,
    ListenerMetrics::FAMILIES,
    MessageMetrics::FAMILIES,
    JournalMetrics::FAMILIES,
    IntakeMetrics::FAMILIES,
    ProcessorMetrics::FAMILIES,
    ConnectorMetrics::FAMILIES,
    ConnectorOutputMetrics::FAMILIES,
    ConnectorOttlMetrics::FAMILIES,
    BatchMetrics::FAMILIES,
    MemoryLimiterMetrics::FAMILIES,
    MemoryLimiterPointsMetrics::FAMILIES,
    MemoryLimiterSpansMetrics::FAMILIES,
    SampledSpansMetrics::FAMILIES,
    FilteredLogsMetrics::FAMILIES,
    FilteredSpansMetrics::FAMILIES,
    FilteredPointsMetrics::FAMILIES,
    OttlMetrics::FAMILIES,
    SampledLogsMetrics::FAMILIES,
    ExporterMetrics::FAMILIES,
    ExporterPointsMetrics::FAMILIES,
    ExporterSpansMetrics::FAMILIES,
    PartialSuccessMetrics::FAMILIES,
    StoredQueueMetrics::FAMILIES,
    QueueLeftMetrics::FAMILIES,
    CertificateMetrics::FAMILIES,
    ControlPlaneMetrics::FAMILIES,
    ActivityMetrics::FAMILIES,
    SourcesMetrics::FAMILIES,
    QueueMetrics::FAMILIES,
    FilesMetrics::FAMILIES,
    LagMetrics::FAMILIES,
    CheckpointMetrics::FAMILIES,
    LabelBudgetMetrics::FAMILIES,
    EngineMetrics::FAMILIES,
    SelfLogMetrics::FAMILIES,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Exposition, Level, MetricsRegistry};
    use std::any::Any;

    /// Creates every group once.
    fn all(registry: &MetricsRegistry) -> Vec<Box<dyn Any>> {
        vec![
            Box::new(ReceiverMetrics::new(
                registry,
                "filelog",
                RECEIVER_TRANSPORT_FILE,
            )),
            Box::new(ReceiverPointMetrics::new(registry, "otlp", "grpc")),
            Box::new(ReceiverSpanMetrics::new(registry, "otlp", "http")),
            Box::new(ListenerMetrics::new(registry, "otlp", "grpc")),
            Box::new(MessageMetrics::new(registry, "syslog", "udp")),
            Box::new(JournalMetrics::new(registry, "journald")),
            Box::new(IntakeMetrics::new(registry, "otlp")),
            Box::new(ProcessorMetrics::new(registry, "batch", "logs")),
            Box::new(ConnectorMetrics::new(registry, "forward", "logs")),
            Box::new(ConnectorOutputMetrics::new(
                registry, "forward", "logs", "logs/b",
            )),
            Box::new(ConnectorOttlMetrics::new(registry, "routing", "logs")),
            Box::new(BatchMetrics::new(registry, "batch")),
            Box::new(FilteredLogsMetrics::new(registry, "filter")),
            Box::new(FilteredSpansMetrics::new(registry, "filter")),
            Box::new(FilteredPointsMetrics::new(registry, "filter")),
            Box::new(OttlMetrics::new(registry, "transform", "logs")),
            Box::new(MemoryLimiterMetrics::new(registry, "memory_limiter")),
            Box::new(MemoryLimiterPointsMetrics::new(registry, "memory_limiter")),
            Box::new(MemoryLimiterSpansMetrics::new(registry, "memory_limiter")),
            Box::new(SampledSpansMetrics::new(
                registry,
                "p",
                "trace_id_w3c",
                "true",
            )),
            Box::new(SampledLogsMetrics::new(
                registry,
                "p",
                "trace_id_w3c",
                "true",
            )),
            Box::new(ExporterMetrics::new(registry, "loki")),
            Box::new(ExporterPointsMetrics::new(registry, "otlp")),
            Box::new(ExporterSpansMetrics::new(registry, "otlp")),
            Box::new(PartialSuccessMetrics::new(registry, "otlp", "logs")),
            Box::new(StoredQueueMetrics::new(registry, "otlp", "logs")),
            Box::new(QueueLeftMetrics::new(registry, "otlp", "logs")),
            Box::new(CertificateMetrics::new(registry, "loki", "client")),
            Box::new(ControlPlaneMetrics::new(registry, "opamp")),
            Box::new(ActivityMetrics::new(registry, "push_config")),
            Box::new(SourcesMetrics::new(registry, "docker")),
            Box::new(QueueMetrics::new(registry, "loki", "logs")),
            Box::new(FilesMetrics::new(registry, "filelog")),
            Box::new(LagMetrics::new(registry, "filelog", "default")),
            Box::new(CheckpointMetrics::new(registry, "file_storage")),
            Box::new(LabelBudgetMetrics::new(registry, "loki")),
            Box::new(EngineMetrics::new(registry)),
            Box::new(SelfLogMetrics::new(registry)),
        ]
    }

    fn render(registry: &MetricsRegistry, level: Level) -> String {
        registry.set_exposition(Exposition {
            level,
            ..Exposition::default()
        });
        registry.render()
    }

    #[test]
    fn every_metric_of_every_group_is_shown_with_its_labels() {
        let registry = MetricsRegistry::default();
        let _handles = all(&registry);
        let text = render(&registry, Level::Detailed);
        for family in FAMILIES.iter().copied().flatten() {
            let help = format!("# HELP {} {}\n", family.name, family.help);
            assert!(text.contains(&help), "{help} is not in\n{text}");
        }
        for line in [
            "otelcol_processor_incoming_items{processor=\"batch\",otel_signal=\"logs\"} 0\n",
            "otelcol_exporter_queue_size{exporter=\"loki\",data_type=\"logs\"} 0\n",
            "otelcol_receiver_refused_log_records{receiver=\"filelog\",transport=\"file\"} 0\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn levels_hide_what_is_above_them() {
        let registry = MetricsRegistry::default();
        let _handles = all(&registry);
        let (bytes, size) = ("batch_send_size_bytes_count", "batch_send_size_count");
        let text = render(&registry, Level::Normal);
        assert!(!text.contains(bytes) && text.contains(size));
        let text = render(&registry, Level::Basic);
        assert!(!text.contains(size) && text.contains("otelcol_exporter_queue_size"));
        assert_eq!(render(&registry, Level::None), "");
    }
}
