//! Spans, metrics and data points of a request as it came, to read.

use std::borrow::Cow;

use tailwater_ottl::{Field, Scene, Val};
use tailwater_pdata::otlp::edit::{Attributes, Found, View};
use tailwater_pdata::{Key, Map, Value};

/// What is around an item: it is read once, and kept while what is in it is looked at.
#[derive(Default)]
pub(crate) struct Around {
    pub resource: Map,
    pub scope_name: Vec<u8>,
    pub scope_version: Vec<u8>,
    pub scope: Map,
    metric: Metric,
}

/// What is known of a metric while its points are looked at.
#[derive(Default)]
struct Metric {
    name: Vec<u8>,
    description: Vec<u8>,
    unit: Vec<u8>,
    /// As OTTL's enum numbers it.
    kind: i64,
    temporality: Option<u64>,
    monotonic: Option<bool>,
}

impl Around {
    pub fn enter_metric(&mut self, metric: &View<'_>) {
        let m = &mut self.metric;
        for (kept, name) in [
            (&mut m.name, "name"),
            (&mut m.description, "description"),
            (&mut m.unit, "unit"),
        ] {
            kept.clear();
            kept.extend_from_slice(metric.bytes(name));
        }
        let found = TYPES.iter().find(|(name, _)| metric.has(name));
        m.kind = found.map_or(0, |(_, number)| *number);
        let data = found.and_then(|(name, _)| metric.inner(name));
        let temporal = data.filter(|_| matches!(m.kind, 2..=4));
        m.temporality = temporal.map(|d| d.number("aggregation_temporality"));
        m.monotonic = temporal
            .filter(|_| m.kind == 2)
            .map(|d| d.number("is_monotonic") != 0);
    }

    pub fn enter_resource(&mut self, attributes: &Attributes<'_>) {
        self.resource = map_of(attributes);
    }

    pub fn enter_scope(&mut self, scope: &View<'_>, attributes: &Attributes<'_>) {
        self.scope = map_of(attributes);
        self.scope_name.clear();
        self.scope_name.extend_from_slice(scope.bytes("name"));
        self.scope_version.clear();
        self.scope_version.extend_from_slice(scope.bytes("version"));
    }
}

/// The attributes as a map. Of a key that comes twice the last value counts.
fn map_of(attributes: &Attributes<'_>) -> Map {
    let pair =
        |(key, value): (Cow<'_, str>, Found<'_>)| (Key::from(&*key), value.as_ref().to_value());
    Map::from_entries(attributes.iter().map(pair).collect())
}

/// An item with what is around it, which may be all there is.
#[derive(Clone, Copy)]
pub(crate) struct Item<'v, 'a> {
    pub around: &'v Around,
    pub item: Option<(&'v View<'a>, &'v Attributes<'a>)>,
}

fn text(bytes: &[u8]) -> Val<'_> {
    Val::Str(Cow::Borrowed(bytes))
}

fn map(map: &Map) -> Val<'_> {
    Val::Map(Cow::Borrowed(map))
}

fn entry<'m>(map: &'m Map, key: &str) -> Val<'m> {
    map.get(key).map_or(Val::Nil, |v| Value::as_ref(v).into())
}

fn nanos(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

fn int(n: u64) -> Val<'static> {
    Val::Int(n.cast_signed())
}

fn hex(bytes: &[u8]) -> Val<'static> {
    Val::text(bytes.iter().map(|b| format!("{b:02x}")).collect::<String>())
}

/// Kinds of data of a metric by the number that OTTL's enum gives them.
const TYPES: [(&str, i64); 5] = [
    ("gauge", 1),
    ("sum", 2),
    ("histogram", 3),
    ("exponential_histogram", 4),
    ("summary", 5),
];

const KINDS: [&str; 6] = [
    "Unspecified",
    "Internal",
    "Server",
    "Client",
    "Producer",
    "Consumer",
];

