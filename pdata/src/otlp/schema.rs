//! The messages of OTLP as data: which fields there are, how they are written, how they nest.
//!
//! From `opentelemetry/proto/{common,resource,logs,metrics,trace}/v1` and the three
//! `collector/*/v1` requests, as of release 1.9. Profiles are not here. Fields of a message stand in
//! the order of the `.proto` files, which is the order of JSON.

use crate::Signal;

/// How a value is written, and what it means.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// `uint32`.
    Uint32,
    /// `uint64`.
    Uint64,
    /// `int64`.
    Int64,
    /// `sint32`: zigzag.
    Sint32,
    /// `bool`.
    Bool,
    /// An enumeration: a number, and its names for JSON.
    Enum(&'static Names),
    /// `fixed32`.
    Fixed32,
    /// `fixed64`.
    Fixed64,
    /// `sfixed64`.
    Sfixed64,
    /// `double`.
    Double,
    /// `string`: UTF-8.
    Str,
    /// `bytes`: base64 in JSON.
    Bytes,
    /// `bytes` of a trace or span id: hexadecimal in JSON.
    Id,
    /// Another message.
    Message(&'static Message, Sort),
}

/// Which message, as far as the walker tells them apart before it goes into one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sort {
    /// A `KeyValue`.
    Pair,
    /// An `AnyValue`.
    Value,
    /// Any other.
    Other,
}

/// Names and numbers of an enumeration.
#[derive(Debug)]
pub(super) struct Names {
    /// What every name begins with.
    pub prefix: &'static str,
    /// The rest of each name; its place is its number.
    pub rest: &'static [&'static str],
}

/// How often a field may come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Count {
    /// Once; the default value is the same as none.
    One,
    /// Once; the default value is a value (`optional`).
    Optional,
    /// At most one of the fields of the message that are marked like this.
    OneOf,
    /// Any number of times.
    Many,
}

/// Wire types of protobuf.
pub(super) const VARINT: u8 = 0;
/// Eight bytes, little endian.
pub(super) const I64: u8 = 1;
/// A length, and so many bytes.
pub(super) const LEN: u8 = 2;
/// Four bytes, little endian.
pub(super) const I32: u8 = 5;

/// A field of a message.
#[derive(Debug)]
pub(super) struct Field {
    /// Its name in the `.proto` file.
    pub name: &'static str,
    /// Its name in JSON.
    pub json: &'static str,
    /// Its number.
    pub number: u32,
    /// What it holds.
    pub kind: Kind,
    /// How often.
    pub count: Count,
}

impl Field {
    /// The wire type of one value.
    pub const fn wire(&self) -> u8 {
        match self.kind {
            Kind::Uint32 | Kind::Uint64 | Kind::Int64 | Kind::Sint32 => VARINT,
            Kind::Bool | Kind::Enum(_) => VARINT,
            Kind::Fixed32 => I32,
            Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => I64,
            Kind::Str | Kind::Bytes | Kind::Id | Kind::Message(..) => LEN,
        }
    }
}

/// What the walker counts when it enters a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// A log record, data point or span.
    Item,
    /// A metric: what its kinds of data hold counts only for the last kind given.
    Metric,
    /// What belongs to a resource or a scope; the request itself.
    Scope,
    /// One kind of data of a metric.
    Data,
    /// A key and its value.
    Attribute,
    /// Anything else.
    Other,
}

/// What the walker does about a field, by the first byte of its tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Reads the number.
    Varint,
    /// Passes four bytes.
    Four,
    /// Passes eight bytes.
    Eight,
    /// Passes so many bytes as it says.
    Bytes,
    /// Passes numbers of eight bytes, side by side.
    Packed,
    /// Looks whether it is UTF-8.
    Text,
    /// Looks at a key and its value.
    Pair,
    /// Looks at a value.
    Value,
    /// Passes four bytes if the rest of the tag says that this is field 16.
    FarFour,
    /// Nothing without thinking: it is unknown, has an unusual wire type, or is a message to go into.
    Think,
}

impl Step {
    const fn of(kind: Kind) -> Step {
        match kind {
            Kind::Uint32 | Kind::Uint64 | Kind::Int64 | Kind::Sint32 => Step::Varint,
            Kind::Bool | Kind::Enum(_) => Step::Varint,
            Kind::Fixed32 => Step::Four,
            Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => Step::Eight,
            Kind::Str => Step::Text,
            Kind::Bytes | Kind::Id => Step::Bytes,
            Kind::Message(_, Sort::Pair) => Step::Pair,
            Kind::Message(_, Sort::Value) => Step::Value,
            Kind::Message(_, Sort::Other) => Step::Think,
        }
    }
}

