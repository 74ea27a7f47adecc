//! From batches to requests.

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use proptest::prelude::*;
use tailwater_pdata::{Column, Entry, Map, Slice, Times, Value};
use tailwater_pipeline::ack::NoSink;
use tailwater_pipeline::clock::SimClock;
use tailwater_pipeline::{AckWindow, Front, Permit};

use super::super::options::{DeliveryMode, LabelMapping, LabelOptions, Limits, MetadataOptions};
use super::super::wire::oracle;
use super::*;

const NOW: i64 = 1_763_909_608_000_000_000;
const HOUR: i64 = 3_600_000_000_000;

#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Vec<OutgoingRequest<Acks>>>>);

impl Outlet for Sent {
    fn submit(&self, request: OutgoingRequest<Acks>) {
        self.0.lock().unwrap().push(request);
    }

    fn admission(&self) -> Admission {
        Admission::Open
    }
}

struct Rig {
    front: LokiFront<Sent>,
    sent: Sent,
    window: AckWindow<u64>,
    shared: Arc<Shared>,
}

fn rig(options: LokiOptions) -> Rig {
    let shared = Arc::new(Shared {
        dead_letters: None,
        budget: None,
        stats: Arc::default(),
        parked: Arc::default(),
        streams: AtomicUsize::new(0),
        clock: Arc::new(SimClock::new(NOW)),
        options,
    });
    let sent = Sent::default();
    Rig {
        front: LokiFront::new(shared.clone(), sent.clone()),
        sent,
        window: AckWindow::new(Arc::new(NoSink), 0),
        shared,
    }
}

fn mapping() -> LokiOptions {
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    LokiOptions {
        labels: LabelOptions::Mapping(LabelMapping {
            fixed: vec![pair("cluster", "c1")],
            resource: vec![pair("pod", "k8s.pod.name")],
            attributes: vec![pair("stream", "log.iostream")],
            severity: None,
        }),
        line_format: LineFormat::Raw,
        structured_metadata: MetadataOptions::all(),
        ..LokiOptions::default()
    }
}

/// One message of a request: tenant and streams with their entries.
type Message = (Option<String>, Vec<(String, Vec<oracle::Entry>)>);

impl Rig {
    fn export(&mut self, logs: LogsBatch) {
        let rows = logs.rows() as u32;
        let ack = self.window.reserve(0, rows, 1);
        let permit = Permit::none();
        let batch = Batch::of(Part { logs, ack, permit });
        self.front.export(batch, Mono(1));
    }

    /// Closes what is open and takes all requests.
    fn take(&mut self) -> Vec<OutgoingRequest<Acks>> {
        self.front.flush(Mono(1));
        std::mem::take(&mut *self.sent.0.lock().unwrap())
    }

    /// As messages; every request is resolved as delivered.
    fn messages(&mut self) -> Vec<Message> {
        use crate::delivery::Duty;
        let mut out = Vec::new();
        for request in self.take() {
            let push = oracle::decode(&request.body.concat());
            let entries: usize = push.streams.iter().map(|s| s.entries.len()).sum();
            assert_eq!(request.items, entries as u64);
            assert_eq!(request.lanes.len(), push.streams.len());
            let tenant = request.tenant.as_deref().map(str::to_owned);
            let header = request.headers.get("x-scope-orgid");
            assert_eq!(header.map(|h| h.to_str().unwrap()), tenant.as_deref());
            let streams = push.streams.into_iter().map(|s| (s.labels, s.entries));
            out.push((tenant, streams.collect()));
            request.duty.resolve(Outcome::Delivered);
        }
        out
    }

    fn settled(&mut self) -> (Front, u32) {
        let mut dropped = 0;
        let front = self.window.advance(|s| dropped += s.counts.dropped_total());
        (front, dropped)
    }
}

fn entry(body: &str) -> Entry {
    Entry {
        time: NOW,
        body: body.into(),
        ..Entry::default()
    }
}

fn map(pairs: &[(&str, &str)]) -> Map {
    pairs.iter().map(|(k, v)| (*k, Value::str(v))).collect()
}