fn item_field<'v>(item: &'v View<'_>, field: Field) -> Val<'v> {
    let id = |name: &str, length: usize| match item.bytes(name) {
        [] => Val::Bytes(Cow::Borrowed(&[0; 16][..length])),
        id => Val::Bytes(Cow::Borrowed(id)),
    };
    let id_text = |name: &str, length: usize| match item.bytes(name) {
        [] => hex(&[0; 16][..length]),
        id => hex(id),
    };
    let status = || item.inner("status");
    let time = |name: &str| nanos(item.number(name));
    match field {
        Field::SpanName => text(item.bytes("name")),
        Field::Kind => int(item.number("kind")),
        Field::KindString | Field::KindDeprecatedString => {
            let kind = usize::try_from(item.number("kind")).unwrap_or(usize::MAX);
            let name = KINDS.get(kind).copied().unwrap_or_default();
            match field {
                Field::KindString => text(name.as_bytes()),
                _ => Val::text(format!("SPAN_KIND_{}", name.to_uppercase())),
            }
        }
        Field::TraceId => id("trace_id", 16),
        Field::TraceIdString => id_text("trace_id", 16),
        Field::SpanId => id("span_id", 8),
        Field::SpanIdString => id_text("span_id", 8),
        Field::ParentSpanId => id("parent_span_id", 8),
        Field::ParentSpanIdString => id_text("parent_span_id", 8),
        Field::TraceState => text(item.bytes("trace_state")),
        Field::StartTime => Val::Time(time("start_time_unix_nano")),
        Field::StartTimeUnixNano => Val::Int(time("start_time_unix_nano")),
        Field::EndTime => Val::Time(time("end_time_unix_nano")),
        Field::EndTimeUnixNano => Val::Int(time("end_time_unix_nano")),
        Field::Time => Val::Time(time("time_unix_nano")),
        Field::TimeUnixNano => Val::Int(time("time_unix_nano")),
        Field::DroppedAttributes => int(item.number("dropped_attributes_count")),
        Field::DroppedEvents => int(item.number("dropped_events_count")),
        Field::DroppedLinks => int(item.number("dropped_links_count")),
        Field::Flags => int(item.number("flags")),
        Field::StatusCode => int(status().map_or(0, |s| s.number("code"))),
        Field::StatusMessage => text(status().map_or(&[][..], |s| s.bytes("message"))),
        Field::ValueInt if item.has("as_int") => int(item.number("as_int")),
        Field::ValueDouble if item.has("as_double") => {
            Val::Double(f64::from_bits(item.number("as_double")))
        }
        Field::Count if item.has("count") => int(item.number("count")),
        Field::Sum if item.has("sum") => Val::Double(f64::from_bits(item.number("sum"))),
        _ => Val::Nil,
    }
}

impl Scene for Item<'_, '_> {
    fn get(&self, field: Field) -> Val<'_> {
        let around = self.around;
        match (field, self.item) {
            (Field::ResourceAttributes, _) => map(&around.resource),
            (Field::ScopeAttributes, _) => map(&around.scope),
            (Field::ScopeName, _) => text(&around.scope_name),
            (Field::ScopeVersion, _) => text(&around.scope_version),
            (Field::Cache, _) => Val::Map(Cow::Owned(Map::new())),
            (Field::Attributes | Field::SpanAttributes, Some((_, attributes))) => {
                Val::Map(Cow::Owned(map_of(attributes)))
            }
            (Field::MetricName, _) => text(&around.metric.name),
            (Field::MetricDescription, _) => text(&around.metric.description),
            (Field::MetricUnit, _) => text(&around.metric.unit),
            (Field::MetricType, _) => Val::Int(around.metric.kind),
            (Field::MetricTemporality, _) => around.metric.temporality.map_or(Val::Nil, int),
            (Field::MetricMonotonic, _) => around.metric.monotonic.map_or(Val::Nil, Val::Bool),
            (_, Some((item, _))) => item_field(item, field),
            _ => Val::Nil,
        }
    }

    fn entry(&self, field: Field, key: &str) -> Val<'_> {
        match (field, self.item) {
            (Field::ResourceAttributes, _) => entry(&self.around.resource, key),
            (Field::ScopeAttributes, _) => entry(&self.around.scope, key),
            (Field::Attributes | Field::SpanAttributes, Some((_, attributes))) => {
                match attributes.get(key) {
                    Some(Found::Plain(value)) => value.into(),
                    Some(Found::Decoded(value)) => value.into(),
                    None => Val::Nil,
                }
            }
            _ => Val::Nil,
        }
    }
}
