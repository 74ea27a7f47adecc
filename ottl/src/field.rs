//! What a path may lead to, in each context.

use tailwater_config::nearest;

use crate::ast;
use crate::error::Mistake;
use crate::lexer::shown;

/// What a statement is about: it is carried out once for each of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Context {
    /// A resource.
    Resource,
    /// An instrumentation scope.
    Scope,
    /// A log record.
    Log,
    /// A span.
    Span,
    /// An event of a span.
    SpanEvent,
    /// A metric.
    Metric,
    /// A point of a metric.
    DataPoint,
}

impl Context {
    /// Every context, from the outside to the inside.
    pub const ALL: [Context; 7] = [
        Context::Resource,
        Context::Scope,
        Context::Log,
        Context::Span,
        Context::SpanEvent,
        Context::Metric,
        Context::DataPoint,
    ];

    /// The name it has in configurations and in front of paths.
    pub fn name(self) -> &'static str {
        match self {
            Context::Resource => "resource",
            Context::Scope => "scope",
            Context::Log => "log",
            Context::Span => "span",
            Context::SpanEvent => "spanevent",
            Context::Metric => "metric",
            Context::DataPoint => "datapoint",
        }
    }

    /// The context of that name; scopes have an older one, too.
    pub fn named(name: &str) -> Option<Context> {
        match name {
            "instrumentation_scope" => Some(Context::Scope),
            _ => Context::ALL.into_iter().find(|c| c.name() == name),
        }
    }

    /// What can be reached from it, itself included.
    pub fn reaches(self) -> &'static [Context] {
        use Context::{DataPoint, Log, Metric, Resource, Scope, Span, SpanEvent};
        match self {
            Resource => &[Resource],
            Scope => &[Resource, Scope],
            Log => &[Resource, Scope, Log],
            Span => &[Resource, Scope, Span],
            SpanEvent => &[Resource, Scope, Span, SpanEvent],
            Metric => &[Resource, Scope, Metric],
            DataPoint => &[Resource, Scope, Metric, DataPoint],
        }
    }

    fn paths(self) -> &'static [PathInfo] {
        match self {
            Context::Resource => RESOURCE,
            Context::Scope => SCOPE,
            Context::Log => LOG,
            Context::Span => SPAN,
            Context::SpanEvent => SPAN_EVENT,
            Context::Metric => METRIC,
            Context::DataPoint => DATA_POINT,
        }
    }
}

/// A field of a record or of what is around it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Field {
    /// A map that a statement's record has for itself while statements are carried out.
    Cache,
    /// Attributes of the record, span, event or point.
    Attributes,
    DroppedAttributes,
    ResourceAttributes,
    ResourceDropped,
    ResourceSchemaUrl,
    ScopeName,
    ScopeVersion,
    ScopeAttributes,
    ScopeDropped,
    ScopeSchemaUrl,
    Body,
    BodyString,
    Time,
    TimeUnixNano,
    ObservedTime,
    ObservedTimeUnixNano,
    SeverityNumber,
    SeverityText,
    EventName,
    TraceId,
    TraceIdString,
    SpanId,
    SpanIdString,
    ParentSpanId,
    ParentSpanIdString,
    TraceState,
    Flags,
    Name,
    Kind,
    KindString,
    KindDeprecatedString,
    StartTime,
    StartTimeUnixNano,
    EndTime,
    EndTimeUnixNano,
    StatusCode,
    StatusMessage,
    DroppedEvents,
    DroppedLinks,
    /// Of an event.
    EventDroppedAttributes,
    /// Which of the events of its span it is.
    EventIndex,
    SpanAttributes,
    SpanName,
    MetricName,
    MetricDescription,
    MetricUnit,
    MetricType,
    MetricTemporality,
    MetricMonotonic,
    MetricMetadata,
    /// A list of the attributes of each point of a metric.
    PointAttributes,
    ValueInt,
    ValueDouble,
    Count,
    Sum,
    BucketCounts,
    ExplicitBounds,
    Scale,
    ZeroCount,
    PositiveOffset,
    PositiveCounts,
    NegativeOffset,
    NegativeCounts,
}

/// What is known of a value before there is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Any,
    Text,
    Int,
    Double,
    Bool,
    Bytes,
    Time,
    Duration,
    Map,
    List,
    Nil,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Any => "any value",
            Kind::Text => "text",
            Kind::Int => "an integer",
            Kind::Double => "a double",
            Kind::Bool => "a boolean",
            Kind::Bytes => "bytes",
            Kind::Time => "a time",
            Kind::Duration => "a duration",
            Kind::Map => "a map",
            Kind::List => "a list",
            Kind::Nil => "nil",
        }
    }

    /// Whether a value of this kind may be one of kind `wanted`.
    pub fn may_be(self, wanted: Kind) -> bool {
        self == wanted || self == Kind::Any || wanted == Kind::Any || self == Kind::Nil
    }
}

