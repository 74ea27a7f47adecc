//! Spans, metrics and data points of a request as it came, to read.

use std::borrow::Cow;

use tailwater_ottl::requests::{METRIC_TYPES, field_of, point_attributes};
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
        let found = METRIC_TYPES.iter().position(|name| metric.has(name));
        m.kind = found.map_or(0, |kind| kind as i64 + 1);
        let data = found.and_then(|kind| metric.inner(METRIC_TYPES[kind]));
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
    /// The metric with its points, if it is about one.
    pub metric: Option<&'v View<'a>>,
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

fn int(n: u64) -> Val<'static> {
    Val::Int(n.cast_signed())
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
            (Field::PointAttributes, _) => self.metric.map_or(Val::Nil, point_attributes),
            (Field::MetricName, _) => text(&around.metric.name),
            (Field::MetricDescription, _) => text(&around.metric.description),
            (Field::MetricUnit, _) => text(&around.metric.unit),
            (Field::MetricType, _) => Val::Int(around.metric.kind),
            (Field::MetricTemporality, _) => around.metric.temporality.map_or(Val::Nil, int),
            (Field::MetricMonotonic, _) => around.metric.monotonic.map_or(Val::Nil, Val::Bool),
            (_, Some((item, _))) => field_of(item, field),
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
