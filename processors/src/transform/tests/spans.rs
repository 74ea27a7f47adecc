//! What statements make of spans, their events, and what is around them.

use serde_json::{Value as Json, json};
use tailwater_pdata::Signal;

use super::encoded::{Row, attributes, changed, check, encoded, run, statements};
use crate::transform::*;

pub(super) fn traces() -> Json {
    json!({"resourceSpans": [{
        "resource": {"attributes": attributes(&[("service.name", "shop")])},
        "scopeSpans": [{
            "scope": {"name": "lib", "version": "1"},
            "spans": [
                {"name": "GET /users/42", "kind": 2, "spanId": "0102030405060708",
                 "traceId": "000102030405060708090a0b0c0d0e0f", "traceState": "a=1",
                 "startTimeUnixNano": "1000000000", "endTimeUnixNano": "3000000000",
                 "attributes": attributes(&[("http.route", "/users/42"), ("token", "secret")]),
                 "events": [
                    {"name": "exception", "timeUnixNano": "2000000000",
                     "attributes": attributes(&[("exception.message", "password=x")])},
                    {"name": "retry", "timeUnixNano": "2500000000"}],
                 "status": {"code": 2, "message": "failed"}},
                {"name": "child", "kind": 1, "parentSpanId": "0102030405060708"},
            ],
        }],
    }]})
}

pub(super) const RESOURCE: &str = "/resourceSpans/0/resource";
pub(super) const SCOPE: &str = "/resourceSpans/0/scopeSpans/0/scope";
pub(super) const SPAN: &str = "/resourceSpans/0/scopeSpans/0/spans/0";
pub(super) const CHILD: &str = "/resourceSpans/0/scopeSpans/0/spans/1";
pub(super) const EVENT: &str = "/resourceSpans/0/scopeSpans/0/spans/0/events/0";