/// A path of a context.
pub(crate) struct PathInfo {
    name: &'static str,
    pub field: Field,
    pub kind: Kind,
    /// A statement may change it.
    pub writable: bool,
}

const fn rw(name: &'static str, field: Field, kind: Kind) -> PathInfo {
    PathInfo {
        name,
        field,
        kind,
        writable: true,
    }
}

const fn ro(name: &'static str, field: Field, kind: Kind) -> PathInfo {
    PathInfo {
        name,
        field,
        kind,
        writable: false,
    }
}

const RESOURCE: &[PathInfo] = &[
    rw("attributes", Field::ResourceAttributes, Kind::Map),
    rw(
        "dropped_attributes_count",
        Field::ResourceDropped,
        Kind::Int,
    ),
    rw("schema_url", Field::ResourceSchemaUrl, Kind::Text),
];

const SCOPE: &[PathInfo] = &[
    rw("name", Field::ScopeName, Kind::Text),
    rw("version", Field::ScopeVersion, Kind::Text),
    rw("attributes", Field::ScopeAttributes, Kind::Map),
    rw("dropped_attributes_count", Field::ScopeDropped, Kind::Int),
    rw("schema_url", Field::ScopeSchemaUrl, Kind::Text),
];

const LOG: &[PathInfo] = &[
    rw("time", Field::Time, Kind::Time),
    rw("time_unix_nano", Field::TimeUnixNano, Kind::Int),
    rw("observed_time", Field::ObservedTime, Kind::Time),
    rw(
        "observed_time_unix_nano",
        Field::ObservedTimeUnixNano,
        Kind::Int,
    ),
    rw("severity_number", Field::SeverityNumber, Kind::Int),
    rw("severity_text", Field::SeverityText, Kind::Text),
    rw("body", Field::Body, Kind::Any),
    rw("body.string", Field::BodyString, Kind::Text),
    rw("attributes", Field::Attributes, Kind::Map),
    rw(
        "dropped_attributes_count",
        Field::DroppedAttributes,
        Kind::Int,
    ),
    rw("trace_id", Field::TraceId, Kind::Bytes),
    rw("trace_id.string", Field::TraceIdString, Kind::Text),
    rw("span_id", Field::SpanId, Kind::Bytes),
    rw("span_id.string", Field::SpanIdString, Kind::Text),
    rw("flags", Field::Flags, Kind::Int),
    rw("event_name", Field::EventName, Kind::Text),
];

const SPAN: &[PathInfo] = &[
    rw("name", Field::SpanName, Kind::Text),
    rw("kind", Field::Kind, Kind::Int),
    rw("kind.string", Field::KindString, Kind::Text),
    rw(
        "kind.deprecated_string",
        Field::KindDeprecatedString,
        Kind::Text,
    ),
    rw("trace_id", Field::TraceId, Kind::Bytes),
    rw("trace_id.string", Field::TraceIdString, Kind::Text),
    rw("span_id", Field::SpanId, Kind::Bytes),
    rw("span_id.string", Field::SpanIdString, Kind::Text),
    rw("parent_span_id", Field::ParentSpanId, Kind::Bytes),
    rw(
        "parent_span_id.string",
        Field::ParentSpanIdString,
        Kind::Text,
    ),
    rw("trace_state", Field::TraceState, Kind::Text),
    rw("start_time", Field::StartTime, Kind::Time),
    rw("start_time_unix_nano", Field::StartTimeUnixNano, Kind::Int),
    rw("end_time", Field::EndTime, Kind::Time),
    rw("end_time_unix_nano", Field::EndTimeUnixNano, Kind::Int),
    rw("attributes", Field::SpanAttributes, Kind::Map),
    rw(
        "dropped_attributes_count",
        Field::DroppedAttributes,
        Kind::Int,
    ),
    rw("dropped_events_count", Field::DroppedEvents, Kind::Int),
    rw("dropped_links_count", Field::DroppedLinks, Kind::Int),
    rw("status.code", Field::StatusCode, Kind::Int),
    rw("status.message", Field::StatusMessage, Kind::Text),
    rw("flags", Field::Flags, Kind::Int),
];

