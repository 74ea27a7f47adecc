use super::{Encoded, Limits, json};
use crate::{Signal, ValueRef};

fn metrics(text: &str) -> Encoded {
    let body = json::to_proto(Signal::Metrics, text.as_bytes(), &Limits::default()).unwrap();
    Encoded::parse(Signal::Metrics, body, &Limits::default()).unwrap()
}

#[test]
fn every_kind_of_field_is_read_where_it_lies() {
    let encoded = metrics(
        r#"{"resourceMetrics":[{"schemaUrl":"s","resource":{"attributes":[
        {"key":"a","value":{"intValue":"1"}},{"key":"b","value":{"arrayValue":{"values":[{}]}}}],
        "entityRefs":[{"type":"t","idKeys":["k","l"]}]},
        "scopeMetrics":[{"metrics":[{"name":"m","exponentialHistogram":{"dataPoints":[
        {"sum":0.5,"scale":-3,"positive":{"offset":-1,"bucketCounts":["3","300"]}}]}},
        {"name":"h","histogram":{"dataPoints":[{"bucketCounts":["7","8"],"explicitBounds":[1.5]}]}}
        ]}]}]}"#,
    );
    let view = encoded.views().next().unwrap();
    let resource = view.messages("resource_metrics").next().unwrap();
    assert_eq!(resource.bytes("schema_url"), b"s");
    resource.message("resource", |r| {
        let pairs: Vec<_> = r.pairs("attributes").collect();
        assert_eq!(pairs[0].0, "a");
        assert_eq!(pairs[0].1.as_ref(), ValueRef::Int(1));
        assert!(matches!(pairs[1].1.as_ref(), ValueRef::List(_)));
        let entity = r.messages("entity_refs").next().unwrap();
        assert_eq!(entity.texts("id_keys").collect::<Vec<_>>(), [b"k", b"l"]);
    });
    let scope = resource.messages("scope_metrics").next().unwrap();
    let metrics: Vec<_> = scope.messages("metrics").collect();
    assert_eq!(metrics[0].chosen(), Some("exponential_histogram"));
    assert_eq!(metrics[1].chosen(), Some("histogram"));
    metrics[0].message("exponential_histogram", |data| {
        let point = data.messages("data_points").next().unwrap();
        assert_eq!(
            (point.double("sum"), point.double("min")),
            (Some(0.5), None)
        );
        assert_eq!(point.zigzag("scale"), -3);
        point.message("positive", |p| {
            assert_eq!(
                (p.zigzag("offset"), p.numbers("bucket_counts")),
                (-1, vec![3, 300])
            );
        });
    });
    metrics[1].message("histogram", |data| {
        let point = data.messages("data_points").next().unwrap();
        assert_eq!(point.numbers("bucket_counts"), [7, 8]);
        assert_eq!(point.doubles("explicit_bounds"), [1.5]);
    });
}

#[test]
fn what_is_not_there_is_empty_and_pieces_are_one() {
    // resource_spans { resource { } resource { dropped_attributes_count: 5 } scope_spans { spans { } } }
    let body = b"\x0a\x0a\x0a\x00\x0a\x02\x10\x05\x12\x02\x12\x00".as_slice();
    let encoded = Encoded::parse(Signal::Traces, body.into(), &Limits::default()).unwrap();
    let view = encoded.views().next().unwrap();
    let resource = view.messages("resource_spans").next().unwrap();
    let dropped = resource.message("resource", |r| r.number("dropped_attributes_count"));
    assert_eq!(dropped, Some(5));
    assert_eq!(resource.message("nothing", |_| ()), None);
    let scope = resource.messages("scope_spans").next().unwrap();
    assert_eq!(scope.message("scope", |s| s.bytes("name").len()), Some(0));
    let span = scope.messages("spans").next().unwrap();
    assert_eq!(span.pairs("attributes").count(), 0);
    assert_eq!((span.double("name"), span.chosen()), (None, None));
    assert_eq!(span.messages("name").count(), 0);
}
