//! Changing requests, against the same change to the structures of `prost`.

use proptest::prelude::*;
use prost::Message;

use super::edit::{Attributes, Edit, Next, View};
use super::oracle::{self as o, Any, Data};
use super::samples::Dice;
use super::tests::len;
use super::*;
use crate::{Signal, Value, ValueRef};

fn parse(signal: Signal, body: Vec<u8>) -> Encoded {
    Encoded::parse(signal, body.into(), &Limits::default()).expect("a request")
}

/// Replaces `a` or adds it, removes `x`, in every `every`th list; leaves out every `drop`th item.
struct Change {
    every: usize,
    lists: usize,
    drop: usize,
    items: usize,
    /// By a map, or on the bytes.
    decoded: bool,
}

impl Change {
    fn new(every: usize, drop: usize, decoded: bool) -> Change {
        Change {
            every,
            decoded,
            lists: 0,
            drop,
            items: 0,
        }
    }

    fn is_due(&mut self) -> bool {
        self.lists += 1;
        self.lists.is_multiple_of(self.every)
    }

    fn is_kept(&mut self) -> bool {
        self.items += 1;
        !self.items.is_multiple_of(self.drop)
    }

    fn list(&mut self, attributes: &mut Attributes<'_>) {
        let due = self.is_due();
        if due && self.decoded {
            attributes.update(|map| {
                map.insert("a", 7);
                map.remove("x");
                true
            });
        } else if due {
            attributes.set("a", ValueRef::Int(7));
            attributes.remove_if(|key| key == "x");
            assert!(attributes.get("x").is_none());
        }
    }

    /// The same for the oracle.
    fn pairs(&mut self, pairs: &mut Vec<o::KeyValue>) {
        if !self.is_due() {
            return;
        }
        if self.decoded {
            pairs.iter_mut().for_each(fill);
        }
        let value = Some(o::AnyValue {
            value: Some(Any::Int(7)),
        });
        match pairs.iter_mut().find(|p| p.key == "a") {
            Some(pair) => pair.value = value,
            None => pairs.push(o::KeyValue {
                key: "a".into(),
                value,
            }),
        }
        pairs.retain(|p| p.key != "x");
    }
}

/// A pair without a value is one with an empty value, once it was decoded.
fn fill(pair: &mut o::KeyValue) {
    fill_value(pair.value.get_or_insert_default());
}

fn fill_value(value: &mut o::AnyValue) {
    match &mut value.value {
        Some(Any::Map(map)) => map.values.iter_mut().for_each(fill),
        Some(Any::Array(list)) => list.values.iter_mut().for_each(fill_value),
        _ => {}
    }
}

impl Edit for Change {
    fn resource(&mut self, attributes: &mut Attributes<'_>) -> Next {
        self.list(attributes);
        Next::Look
    }

    fn scope(&mut self, _: &View<'_>, attributes: &mut Attributes<'_>) -> Next {
        self.list(attributes);
        Next::Look
    }

    fn item(&mut self, _: &View<'_>, attributes: &mut Attributes<'_>) -> bool {
        self.list(attributes);
        self.is_kept()
    }
}

/// Does to a list of messages what `each` does; removes those of which nothing stayed.
fn retain<T>(list: &mut Vec<T>, mut each: impl FnMut(&mut T) -> (usize, usize)) -> (usize, usize) {
    let mut sum = (0, 0);
    list.retain_mut(|one| {
        let (kept, dropped) = each(one);
        sum = (sum.0 + kept, sum.1 + dropped);
        kept > 0 || dropped == 0
    });
    sum
}

fn resource(change: &mut Change, resource: &mut Option<o::Resource>) {
    let mut new = resource.clone().unwrap_or_default();
    change.pairs(&mut new.attributes);
    if resource.is_some() || !new.attributes.is_empty() {
        *resource = Some(new);
    }
}

fn scope(change: &mut Change, scope: &mut Option<o::Scope>) {
    let mut new = scope.clone().unwrap_or_default();
    change.pairs(&mut new.attributes);
    if scope.is_some() || !new.attributes.is_empty() {
        *scope = Some(new);
    }
}