const SPAN_EVENT: &[PathInfo] = &[
    rw("name", Field::Name, Kind::Text),
    rw("time", Field::Time, Kind::Time),
    rw("time_unix_nano", Field::TimeUnixNano, Kind::Int),
    rw("attributes", Field::Attributes, Kind::Map),
    rw(
        "dropped_attributes_count",
        Field::EventDroppedAttributes,
        Kind::Int,
    ),
    ro("event_index", Field::EventIndex, Kind::Int),
];

const METRIC: &[PathInfo] = &[
    rw("name", Field::MetricName, Kind::Text),
    rw("description", Field::MetricDescription, Kind::Text),
    rw("unit", Field::MetricUnit, Kind::Text),
    ro("type", Field::MetricType, Kind::Int),
    rw(
        "aggregation_temporality",
        Field::MetricTemporality,
        Kind::Int,
    ),
    rw("is_monotonic", Field::MetricMonotonic, Kind::Bool),
    rw("metadata", Field::MetricMetadata, Kind::Map),
];

const DATA_POINT: &[PathInfo] = &[
    rw("attributes", Field::Attributes, Kind::Map),
    rw("start_time", Field::StartTime, Kind::Time),
    rw("start_time_unix_nano", Field::StartTimeUnixNano, Kind::Int),
    rw("time", Field::Time, Kind::Time),
    rw("time_unix_nano", Field::TimeUnixNano, Kind::Int),
    rw("value_int", Field::ValueInt, Kind::Int),
    rw("value_double", Field::ValueDouble, Kind::Double),
    rw("count", Field::Count, Kind::Int),
    rw("sum", Field::Sum, Kind::Double),
    rw("flags", Field::Flags, Kind::Int),
    rw("bucket_counts", Field::BucketCounts, Kind::List),
    rw("explicit_bounds", Field::ExplicitBounds, Kind::List),
    rw("scale", Field::Scale, Kind::Int),
    rw("zero_count", Field::ZeroCount, Kind::Int),
    rw("positive.offset", Field::PositiveOffset, Kind::Int),
    rw("positive.bucket_counts", Field::PositiveCounts, Kind::List),
    rw("negative.offset", Field::NegativeOffset, Kind::Int),
    rw("negative.bucket_counts", Field::NegativeCounts, Kind::List),
];

const CACHE: PathInfo = rw("cache", Field::Cache, Kind::Map);

/// The contexts that the first names of paths say.
pub(crate) fn named_in(path: &ast::Path) -> Option<Context> {
    let first = path.parts.first()?;
    match first.keys.is_empty() && path.parts.len() > 1 {
        true => Context::named(&first.name.it),
        false => None,
    }
}

/// What `path` leads to, seen from `from`. With `prefixed` it has to begin with a context; what is
/// `encoded` shows less of what is around it.
pub(crate) fn find(
    path: &ast::Path,
    from: Context,
    prefixed: bool,
    encoded: bool,
) -> Result<&'static PathInfo, Mistake> {
    let at = path.parts.first().map_or(0, |p| p.name.at);
    let keyed = path.parts.iter().rev().skip(1).find(|p| !p.keys.is_empty());
    if let Some(part) = keyed {
        let why = "keys stand at the end of a path";
        return Err(Mistake::new(part.name.at, why));
    }
    let names: Vec<&str> = path.parts.iter().map(|p| p.name.it.as_str()).collect();
    let (context, names) = match named_in(path) {
        Some(context) if from.reaches().contains(&context) => (context, &names[1..]),
        Some(context) => {
            let why = format!(
                "{} cannot be reached from {}; allowed: {}",
                context.name(),
                from.name(),
                listed(from.reaches().iter().map(|c| c.name()))
            );
            return Err(Mistake::new(at, why));
        }
        None if prefixed => {
            let why = format!(
                "the path {} does not begin with a context; write {}.{} or give the group a context",
                shown(&names.join(".")),
                from.name(),
                names.join(".")
            );
            return Err(Mistake::new(at, why));
        }
        None => (from, &names[..]),
    };
    let name = names.join(".");
    if name == "cache" {
        if context == from {
            return Ok(&CACHE);
        }
        let why = format!(
            "each context has a cache of its own; write {}.cache",
            from.name()
        );
        return Err(Mistake::new(at, why));
    }
    let paths = context.paths();
    if let Some(info) = paths.iter().find(|p| p.name == name) {
        let hidden = matches!(
            info.field,
            Field::ResourceDropped
                | Field::ResourceSchemaUrl
                | Field::ScopeDropped
                | Field::ScopeSchemaUrl
        );
        if encoded && hidden {
            let why = format!("{name} of a {} can be read for logs only", context.name());
            return Err(Mistake::new(at, why));
        }
        return Ok(info);
    }
    let known = || paths.iter().map(|p| p.name).chain(["cache"]);
    let mut why = format!(
        "{} has no path {}; allowed: {}",
        context.name(),
        shown(&name),
        listed(known())
    );
    let contexts = from.reaches().iter().map(|c| c.name());
    if let Some(near) = nearest(&name, known().chain(contexts)) {
        why.push_str(&format!("; did you mean {near:?}?"));
    } else if let Some(near) = names.first().and_then(|first| {
        let first = nearest(first, from.reaches().iter().map(|c| c.name()))?;
        (names.len() > 1).then_some(first)
    }) {
        why.push_str(&format!("; did you mean {near:?} at its beginning?"));
    }
    Err(Mistake::new(at, why))
}