/// Field numbers below this are found by index.
const NUMBERS: usize = 17;
/// No field has this number.
const NONE: u8 = u8::MAX;

/// A message.
#[derive(Debug)]
pub(super) struct Message {
    /// Its fields.
    pub fields: &'static [Field],
    /// What it counts as.
    pub role: Role,
    by_number: [u8; NUMBERS],
    /// The same by tags of one byte, those that are a number and the wire type of its values.
    by_tag: [u8; 128],
    /// What is done about fields, by the same tags, those of packed numbers and the first byte of longer ones.
    steps: [Step; 256],
}

impl Message {
    const fn new(fields: &'static [Field]) -> Message {
        Message::with_role(Role::Other, fields)
    }

    const fn with_role(role: Role, fields: &'static [Field]) -> Message {
        let mut by_number = [NONE; NUMBERS];
        let mut by_tag = [NONE; 128];
        let mut steps = [Step::Think; 256];
        let mut i = 0;
        while i < fields.len() {
            let number = fields[i].number as usize;
            by_number[number] = i as u8;
            if number < 16 {
                let tag = number << 3 | fields[i].wire() as usize;
                by_tag[tag] = i as u8;
                steps[tag] = Step::of(fields[i].kind);
                if matches!(fields[i].count, Count::Many) && fields[i].wire() == I64 {
                    steps[number << 3 | LEN as usize] = Step::Packed;
                }
            } else if number == 16 && fields[i].wire() == I32 {
                // The only one of two bytes that comes with each item: it ends in 1.
                steps[0x80 | I32 as usize] = Step::FarFour;
            }
            i += 1;
        }
        Message {
            fields,
            role,
            by_number,
            by_tag,
            steps,
        }
    }

    /// What is done about a field whose tag begins with this byte.
    #[inline]
    pub fn step(&self, tag: u8) -> Step {
        self.steps[usize::from(tag)]
    }

