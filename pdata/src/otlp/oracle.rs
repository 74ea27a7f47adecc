//! OTLP as `prost` structures, declared apart from the table that the product uses: what its
//! encoders and decoders are judged by.

use prost::{Message, Oneof};

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident { $($(#[$attr:meta])* $field:ident: $ty:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, PartialEq, Message)]
            #[allow(missing_docs)]
            pub struct $name { $($(#[$attr])* pub $field: $ty,)* }
        )*
    };
}

messages! {
    /// `ExportLogsServiceRequest`.
    Logs { #[prost(message, repeated, tag = "1")] resource_logs: Vec<ResourceLogs>, }
    /// `ResourceLogs`.
    ResourceLogs {
        #[prost(message, optional, tag = "1")] resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")] scope_logs: Vec<ScopeLogs>,
        #[prost(string, tag = "3")] schema_url: String,
    }
    /// `ScopeLogs`.
    ScopeLogs {
        #[prost(message, optional, tag = "1")] scope: Option<Scope>,
        #[prost(message, repeated, tag = "2")] log_records: Vec<LogRecord>,
        #[prost(string, tag = "3")] schema_url: String,
    }
    /// `LogRecord`.
    LogRecord {
        #[prost(fixed64, tag = "1")] time_unix_nano: u64,
        #[prost(fixed64, tag = "11")] observed_time_unix_nano: u64,
        #[prost(int32, tag = "2")] severity_number: i32,
        #[prost(string, tag = "3")] severity_text: String,
        #[prost(message, optional, tag = "5")] body: Option<AnyValue>,
        #[prost(message, repeated, tag = "6")] attributes: Vec<KeyValue>,
        #[prost(uint32, tag = "7")] dropped_attributes_count: u32,
        #[prost(fixed32, tag = "8")] flags: u32,
        #[prost(bytes = "vec", tag = "9")] trace_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "10")] span_id: Vec<u8>,
        #[prost(string, tag = "12")] event_name: String,
    }
    /// `Resource`.
    Resource {
        #[prost(message, repeated, tag = "1")] attributes: Vec<KeyValue>,
        #[prost(uint32, tag = "2")] dropped_attributes_count: u32,
        #[prost(message, repeated, tag = "3")] entity_refs: Vec<EntityRef>,
    }
    /// `EntityRef`.
    EntityRef {
        #[prost(string, tag = "1")] schema_url: String,
        #[prost(string, tag = "2")] r#type: String,
        #[prost(string, repeated, tag = "3")] id_keys: Vec<String>,
        #[prost(string, repeated, tag = "4")] description_keys: Vec<String>,
    }
    /// `InstrumentationScope`.
    Scope {
        #[prost(string, tag = "1")] name: String,
        #[prost(string, tag = "2")] version: String,
        #[prost(message, repeated, tag = "3")] attributes: Vec<KeyValue>,
        #[prost(uint32, tag = "4")] dropped_attributes_count: u32,
    }
    /// `KeyValue`.
    KeyValue {
        #[prost(string, tag = "1")] key: String,
        #[prost(message, optional, tag = "2")] value: Option<AnyValue>,
    }
    /// `AnyValue`.
    AnyValue { #[prost(oneof = "Any", tags = "1, 2, 3, 4, 5, 6, 7")] value: Option<Any>, }
    /// `ArrayValue`.
    ArrayValue { #[prost(message, repeated, tag = "1")] values: Vec<AnyValue>, }
    /// `KeyValueList`.
    KeyValueList { #[prost(message, repeated, tag = "1")] values: Vec<KeyValue>, }

    /// `ExportMetricsServiceRequest`.
    Metrics { #[prost(message, repeated, tag = "1")] resource_metrics: Vec<ResourceMetrics>, }
    /// `ResourceMetrics`.
    ResourceMetrics {
        #[prost(message, optional, tag = "1")] resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")] scope_metrics: Vec<ScopeMetrics>,
        #[prost(string, tag = "3")] schema_url: String,
    }
    /// `ScopeMetrics`.
    ScopeMetrics {
        #[prost(message, optional, tag = "1")] scope: Option<Scope>,
        #[prost(message, repeated, tag = "2")] metrics: Vec<Metric>,
        #[prost(string, tag = "3")] schema_url: String,
    }
    /// `Metric`.
    Metric {
        #[prost(string, tag = "1")] name: String,
        #[prost(string, tag = "2")] description: String,
        #[prost(string, tag = "3")] unit: String,
        #[prost(oneof = "Data", tags = "5, 7, 9, 10, 11")] data: Option<Data>,
        #[prost(message, repeated, tag = "12")] metadata: Vec<KeyValue>,
    }
    /// `Gauge`.
    Gauge { #[prost(message, repeated, tag = "1")] data_points: Vec<NumberPoint>, }
    /// `Sum`.
    Sum {
        #[prost(message, repeated, tag = "1")] data_points: Vec<NumberPoint>,
        #[prost(int32, tag = "2")] aggregation_temporality: i32,
        #[prost(bool, tag = "3")] is_monotonic: bool,
    }
    /// `Histogram`.
    Histogram {
        #[prost(message, repeated, tag = "1")] data_points: Vec<HistogramPoint>,
        #[prost(int32, tag = "2")] aggregation_temporality: i32,
    }
    /// `ExponentialHistogram`.
    ExponentialHistogram {
        #[prost(message, repeated, tag = "1")] data_points: Vec<ExponentialPoint>,
        #[prost(int32, tag = "2")] aggregation_temporality: i32,
    }
    /// `Summary`.
    Summary { #[prost(message, repeated, tag = "1")] data_points: Vec<SummaryPoint>, }
    /// `NumberDataPoint`.
    NumberPoint {
        #[prost(message, repeated, tag = "7")] attributes: Vec<KeyValue>,
        #[prost(fixed64, tag = "2")] start_time_unix_nano: u64,
        #[prost(fixed64, tag = "3")] time_unix_nano: u64,
        #[prost(message, repeated, tag = "5")] exemplars: Vec<Exemplar>,
        #[prost(uint32, tag = "8")] flags: u32,
        #[prost(oneof = "Number", tags = "4, 6")] value: Option<Number>,
    }
    /// `HistogramDataPoint`.
    HistogramPoint {
        #[prost(message, repeated, tag = "9")] attributes: Vec<KeyValue>,
        #[prost(fixed64, tag = "2")] start_time_unix_nano: u64,
        #[prost(fixed64, tag = "3")] time_unix_nano: u64,
        #[prost(fixed64, tag = "4")] count: u64,
        #[prost(double, optional, tag = "5")] sum: Option<f64>,
        #[prost(fixed64, repeated, tag = "6")] bucket_counts: Vec<u64>,
        #[prost(double, repeated, tag = "7")] explicit_bounds: Vec<f64>,
        #[prost(message, repeated, tag = "8")] exemplars: Vec<Exemplar>,
        #[prost(uint32, tag = "10")] flags: u32,
        #[prost(double, optional, tag = "11")] min: Option<f64>,
        #[prost(double, optional, tag = "12")] max: Option<f64>,
    }
    /// `ExponentialHistogramDataPoint`.
    ExponentialPoint {
        #[prost(message, repeated, tag = "1")] attributes: Vec<KeyValue>,
        #[prost(fixed64, tag = "2")] start_time_unix_nano: u64,
        #[prost(fixed64, tag = "3")] time_unix_nano: u64,
        #[prost(fixed64, tag = "4")] count: u64,
        #[prost(double, optional, tag = "5")] sum: Option<f64>,
        #[prost(sint32, tag = "6")] scale: i32,
        #[prost(fixed64, tag = "7")] zero_count: u64,
        #[prost(message, optional, tag = "8")] positive: Option<Buckets>,
        #[prost(message, optional, tag = "9")] negative: Option<Buckets>,
        #[prost(uint32, tag = "10")] flags: u32,
        #[prost(message, repeated, tag = "11")] exemplars: Vec<Exemplar>,
        #[prost(double, optional, tag = "12")] min: Option<f64>,
        #[prost(double, optional, tag = "13")] max: Option<f64>,
        #[prost(double, tag = "14")] zero_threshold: f64,
    }
    /// `ExponentialHistogramDataPoint.Buckets`.
    Buckets {
        #[prost(sint32, tag = "1")] offset: i32,
        #[prost(uint64, repeated, tag = "2")] bucket_counts: Vec<u64>,
    }
    /// `SummaryDataPoint`.
    SummaryPoint {
        #[prost(message, repeated, tag = "7")] attributes: Vec<KeyValue>,
        #[prost(fixed64, tag = "2")] start_time_unix_nano: u64,
        #[prost(fixed64, tag = "3")] time_unix_nano: u64,
        #[prost(fixed64, tag = "4")] count: u64,
        #[prost(double, tag = "5")] sum: f64,
        #[prost(message, repeated, tag = "6")] quantile_values: Vec<Quantile>,
        #[prost(uint32, tag = "8")] flags: u32,
    }
    /// `SummaryDataPoint.ValueAtQuantile`.
    Quantile {
        #[prost(double, tag = "1")] quantile: f64,
        #[prost(double, tag = "2")] value: f64,
    }
    /// `Exemplar`.
    Exemplar {
        #[prost(message, repeated, tag = "7")] filtered_attributes: Vec<KeyValue>,
        #[prost(fixed64, tag = "2")] time_unix_nano: u64,
        #[prost(bytes = "vec", tag = "4")] span_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "5")] trace_id: Vec<u8>,
        #[prost(oneof = "Example", tags = "3, 6")] value: Option<Example>,
    }

    /// `ExportTraceServiceRequest`.
    Traces { #[prost(message, repeated, tag = "1")] resource_spans: Vec<ResourceSpans>, }
    /// `ResourceSpans`.
    ResourceSpans {
        #[prost(message, optional, tag = "1")] resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")] scope_spans: Vec<ScopeSpans>,
        #[prost(string, tag = "3")] schema_url: String,
    }
    /// `ScopeSpans`.
    ScopeSpans {
        #[prost(message, optional, tag = "1")] scope: Option<Scope>,
        #[prost(message, repeated, tag = "2")] spans: Vec<Span>,
        #[prost(string, tag = "3")] schema_url: String,
    }
    /// `Span`.
    Span {
        #[prost(bytes = "vec", tag = "1")] trace_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")] span_id: Vec<u8>,
        #[prost(string, tag = "3")] trace_state: String,
        #[prost(bytes = "vec", tag = "4")] parent_span_id: Vec<u8>,
        #[prost(fixed32, tag = "16")] flags: u32,
        #[prost(string, tag = "5")] name: String,
        #[prost(int32, tag = "6")] kind: i32,
        #[prost(fixed64, tag = "7")] start_time_unix_nano: u64,
        #[prost(fixed64, tag = "8")] end_time_unix_nano: u64,
        #[prost(message, repeated, tag = "9")] attributes: Vec<KeyValue>,
        #[prost(uint32, tag = "10")] dropped_attributes_count: u32,
        #[prost(message, repeated, tag = "11")] events: Vec<Event>,
        #[prost(uint32, tag = "12")] dropped_events_count: u32,
        #[prost(message, repeated, tag = "13")] links: Vec<Link>,
        #[prost(uint32, tag = "14")] dropped_links_count: u32,
        #[prost(message, optional, tag = "15")] status: Option<Status>,
    }
    /// `Span.Event`.
    Event {
        #[prost(fixed64, tag = "1")] time_unix_nano: u64,
        #[prost(string, tag = "2")] name: String,
        #[prost(message, repeated, tag = "3")] attributes: Vec<KeyValue>,
        #[prost(uint32, tag = "4")] dropped_attributes_count: u32,
    }
    /// `Span.Link`.
    Link {
        #[prost(bytes = "vec", tag = "1")] trace_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")] span_id: Vec<u8>,
        #[prost(string, tag = "3")] trace_state: String,
        #[prost(message, repeated, tag = "4")] attributes: Vec<KeyValue>,
        #[prost(uint32, tag = "5")] dropped_attributes_count: u32,
        #[prost(fixed32, tag = "6")] flags: u32,
    }
    /// `Status`.
    Status {
        #[prost(string, tag = "2")] message: String,
        #[prost(int32, tag = "3")] code: i32,
    }
}

/// The value of an `AnyValue`.
#[derive(Clone, PartialEq, Oneof)]
#[allow(missing_docs)]
pub enum Any {
    #[prost(string, tag = "1")]
    String(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(int64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    Array(ArrayValue),
    #[prost(message, tag = "6")]
    Map(KeyValueList),
    #[prost(bytes = "vec", tag = "7")]
    Bytes(Vec<u8>),
}

/// The data of a `Metric`.
#[derive(Clone, PartialEq, Oneof)]
#[allow(missing_docs)]
pub enum Data {
    #[prost(message, tag = "5")]
    Gauge(Gauge),
    #[prost(message, tag = "7")]
    Sum(Sum),
    #[prost(message, tag = "9")]
    Histogram(Histogram),
    #[prost(message, tag = "10")]
    Exponential(ExponentialHistogram),
    #[prost(message, tag = "11")]
    Summary(Summary),
}

/// The value of a `NumberDataPoint`.
#[derive(Clone, Copy, PartialEq, Oneof)]
#[allow(missing_docs)]
pub enum Number {
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(sfixed64, tag = "6")]
    Int(i64),
}

/// The value of an `Exemplar`.
#[derive(Clone, Copy, PartialEq, Oneof)]
#[allow(missing_docs)]
pub enum Example {
    #[prost(double, tag = "3")]
    Double(f64),
    #[prost(sfixed64, tag = "6")]
    Int(i64),
}

impl Logs {
    /// Log records.
    pub fn items(&self) -> usize {
        let scopes = self.resource_logs.iter().flat_map(|r| &r.scope_logs);
        scopes.map(|s| s.log_records.len()).sum()
    }
}

impl Traces {
    /// Spans.
    pub fn items(&self) -> usize {
        let scopes = self.resource_spans.iter().flat_map(|r| &r.scope_spans);
        scopes.map(|s| s.spans.len()).sum()
    }
}

impl Metrics {
    /// Data points.
    pub fn items(&self) -> usize {
        let scopes = self.resource_metrics.iter().flat_map(|r| &r.scope_metrics);
        let metrics = scopes.flat_map(|s| &s.metrics);
        let points = metrics.filter_map(|m| m.data.as_ref()).map(|d| match d {
            Data::Gauge(g) => g.data_points.len(),
            Data::Sum(s) => s.data_points.len(),
            Data::Histogram(h) => h.data_points.len(),
            Data::Exponential(e) => e.data_points.len(),
            Data::Summary(s) => s.data_points.len(),
        });
        points.sum()
    }
}