fn lines(message: &Message) -> Vec<(String, Vec<String>)> {
    let text = |e: &oracle::Entry| String::from_utf8(e.line.clone()).unwrap();
    let stream = |(labels, entries): &(String, Vec<oracle::Entry>)| {
        (labels.clone(), entries.iter().map(text).collect())
    };
    message.1.iter().map(stream).collect()
}

/// The entries of all messages by stream, in order.
fn by_stream(messages: &[Message]) -> Vec<(String, Vec<oracle::Entry>)> {
    let mut out: Vec<(String, Vec<oracle::Entry>)> = Vec::new();
    for (labels, entries) in messages.iter().flat_map(|m| &m.1) {
        match out.iter_mut().find(|(l, _)| l == labels) {
            Some((_, all)) => all.extend_from_slice(entries),
            None => out.push((labels.clone(), entries.clone())),
        }
    }
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}

fn pairs(entry: &oracle::Entry) -> Vec<(String, String)> {
    let pair = |p: &oracle::Pair| (p.name.clone(), p.value.clone());
    entry.metadata.iter().map(pair).collect()
}

/// Everything of a record is in exactly one place: label, line or structured metadata.
#[test]
fn a_mapped_record_is_spread_over_labels_line_and_metadata() {
    let mut rig = rig(mapping());
    let record = |stream: &str, line: &str, extra: &str| Entry {
        attributes: map(&[("log.iostream", stream), ("http.path", extra)]),
        resource: map(&[("k8s.pod.name", "p1"), ("host.name", "h")]),
        severity: 9,
        scope_name: "sc".into(),
        trace_id: [0xab; 16],
        ..entry(line)
    };
    let logs = LogsBatch::from_entries(&[
        record("stdout", "one", "/a"),
        record("stderr", "two", "/b"),
        record("stdout", "three", ""),
    ]);
    rig.export(logs);
    let streams = by_stream(&rig.messages());
    let labels = |s: &str| format!("{{cluster=\"c1\", pod=\"p1\", stream=\"{s}\"}}");
    assert_eq!(
        lines(&(None, streams.clone())),
        [
            (labels("stderr"), vec!["two".to_owned()]),
            (labels("stdout"), vec!["one".into(), "three".into()]),
        ]
    );
    let stdout = &streams[1].1;
    let mut got = pairs(&stdout[0]);
    got.sort();
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let mut want = vec![
        pair("detected_level", "info"),
        pair("host_name", "h"),
        pair("http_path", "/a"),
        pair("scope_name", "sc"),
        pair("severity_number", "9"),
        pair("trace_id", &"ab".repeat(16)),
    ];
    assert_eq!(got, want);
    want.remove(2);
    let mut third = pairs(&stdout[1]);
    third.sort();
    assert_eq!(third, want, "empty values are not sent");
    assert_eq!(rig.settled(), (Front::Empty, 0));
}

#[test]
fn constants_and_dictionaries_give_the_same_as_rows() {
    let text = Bytes::from_static(b"abcdef");
    let ranges: Vec<(u32, u32)> = (0..6).map(|i| (i, 1)).collect();
    let mut logs = LogsBatch::from_lines(text, &ranges);
    logs.time = Times::Const(NOW);
    logs.resource = Arc::new(map(&[("k8s.pod.name", "p")]));
    let values = vec![Value::str("stdout"), Value::str("stderr")];
    let codes = vec![0, 1, 0, 255, 1, 0];
    logs.attributes
        .set("log.iostream", Column::dict(codes, values));
    logs.attributes.set("app", Column::Const("x".into()));
    let entries = logs.to_entries();
    let mut messages = Vec::new();
    for logs in [logs, LogsBatch::from_entries(&entries)] {
        let mut rig = rig(mapping());
        rig.export(logs);
        messages.push(rig.messages());
    }
    assert_eq!(messages[0], messages[1]);
    let streams = by_stream(&messages[0]);
    let lines = lines(&(None, streams.clone()));
    let lines: Vec<_> = lines.into_iter().map(|s| s.1.concat()).collect();
    assert_eq!(lines, ["be", "acf", "d"]);
    assert_eq!(
        pairs(&streams[0].1[0]),
        [("app".to_owned(), "x".to_owned())]
    );
}

