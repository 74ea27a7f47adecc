//! Requests of metrics that are counts of something.

use super::Encoded;
use super::rewrite::{put_resource, put_scope};
use super::value::put_map;
use super::wire::{Open, put_bytes, put_i64, put_number};
use crate::value::Map;

/// The number of the field of a metric that is a sum.
const SUM: u32 = 7;
const DELTA: u64 = 1;

/// How many there were between two times, in ns since 1970.
#[derive(Clone, PartialEq, Debug)]
pub struct Count {
    /// What these have in common.
    pub attributes: Map,
    /// How many.
    pub count: u64,
    /// The first of them.
    pub start_ns: u64,
    /// The last of them.
    pub end_ns: u64,
}

/// A metric of counts: a monotonic sum of deltas.
#[derive(Clone, PartialEq, Debug)]
pub struct CountMetric<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its description, may be empty.
    pub description: &'a str,
    /// Its points.
    pub counts: Vec<Count>,
}

/// A request with the metrics of each resource, given by its attributes, under one scope of this name.
pub fn count_request<'a>(
    scope: &str,
    resources: impl IntoIterator<Item = (&'a Map, Vec<CountMetric<'a>>)>,
) -> Encoded {
    let mut body = Vec::new();
    for (attributes, metrics) in resources {
        let mut heading = Vec::new();
        let open = Open::field(&mut heading, 1, 2);
        put_map(&mut heading, 1, attributes);
        open.close(&mut heading);
        let mut of_scope = Vec::new();
        let open = Open::field(&mut of_scope, 1, 1);
        put_bytes(&mut of_scope, 1, scope.as_bytes());
        open.close(&mut of_scope);
        put_resource(&mut body, &heading, |out| {
            put_scope(out, &of_scope, |out| {
                metrics.iter().for_each(|metric| put(out, metric));
            });
        });
    }
    Encoded::of_metrics(body)
}

fn put(out: &mut Vec<u8>, metric: &CountMetric<'_>) {
    let open = Open::field(out, 2, 2);
    put_bytes(out, 1, metric.name.as_bytes());
    if !metric.description.is_empty() {
        put_bytes(out, 2, metric.description.as_bytes());
    }
    let sum = Open::field(out, SUM, 2);
    for count in &metric.counts {
        let point = Open::field(out, 1, 1);
        put_i64(out, 2, count.start_ns);
        put_i64(out, 3, count.end_ns);
        put_i64(out, 6, count.count);
        put_map(out, 7, &count.attributes);
        point.close(out);
    }
    put_number(out, 2, DELTA);
    put_number(out, 3, 1);
    sum.close(out);
    open.close(out);
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::super::oracle as o;
    use super::*;

    /// Guarantee: the structures of `prost` see what was counted.
    #[test]
    fn counts_are_monotonic_sums_of_deltas() {
        let resource: Map = [("service.name", "shop")].into_iter().collect();
        let attributes: Map = [("env", "x".repeat(300).as_str())].into_iter().collect();
        let count = Count {
            attributes,
            count: 7,
            start_ns: 3,
            end_ns: 5,
        };
        let metrics = vec![CountMetric {
            name: "log.record.count",
            description: "About.",
            counts: vec![count],
        }];
        let request = count_request("counts", [(&resource, metrics)]);
        assert_eq!(request.items(), 1);
        let got = o::Metrics::decode(request.body()).expect("a request");
        let resource = &got.resource_metrics[0];
        let list = &resource.resource.as_ref().expect("one").attributes;
        assert_eq!(list[0].key, "service.name");
        let scope = &resource.scope_metrics[0];
        assert_eq!(scope.scope.as_ref().expect("one").name, "counts");
        let metric = &scope.metrics[0];
        assert_eq!(
            (&*metric.name, &*metric.description),
            ("log.record.count", "About.")
        );
        let Some(o::Data::Sum(sum)) = &metric.data else {
            panic!("{metric:?}");
        };
        assert!(sum.is_monotonic && sum.aggregation_temporality == 1);
        let point = &sum.data_points[0];
        assert_eq!(point.value, Some(o::Number::Int(7)));
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (3, 5));
        assert_eq!(point.attributes[0].key, "env");
        assert!(
            Encoded::parse(crate::Signal::Metrics, request.body(), &Default::default()).is_ok()
        );
    }
}