pub(crate) fn listed<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// The number that an enum stands for.
pub(crate) fn enum_number(name: &str) -> Option<i64> {
    let severity = |rest: &str| {
        let levels = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
        let (level, step) = match rest.strip_suffix(['2', '3', '4']) {
            Some(level) => (level, i64::from(rest.as_bytes().last()? - b'1')),
            None => (rest, 0),
        };
        let level = i64::try_from(levels.iter().position(|l| *l == level)?).ok()?;
        Some(level * 4 + 1 + step)
    };
    if let Some(rest) = name.strip_prefix("SEVERITY_NUMBER_") {
        return if rest == "UNSPECIFIED" {
            Some(0)
        } else {
            severity(rest)
        };
    }
    ENUMS
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, number)| *number)
}

/// Names of enums but those of severities.
const ENUMS: &[(&str, i64)] = &[
    ("SPAN_KIND_UNSPECIFIED", 0),
    ("SPAN_KIND_INTERNAL", 1),
    ("SPAN_KIND_SERVER", 2),
    ("SPAN_KIND_CLIENT", 3),
    ("SPAN_KIND_PRODUCER", 4),
    ("SPAN_KIND_CONSUMER", 5),
    ("STATUS_CODE_UNSET", 0),
    ("STATUS_CODE_OK", 1),
    ("STATUS_CODE_ERROR", 2),
    ("METRIC_DATA_TYPE_NONE", 0),
    ("METRIC_DATA_TYPE_GAUGE", 1),
    ("METRIC_DATA_TYPE_SUM", 2),
    ("METRIC_DATA_TYPE_HISTOGRAM", 3),
    ("METRIC_DATA_TYPE_EXPONENTIAL_HISTOGRAM", 4),
    ("METRIC_DATA_TYPE_SUMMARY", 5),
    ("AGGREGATION_TEMPORALITY_UNSPECIFIED", 0),
    ("AGGREGATION_TEMPORALITY_DELTA", 1),
    ("AGGREGATION_TEMPORALITY_CUMULATIVE", 2),
    ("FLAG_NONE", 0),
    ("FLAG_NO_RECORDED_VALUE", 1),
];

/// Names for suggestions.
pub(crate) fn enum_names() -> impl Iterator<Item = &'static str> {
    const SEVERITIES: [&str; 25] = [
        "SEVERITY_NUMBER_UNSPECIFIED",
        "SEVERITY_NUMBER_TRACE",
        "SEVERITY_NUMBER_TRACE2",
        "SEVERITY_NUMBER_TRACE3",
        "SEVERITY_NUMBER_TRACE4",
        "SEVERITY_NUMBER_DEBUG",
        "SEVERITY_NUMBER_DEBUG2",
        "SEVERITY_NUMBER_DEBUG3",
        "SEVERITY_NUMBER_DEBUG4",
        "SEVERITY_NUMBER_INFO",
        "SEVERITY_NUMBER_INFO2",
        "SEVERITY_NUMBER_INFO3",
        "SEVERITY_NUMBER_INFO4",
        "SEVERITY_NUMBER_WARN",
        "SEVERITY_NUMBER_WARN2",
        "SEVERITY_NUMBER_WARN3",
        "SEVERITY_NUMBER_WARN4",
        "SEVERITY_NUMBER_ERROR",
        "SEVERITY_NUMBER_ERROR2",
        "SEVERITY_NUMBER_ERROR3",
        "SEVERITY_NUMBER_ERROR4",
        "SEVERITY_NUMBER_FATAL",
        "SEVERITY_NUMBER_FATAL2",
        "SEVERITY_NUMBER_FATAL3",
        "SEVERITY_NUMBER_FATAL4",
    ];
    SEVERITIES
        .into_iter()
        .chain(ENUMS.iter().map(|(name, _)| *name))
}