#[test]
fn known_streams_share_a_request_and_only_one_that_may_be_refused_stands_last() {
    let mut rig = rig(mapping());
    let one = |pod: &str, line: &str| Entry {
        resource: map(&[("k8s.pod.name", pod)]),
        ..entry(line)
    };
    let export = |rig: &mut Rig, pods: &[&str]| {
        for pod in pods {
            rig.export(LogsBatch::from_entries(&[one(pod, "x")]));
        }
    };
    export(&mut rig, &["a", "b"]);
    assert_eq!(rig.messages().len(), 2, "both are new");
    export(&mut rig, &["a", "new", "b"]);
    let messages = rig.messages();
    assert_eq!(messages.len(), 1);
    let pods: Vec<_> = messages[0].1.iter().map(|s| s.0.as_str()).collect();
    let labels = |p: &str| format!("{{cluster=\"c1\", pod=\"{p}\"}}");
    assert_eq!(pods, [labels("a"), labels("b"), labels("new")]);
    // An entry far behind what was sent makes its stream one that may be refused.
    let old = Entry {
        time: NOW - 2 * HOUR,
        ..one("a", "old")
    };
    rig.export(LogsBatch::from_entries(&[old]));
    export(&mut rig, &["b", "newer"]);
    let messages = rig.messages();
    assert_eq!(messages.len(), 2);
    let mut last: Vec<_> = messages
        .iter()
        .map(|m| m.1.last().unwrap().0.clone())
        .collect();
    last.sort();
    assert_eq!(last, [labels("a"), labels("newer")]);
    assert_eq!(rig.shared.stats.probing_requests(), 5);
}

#[test]
fn verified_delivery_and_parked_streams_get_requests_of_their_own() {
    let options = LokiOptions {
        delivery: DeliveryMode::Verified,
        ..mapping()
    };
    for (options, park) in [(options, false), (mapping(), true)] {
        let mut rig = rig(options);
        let one = |pod: &str| {
            LogsBatch::from_entries(&[Entry {
                resource: map(&[("k8s.pod.name", pod)]),
                ..entry("x")
            }])
        };
        for _ in 0..2 {
            ["a", "b", "c"].iter().for_each(|pod| rig.export(one(pod)));
        }
        let first = rig.take();
        if park {
            rig.shared.parked.park(first[1].lanes[0]);
        }
        for _ in 0..5 {
            ["a", "b", "c"].iter().for_each(|pod| rig.export(one(pod)));
        }
        let lanes: Vec<_> = rig.take().iter().map(|r| r.lanes.len()).collect();
        // Streams that are not parked share one.
        let want: &[usize] = if park { &[1, 2] } else { &[1, 1, 1] };
        assert_eq!(lanes.iter().sum::<usize>(), 3);
        assert_eq!(lanes.len(), want.len());
    }
}

/// Rows of streams that must not be together alternate in a batch.
#[test]
fn alternating_streams_do_not_tear_requests_apart() {
    for delivery in [DeliveryMode::Probed, DeliveryMode::Verified] {
        let mut options = LokiOptions {
            delivery,
            ..mapping()
        };
        // Both streams are always near their rate.
        options.limits.stream_burst_bytes = 1;
        let mut rig = rig(options);
        let each = |i: usize| Entry {
            attributes: map(&[("log.iostream", ["stdout", "stderr"][i % 2])]),
            ..entry(&i.to_string())
        };
        let entries: Vec<_> = (0..1_000).map(each).collect();
        rig.export(LogsBatch::from_entries(&entries));
        rig.export(LogsBatch::from_entries(&entries));
        let requests = rig.take();
        let items: Vec<_> = requests.iter().map(|r| r.items).collect();
        assert_eq!(items, [1_000, 1_000], "{delivery:?}");
    }
}