#[test]
fn spans_and_what_is_around_them_are_changed() {
    let table: &[Row<'_>] = &[
        (
            "resource",
            &[r#"set(attributes["env"], "prod")"#],
            (RESOURCE, "/attributes/1/value/stringValue"),
            json!("prod"),
        ),
        (
            "resource",
            &[r#"set(schema_url, "https://a/1")"#],
            ("/resourceSpans/0", "/schemaUrl"),
            json!("https://a/1"),
        ),
        (
            "resource",
            &["set(dropped_attributes_count, 3)"],
            (RESOURCE, "/droppedAttributesCount"),
            json!(3),
        ),
        (
            "resource",
            &["keep_keys(attributes, [])"],
            (RESOURCE, "/attributes"),
            Json::Null,
        ),
        (
            "scope",
            &[r#"set(name, Concat([name, resource.attributes["service.name"]], "/"))"#],
            (SCOPE, "/name"),
            json!("lib/shop"),
        ),
        (
            "scope",
            &[r#"set(attributes["k"], version)"#],
            (SCOPE, "/attributes/0/value/stringValue"),
            json!("1"),
        ),
        (
            "scope",
            &[r#"set(schema_url, "u")"#],
            ("/resourceSpans/0/scopeSpans/0", "/schemaUrl"),
            json!("u"),
        ),
        // A scope sees what its resource has become.
        (
            "scope",
            &[r#"set(resource.attributes["scope"], name)"#],
            (RESOURCE, "/attributes/1/value/stringValue"),
            json!("lib"),
        ),
        (
            "span",
            &[r#"replace_pattern(name, "/users/\\d+", "/users/{id}")"#],
            (SPAN, "/name"),
            json!("GET /users/{id}"),
        ),
        (
            "span",
            &[r#"set(name, attributes["http.route"]) where attributes["http.route"] != nil"#],
            (SPAN, "/name"),
            json!("/users/42"),
        ),
        (
            "span",
            &[r#"set(name, attributes["http.route"]) where attributes["http.route"] != nil"#],
            (CHILD, "/name"),
            json!("child"),
        ),
        (
            "span",
            &[r#"delete_key(attributes, "token")"#],
            (SPAN, "/attributes/1"),
            Json::Null,
        ),
        (
            "span",
            &[r#"truncate_all(attributes, 3)"#],
            (SPAN, "/attributes/1/value/stringValue"),
            json!("sec"),
        ),
        (
            "span",
            &[r#"replace_all_patterns(attributes, "key", "^http\\.", "web.")"#],
            (SPAN, "/attributes/0/key"),
            json!("web.route"),
        ),
        (
            "span",
            &[r#"delete_matching_keys(attributes, ".*o.*")"#],
            (SPAN, "/attributes"),
            Json::Null,
        ),
        (
            "span",
            &[r#"limit(attributes, 1, ["token"])"#],
            (SPAN, "/attributes/0/key"),
            json!("token"),
        ),
        (
            "span",
            &[
                "set(status.code, STATUS_CODE_OK)",
                r#"set(status.message, "")"#,
            ],
            (SPAN, "/status"),
            json!({"code": 1}),
        ),
        (
            "span",
            &["set(status.code, STATUS_CODE_ERROR) where status.code == 0"],
            (CHILD, "/status"),
            json!({"code": 2}),
        ),
        (
            "span",
            &["set(kind, SPAN_KIND_CLIENT)"],
            (SPAN, "/kind"),
            json!(3),
        ),
        (
            "span",
            &[r#"set(kind.string, "Producer")"#],
            (SPAN, "/kind"),
            json!(4),
        ),
        (
            "span",
            &[r#"set(kind.deprecated_string, "SPAN_KIND_CONSUMER")"#],
            (SPAN, "/kind"),
            json!(5),
        ),
        (
            "span",
            &["set(trace_id, TraceID(0x0f0e0d0c0b0a09080706050403020100))"],
            (SPAN, "/traceId"),
            json!("0f0e0d0c0b0a09080706050403020100"),
        ),
        (
            "span",
            &[r#"set(span_id.string, "1112131415161718")"#],
            (SPAN, "/spanId"),
            json!("1112131415161718"),
        ),
        (
            "span",
            &["set(parent_span_id, SpanID(0x0000000000000000))"],
            (CHILD, "/parentSpanId"),
            Json::Null,
        ),
        (
            "span",
            &[r#"set(trace_state, "b=2")"#],
            (SPAN, "/traceState"),
            json!("b=2"),
        ),
        (
            "span",
            &["set(end_time_unix_nano, start_time_unix_nano + 5)"],
            (SPAN, "/endTimeUnixNano"),
            json!("1000000005"),
        ),
        (
            "span",
            &[r#"set(start_time, end_time - Duration("1s"))"#],
            (SPAN, "/startTimeUnixNano"),
            json!("2000000000"),
        ),
        (
            "span",
            &[
                "set(dropped_events_count, 1)",
                "set(dropped_links_count, dropped_events_count + 1)",
            ],
            (SPAN, "/droppedLinksCount"),
            json!(2),
        ),
        ("span", &["set(flags, 1)"], (SPAN, "/flags"), json!(1)),
        (
            "span",
            &[r#"set(attributes["root"], IsRootSpan())"#],
            (SPAN, "/attributes/2/value/boolValue"),
            json!(true),
        ),
        (
            "span",
            &[
                r#"merge_maps(attributes, {"n": {"m": [1, 2]}}, "upsert")"#,
                r#"set(attributes["first"], attributes["n"]["m"][0])"#,
            ],
            (SPAN, "/attributes/3/value/intValue"),
            json!("1"),
        ),
        (
            "span",
            &[
                r#"set(cache["n"], name)"#,
                r#"set(resource.attributes["last"], cache["n"])"#,
            ],
            (RESOURCE, "/attributes/1/value/stringValue"),
            json!("child"),
        ),
        (
            "spanevent",
            &[r#"replace_pattern(attributes["exception.message"], "password=.*", "password=***")"#],
            (EVENT, "/attributes/0/value/stringValue"),
            json!("password=***"),
        ),
        (
            "spanevent",
            &[
                r#"set(span.attributes["failed"], attributes["exception.message"]) where name == "exception""#,
            ],
            (SPAN, "/attributes/2/value/stringValue"),
            json!("password=x"),
        ),
        (
            "spanevent",
            &[r#"set(attributes["index"], event_index)"#],
            (SPAN, "/events/1/attributes/0/value/intValue"),
            json!("1"),
        ),
        (
            "spanevent",
            &[
                "set(time, span.start_time)",
                "set(dropped_attributes_count, 4)",
                r#"set(name, "n")"#,
            ],
            (EVENT, "/timeUnixNano"),
            json!("1000000000"),
        ),
        (
            "spanevent",
            &["set(dropped_attributes_count, 4)"],
            (EVENT, "/droppedAttributesCount"),
            json!(4),
        ),
        (
            "spanevent",
            &[r#"set(scope.name, "s")"#],
            (SCOPE, "/name"),
            json!("s"),
        ),
    ];
    check("trace_statements", Signal::Traces, &traces(), table);
}

/// Guarantee: there is one resource for all its spans: what was set for one is what the next one sees, and
/// what was set last is what all of them have.
#[test]
fn spans_change_the_resource_that_they_share() {
    let yaml = statements(
        "trace_statements",
        "span",
        &[
            r#"set(attributes["before"], resource.attributes["last"])"#,
            r#"set(resource.attributes["last"], name)"#,
        ],
    );
    let after = changed(Signal::Traces, &yaml, &traces());
    let list = after.pointer(&format!("{RESOURCE}/attributes")).unwrap();
    assert_eq!(
        *list,
        attributes(&[("service.name", "shop"), ("last", "child")])
    );
    let seen = after.pointer(&format!("{CHILD}/attributes")).unwrap();
    assert_eq!(*seen, attributes(&[("before", "GET /users/42")]));
}

/// Guarantee: a request that statements make too large is given up and counted, and its sender is told.
#[test]
fn what_grows_too_much_is_given_up() {
    let long = "x".repeat(1 << 20);
    let spans: Vec<Json> = (0..100).map(|_| json!({"name": "a"})).collect();
    let request = json!({"resourceSpans": [{
        "resource": {"attributes": attributes(&[("long", &long)])},
        "scopeSpans": [{"spans": spans}],
    }]});
    let yaml = statements(
        "trace_statements",
        "span",
        &[r#"set(attributes["long"], resource.attributes["long"])"#],
    );
    let (left, told) = run(&yaml, encoded(Signal::Traces, &request));
    assert_eq!((left, told), (None, (Outcome::Refused, 100)));
}

/// Guarantee: spans are named after what they do, and keep the name they had where it is wanted.
#[test]
fn spans_are_named_by_conventions() {
    let yaml = statements(
        "trace_statements",
        "span",
        &[r#"set_semconv_span_name("1.37.0", "original")"#],
    );
    const SERVER: u8 = 2;
    const CLIENT: u8 = 3;
    const PRODUCER: u8 = 4;
    for (kind, list, want) in [
        (
            SERVER,
            &[("http.request.method", "GET"), ("http.route", "/u/{id}")][..],
            "GET /u/{id}",
        ),
        (
            SERVER,
            &[("http.method", "GET"), ("url.template", "/x")],
            "GET",
        ),
        (
            CLIENT,
            &[("http.method", "GET"), ("url.template", "/x")],
            "GET /x",
        ),
        (
            CLIENT,
            &[
                ("rpc.system", "grpc"),
                ("rpc.method", "M"),
                ("rpc.service", "S"),
            ],
            "S/M",
        ),
        (
            CLIENT,
            &[("rpc.system", "grpc"), ("rpc.service", "S")],
            "S/*",
        ),
        (
            CLIENT,
            &[
                ("db.system", "pg"),
                ("db.operation", "SELECT"),
                ("db.name", "d"),
                ("db.collection.name", "t"),
            ],
            "SELECT d.t",
        ),
        (
            CLIENT,
            &[
                ("db.system", "pg"),
                ("server.address", "h"),
                ("server.port", "1"),
            ],
            "h:1",
        ),
        (
            CLIENT,
            &[("db.system.name", "pg"), ("db.query.summary", "S t")],
            "S t",
        ),
        (
            PRODUCER,
            &[
                ("messaging.system", "kafka"),
                ("messaging.operation", "send"),
                ("messaging.destination.name", "q"),
            ],
            "send q",
        ),
        (PRODUCER, &[("messaging.system", "kafka")], "kafka"),
        (PRODUCER, &[("http.method", "GET")], "old"),
        (1, &[("http.method", "GET")], "old"),
    ] {
        let request = json!({"resourceSpans": [{"scopeSpans": [{"spans": [
            {"name": "old", "kind": kind, "attributes": attributes(list)},
        ]}]}]});
        let after = changed(Signal::Traces, &yaml, &request);
        let span = after.pointer(SPAN).unwrap();
        assert_eq!(span["name"], want, "{list:?}");
        let mut all = list.to_vec();
        if want != "old" {
            all.push(("original", "old"));
        }
        assert_eq!(span["attributes"], attributes(&all), "{list:?}");
    }
}
