//! Guarantees: what is taken out of the bytes and put back is the same to whoever decodes it, field by
//! field, in the judgement of `prost`; and what is left alone stays the same bytes.

use super::super::metrics::Number;
use super::super::oracle::{self as prosts};
use super::super::samples::Dice;
use super::super::{Encoded, Limits};
use super::fuzzing::{All, agrees, without_empty};
use super::*;
use proptest::prelude::*;
use prost::Message;

fn parse(body: Vec<u8>) -> Encoded {
    Encoded::parse(Signal::Metrics, body.into(), &Limits::default()).expect("a request")
}

fn decoded(encoded: &Encoded) -> prosts::Metrics {
    prosts::Metrics::decode(encoded.body()).expect("still a request")
}

/// Leaves of the attributes of points those that may be written in another way: a key that comes
/// again, a missing value (the same as an empty one), and nested values.
fn plain(list: &mut Vec<prosts::KeyValue>) {
    let mut seen = std::collections::HashSet::new();
    list.retain_mut(|pair| {
        let value = pair.value.get_or_insert_default().value.as_ref();
        let nested = matches!(value, Some(prosts::Any::Array(_) | prosts::Any::Map(_)));
        !nested && seen.insert(pair.key.clone())
    });
}

fn with_plain_attributes(mut metrics: prosts::Metrics) -> prosts::Metrics {
    let scopes = metrics.resource_metrics.iter_mut();
    let scopes = scopes.flat_map(|r| &mut r.scope_metrics);
    let data = scopes.flat_map(|s| &mut s.metrics);
    for data in data.filter_map(|m| m.data.as_mut()) {
        macro_rules! each {
            ($d:expr) => {
                $d.data_points
                    .iter_mut()
                    .for_each(|p| plain(&mut p.attributes))
            };
        }
        match data {
            prosts::Data::Gauge(d) => each!(d),
            prosts::Data::Sum(d) => each!(d),
            prosts::Data::Histogram(d) => each!(d),
            prosts::Data::Exponential(d) => each!(d),
            prosts::Data::Summary(d) => each!(d),
        }
    }
    metrics
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_is_lost_on_the_way(dice in prop::collection::vec(any::<u8>(), 0..1200)) {
        let metrics = Dice::new(&dice).metrics();
        let mut encoded = parse(metrics.encode_to_vec());
        encoded.rewrite(&mut All { attributes: false });
        prop_assert_eq!(encoded.items(), metrics.items());
        let again = parse(encoded.body().to_vec());
        prop_assert_eq!(again.items(), metrics.items());
        prop_assert_eq!(decoded(&encoded), without_empty(metrics));
    }

    #[test]
    fn nor_where_attributes_are_decoded(dice in prop::collection::vec(any::<u8>(), 0..1200)) {
        let metrics = with_plain_attributes(Dice::new(&dice).metrics());
        let mut encoded = parse(metrics.encode_to_vec());
        encoded.rewrite(&mut All { attributes: true });
        prop_assert_eq!(decoded(&encoded), without_empty(metrics));
    }

    /// Guarantee: whatever passes as a request is the same to whoever decodes it, also where fields come
    /// twice, in another order, or in pieces.
    #[test]
    fn odd_requests_stay_what_they_are(
        dice in prop::collection::vec(any::<u8>(), 1..800),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        twice in any::<bool>(),
    ) {
        let mut body = Dice::new(&dice).metrics().encode_to_vec();
        for (at, byte) in cuts {
            if !body.is_empty() {
                let at = at.index(body.len());
                body[at] = byte;
            }
        }
        if twice {
            body.extend_from_within(..);
        }
        let limits = Limits::default();
        if let Ok(encoded) = Encoded::parse(Signal::Metrics, body.into(), &limits) {
            agrees(&encoded);
        }
    }

    /// Guarantee: fields that are not known stay, wherever they are.
    #[test]
    fn unknown_fields_stay(dice in prop::collection::vec(any::<u8>(), 0..600)) {
        const MARK: &[u8] = b"a field of a later version";
        let mut all = prosts::Metrics::default();
        let (mut body, mut marks) = (Vec::new(), 0);
        for resource in Dice::new(&dice).metrics().resource_metrics {
            let mut message = Vec::new();
            put_bytes(&mut message, 100, MARK);
            let mut scopes = Vec::new();
            for scope in resource.scope_metrics.into_iter().filter(|s| !s.metrics.is_empty()) {
                let mut inner = Vec::new();
                for metric in &scope.metrics {
                    let mut fields = Vec::new();
                    put_bytes(&mut fields, 99, MARK);
                    fields.extend(metric.encode_to_vec());
                    put_bytes(&mut inner, 2, &fields);
                    marks += 1;
                }
                put_bytes(&mut message, 2, &inner);
                scopes.push(prosts::ScopeMetrics { metrics: scope.metrics, ..Default::default() });
            }
            put_bytes(&mut body, 1, &message);
            marks += 1;
            all.resource_metrics.push(prosts::ResourceMetrics {
                scope_metrics: scopes,
                ..Default::default()
            });
        }
        let mut encoded = parse(body);
        encoded.rewrite(&mut All { attributes: false });
        prop_assert_eq!(decoded(&encoded), all);
        let after = encoded.body();
        prop_assert_eq!(after.windows(MARK.len()).filter(|w| *w == MARK).count(), marks);
    }
}