#[test]
fn open_requests_together_are_bounded() {
    let options = LokiOptions {
        delivery: DeliveryMode::Verified,
        max_request_bytes: 20_000,
        ..mapping()
    };
    let mut rig = rig(options);
    for i in 0..200 {
        let e = Entry {
            resource: map(&[("k8s.pod.name", &format!("p{i}"))]),
            ..entry(&"x".repeat(1_000))
        };
        rig.export(LogsBatch::from_entries(&[e]));
        assert!(rig.front.open_bytes <= 4 * 20_000 + 2_000);
    }
    assert!(!rig.sent.0.lock().unwrap().is_empty());
    assert_eq!(rig.messages().len(), 200);
    assert_eq!(rig.front.open_bytes, 0);
}

#[test]
fn a_request_never_exceeds_its_size_and_nothing_is_lost() {
    let options = LokiOptions {
        max_request_bytes: 64 << 10,
        ..mapping()
    };
    let mut rig = rig(options);
    let line = |i: usize| format!("{i} {}", "x".repeat(i * 7919 % 3000));
    for part in 0..20 {
        let each = |i: usize| Entry {
            attributes: map(&[("log.iostream", ["stdout", "stderr"][i % 2])]),
            ..entry(&line(part * 50 + i))
        };
        let entries: Vec<_> = (0..50).map(each).collect();
        rig.export(LogsBatch::from_entries(&entries));
    }
    assert_eq!(rig.settled().0, Front::Waiting);
    let mut got = Vec::new();
    let requests = rig.sent.0.lock().unwrap().len();
    for message in rig.messages() {
        let push = oracle::Push {
            streams: message
                .1
                .iter()
                .map(|(labels, entries)| oracle::Stream {
                    labels: labels.clone(),
                    entries: entries.clone(),
                })
                .collect(),
        };
        assert!(prost::Message::encoded_len(&push) <= 64 << 10);
        got.extend(lines(&message).into_iter().flat_map(|s| s.1));
    }
    assert!((20..60).contains(&requests), "{requests}");
    got.sort();
    let mut want: Vec<_> = (0..1000).map(line).collect();
    want.sort();
    assert_eq!(got, want);
    assert_eq!(rig.settled(), (Front::Empty, 0));
}

#[test]
fn entries_outside_the_window_are_dropped_and_counted_or_clamped() {
    let at = |time: i64| Entry { time, ..entry("x") };
    let records = [at(NOW - 169 * HOUR), at(NOW), at(NOW + HOUR)];
    let limits = |outside_window| Limits {
        age_max: Duration::from_secs(168 * 3600),
        outside_window,
        ..Limits::default()
    };
    let mut rig1 = rig(LokiOptions {
        limits: limits(OutsideWindow::Drop),
        ..mapping()
    });
    rig1.export(LogsBatch::from_entries(&records));
    assert_eq!(rig1.messages()[0].1[0].1.len(), 1);
    assert_eq!(rig1.settled(), (Front::Empty, 2));
    let stats = &rig1.shared.stats;
    let dropped = (
        stats.dropped(DropReason::TooOld),
        stats.dropped(DropReason::TooNew),
    );
    assert_eq!(dropped, (1, 1));
    // A part of which nothing is left is settled at once.
    rig1.export(LogsBatch::from_entries(&records[..1]));
    assert!(rig1.take().is_empty());
    assert_eq!(rig1.settled(), (Front::Empty, 1));
    let mut rig2 = rig(LokiOptions {
        limits: limits(OutsideWindow::Clamp),
        ..mapping()
    });
    rig2.export(LogsBatch::from_entries(&records));
    let messages = rig2.messages();
    let times: Vec<_> = messages[0].1[0].1.iter().map(|e| e.time() - NOW).collect();
    assert_eq!(times, [-168 * HOUR + 60_000_000_000, 0, 600_000_000_000]);
    assert_eq!(rig2.shared.stats.clamped_times(), 2);
}

#[test]
fn an_age_that_loki_stated_is_kept_to() {
    let mut rig = rig(mapping());
    let old = Entry {
        time: NOW - 3 * HOUR,
        ..entry("old")
    };
    rig.export(LogsBatch::from_entries(std::slice::from_ref(&old)));
    assert_eq!(rig.messages().len(), 1, "nothing is known yet");
    rig.shared.parked.learn_age_max(2 * HOUR);
    rig.export(LogsBatch::from_entries(&[old, entry("new")]));
    assert_eq!(lines(&rig.messages()[0])[0].1, ["new"]);
    assert_eq!(rig.settled(), (Front::Empty, 1));
}