fn change_metrics(metrics: &mut o::Metrics, c: &mut Change) {
    macro_rules! points {
        ($c:expr, $data:expr) => {
            retain(&mut $data.data_points, |p| {
                $c.pairs(&mut p.attributes);
                match $c.is_kept() {
                    true => (1, 0),
                    false => (0, 1),
                }
            })
        };
    }
    retain(&mut metrics.resource_metrics, |r| {
        resource(c, &mut r.resource);
        retain(&mut r.scope_metrics, |s| {
            scope(c, &mut s.scope);
            retain(&mut s.metrics, |m| match &mut m.data {
                None => (0, 0),
                Some(Data::Gauge(d)) => points!(c, d),
                Some(Data::Sum(d)) => points!(c, d),
                Some(Data::Histogram(d)) => points!(c, d),
                Some(Data::Exponential(d)) => points!(c, d),
                Some(Data::Summary(d)) => points!(c, d),
            })
        })
    });
}

fn change_traces(traces: &mut o::Traces, c: &mut Change) {
    retain(&mut traces.resource_spans, |r| {
        resource(c, &mut r.resource);
        retain(&mut r.scope_spans, |s| {
            scope(c, &mut s.scope);
            retain(&mut s.spans, |span| {
                c.pairs(&mut span.attributes);
                match c.is_kept() {
                    true => (1, 0),
                    false => (0, 1),
                }
            })
        })
    });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_change_is_what_it_is_to_the_structures(
        dice in prop::collection::vec(any::<u8>(), 0..800),
        every in 1..5usize,
        drop in 1..9usize,
        decoded in any::<bool>(),
    ) {
        let mut dice = Dice::new(&dice);
        let (mut metrics, mut traces) = (dice.metrics(), dice.traces());
        let drop = if drop > 4 { usize::MAX } else { drop };

        let mut edited = parse(Signal::Metrics, metrics.encode_to_vec());
        edited.append(edited.clone());
        edited.edit(&mut Change::new(every, drop, decoded));
        let again = metrics.clone();
        metrics.resource_metrics.extend(again.resource_metrics);
        change_metrics(&mut metrics, &mut Change::new(every, drop, decoded));
        let body = edited.body();
        prop_assert_eq!(o::Metrics::decode(&*body), Ok(metrics.clone()));
        prop_assert_eq!(edited.items(), metrics.items());
        prop_assert_eq!(parse(Signal::Metrics, body.to_vec()).items(), metrics.items());

        let mut edited = parse(Signal::Traces, traces.encode_to_vec());
        edited.edit(&mut Change::new(every, drop, decoded));
        change_traces(&mut traces, &mut Change::new(every, drop, decoded));
        let body = edited.body();
        prop_assert_eq!(o::Traces::decode(&*body), Ok(traces.clone()));
        prop_assert_eq!(edited.items(), traces.items());
    }

    /// Whoever reads sees each attribute as `prost` does.
    #[test]
    fn attributes_are_read_where_they_are(dice in prop::collection::vec(any::<u8>(), 0..400)) {
        struct Read(Vec<Vec<(String, Value)>>);
        impl Edit for Read {
            fn item(&mut self, _: &View<'_>, attributes: &mut Attributes<'_>) -> bool {
                let pairs = attributes.iter().map(|(k, v)| (k.into_owned(), v.as_ref().to_value()));
                let pairs: Vec<_> = pairs.collect();
                for (key, value) in &pairs {
                    assert_eq!(attributes.get(key).map(|v| v.as_ref().to_value()).as_ref(), Some(value));
                }
                attributes.update(|map| {
                    let decoded: Vec<_> = map.iter().map(|(k, v)| (k.to_string(), v.clone())).collect();
                    assert_eq!(decoded, pairs);
                    false
                });
                assert_eq!(attributes.iter().count(), pairs.len());
                self.0.push(pairs);
                true
            }
        }
        let logs = Dice::new(&dice).logs();
        let mut read = Read(Vec::new());
        let whole = parse(Signal::Logs, logs.encode_to_vec());
        let mut same = whole.clone();
        same.edit(&mut read);
        prop_assert_eq!(&same, &whole);
        let batches = decode_logs(&whole);
        let entries = batches.iter().flat_map(|b| b.to_entries());
        for (pairs, entry) in read.0.iter().zip(entries) {
            let map: crate::Map = pairs.iter().cloned().collect();
            prop_assert_eq!(map, entry.attributes);
        }
        prop_assert_eq!(read.0.len(), logs.items());
    }
}