    /// The field that a tag of one byte names, if it is known and has values of that wire type.
    #[inline]
    pub fn tagged(&'static self, tag: u8) -> Option<&'static Field> {
        self.fields
            .get(usize::from(*self.by_tag.get(usize::from(tag))?))
    }

    /// The position of field `number` in [`Self::fields`], if it is known.
    #[inline]
    pub fn position(&self, number: u32) -> Option<usize> {
        match self.by_number.get(number as usize) {
            Some(&i) if i != NONE => Some(i as usize),
            _ => None,
        }
    }

    /// The message in field `number`, if items are there or below.
    #[inline]
    pub fn towards_items(&'static self, number: u32) -> Option<&'static Message> {
        match self.field(number)?.kind {
            Kind::Message(m, _) if !matches!(m.role, Role::Attribute | Role::Other) => Some(m),
            _ => None,
        }
    }

    /// The field `number`, if it is known.
    #[inline]
    pub fn field(&'static self, number: u32) -> Option<&'static Field> {
        self.fields.get(self.position(number)?)
    }
}

/// The request of a signal.
pub(super) fn request(signal: Signal) -> &'static Message {
    match signal {
        Signal::Logs => &LOGS,
        Signal::Metrics => &METRICS,
        Signal::Traces => &TRACES,
    }
}

macro_rules! field {
    ($number:literal $name:literal $json:literal $kind:expr, $count:ident) => {
        Field {
            name: $name,
            json: $json,
            number: $number,
            kind: $kind,
            count: Count::$count,
        }
    };
}

macro_rules! message {
    ($(#[$doc:meta])* $id:ident, $role:ident:
     $($number:literal $name:literal $json:literal $kind:expr, $count:ident;)*) => {
        $(#[$doc])*
        pub(super) static $id: Message = Message::with_role(
            Role::$role,
            &[$(field!($number $name $json $kind, $count)),*],
        );
    };
    ($(#[$doc:meta])* $id:ident: $($number:literal $name:literal $json:literal $kind:expr, $count:ident;)*) => {
        $(#[$doc])*
        pub(super) static $id: Message = Message::new(
            &[$(field!($number $name $json $kind, $count)),*],
        );
    };
}

use Kind::{
    Bool, Bytes, Double, Enum, Fixed32, Fixed64, Id, Int64, Sfixed64, Sint32, Str, Uint32, Uint64,
};

const fn sub(message: &'static Message) -> Kind {
    Kind::Message(message, Sort::Other)
}
const fn pair(message: &'static Message) -> Kind {
    Kind::Message(message, Sort::Pair)
}
const fn value(message: &'static Message) -> Kind {
    Kind::Message(message, Sort::Value)
}

message! { /// `ExportLogsServiceRequest`.
LOGS, Scope:
    1 "resource_logs" "resourceLogs" sub(&RESOURCE_LOGS), Many;
}
message! { /// `ResourceLogs`.
RESOURCE_LOGS, Scope:
    1 "resource" "resource" sub(&RESOURCE), One;
    2 "scope_logs" "scopeLogs" sub(&SCOPE_LOGS), Many;
    3 "schema_url" "schemaUrl" Str, One;
}
message! { /// `ScopeLogs`.
SCOPE_LOGS, Scope:
    1 "scope" "scope" sub(&SCOPE), One;
    2 "log_records" "logRecords" sub(&LOG_RECORD), Many;
    3 "schema_url" "schemaUrl" Str, One;
}
message! { /// `LogRecord`.
LOG_RECORD, Item:
    1 "time_unix_nano" "timeUnixNano" Fixed64, One;
    11 "observed_time_unix_nano" "observedTimeUnixNano" Fixed64, One;
    2 "severity_number" "severityNumber" Enum(&SEVERITY), One;
    3 "severity_text" "severityText" Str, One;
    5 "body" "body" value(&ANY_VALUE), One;
    6 "attributes" "attributes" pair(&KEY_VALUE), Many;
    7 "dropped_attributes_count" "droppedAttributesCount" Uint32, One;
    8 "flags" "flags" Fixed32, One;
    9 "trace_id" "traceId" Id, One;
    10 "span_id" "spanId" Id, One;
    12 "event_name" "eventName" Str, One;
}

message! { /// `Resource`.
RESOURCE:
    1 "attributes" "attributes" pair(&KEY_VALUE), Many;
    2 "dropped_attributes_count" "droppedAttributesCount" Uint32, One;
    3 "entity_refs" "entityRefs" sub(&ENTITY_REF), Many;
}
message! { /// `EntityRef`.
ENTITY_REF:
    1 "schema_url" "schemaUrl" Str, One;
    2 "type" "type" Str, One;
    3 "id_keys" "idKeys" Str, Many;
    4 "description_keys" "descriptionKeys" Str, Many;
}
message! { /// `InstrumentationScope`.
SCOPE:
    1 "name" "name" Str, One;
    2 "version" "version" Str, One;
    3 "attributes" "attributes" pair(&KEY_VALUE), Many;
    4 "dropped_attributes_count" "droppedAttributesCount" Uint32, One;
}
message! { /// `KeyValue`.
KEY_VALUE, Attribute:
    1 "key" "key" Str, One;
    2 "value" "value" value(&ANY_VALUE), One;
}
message! { /// `AnyValue`.
ANY_VALUE:
    1 "string_value" "stringValue" Str, OneOf;
    2 "bool_value" "boolValue" Bool, OneOf;
    3 "int_value" "intValue" Int64, OneOf;
    4 "double_value" "doubleValue" Double, OneOf;
    5 "array_value" "arrayValue" sub(&ARRAY_VALUE), OneOf;
    6 "kvlist_value" "kvlistValue" sub(&KEY_VALUE_LIST), OneOf;
    7 "bytes_value" "bytesValue" Bytes, OneOf;
}
message! { /// `ArrayValue`.
ARRAY_VALUE:
    1 "values" "values" value(&ANY_VALUE), Many;
}
message! { /// `KeyValueList`.
KEY_VALUE_LIST:
    1 "values" "values" pair(&KEY_VALUE), Many;
}

message! { /// `ExportMetricsServiceRequest`.
METRICS, Scope:
    1 "resource_metrics" "resourceMetrics" sub(&RESOURCE_METRICS), Many;
}
message! { /// `ResourceMetrics`.
RESOURCE_METRICS, Scope:
    1 "resource" "resource" sub(&RESOURCE), One;
    2 "scope_metrics" "scopeMetrics" sub(&SCOPE_METRICS), Many;
    3 "schema_url" "schemaUrl" Str, One;
}
message! { /// `ScopeMetrics`.
SCOPE_METRICS, Scope:
    1 "scope" "scope" sub(&SCOPE), One;
    2 "metrics" "metrics" sub(&METRIC), Many;
    3 "schema_url" "schemaUrl" Str, One;
}
message! { /// `Metric`.
METRIC, Metric:
    1 "name" "name" Str, One;
    2 "description" "description" Str, One;
    3 "unit" "unit" Str, One;
    5 "gauge" "gauge" sub(&GAUGE), OneOf;
    7 "sum" "sum" sub(&SUM), OneOf;
    9 "histogram" "histogram" sub(&HISTOGRAM), OneOf;
    10 "exponential_histogram" "exponentialHistogram" sub(&EXPONENTIAL_HISTOGRAM), OneOf;
    11 "summary" "summary" sub(&SUMMARY), OneOf;
    12 "metadata" "metadata" pair(&KEY_VALUE), Many;
}
message! { /// `Gauge`.
GAUGE, Data:
    1 "data_points" "dataPoints" sub(&NUMBER_POINT), Many;
}
message! { /// `Sum`.
SUM, Data:
    1 "data_points" "dataPoints" sub(&NUMBER_POINT), Many;
    2 "aggregation_temporality" "aggregationTemporality" Enum(&TEMPORALITY), One;
    3 "is_monotonic" "isMonotonic" Bool, One;
}
message! { /// `Histogram`.
HISTOGRAM, Data:
    1 "data_points" "dataPoints" sub(&HISTOGRAM_POINT), Many;
    2 "aggregation_temporality" "aggregationTemporality" Enum(&TEMPORALITY), One;
}
message! { /// `ExponentialHistogram`.
EXPONENTIAL_HISTOGRAM, Data:
    1 "data_points" "dataPoints" sub(&EXPONENTIAL_POINT), Many;
    2 "aggregation_temporality" "aggregationTemporality" Enum(&TEMPORALITY), One;
}
message! { /// `Summary`.
SUMMARY, Data:
    1 "data_points" "dataPoints" sub(&SUMMARY_POINT), Many;
}
message! { /// `NumberDataPoint`.
NUMBER_POINT, Item:
    7 "attributes" "attributes" pair(&KEY_VALUE), Many;
    2 "start_time_unix_nano" "startTimeUnixNano" Fixed64, One;
    3 "time_unix_nano" "timeUnixNano" Fixed64, One;
    4 "as_double" "asDouble" Double, OneOf;
    6 "as_int" "asInt" Sfixed64, OneOf;
    5 "exemplars" "exemplars" sub(&EXEMPLAR), Many;
    8 "flags" "flags" Uint32, One;
}
message! { /// `HistogramDataPoint`.
HISTOGRAM_POINT, Item:
    9 "attributes" "attributes" pair(&KEY_VALUE), Many;
    2 "start_time_unix_nano" "startTimeUnixNano" Fixed64, One;
    3 "time_unix_nano" "timeUnixNano" Fixed64, One;
    4 "count" "count" Fixed64, One;
    5 "sum" "sum" Double, Optional;
    6 "bucket_counts" "bucketCounts" Fixed64, Many;
    7 "explicit_bounds" "explicitBounds" Double, Many;
    8 "exemplars" "exemplars" sub(&EXEMPLAR), Many;
    10 "flags" "flags" Uint32, One;
    11 "min" "min" Double, Optional;
    12 "max" "max" Double, Optional;
}
message! { /// `ExponentialHistogramDataPoint`.
EXPONENTIAL_POINT, Item:
    1 "attributes" "attributes" pair(&KEY_VALUE), Many;
    2 "start_time_unix_nano" "startTimeUnixNano" Fixed64, One;
    3 "time_unix_nano" "timeUnixNano" Fixed64, One;
    4 "count" "count" Fixed64, One;
    5 "sum" "sum" Double, Optional;
    6 "scale" "scale" Sint32, One;
    7 "zero_count" "zeroCount" Fixed64, One;
    8 "positive" "positive" sub(&BUCKETS), One;
    9 "negative" "negative" sub(&BUCKETS), One;
    10 "flags" "flags" Uint32, One;
    11 "exemplars" "exemplars" sub(&EXEMPLAR), Many;
    12 "min" "min" Double, Optional;
    13 "max" "max" Double, Optional;
    14 "zero_threshold" "zeroThreshold" Double, One;
}
message! { /// `ExponentialHistogramDataPoint.Buckets`.
BUCKETS:
    1 "offset" "offset" Sint32, One;
    2 "bucket_counts" "bucketCounts" Uint64, Many;
}
message! { /// `SummaryDataPoint`.
SUMMARY_POINT, Item:
    7 "attributes" "attributes" pair(&KEY_VALUE), Many;
    2 "start_time_unix_nano" "startTimeUnixNano" Fixed64, One;
    3 "time_unix_nano" "timeUnixNano" Fixed64, One;
    4 "count" "count" Fixed64, One;
    5 "sum" "sum" Double, One;
    6 "quantile_values" "quantileValues" sub(&QUANTILE), Many;
    8 "flags" "flags" Uint32, One;
}
message! { /// `SummaryDataPoint.ValueAtQuantile`.
QUANTILE:
    1 "quantile" "quantile" Double, One;
    2 "value" "value" Double, One;
}
message! { /// `Exemplar`.
EXEMPLAR:
    7 "filtered_attributes" "filteredAttributes" pair(&KEY_VALUE), Many;
    2 "time_unix_nano" "timeUnixNano" Fixed64, One;
    3 "as_double" "asDouble" Double, OneOf;
    6 "as_int" "asInt" Sfixed64, OneOf;
    4 "span_id" "spanId" Id, One;
    5 "trace_id" "traceId" Id, One;
}

message! { /// `ExportTraceServiceRequest`.
TRACES, Scope:
    1 "resource_spans" "resourceSpans" sub(&RESOURCE_SPANS), Many;
}
message! { /// `ResourceSpans`.
RESOURCE_SPANS, Scope:
    1 "resource" "resource" sub(&RESOURCE), One;
    2 "scope_spans" "scopeSpans" sub(&SCOPE_SPANS), Many;
    3 "schema_url" "schemaUrl" Str, One;
}
message! { /// `ScopeSpans`.
SCOPE_SPANS, Scope:
    1 "scope" "scope" sub(&SCOPE), One;
    2 "spans" "spans" sub(&SPAN), Many;
    3 "schema_url" "schemaUrl" Str, One;
}
message! { /// `Span`.
SPAN, Item:
    1 "trace_id" "traceId" Id, One;
    2 "span_id" "spanId" Id, One;
    3 "trace_state" "traceState" Str, One;
    4 "parent_span_id" "parentSpanId" Id, One;
    16 "flags" "flags" Fixed32, One;
    5 "name" "name" Str, One;
    6 "kind" "kind" Enum(&SPAN_KIND), One;
    7 "start_time_unix_nano" "startTimeUnixNano" Fixed64, One;
    8 "end_time_unix_nano" "endTimeUnixNano" Fixed64, One;
    9 "attributes" "attributes" pair(&KEY_VALUE), Many;
    10 "dropped_attributes_count" "droppedAttributesCount" Uint32, One;
    11 "events" "events" sub(&EVENT), Many;
    12 "dropped_events_count" "droppedEventsCount" Uint32, One;
    13 "links" "links" sub(&LINK), Many;
    14 "dropped_links_count" "droppedLinksCount" Uint32, One;
    15 "status" "status" sub(&STATUS), One;
}
message! { /// `Span.Event`.
EVENT:
    1 "time_unix_nano" "timeUnixNano" Fixed64, One;
    2 "name" "name" Str, One;
    3 "attributes" "attributes" pair(&KEY_VALUE), Many;
    4 "dropped_attributes_count" "droppedAttributesCount" Uint32, One;
}
message! { /// `Span.Link`.
LINK:
    1 "trace_id" "traceId" Id, One;
    2 "span_id" "spanId" Id, One;
    3 "trace_state" "traceState" Str, One;
    4 "attributes" "attributes" pair(&KEY_VALUE), Many;
    5 "dropped_attributes_count" "droppedAttributesCount" Uint32, One;
    6 "flags" "flags" Fixed32, One;
}
message! { /// `Status`.
STATUS:
    2 "message" "message" Str, One;
    3 "code" "code" Enum(&STATUS_CODE), One;
}

/// `SeverityNumber`.
static SEVERITY: Names = Names {
    prefix: "SEVERITY_NUMBER_",
    rest: &[
        "UNSPECIFIED",
        "TRACE",
        "TRACE2",
        "TRACE3",
        "TRACE4",
        "DEBUG",
        "DEBUG2",
        "DEBUG3",
        "DEBUG4",
        "INFO",
        "INFO2",
        "INFO3",
        "INFO4",
        "WARN",
        "WARN2",
        "WARN3",
        "WARN4",
        "ERROR",
        "ERROR2",
        "ERROR3",
        "ERROR4",
        "FATAL",
        "FATAL2",
        "FATAL3",
        "FATAL4",
    ],
};
/// `AggregationTemporality`.
static TEMPORALITY: Names = Names {
    prefix: "AGGREGATION_TEMPORALITY_",
    rest: &["UNSPECIFIED", "DELTA", "CUMULATIVE"],
};
/// `Span.SpanKind`.
static SPAN_KIND: Names = Names {
    prefix: "SPAN_KIND_",
    rest: &[
        "UNSPECIFIED",
        "INTERNAL",
        "SERVER",
        "CLIENT",
        "PRODUCER",
        "CONSUMER",
    ],
};
/// `Status.StatusCode`.
static STATUS_CODE: Names = Names {
    prefix: "STATUS_CODE_",
    rest: &["UNSET", "OK", "ERROR"],
};
