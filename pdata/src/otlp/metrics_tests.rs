//! The view is judged by `prost`: structures rebuilt from it are those that `prost` decodes, but for
//! what the view does not show.

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::otlp::oracle as prosts;
use crate::otlp::samples::Dice;
use crate::otlp::{Encoded, Limits};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn pairs(attributes: Attributes<'_>) -> Vec<(String, String)> {
    let shown = |a: Attribute<'_>| {
        (
            text(a.key()),
            format!("{:?}", a.value().as_ref().to_value()),
        )
    };
    attributes.map(shown).collect()
}

fn wanted_pairs(attributes: &[prosts::KeyValue]) -> Vec<(String, String)> {
    let shown = |kv: &prosts::KeyValue| {
        let encoded = kv.value.as_ref().map(Message::encode_to_vec);
        let value = value::decode(&encoded.unwrap_or_default());
        (kv.key.clone(), format!("{value:?}"))
    };
    attributes.iter().map(shown).collect()
}

fn number(value: Option<Number>) -> Option<prosts::Number> {
    Some(match value? {
        Number::Int(v) => prosts::Number::Int(v),
        Number::Double(v) => prosts::Number::Double(v),
    })
}

fn exemplars(point: &Point<'_>) -> Vec<prosts::Exemplar> {
    let rebuilt = |e: Exemplar<'_>| prosts::Exemplar {
        filtered_attributes: Vec::new(),
        time_unix_nano: e.time_ns,
        span_id: e.span_id.to_vec(),
        trace_id: e.trace_id.to_vec(),
        value: e.value.map(|v| match v {
            Number::Int(v) => prosts::Example::Int(v),
            Number::Double(v) => prosts::Example::Double(v),
        }),
    };
    point.exemplars().map(rebuilt).collect()
}

fn buckets(b: Buckets<'_>) -> prosts::Buckets {
    prosts::Buckets {
        offset: b.offset,
        bucket_counts: b.counts().collect(),
    }
}

/// A line for each thing that the view shows.
fn seen(encoded: &Encoded) -> Vec<String> {
    let mut lines = Vec::new();
    for resource in encoded.resource_metrics() {
        lines.push(format!("resource {:?}", pairs(resource.attributes())));
        for scope in resource.scopes() {
            let names = [scope.name, scope.version, scope.schema_url].map(text);
            lines.push(format!("scope {names:?} {:?}", pairs(scope.attributes())));
            for metric in scope.metrics() {
                let names = [metric.name, metric.description, metric.unit].map(text);
                let kind = (metric.kind, metric.temporality, metric.monotonic);
                lines.push(format!("metric {names:?} {kind:?}"));
                lines.extend(metric.points().map(|p| seen_point(&p)));
            }
        }
    }
    lines
}

fn seen_point(point: &Point<'_>) -> String {
    let h = point.head();
    let of_exemplars: Vec<_> = point.exemplars().map(|e| pairs(e.attributes())).collect();
    let attributes = (pairs(point.attributes()), of_exemplars);
    let exemplars = exemplars(point);
    let (start_time_unix_nano, time_unix_nano, flags) = (h.start_ns, h.time_ns, h.flags);
    match point {
        Point::Number(p) => {
            let rebuilt = prosts::NumberPoint {
                start_time_unix_nano,
                time_unix_nano,
                flags,
                exemplars,
                value: number(p.value),
                ..Default::default()
            };
            format!("{attributes:?} {rebuilt:?}")
        }
        Point::Histogram(p) => {
            let rebuilt = prosts::HistogramPoint {
                start_time_unix_nano,
                time_unix_nano,
                flags,
                exemplars,
                count: p.count,
                sum: p.sum,
                bucket_counts: p.bucket_counts().collect(),
                explicit_bounds: p.explicit_bounds().collect(),
                ..Default::default()
            };
            format!("{attributes:?} {rebuilt:?}")
        }
        Point::Exponential(p) => {
            let rebuilt = prosts::ExponentialPoint {
                start_time_unix_nano,
                time_unix_nano,
                flags,
                exemplars,
                count: p.count,
                sum: p.sum,
                scale: p.scale,
                zero_count: p.zero_count,
                zero_threshold: p.zero_threshold,
                positive: Some(buckets(p.positive())),
                negative: Some(buckets(p.negative())),
                ..Default::default()
            };
            format!("{attributes:?} {rebuilt:?}")
        }
        Point::Summary(p) => {
            let rebuilt = prosts::SummaryPoint {
                start_time_unix_nano,
                time_unix_nano,
                flags,
                count: p.count,
                sum: p.sum,
                quantile_values: p
                    .quantiles()
                    .map(|(quantile, value)| prosts::Quantile { quantile, value })
                    .collect(),
                ..Default::default()
            };
            format!("{attributes:?} {rebuilt:?}")
        }
    }
}