/// What cannot be seen cannot be changed: a list in two pieces, a resource in two, two kinds of data.
#[test]
fn nothing_hides_from_a_change() {
    struct Redact(usize, bool);
    impl Edit for Redact {
        fn resource(&mut self, attributes: &mut Attributes<'_>) -> Next {
            self.redact(attributes);
            Next::Look
        }
        fn item(&mut self, _: &View<'_>, attributes: &mut Attributes<'_>) -> bool {
            self.redact(attributes);
            true
        }
    }
    impl Redact {
        fn redact(&mut self, attributes: &mut Attributes<'_>) {
            self.0 += usize::from(attributes.get("secret").is_some());
            if self.1 {
                attributes.update(|map| map.remove("secret").is_some());
            } else {
                attributes.remove_if(|key| key == "secret");
            }
        }
    }
    let secret = |number| {
        len(
            number,
            &[len(1, b"secret"), len(2, &len(1, b"s3cr3t"))].concat(),
        )
    };
    let twice = |number| [secret(number), len(number, &len(1, b"b")), secret(number)].concat();
    let points = len(1, &twice(7));
    let metric = [
        len(5, &points),
        len(7, &[points.clone(), points.clone()].concat()),
        len(5, &points),
    ];
    let scope = len(2, &len(2, &metric.concat()));
    let body = len(
        1,
        &[len(1, &twice(1)), scope, len(1, &secret(1)), len(99, b"")].concat(),
    );
    for decoded in [true, false] {
        let mut whole = parse(Signal::Metrics, body.clone());
        let mut redact = Redact(0, decoded);
        whole.edit(&mut redact);
        assert_eq!(redact.0, 5);
        assert!(!whole.body().windows(6).any(|w| w == b"secret"));
        assert_eq!(whole.items(), 1);
        parse(Signal::Metrics, whole.body().to_vec());
    }
}

#[test]
fn what_did_not_change_is_not_copied() {
    struct First(usize);
    impl Edit for First {
        fn resource(&mut self, attributes: &mut Attributes<'_>) -> Next {
            self.0 += 1;
            let change = self.0 == 2;
            attributes.update(|map| {
                map.insert("n", 1);
                change
            });
            Next::Leave
        }
    }
    let resource = len(1, &len(2, &len(2, &len(5, &len(1, &[b'x'; 5000])))));
    let mut whole = parse(Signal::Logs, resource.repeat(3));
    let before = whole.body();
    whole.edit(&mut First(0));
    let chunks: Vec<_> = whole.chunks().collect();
    let shared = |i: usize| before.as_ptr_range().contains(&chunks[i].as_ptr());
    assert_eq!(chunks.len(), 3);
    assert_eq!((shared(0), shared(1), shared(2)), (true, false, true));
    assert_eq!(whole.items(), 3);
    let resources: Vec<_> = decode_logs(&whole)
        .iter()
        .map(|b| b.resource.len())
        .collect();
    assert_eq!(resources, [0, 1, 0]);
}