#[test]
fn a_record_without_times_gets_one_and_is_counted() {
    let mut rig = rig(mapping());
    let observed = Entry {
        time: 0,
        observed: NOW - 5,
        ..entry("observed")
    };
    let none = Entry {
        time: 0,
        ..entry("none")
    };
    rig.export(LogsBatch::from_entries(&[observed, none]));
    let times: Vec<_> = rig.messages()[0].1[0]
        .1
        .iter()
        .map(|e| e.time() - NOW)
        .collect();
    assert_eq!(times, [-5, 0]);
    assert_eq!(rig.shared.stats.untimed_entries(), 1);
}

#[test]
fn lines_that_are_too_long_are_cut_between_characters_or_dropped() {
    let long = format!(
        "{}\u{20ac}\u{20ac}\u{20ac}\u{20ac}\u{20ac}\u{20ac}",
        "x".repeat(20)
    );
    for (max, want) in [
        (38, Some(long.clone())),
        (37, Some(format!("{}\u{20ac} [truncated]", "x".repeat(20)))),
        (33, Some(format!("{} [truncated]", "x".repeat(20)))),
    ] {
        let limits = Limits {
            line_bytes_max: max,
            ..Limits::default()
        };
        let mut rig = rig(LokiOptions {
            limits,
            ..mapping()
        });
        rig.export(LogsBatch::from_entries(&[entry(&long)]));
        let got = rig.messages().first().map(|m| lines(m)[0].1[0].clone());
        assert!(got.as_ref().is_some_and(|l| l.len() <= max));
        assert_eq!(got, want, "{max}");
    }
    let limits = Limits {
        line_bytes_max: 10,
        line_too_long: LineTooLong::Drop,
        ..Limits::default()
    };
    let mut rig = rig(LokiOptions {
        limits,
        ..mapping()
    });
    rig.export(LogsBatch::from_entries(&[entry(&long), entry("short")]));
    assert_eq!(lines(&rig.messages()[0])[0].1, ["short"]);
    assert_eq!(rig.settled(), (Front::Empty, 1));
}

#[test]
fn too_many_streams_move_the_most_diverse_label_to_metadata() {
    let mut options = mapping();
    options.streams_max = 10;
    if let LabelOptions::Mapping(m) = &mut options.labels {
        m.attributes.push(("request".into(), "request.id".into()));
    }
    let mut rig = rig(options);
    let record = |i: usize| Entry {
        attributes: map(&[
            ("log.iostream", ["stdout", "stderr"][i % 2]),
            ("request.id", &format!("r{i}")),
        ]),
        ..entry(&format!("line {i}"))
    };
    for from in [0, 50] {
        let entries: Vec<_> = (from..from + 50).map(record).collect();
        rig.export(LogsBatch::from_entries(&entries));
    }
    let messages = rig.messages();
    let streams: Vec<_> = messages.iter().flat_map(|m| &m.1).collect();
    let mut labels: Vec<_> = streams.iter().map(|s| s.0.clone()).collect();
    labels.sort();
    labels.dedup();
    assert_eq!(
        labels.len(),
        12,
        "ten, and one for each other set of labels"
    );
    let entries: Vec<_> = streams.iter().flat_map(|s| &s.1).collect();
    assert_eq!(entries.len(), 100);
    let moved = |e: &&&oracle::Entry| e.metadata.iter().any(|p| p.name == "request");
    assert_eq!(entries.iter().filter(moved).count(), 90);
    assert_eq!(rig.shared.stats.moved_labels(), 90);
    assert_eq!(rig.front.moved, ["request"]);
    drop(rig.front);
    assert_eq!(rig.shared.streams.load(Ordering::Relaxed), 0);
}

