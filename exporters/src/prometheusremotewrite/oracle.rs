//! Metrics of OTLP and both messages of remote write as `prost` structures: what tests make requests of,
//! and what encoders are judged by.

use prost::{Message, Oneof};

macro_rules! messages {
    ($($name:ident { $($(#[$attr:meta])* $field:ident: $ty:ty,)* })*) => {
        $(
            #[derive(Clone, PartialEq, Message)]
            pub struct $name { $($(#[$attr])* pub $field: $ty,)* }
        )*
    };
}

/// `opentelemetry.proto.metrics.v1`, as far as tests need it.
pub mod otlp {
    use super::*;

    messages! {
        Request { #[prost(message, repeated, tag = "1")] resource_metrics: Vec<ResourceMetrics>, }
        ResourceMetrics {
            #[prost(message, optional, tag = "1")] resource: Option<Resource>,
            #[prost(message, repeated, tag = "2")] scope_metrics: Vec<ScopeMetrics>,
        }
        Resource { #[prost(message, repeated, tag = "1")] attributes: Vec<KeyValue>, }
        KeyValue {
            #[prost(string, tag = "1")] key: String,
            #[prost(message, optional, tag = "2")] value: Option<AnyValue>,
        }
        AnyValue { #[prost(oneof = "Any", tags = "1, 2, 3, 4, 5")] value: Option<Any>, }
        ArrayValue { #[prost(message, repeated, tag = "1")] values: Vec<AnyValue>, }
        ScopeMetrics {
            #[prost(message, optional, tag = "1")] scope: Option<Scope>,
            #[prost(message, repeated, tag = "2")] metrics: Vec<Metric>,
            #[prost(string, tag = "3")] schema_url: String,
        }
        Scope {
            #[prost(string, tag = "1")] name: String,
            #[prost(string, tag = "2")] version: String,
            #[prost(message, repeated, tag = "3")] attributes: Vec<KeyValue>,
        }
        Metric {
            #[prost(string, tag = "1")] name: String,
            #[prost(string, tag = "2")] description: String,
            #[prost(string, tag = "3")] unit: String,
            #[prost(oneof = "Data", tags = "5, 7, 9, 10, 11")] data: Option<Data>,
        }
        Gauge { #[prost(message, repeated, tag = "1")] data_points: Vec<NumberPoint>, }
        Sum {
            #[prost(message, repeated, tag = "1")] data_points: Vec<NumberPoint>,
            #[prost(int32, tag = "2")] aggregation_temporality: i32,
            #[prost(bool, tag = "3")] is_monotonic: bool,
        }
        Histogram {
            #[prost(message, repeated, tag = "1")] data_points: Vec<HistogramPoint>,
            #[prost(int32, tag = "2")] aggregation_temporality: i32,
        }
        Exponential {
            #[prost(message, repeated, tag = "1")] data_points: Vec<ExponentialPoint>,
            #[prost(int32, tag = "2")] aggregation_temporality: i32,
        }
        Summary { #[prost(message, repeated, tag = "1")] data_points: Vec<SummaryPoint>, }
        NumberPoint {
            #[prost(message, repeated, tag = "7")] attributes: Vec<KeyValue>,
            #[prost(fixed64, tag = "2")] start_time_unix_nano: u64,
            #[prost(fixed64, tag = "3")] time_unix_nano: u64,
            #[prost(message, repeated, tag = "5")] exemplars: Vec<Exemplar>,
            #[prost(uint32, tag = "8")] flags: u32,
            #[prost(oneof = "Number", tags = "4, 6")] value: Option<Number>,
        }
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
        }
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
            #[prost(double, tag = "14")] zero_threshold: f64,
        }
        Buckets {
            #[prost(sint32, tag = "1")] offset: i32,
            #[prost(uint64, repeated, tag = "2")] bucket_counts: Vec<u64>,
        }
        SummaryPoint {
            #[prost(message, repeated, tag = "7")] attributes: Vec<KeyValue>,
            #[prost(fixed64, tag = "2")] start_time_unix_nano: u64,
            #[prost(fixed64, tag = "3")] time_unix_nano: u64,
            #[prost(fixed64, tag = "4")] count: u64,
            #[prost(double, tag = "5")] sum: f64,
            #[prost(message, repeated, tag = "6")] quantile_values: Vec<Quantile>,
            #[prost(uint32, tag = "8")] flags: u32,
        }
        Quantile {
            #[prost(double, tag = "1")] quantile: f64,
            #[prost(double, tag = "2")] value: f64,
        }
        Exemplar {
            #[prost(message, repeated, tag = "7")] filtered_attributes: Vec<KeyValue>,
            #[prost(fixed64, tag = "2")] time_unix_nano: u64,
            #[prost(bytes = "vec", tag = "4")] span_id: Vec<u8>,
            #[prost(bytes = "vec", tag = "5")] trace_id: Vec<u8>,
            #[prost(oneof = "Example", tags = "3, 6")] value: Option<Example>,
        }
    }

    #[derive(Clone, PartialEq, Oneof)]
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
    }

    #[derive(Clone, PartialEq, Oneof)]
    pub enum Data {
        #[prost(message, tag = "5")]
        Gauge(Gauge),
        #[prost(message, tag = "7")]
        Sum(Sum),
        #[prost(message, tag = "9")]
        Histogram(Histogram),
        #[prost(message, tag = "10")]
        Exponential(Exponential),
        #[prost(message, tag = "11")]
        Summary(Summary),
    }

    #[derive(Clone, Copy, PartialEq, Oneof)]
    pub enum Number {
        #[prost(double, tag = "4")]
        Double(f64),
        #[prost(sfixed64, tag = "6")]
        Int(i64),
    }

    #[derive(Clone, Copy, PartialEq, Oneof)]
    pub enum Example {
        #[prost(double, tag = "3")]
        Double(f64),
        #[prost(sfixed64, tag = "6")]
        Int(i64),
    }
}

messages! {
    WriteRequest {
        #[prost(message, repeated, tag = "1")] timeseries: Vec<TimeSeries>,
        #[prost(message, repeated, tag = "3")] metadata: Vec<MetricMetadata>,
    }
    TimeSeries {
        #[prost(message, repeated, tag = "1")] labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")] samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")] exemplars: Vec<Exemplar>,
        #[prost(message, repeated, tag = "4")] histograms: Vec<Histogram>,
    }
    Label {
        #[prost(string, tag = "1")] name: String,
        #[prost(string, tag = "2")] value: String,
    }
    Sample {
        #[prost(double, tag = "1")] value: f64,
        #[prost(int64, tag = "2")] timestamp: i64,
        #[prost(int64, tag = "3")] start_timestamp: i64,
    }
    Exemplar {
        #[prost(message, repeated, tag = "1")] labels: Vec<Label>,
        #[prost(double, tag = "2")] value: f64,
        #[prost(int64, tag = "3")] timestamp: i64,
    }
    MetricMetadata {
        #[prost(int32, tag = "1")] r#type: i32,
        #[prost(string, tag = "2")] metric_family_name: String,
        #[prost(string, tag = "4")] help: String,
        #[prost(string, tag = "5")] unit: String,
    }
    Histogram {
        #[prost(uint64, tag = "1")] count: u64,
        #[prost(double, tag = "3")] sum: f64,
        #[prost(sint32, tag = "4")] schema: i32,
        #[prost(double, tag = "5")] zero_threshold: f64,
        #[prost(uint64, tag = "6")] zero_count: u64,
        #[prost(message, repeated, tag = "8")] negative_spans: Vec<Span>,
        #[prost(sint64, repeated, tag = "9")] negative_deltas: Vec<i64>,
        #[prost(message, repeated, tag = "11")] positive_spans: Vec<Span>,
        #[prost(sint64, repeated, tag = "12")] positive_deltas: Vec<i64>,
        #[prost(int64, tag = "15")] timestamp: i64,
        #[prost(int64, tag = "17")] start_timestamp: i64,
    }
    Span {
        #[prost(sint32, tag = "1")] offset: i32,
        #[prost(uint32, tag = "2")] length: u32,
    }
    RequestV2 {
        #[prost(string, repeated, tag = "4")] symbols: Vec<String>,
        #[prost(message, repeated, tag = "5")] timeseries: Vec<TimeSeriesV2>,
    }
    TimeSeriesV2 {
        #[prost(uint32, repeated, tag = "1")] labels_refs: Vec<u32>,
        #[prost(message, repeated, tag = "2")] samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")] histograms: Vec<Histogram>,
        #[prost(message, repeated, tag = "4")] exemplars: Vec<ExemplarV2>,
        #[prost(message, optional, tag = "5")] metadata: Option<MetadataV2>,
    }
    ExemplarV2 {
        #[prost(uint32, repeated, tag = "1")] labels_refs: Vec<u32>,
        #[prost(double, tag = "2")] value: f64,
        #[prost(int64, tag = "3")] timestamp: i64,
    }
    MetadataV2 {
        #[prost(int32, tag = "1")] r#type: i32,
        #[prost(uint32, tag = "3")] help_ref: u32,
        #[prost(uint32, tag = "4")] unit_ref: u32,
    }
}

/// A series as one line of text: labels, then values with their times.
pub fn shown(series: &TimeSeries) -> String {
    let labels = |labels: &[Label]| {
        let pair = |l: &Label| format!("{}={}", l.name, l.value);
        labels.iter().map(pair).collect::<Vec<_>>().join(",")
    };
    let mut text = format!("{{{}}}", labels(&series.labels));
    let start = |start: i64| match start {
        0 => String::new(),
        start => format!("^{start}"),
    };
    for s in &series.samples {
        let value = match s.value.to_bits() {
            0x7ff0_0000_0000_0002 => "stale".into(),
            _ => s.value.to_string(),
        };
        text += &format!(" {value}@{}{}", s.timestamp, start(s.start_timestamp));
    }
    for h in &series.histograms {
        let spans = |spans: &[Span]| -> Vec<(i32, u32)> {
            spans.iter().map(|s| (s.offset, s.length)).collect()
        };
        let sum = match h.sum.to_bits() {
            0x7ff0_0000_0000_0002 => "stale".into(),
            _ => h.sum.to_string(),
        };
        text += &format!(
            " n{} sum {sum} schema {} zero {}<{:e} + {:?} {:?} - {:?} {:?} @{}{}",
            h.count,
            h.schema,
            h.zero_count,
            h.zero_threshold,
            spans(&h.positive_spans),
            h.positive_deltas,
            spans(&h.negative_spans),
            h.negative_deltas,
            h.timestamp,
            start(h.start_timestamp),
        );
    }
    for e in &series.exemplars {
        text += &format!(" #{{{}}} {}@{}", labels(&e.labels), e.value, e.timestamp);
    }
    text
}

/// A request of version 2 as one of version 1, with what only version 2 has left in it.
pub fn as_v1(request: &RequestV2) -> WriteRequest {
    let text = |i: u32| request.symbols[i as usize].clone();
    let labels = |refs: &[u32]| -> Vec<Label> {
        let pair = |p: &[u32]| Label {
            name: text(p[0]),
            value: text(p[1]),
        };
        refs.chunks_exact(2).map(pair).collect()
    };
    let series = |s: &TimeSeriesV2| TimeSeries {
        labels: labels(&s.labels_refs),
        samples: s.samples.clone(),
        histograms: s.histograms.clone(),
        exemplars: s
            .exemplars
            .iter()
            .map(|e| Exemplar {
                labels: labels(&e.labels_refs),
                value: e.value,
                timestamp: e.timestamp,
            })
            .collect(),
    };
    let metadata = |s: &TimeSeriesV2| {
        let m = s.metadata.clone().unwrap_or_default();
        let name = labels(&s.labels_refs)
            .into_iter()
            .find(|l| l.name == "__name__");
        MetricMetadata {
            r#type: m.r#type,
            metric_family_name: name.unwrap_or_default().value,
            help: text(m.help_ref),
            unit: text(m.unit_ref),
        }
    };
    WriteRequest {
        timeseries: request.timeseries.iter().map(series).collect(),
        metadata: request.timeseries.iter().map(metadata).collect(),
    }
}