#[test]
fn fields_are_found_by_name() {
    struct See(Vec<String>);
    impl Edit for See {
        fn scope(&mut self, scope: &View<'_>, _: &mut Attributes<'_>) -> Next {
            self.0
                .push(String::from_utf8_lossy(scope.bytes("name")).into());
            Next::Look
        }
        fn metric(&mut self, metric: &View<'_>) -> Next {
            self.0
                .push(String::from_utf8_lossy(metric.bytes("name")).into());
            assert_eq!((metric.has("sum"), metric.has("gauge")), (false, true));
            match metric.bytes("name") {
                b"out" => Next::Drop,
                b"left" => Next::Leave,
                _ => Next::Look,
            }
        }
        fn item(&mut self, point: &View<'_>, attributes: &mut Attributes<'_>) -> bool {
            assert_eq!(
                (point.number("flags"), point.number("time_unix_nano")),
                (1, 9)
            );
            let k = attributes.get("k");
            assert!(matches!(
                k.as_ref().map(|f| f.as_ref()),
                Some(ValueRef::Str(b"v"))
            ));
            assert!(attributes.get("none").is_none());
            self.0.push("point".into());
            true
        }
    }
    let pair = o::KeyValue {
        key: "k".into(),
        value: Some(o::AnyValue {
            value: Some(Any::String("v".into())),
        }),
    };
    let metric = |name: &str| o::Metric {
        name: name.into(),
        data: Some(Data::Gauge(o::Gauge {
            data_points: vec![o::NumberPoint {
                flags: 1,
                time_unix_nano: 9,
                attributes: vec![pair.clone()],
                ..Default::default()
            }],
        })),
        ..Default::default()
    };
    let metrics = o::Metrics {
        resource_metrics: vec![o::ResourceMetrics {
            scope_metrics: vec![o::ScopeMetrics {
                scope: Some(o::Scope {
                    name: "scope".into(),
                    ..Default::default()
                }),
                metrics: vec![metric("in"), metric("out"), metric("left")],
                ..Default::default()
            }],
            ..Default::default()
        }],
    };
    let mut see = See(Vec::new());
    let mut whole = parse(Signal::Metrics, metrics.encode_to_vec());
    whole.edit(&mut see);
    assert_eq!(see.0, ["scope", "in", "point", "out", "left"]);
    assert_eq!(whole.items(), 2);
}

/// Says what the trace state of each span becomes, and marks every other one.
struct States(
    std::vec::IntoIter<Option<&'static str>>,
    Option<&'static str>,
    bool,
);

impl Edit for States {
    fn item(&mut self, _: &View<'_>, attributes: &mut Attributes<'_>) -> bool {
        self.1 = self.0.next().unwrap();
        self.2 = !self.2;
        if self.2 {
            attributes.update(|map| {
                map.insert("a", 1);
                true
            });
        }
        self.1 != Some("drop")
    }

    fn text(&mut self) -> Option<(&str, &[u8])> {
        self.1.map(|text| ("trace_state", text.as_bytes()))
    }
}

#[test]
fn text_of_an_item_is_put_in_its_place() {
    let span = |name: &str, state: &str| o::Span {
        name: name.into(),
        trace_state: state.into(),
        trace_id: vec![1; 16],
        ..o::Span::default()
    };
    let traces = |spans: Vec<o::Span>| o::Traces {
        resource_spans: vec![o::ResourceSpans {
            scope_spans: vec![o::ScopeSpans {
                spans,
                ..o::ScopeSpans::default()
            }],
            ..o::ResourceSpans::default()
        }],
    };
    let before = vec![
        span("set", ""),
        span("changed", "x=1"),
        span("kept", "y=2"),
        span("emptied", "z=3"),
        span("gone", ""),
    ];
    let mut encoded = parse(Signal::Traces, traces(before).encode_to_vec());
    let states = vec![Some("ot=th:0"), Some("x=22"), None, Some(""), Some("drop")];
    encoded.edit(&mut States(states.into_iter(), None, false));
    let one = o::KeyValue {
        key: "a".into(),
        value: Some(o::AnyValue {
            value: Some(Any::Int(1)),
        }),
    };
    let mut after = vec![
        span("set", "ot=th:0"),
        span("changed", "x=22"),
        span("kept", "y=2"),
        span("emptied", ""),
    ];
    after[0].attributes.push(one.clone());
    after[2].attributes.push(one);
    assert_eq!(o::Traces::decode(encoded.body()).unwrap(), traces(after));
    assert_eq!(encoded.items(), 4);
}