#[test]
fn tenants_are_kept_apart_and_bad_ones_are_dropped() {
    let mut options = mapping();
    options.tenant.from_attribute = Some("tenant".into());
    options.tenant.fixed = Some("default".into());
    let mut rig = rig(options);
    let of = |tenant: &str, line: &str| Entry {
        attributes: map(&[("tenant", tenant)]),
        ..entry(line)
    };
    let records = [
        of("a", "1"),
        of("b", "2"),
        of("a", "3"),
        of("x/y", "4"),
        entry("5"),
    ];
    rig.export(LogsBatch::from_entries(&records));
    let got: Vec<_> = rig
        .messages()
        .iter()
        .map(|m| (m.0.clone().unwrap(), lines(m)[0].1.concat()))
        .collect();
    let want = [("a", "13"), ("b", "2"), ("default", "5")];
    assert_eq!(got, want.map(|(a, b)| (a.to_owned(), b.to_owned())));
    assert_eq!(rig.settled(), (Front::Empty, 1));
    assert_eq!(rig.shared.stats.dropped(DropReason::TenantRefused), 1);
}

#[test]
fn labels_beyond_the_limits_of_loki_are_not_sent() {
    let mut options = mapping();
    let fixed: Vec<_> = (0..20)
        .map(|i| (format!("l{i:02}"), "v".to_owned()))
        .collect();
    options.labels = LabelOptions::Mapping(LabelMapping {
        fixed,
        attributes: vec![
            ("service_name".into(), "svc".into()),
            ("last".into(), "last".into()),
        ],
        ..LabelMapping::default()
    });
    let mut rig = rig(options);
    let e = Entry {
        attributes: map(&[("svc", &"s".repeat(3_000)), ("last", "z")]),
        ..entry("x")
    };
    rig.export(LogsBatch::from_entries(&[e]));
    let messages = rig.messages();
    let (labels, entries) = &messages[0].1[0];
    let parsed = super::super::label_text::parse(labels).unwrap();
    assert_eq!(parsed.len(), 16, "15 and service_name");
    let value = parsed.iter().find(|(n, _)| *n == "service_name").unwrap().1;
    assert_eq!(value.len(), 2_048);
    assert_eq!(pairs(&entries[0]), [("last".to_owned(), "z".to_owned())]);
    assert_eq!(rig.shared.stats.dropped_labels(), 6);
}

#[test]
fn metadata_stays_within_the_limits_and_names_stay_apart() {
    let mut options = mapping();
    options.limits.metadata_pairs_max = 4;
    let mut rig = rig(options);
    let attributes = [("a.b", "1"), ("a_b", "2"), ("\u{65e5}", "3"), ("z", "9")];
    let nested: Map = [("k", Value::Map(map(&[("q", "v")])))]
        .into_iter()
        .collect();
    let mut e = Entry {
        attributes: map(&attributes),
        ..entry("x")
    };
    e.resource = [("a.b", Value::str("r"))].into_iter().collect();
    let mut deep = entry("y");
    deep.attributes = [("m", Value::Map(nested))].into_iter().collect();
    rig.export(LogsBatch::from_entries(&[e]));
    rig.export(LogsBatch::from_entries(&[deep]));
    let messages = rig.messages();
    let got: Vec<_> = messages.iter().flat_map(|m| &m.1[0].1).map(pairs).collect();
    let names: Vec<_> = got[0].iter().map(|p| p.0.as_str()).collect();
    assert_eq!(names.len(), 4);
    assert!(
        ["a_b", "a_b_2", "resource_a_b"]
            .iter()
            .all(|n| names.contains(n)),
        "{names:?}"
    );
    assert_eq!(got[1], [("m_k_q".to_owned(), "v".to_owned())]);
    assert_eq!(rig.shared.stats.trimmed_metadata(), 1);
}

#[test]
fn a_record_without_labels_gets_the_one_that_loki_would_give_it() {
    let mut options = mapping();
    options.labels = LabelOptions::Mapping(LabelMapping::default());
    let mut rig = rig(options);
    rig.export(LogsBatch::from_entries(&[entry("x")]));
    assert_eq!(
        rig.messages()[0].1[0].0,
        "{service_name=\"unknown_service\"}"
    );
}

