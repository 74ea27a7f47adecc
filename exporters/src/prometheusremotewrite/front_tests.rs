//! Batches in, requests out, without a network.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use prost::Message;
use tailwater_pipeline::ack::NoSink;
use tailwater_pipeline::{AckWindow, Front, Permit};

use super::super::oracle::otlp::{Metric, NumberPoint, ResourceMetrics};
use super::super::oracle::{RequestV2, WriteRequest, as_v1};
use super::super::translate_tests::{NS, counter, encoded, gauge, metric, point, resource, text};
use super::*;

type Sent = Arc<Mutex<Vec<OutgoingRequest<Acks>>>>;

struct Kept(Sent);

impl Outlet for Kept {
    fn submit(&self, request: OutgoingRequest<Acks>) {
        self.0.lock().unwrap().push(request);
    }

    fn admission(&self) -> Admission {
        Admission::Open
    }
}

struct Rig {
    front: RemoteWriteFront<Kept>,
    sent: Sent,
    window: AckWindow<u32>,
}

impl Rig {
    fn new(options: RemoteWriteOptions) -> Rig {
        let sent = Sent::default();
        let (options, headers) = (Arc::new(options), Arc::default());
        Rig {
            front: RemoteWriteFront::new(options, headers, Kept(sent.clone())),
            sent,
            window: AckWindow::new(Arc::new(NoSink), 0),
        }
    }

    /// Exports a batch with a part for each of `parts`; what was sent.
    fn export(&mut self, parts: Vec<Vec<ResourceMetrics>>) -> Vec<OutgoingRequest<Acks>> {
        let mut batch = Batch::default();
        for (number, resources) in parts.into_iter().enumerate() {
            let data = encoded(resources);
            let ack = self.window.reserve(number as u32, data.items() as u32, 1);
            batch.parts.push(Part {
                data: data.into(),
                ack,
                permit: Permit::none(),
            });
        }
        self.front.export(batch, Mono::default());
        std::mem::take(&mut *self.sent.lock().unwrap())
    }
}

fn message(request: &OutgoingRequest<Acks>) -> Vec<u8> {
    let body = request.body.concat();
    snap::raw::Decoder::new().decompress_vec(&body).unwrap()
}

fn v1(request: &OutgoingRequest<Acks>) -> WriteRequest {
    WriteRequest::decode(&*message(request)).unwrap()
}

/// Gauges with one point for each of `n` values of a label.
fn many(n: usize) -> Vec<ResourceMetrics> {
    let at = |i: usize| point(i as f64, &[text("i", &i.to_string())]);
    vec![resource(&[], vec![gauge("g", (0..n).map(at).collect())])]
}

/// The value of each series of `many`, and the request it is in.
fn values(requests: &[OutgoingRequest<Acks>]) -> BTreeMap<usize, (f64, usize)> {
    let mut values = BTreeMap::new();
    for (number, request) in requests.iter().enumerate() {
        for series in v1(request).timeseries {
            let label = series.labels.iter().find(|l| l.name == "i").unwrap();
            let before = values.insert(
                label.value.parse().unwrap(),
                (series.samples[0].value, number),
            );
            assert_eq!(before, None, "a series is in one request");
        }
    }
    values
}

fn resolve(requests: Vec<OutgoingRequest<Acks>>, outcome: Outcome) {
    for request in requests {
        crate::delivery::Duty::resolve(request.duty, outcome);
    }
}

#[test]
fn small_batches_are_one_request_and_large_ones_several_that_share_no_series() {
    let mut rig = Rig::new(RemoteWriteOptions::default());
    for (points, requests) in [(1, 1), (1999, 1), (2000, 2), (9000, 5)] {
        let sent = rig.export(vec![many(points)]);
        assert_eq!(sent.len(), requests, "{points}");
        assert_eq!(values(&sent).len(), points);
        assert_eq!(sent.iter().map(|r| r.items).sum::<u64>(), points as u64);
        let lanes: Vec<u64> = sent.iter().flat_map(|r| r.lanes.clone()).collect();
        let different: BTreeSet<&u64> = lanes.iter().collect();
        assert_eq!(lanes.len(), different.len());
        for (i, (value, _)) in values(&sent) {
            assert_eq!(value, i as f64);
        }
        resolve(sent, Outcome::Delivered);
    }
}

/// That is what keeps the order: a request waits for those before it that share a lane.
#[test]
fn a_series_is_always_in_the_same_lane() {
    let mut rig = Rig::new(RemoteWriteOptions::default());
    let sent = rig.export(vec![many(9000)]);
    let first = values(&sent);
    for i in [0, 17, 4711] {
        let attributes = [text("i", &i.to_string())];
        let one = vec![resource(
            &[],
            vec![gauge("g", vec![point(1.0, &attributes)])],
        )];
        let again = rig.export(vec![one]);
        let lanes = &sent[first[&i].1].lanes;
        assert_eq!(again[0].lanes.len(), 1);
        assert!(lanes.contains(&again[0].lanes[0]), "{i}");
        resolve(again, Outcome::Delivered);
    }
    resolve(sent, Outcome::Delivered);
}