/// The same lines, of what `prost` decodes.
fn wanted(body: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    for resource in prosts::Metrics::decode(body).unwrap().resource_metrics {
        let attributes = resource.resource.unwrap_or_default().attributes;
        lines.push(format!("resource {:?}", wanted_pairs(&attributes)));
        for scope in resource.scope_metrics {
            let (about, url) = (scope.scope.unwrap_or_default(), scope.schema_url);
            let names = [about.name, about.version, url];
            let attributes = wanted_pairs(&about.attributes);
            lines.push(format!("scope {names:?} {attributes:?}"));
            for metric in scope.metrics {
                let names = [metric.name, metric.description, metric.unit];
                lines.extend(wanted_data(names, metric.data));
            }
        }
    }
    lines
}

fn wanted_data(names: [String; 3], data: Option<prosts::Data>) -> Vec<String> {
    let time = |v| match v {
        1 => Temporality::Delta,
        2 => Temporality::Cumulative,
        _ => Temporality::Unspecified,
    };
    let none = Temporality::Unspecified;
    macro_rules! points {
        ($data:expr, $attributes:ident, $p:ident, $exemplars:expr, $clear:expr) => {
            $data.data_points.into_iter().map(|mut $p| {
                let $attributes = wanted_pairs(&$p.attributes);
                $p.attributes.clear();
                let of_exemplars: Vec<_> = $exemplars;
                $clear;
                format!("{:?} {:?}", ($attributes, of_exemplars), $p)
            })
        };
    }
    macro_rules! exemplars {
        ($p:ident) => {
            $p.exemplars
                .iter_mut()
                .map(|e| wanted_pairs(&std::mem::take(&mut e.filtered_attributes)))
                .collect()
        };
    }
    let head = |kind| format!("metric {names:?} {kind:?}");
    match data {
        None => vec![head((None, none, false))],
        Some(prosts::Data::Gauge(d)) => {
            let mut lines = vec![head((Some(MetricKind::Gauge), none, false))];
            lines.extend(points!(d, a, p, exemplars!(p), {}));
            lines
        }
        Some(prosts::Data::Sum(d)) => {
            let temporality = time(d.aggregation_temporality);
            let mut lines = vec![head((Some(MetricKind::Sum), temporality, d.is_monotonic))];
            lines.extend(points!(d, a, p, exemplars!(p), {}));
            lines
        }
        Some(prosts::Data::Histogram(d)) => {
            let temporality = time(d.aggregation_temporality);
            let mut lines = vec![head((Some(MetricKind::Histogram), temporality, false))];
            lines.extend(points!(d, a, p, exemplars!(p), {
                (p.min, p.max) = (None, None);
            }));
            lines
        }
        Some(prosts::Data::Exponential(d)) => {
            let kind = Some(MetricKind::ExponentialHistogram);
            let mut lines = vec![head((kind, time(d.aggregation_temporality), false))];
            lines.extend(points!(d, a, p, exemplars!(p), {
                (p.min, p.max) = (None, None);
                p.positive = Some(p.positive.unwrap_or_default());
                p.negative = Some(p.negative.unwrap_or_default());
            }));
            lines
        }
        Some(prosts::Data::Summary(d)) => {
            let mut lines = vec![head((Some(MetricKind::Summary), none, false))];
            lines.extend(points!(d, a, p, Vec::<Vec<(String, String)>>::new(), {}));
            lines
        }
    }
}

fn check(body: Vec<u8>) {
    let want = wanted(&body);
    let encoded = Encoded::parse(Signal::Metrics, Bytes::from(body), &Limits::default()).unwrap();
    let points = |lines: &[String]| lines.iter().filter(|l| l.starts_with("([")).count();
    assert_eq!(encoded.items(), points(&want));
    assert_eq!(seen(&encoded), want);
}

proptest! {
    #[test]
    fn the_view_shows_what_prost_decodes(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        check(Dice::new(&bytes).metrics().encode_to_vec());
    }

    /// Messages in several pieces are one, and the last kind of data counts.
    #[test]
    fn a_metric_in_pieces_is_one(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 1..4),
    ) {
        let mut metric = Vec::new();
        let mut resource = Vec::new();
        for bytes in &pieces {
            let sample = Dice::new(bytes).metrics();
            for r in sample.resource_metrics {
                resource.extend(r.encode_to_vec());
                for m in r.scope_metrics.iter().flat_map(|s| &s.metrics) {
                    metric.extend(m.encode_to_vec());
                }
            }
        }
        let field = |n: u8, buf: &[u8]| {
            let mut out = vec![n << 3 | 2];
            crate::otlp::wire::put_varint(&mut out, buf.len() as u64);
            out.extend_from_slice(buf);
            out
        };
        check(field(1, &resource));
        check(field(1, &field(2, &field(2, &metric))));
    }
}

#[test]
fn logs_have_no_metrics() {
    let body = Bytes::from_static(b"\x0a\x06\x12\x04\x12\x00\x12\x00");
    let logs = Encoded::parse(Signal::Logs, body, &Limits::default()).unwrap();
    assert_eq!(logs.resource_metrics().count(), 0);
}