#[test]
fn a_batch_is_kept_open_as_long_as_it_was_asked_for() {
    use crate::delivery::BatchOptions;
    let batch = BatchOptions {
        flush_timeout: Duration::from_secs(1),
        min_size: 5,
        ..BatchOptions::default()
    };
    let mut rig = rig(LokiOptions {
        batch: Some(batch),
        ..mapping()
    });
    let sent = |rig: &Rig| rig.sent.0.lock().unwrap().len();
    rig.export(LogsBatch::from_entries(&[entry("1"), entry("2")]));
    let deadline = Mono(1).after(Duration::from_secs(1));
    assert_eq!((sent(&rig), rig.front.deadline()), (0, Some(deadline)));
    rig.front.tick(Mono(2));
    assert_eq!(sent(&rig), 0);
    rig.front.tick(deadline);
    assert_eq!((sent(&rig), rig.front.deadline()), (1, None));
    let five: Vec<_> = (0..5).map(|i| entry(&i.to_string())).collect();
    rig.export(LogsBatch::from_entries(&five));
    assert_eq!(sent(&rig), 2, "the smallest size is reached");
    let batch = BatchOptions {
        max_size: 2,
        min_size: 0,
        ..BatchOptions::default()
    };
    let bytes = BatchOptions {
        max_size: 100,
        sizer: Sizer::Bytes,
        ..batch.clone()
    };
    for batch in [batch, bytes] {
        let mut rig = super::tests::rig(LokiOptions {
            batch: Some(batch),
            ..mapping()
        });
        rig.export(LogsBatch::from_entries(&five));
        let items: Vec<_> = rig.take().iter().map(|r| r.items).collect();
        assert_eq!(items, [2, 2, 1]);
    }
    let mut plain = super::tests::rig(mapping());
    plain.export(LogsBatch::from_entries(&[entry("1")]));
    assert_eq!(plain.front.deadline(), Some(Mono(1)), "at the next turn");
}

#[test]
fn raw_bytes_and_empty_bodies_are_sent_as_they_are() {
    let mut rig = rig(mapping());
    let text = Bytes::from_static(b"\xff\xfe\x00");
    let mut logs = LogsBatch::from_lines(text, &[(0, 3), (0, 0)]);
    logs.time = Times::Const(NOW);
    logs.body = Column::Slices(vec![Slice::shared(0, 3), Slice::ABSENT]);
    rig.export(logs);
    let messages = rig.messages();
    let lines: Vec<_> = messages[0].1[0].1.iter().map(|e| e.line.clone()).collect();
    assert_eq!(lines, [b"\xff\xfe\x00".to_vec(), Vec::new()]);
}

/// What becomes of `batches`: tenant, labels and line of every entry, in order within streams.
pub(crate) fn export_all(
    options: LokiOptions,
    batches: Vec<LogsBatch>,
) -> Vec<(Option<String>, String, String)> {
    let mut rig = rig(options);
    batches.into_iter().for_each(|logs| rig.export(logs));
    let mut out = Vec::new();
    for message in rig.messages() {
        for (labels, texts) in lines(&message) {
            let entry = |line| (message.0.clone(), labels.clone(), line);
            out.extend(texts.into_iter().map(entry));
        }
    }
    out
}

/// Rows of one batch may carry different hints; each is treated by its own.
#[test]
fn hints_are_followed_row_by_row() {
    let mut rig = rig(LokiOptions::default());
    let of = |pairs: &[(&str, &str)], severity: u8| Entry {
        attributes: map(pairs),
        severity,
        ..entry("b")
    };
    let nested: Map = [("method", Value::str("GET"))].into_iter().collect();
    let mut dotted = of(&[("loki.attribute.labels", "http.method")], 0);
    dotted.attributes.insert("http", Value::Map(nested));
    let records = [
        of(
            &[
                ("loki.attribute.labels", "a, b"),
                ("a", "1"),
                ("b", "2"),
                ("c", "3"),
            ],
            0,
        ),
        of(&[("loki.attribute.labels", "c"), ("a", "1"), ("c", "3")], 9),
        of(&[("loki.format", "raw"), ("level", "mine")], 9),
        of(&[("loki.format", "xml")], 0),
        of(&[("loki.format", "logfmt"), ("level", "mine")], 0),
        dotted,
    ];
    rig.export(LogsBatch::from_entries(&records));
    let got = lines(&(None, by_stream(&rig.messages())));
    let one = |labels: &str, line: &str| (labels.to_owned(), vec![line.to_owned()]);
    let mut want = [
        one(
            "{a=\"1\", b=\"2\", exporter=\"OTLP\"}",
            "{\"body\":\"b\",\"attributes\":{\"c\":\"3\"}}",
        ),
        one(
            "{c=\"3\", exporter=\"OTLP\", level=\"INFO\"}",
            "{\"body\":\"b\",\"attributes\":{\"a\":\"1\"}}",
        ),
        one("{exporter=\"OTLP\", level=\"mine\"}", "b"),
        one("{exporter=\"OTLP\"}", "msg=b attribute_level=mine"),
        one(
            "{exporter=\"OTLP\", http_method=\"GET\"}",
            "{\"body\":\"b\",\"attributes\":{\"http\":{\"method\":\"GET\"}}}",
        ),
    ];
    want.sort();
    assert_eq!(got, want);
    assert_eq!(rig.settled(), (Front::Empty, 1));
    assert_eq!(rig.shared.stats.dropped(DropReason::EncodeError), 1);
}