/// Drops metrics by name, and whether anything was dropped.
struct Without(&'static str);

impl Rewrite for Without {
    fn scope<'a>(
        &mut self,
        _: ResourceMetrics<'a>,
        scope: ScopeMetrics<'a>,
    ) -> Option<Vec<Entry<'a>>> {
        let gone = |m: &super::super::metrics::Metric<'_>| m.name == self.0.as_bytes();
        scope.metrics().any(|m| gone(&m)).then(|| {
            let kept = scope.metrics().filter(|m| !gone(m));
            kept.map(Entry::Same).collect()
        })
    }
}

fn gauge(name: &str, values: &[i64]) -> prosts::Metric {
    let point = |v: &i64| prosts::NumberPoint {
        value: Some(prosts::Number::Int(*v)),
        ..Default::default()
    };
    prosts::Metric {
        name: name.into(),
        data: Some(prosts::Data::Gauge(prosts::Gauge {
            data_points: values.iter().map(point).collect(),
        })),
        ..Default::default()
    }
}

fn resource(scopes: &[&[prosts::Metric]]) -> prosts::ResourceMetrics {
    let scope = |metrics: &&[prosts::Metric]| prosts::ScopeMetrics {
        metrics: metrics.to_vec(),
        ..Default::default()
    };
    prosts::ResourceMetrics {
        scope_metrics: scopes.iter().map(scope).collect(),
        ..Default::default()
    }
}

#[test]
fn what_is_left_alone_is_not_copied() {
    let long = "a".repeat(5000);
    let metrics = prosts::Metrics {
        resource_metrics: vec![
            resource(&[&[gauge(&long, &[1])]]),
            resource(&[
                &[gauge("b", &[1, 2]), gauge("c", &[3])],
                &[gauge("b", &[4])],
            ]),
            resource(&[&[gauge("b", &[5])]]),
            resource(&[&[gauge(&long, &[6, 7])]]),
        ],
    };
    let mut encoded = parse(metrics.encode_to_vec());
    let whole = encoded.body();
    encoded.rewrite(&mut Without("no such metric"));
    assert_eq!(encoded.body().as_ptr(), whole.as_ptr(), "nothing changed");
    encoded.rewrite(&mut Without("b"));
    let want = prosts::Metrics {
        resource_metrics: vec![
            resource(&[&[gauge(&long, &[1])]]),
            resource(&[&[gauge("c", &[3])]]),
            resource(&[&[gauge(&long, &[6, 7])]]),
        ],
    };
    assert_eq!(decoded(&encoded), want);
    assert_eq!(encoded.items(), 4);
    let first = encoded.chunks().next().expect("a chunk");
    assert_eq!(first.as_ptr(), whole.as_ptr(), "it shares its bytes");
    encoded.rewrite(&mut Without("c"));
    encoded.rewrite(&mut Without(Box::leak(long.into_boxed_str())));
    assert!(encoded.is_empty() && encoded.items() == 0);
}