#[test]
fn requests_are_not_larger_than_allowed() {
    for protocol in [Protocol::V1, Protocol::V2] {
        let options = RemoteWriteOptions {
            protocol,
            request_bytes_max: 4000,
            send_metadata: true,
            ..RemoteWriteOptions::default()
        };
        let mut rig = Rig::new(options);
        let sent = rig.export(vec![many(3000)]);
        assert!(sent.len() > 10);
        let mut names = BTreeSet::new();
        for request in &sent {
            let message = message(request);
            assert!(message.len() <= 4000, "{}", message.len());
            let request = match protocol {
                Protocol::V1 => WriteRequest::decode(&*message).unwrap(),
                Protocol::V2 => as_v1(&RequestV2::decode(&*message).unwrap()),
            };
            assert!(request.metadata.iter().all(|m| m.metric_family_name == "g"));
            assert!(!request.metadata.is_empty());
            names.extend(request.timeseries.iter().map(|s| format!("{:?}", s.labels)));
        }
        assert_eq!(names.len(), 3000);
        assert_eq!(sent.iter().map(|r| r.items).sum::<u64>(), 3000);
        resolve(sent, Outcome::Delivered);
        // A series that is larger by itself is a request.
        let later = |i: u64| NumberPoint {
            time_unix_nano: NS + i * 1_000_000,
            ..point(1.0, &[])
        };
        let long = gauge("long", (0..500).map(later).collect());
        let sent = rig.export(vec![vec![resource(&[], vec![long])]]);
        assert_eq!((sent.len(), sent[0].items), (1, 500));
        resolve(sent, Outcome::Delivered);
    }
}

#[test]
fn metadata_is_sent_if_it_is_wanted() {
    let mut rig = Rig::new(RemoteWriteOptions::default());
    let sent = rig.export(vec![many(1)]);
    assert!(v1(&sent[0]).metadata.is_empty());
    resolve(sent, Outcome::Delivered);
}

#[test]
fn every_part_answers_for_its_own_points() {
    let mut rig = Rig::new(RemoteWriteOptions::default());
    let delta = || -> Metric {
        let mut sum = counter("c", vec![point(1.0, &[]), point(2.0, &[])]);
        if let Some(super::super::oracle::otlp::Data::Sum(s)) = &mut sum.data {
            s.aggregation_temporality = 1;
        }
        sum
    };
    let empty = vec![resource(&[text("a", "b")], vec![])];
    let target = [text("service.name", "s"), text("host", "h")];
    let sent = rig.export(vec![
        many(3),
        vec![resource(&[], vec![delta()])],
        vec![resource(
            &target,
            vec![delta(), gauge("x", vec![point(1.0, &[])])],
        )],
        empty,
    ]);
    assert_eq!((sent.len(), sent[0].items), (1, 4));
    assert_eq!(v1(&sent[0]).timeseries.len(), 5);
    let mut settled = Vec::new();
    let mut advance = |rig: &mut Rig| {
        let front = rig
            .window
            .advance(|s| settled.push((s.position, s.counts.dropped_total())));
        (front, settled.clone())
    };
    assert_eq!(advance(&mut rig), (Front::Waiting, vec![]));
    resolve(sent, Outcome::Delivered);
    let want = vec![(0, 0), (1, 2), (2, 2), (3, 0)];
    assert_eq!(advance(&mut rig), (Front::Empty, want));
}

/// The series of a histogram may be in two requests if these are small; both have to arrive.
#[test]
fn a_point_in_two_requests_is_delivered_when_both_are() {
    use super::super::oracle::otlp::{Data, Histogram, HistogramPoint};
    let options = RemoteWriteOptions {
        request_bytes_max: 400,
        ..RemoteWriteOptions::default()
    };
    let mut rig = Rig::new(options);
    let p = HistogramPoint {
        time_unix_nano: NS,
        bucket_counts: vec![1; 20],
        explicit_bounds: (0..19).map(f64::from).collect(),
        count: 20,
        ..Default::default()
    };
    let histogram = Histogram {
        data_points: vec![p],
        aggregation_temporality: 2,
    };
    let h = metric("h", Data::Histogram(histogram));
    let mut sent = rig.export(vec![vec![resource(&[], vec![h])]]);
    assert!(sent.len() > 2);
    let items: Vec<u64> = sent.iter().map(|r| r.items).collect();
    assert_eq!(items.iter().sum::<u64>(), 1);
    assert!(sent.iter().all(|r| r.lanes == sent[0].lanes));
    let last = sent.pop().unwrap();
    resolve(sent, Outcome::Delivered);
    assert_eq!(rig.window.advance(|_| {}), Front::Waiting);
    resolve(vec![last], Outcome::Retry);
    assert_eq!(rig.window.advance(|_| {}), Front::Rewind(Outcome::Retry));
}

/// Texts are remembered over batches, but not without an end.
#[test]
fn texts_are_forgotten_when_they_are_many() {
    for protocol in [Protocol::V1, Protocol::V2] {
        let options = RemoteWriteOptions {
            protocol,
            ..RemoteWriteOptions::default()
        };
        let mut rig = Rig::new(options);
        let mut most = 0;
        for round in 0..4 {
            let at = |i: usize| point(i as f64, &[text("i", &format!("{round}-{i}"))]);
            let g = gauge("g", (0..40_000).map(at).collect());
            let sent = rig.export(vec![vec![resource(&[], vec![g])]]);
            most = most.max(rig.front.translator.labels.len());
            let mut seen = 0;
            for request in &sent {
                let message = message(request);
                let request = match protocol {
                    Protocol::V1 => WriteRequest::decode(&*message).unwrap(),
                    Protocol::V2 => as_v1(&RequestV2::decode(&*message).unwrap()),
                };
                for series in request.timeseries {
                    let value = series.samples[0].value;
                    assert_eq!(series.labels[0].value, "g");
                    assert_eq!(series.labels[1].value, format!("{round}-{value}"));
                    seen += 1;
                }
            }
            assert_eq!(seen, 40_000);
            resolve(sent, Outcome::Delivered);
        }
        assert!((100_000..150_000).contains(&most), "{most}");
    }
}