#[test]
fn tenants_come_from_a_hint_of_the_resource_first() {
    let mut rig = rig(LokiOptions::default());
    let e = Entry {
        resource: map(&[("loki.tenant", "team"), ("team", "r")]),
        attributes: map(&[("loki.tenant", "other"), ("other", "a")]),
        ..entry("x")
    };
    rig.export(LogsBatch::from_entries(&[e]));
    assert_eq!(rig.messages()[0].0.as_deref(), Some("r"));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    /// Whatever the records and limits are, every record is in exactly one request, in order
    /// within its stream, and no request is too large.
    #[test]
    fn every_record_is_sent_once_and_in_order(
        parts in proptest::collection::vec(
            proptest::collection::vec((0usize..5, 0usize..3, 0usize..700, any::<bool>()), 1..40),
            1..8,
        ),
        verified in any::<bool>(),
        burst in prop_oneof![Just(1u64), Just(15 << 20)],
        max in 3_000usize..20_000,
        streams_max in 1usize..20,
    ) {
        let mut options = mapping();
        options.max_request_bytes = max;
        options.streams_max = streams_max;
        options.limits.stream_burst_bytes = burst;
        options.tenant.from_attribute = Some("tenant".into());
        if verified {
            options.delivery = DeliveryMode::Verified;
        }
        let mut rig = rig(options);
        let mut n = 0;
        for part in &parts {
            let entries: Vec<_> = part
                .iter()
                .map(|(stream, tenant, len, flush)| {
                    n += 1;
                    let mut e = entry(&format!("{n} {}", "x".repeat(*len)));
                    e.time = NOW + n;
                    e.attributes = map(&[
                        ("log.iostream", &format!("s{stream}")),
                        ("tenant", ["a", "b", "c"][*tenant]),
                    ]);
                    if *flush {
                        e.attributes.insert("extra", Value::Int(n));
                    }
                    e
                })
                .collect();
            rig.export(LogsBatch::from_entries(&entries));
            if part.len() % 3 == 0 {
                rig.front.flush(Mono(1));
            }
        }
        let total: usize = parts.iter().map(Vec::len).sum();
        let mut seen = std::collections::HashMap::new();
        let mut numbers = Vec::new();
        for (tenant, streams) in rig.messages() {
            let size = |s: &(String, Vec<oracle::Entry>)| {
                let entries: usize = s.1.iter().map(|e| prost::Message::encoded_len(e) + 4).sum();
                s.0.len() + entries
            };
            prop_assert!(streams.iter().map(size).sum::<usize>() <= max + 64);
            for (labels, entries) in streams {
                let last = seen.entry((tenant.clone(), labels)).or_insert(0);
                for e in entries {
                    prop_assert!(e.time() > *last);
                    *last = e.time();
                    numbers.push(e.time() - NOW);
                }
            }
        }
        numbers.sort_unstable();
        prop_assert_eq!(numbers, (1..=total as i64).collect::<Vec<_>>());
        prop_assert_eq!(rig.settled(), (Front::Empty, 0));
    }
}