#[test]
fn a_request_is_made_of_parts_that_were_taken_out() {
    let mut metrics = prosts::Metrics {
        resource_metrics: vec![resource(&[&[gauge("a", &[1, 2])]])],
    };
    let one = &mut metrics.resource_metrics[0];
    one.schema_url = "https://r".into();
    one.resource = Some(prosts::Resource {
        dropped_attributes_count: 7,
        ..Default::default()
    });
    one.scope_metrics[0].schema_url = "https://s".into();
    let encoded = parse(metrics.encode_to_vec());
    let found = encoded.resource_metrics().next().expect("a resource");
    let scope = found.scopes().next().expect("a scope");
    let metric = Metric::of(scope.metrics().next().expect("a metric"));
    let mut heading = metric.clone().into_heading();
    heading.points = metric.points;
    let set = [("k", Value::str("v"))];
    let mut body = Vec::new();
    put_resource(&mut body, &found.heading_with(set.into_iter()), |out| {
        put_scope(out, &scope.heading(), |out| put_metric(out, &heading));
    });
    let made = Encoded::of_metrics(body);
    assert_eq!(made.items(), 2);
    let about = metrics.resource_metrics[0].resource.as_mut();
    about.expect("set above").attributes.push(prosts::KeyValue {
        key: "k".into(),
        value: Some(prosts::AnyValue {
            value: Some(prosts::Any::String("v".into())),
        }),
    });
    assert_eq!(decoded(&made), metrics);
}

#[test]
fn exemplars_are_moved_and_scaled() {
    let exemplar = |value| prosts::Exemplar {
        time_unix_nano: 5,
        value: Some(value),
        ..Default::default()
    };
    let mut metric = gauge("a", &[1, 2]);
    let Some(prosts::Data::Gauge(data)) = &mut metric.data else {
        panic!("a gauge")
    };
    data.data_points[0].exemplars = vec![exemplar(prosts::Example::Double(1.5))];
    data.data_points[1].exemplars = vec![exemplar(prosts::Example::Int(3))];
    let metrics = prosts::Metrics {
        resource_metrics: vec![resource(&[&[metric]])],
    };
    let encoded = parse(metrics.encode_to_vec());
    let found = encoded.resource_metrics().next().expect("a resource");
    let scope = found.scopes().next().expect("a scope");
    let mut metric = Metric::of(scope.metrics().next().expect("a metric"));
    let other = metric.points.remove(1);
    metric.points[0].append_exemplars(&other);
    metric.points[0].scale_exemplars(2.5);
    metric.points[0].value = PointValue::Number(Some(Number::Double(0.5)));
    let mut body = Vec::new();
    put_resource(&mut body, &[], |out| {
        put_scope(out, &[], |out| put_metric(out, &metric));
    });
    let made = decoded(&Encoded::of_metrics(body));
    let made = made.resource_metrics[0].scope_metrics[0].metrics[0].clone();
    let Some(prosts::Data::Gauge(data)) = made.data else {
        panic!("a gauge")
    };
    let want = [
        exemplar(prosts::Example::Double(3.75)),
        exemplar(prosts::Example::Int(7)),
    ];
    assert_eq!(data.data_points[0].exemplars, want);
    assert_eq!(data.data_points[0].value, Some(prosts::Number::Double(0.5)));
}
