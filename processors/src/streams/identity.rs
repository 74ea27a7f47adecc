//! Which stream a point belongs to.

use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::quality::FixedState;
use tailwater_pdata::otlp::Encoded;
use tailwater_pdata::otlp::metrics::{
    Attributes, Metric, Number, NumberPoint, Point, ResourceMetrics, ScopeMetrics,
};
use tailwater_pdata::{Value, ValueRef};

/// A stream, by 128 bits of a hash that depends on the seed: of a million streams, two are taken for
/// the same with a probability of 10^-27.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct StreamId(pub u128);

/// A resource, scope or metric, by a hash of the same kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Place(u128);

/// Tells streams apart. The order of attributes does not count.
#[derive(Clone, Debug)]
pub struct Identity {
    high: FixedState,
    low: FixedState,
}

impl Identity {
    /// Hashes that nobody who does not know `seed` can foresee.
    pub fn new(seed: u64) -> Identity {
        Identity {
            high: FixedState::with_seed(seed),
            low: FixedState::with_seed(seed.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15),
        }
    }

    /// 128 bits of what `what` writes.
    pub(crate) fn hash(&self, what: impl Fn(&mut dyn Hasher)) -> u128 {
        let one = |state: &FixedState| {
            let mut hasher = state.build_hasher();
            what(&mut hasher);
            hasher.finish()
        };
        u128::from(one(&self.high)) << 64 | u128::from(one(&self.low))
    }

    /// The same whatever the order.
    fn attributes(&self, attributes: Attributes<'_>) -> u128 {
        attributes.fold(0, |sum: u128, attribute| {
            let value = attribute.value();
            sum.wrapping_add(self.hash(|h| {
                put_text(h, attribute.key());
                put_value(h, value.as_ref());
            }))
        })
    }

    fn within(&self, around: u128, parts: &[&[u8]], attributes: u128) -> Place {
        Place(self.hash(|h| {
            h.write_u128(around);
            parts.iter().for_each(|part| put_text(h, part));
            h.write_u128(attributes);
        }))
    }

    /// A resource: its attributes.
    pub fn resource(&self, resource: ResourceMetrics<'_>) -> Place {
        Place(self.attributes(resource.attributes()))
    }

    /// A scope of a resource: name, version and attributes.
    pub fn scope(&self, resource: Place, scope: ScopeMetrics<'_>) -> Place {
        let attributes = self.attributes(scope.attributes());
        self.within(resource.0, &[scope.name, scope.version], attributes)
    }

    /// A metric of a scope: name, unit, kind and whether it is monotonic. Not its temporality, which
    /// processors change.
    pub fn metric(&self, scope: Place, metric: &Metric<'_>) -> Place {
        let kind = [
            metric.kind.map_or(0, |k| k as u8 + 1),
            metric.monotonic.into(),
        ];
        self.within(scope.0, &[metric.name, metric.unit, &kind], 0)
    }

    /// The stream of a point of a metric. Of numbers, whole ones are apart from others.
    pub fn point(&self, metric: Place, point: &Point<'_>) -> StreamId {
        let kind = match point {
            Point::Number(NumberPoint {
                value: Some(Number::Double(_)),
                ..
            }) => 1,
            _ => 0,
        };
        let attributes = self.attributes(point.attributes());
        StreamId(self.within(metric.0, &[&[kind]], attributes).0)
    }

    /// Shows all points of a request with the streams they belong to.
    pub fn each_point<'a>(&self, encoded: &'a Encoded, mut show: impl FnMut(StreamId, Point<'a>)) {
        for resource in encoded.resource_metrics() {
            let at = self.resource(resource);
            for scope in resource.scopes() {
                let at = self.scope(at, scope);
                for metric in scope.metrics() {
                    let at = self.metric(at, &metric);
                    metric.points().for_each(|p| show(self.point(at, &p), p));
                }
            }
        }
    }
}

/// Text that cannot run into what follows.
pub(crate) fn put_text(h: &mut dyn Hasher, text: &[u8]) {
    h.write_usize(text.len());
    h.write(text);
}

/// The order of keys in a map counts: senders keep it.
fn put_value(mut h: &mut dyn Hasher, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => h.write_u8(0),
        ValueRef::Bool(b) => (1_u8, b).hash(&mut h),
        ValueRef::Int(i) => (2_u8, i).hash(&mut h),
        ValueRef::Double(d) => (3_u8, d.to_bits()).hash(&mut h),
        ValueRef::Str(s) => {
            h.write_u8(4);
            put_text(h, s);
        }
        ValueRef::Bytes(b) => {
            h.write_u8(5);
            put_text(h, b);
        }
        ValueRef::List(list) => {
            (6_u8, list.len()).hash(&mut h);
            list.iter().for_each(|v: &Value| put_value(h, v.as_ref()));
        }
        ValueRef::Map(map) => {
            (7_u8, map.len()).hash(&mut h);
            for (key, value) in map.iter() {
                put_text(h, key.as_bytes());
                put_value(h, value.as_ref());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use tailwater_pdata::Signal;
    use tailwater_pdata::otlp::{Limits, json};

    fn streams(text: &str) -> Vec<StreamId> {
        let limits = Limits::default();
        let body = json::to_proto(Signal::Metrics, text.as_bytes(), &limits).unwrap();
        let encoded = Encoded::parse(Signal::Metrics, body, &limits).unwrap();
        let mut ids = Vec::new();
        Identity::new(7).each_point(&encoded, |id, _| ids.push(id));
        ids
    }

    fn request(resource: &str, scope: &str, metric: &str, points: &str) -> String {
        format!(
            r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{resource}]}},"scopeMetrics":
            [{{"scope":{{{scope}}},"metrics":[{{{metric},"sum":{{"dataPoints":[{points}]}}}}]}}]}}]}}"#
        )
    }

    const A: &str = r#"{"key":"a","value":{"stringValue":"1"}}"#;
    const B: &str = r#"{"key":"b","value":{"intValue":"1"}}"#;

    #[test]
    fn streams_differ_in_any_part_and_not_in_the_order_of_attributes() {
        let point = |attributes: &str| format!(r#"{{"attributes":[{attributes}],"asInt":"1"}}"#);
        let (name, none) = (r#""name":"m""#, point(""));
        let different = [
            request("", "", name, &none),
            request(A, "", name, &none),
            request("", r#""name":"s""#, name, &none),
            request("", r#""version":"s""#, name, &none),
            request("", &format!(r#""attributes":[{A}]"#), name, &none),
            request("", "", r#""name":"n""#, &none),
            request("", "", r#""name":"m","unit":"s""#, &none),
            request("", "", name, r#"{"asDouble":1}"#),
            request("", "", name, &point(A)),
            request("", "", name, &point(B)),
            request("", "", name, &point(&format!("{A},{B}"))),
            request(
                "",
                "",
                name,
                &point(r#"{"key":"b","value":{"stringValue":"1"}}"#),
            ),
            request(
                "",
                "",
                name,
                &point(r#"{"key":"b","value":{"arrayValue":{}}}"#),
            ),
        ];
        let ids: HashSet<_> = different.iter().flat_map(|t| streams(t)).collect();
        assert_eq!(ids.len(), different.len());
        let both = format!(
            "{},{}",
            point(&format!("{A},{B}")),
            point(&format!("{B},{A}"))
        );
        let same = streams(&request("", "", name, &both));
        assert_eq!(same[0], same[1]);
    }
}
