//! OTLP over HTTP: what is answered to what.

use tailwater_pdata::Signal;
use tailwater_pipeline::{Admission, Outcome};

use super::stand::*;

const PROTO: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// Guarantee: no answer before the records are delivered, and then success in the form that was
/// sent; accounts and metrics have each record once.
#[tokio::test]
async fn success_is_answered_when_records_are_delivered() {
    let stand = Stand::new(&both(""));
    stand.destination().set(None);
    let request = tokio::spawn(send(stand.http(), post("/v1/logs", PROTO, ONE)));
    stand
        .until("it came", |s| s.destination().records() == 1)
        .await;
    assert!(!request.is_finished(), "nothing is delivered yet");
    assert_eq!(stand.account(0).in_flight.records, 1);
    stand.destination().set(Some(Outcome::Delivered));
    let answer = request.await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.text()),
        (200, String::new())
    );
    assert_eq!(answer.header("content-type"), PROTO);
    let account = stand.account(0);
    assert_eq!((account.read.records, account.delivered.records), (1, 1));
    let count = |what: &str| stand.metric(&format!("otelcol_receiver_{what}_log_records"), "http");
    assert_eq!((count("accepted"), count("refused")), (1.0, 0.0));
}

/// Guarantee: what becomes of the records decides the answer: given up is permanent, anything else
/// may come again and says when; what was turned away is counted as such, and not as taken in.
#[tokio::test]
async fn answers_follow_outcomes() {
    let stand = Stand::new(&both(""));
    stand.destination().set(Some(Outcome::Refused));
    let answer = send(stand.http(), post("/v1/logs", PROTO, ONE)).await;
    assert_eq!(answer.status, 500);
    assert!(answer.text().contains("given up: 1 rejected"), "{answer:?}");
    assert_eq!(answer.header("retry-after"), "");
    stand.destination().set(Some(Outcome::Retry));
    let answer = send(stand.http(), post("/v1/logs", PROTO, ONE)).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("retry-after")),
        (503, "1")
    );
    assert!(answer.text().contains("google.rpc.RetryInfo"), "{answer:?}");
    stand.destination().set(Some(Outcome::Filtered));
    let answer = send(stand.http(), post("/v1/logs", PROTO, ONE)).await;
    assert_eq!(answer.status, 200);
    let account = stand.account(0);
    assert_eq!(account.read.records, 3);
    let fate = |name: &str| {
        let found = account.dropped.iter().find(|d| d.0 == name);
        found.unwrap().1.records
    };
    assert_eq!((fate("rejected"), fate("handed_back")), (1, 1));
    assert_eq!(account.filtered[0].1.records, 1);
    let count = |what: &str| stand.metric(&format!("otelcol_receiver_{what}_log_records"), "http");
    assert_eq!((count("accepted"), count("refused")), (1.0, 2.0));
}

/// Guarantee: a destination that admits nothing leads to an answer to come again, in time, and
/// nothing is counted as taken in.
#[tokio::test]
async fn a_closed_destination_is_answered_with_come_again() {
    let stand = Stand::new(&both(""));
    stand.destination().admit(Admission::Closed);
    let answer = send(stand.http(), post("/v1/logs", PROTO, ONE)).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("retry-after")),
        (503, "1")
    );
    assert_eq!(stand.account(0).read.records, 0);
    assert_eq!(
        stand.metric("otelcol_receiver_refused_log_records", "http"),
        1.0
    );
    assert_eq!(stand.destination().records(), 0);
}

#[tokio::test]
async fn requests_that_are_none_are_told_so() {
    let more = ", limits: {body_timeout: 20s}";
    let stand = Stand::new(&both(more));
    let port = stand.http();
    for (path, kind, body, status, part) in [
        (
            "/v1/logs",
            "text/plain",
            ONE,
            415,
            "415 unsupported media type",
        ),
        ("/v1/logs", "", ONE, 415, "415 unsupported media type"),
        ("/v1/log", PROTO, ONE, 404, "404 page not found"),
        ("/v1/metrics", PROTO, b"", 404, "404 page not found"),
        ("/v1/logs", PROTO, b"\x0a\x09", 400, ""),
        ("/v1/logs", JSON, b"{", 400, "\"code\":3"),
        ("/v1/logs", "application/x-protobuf; a=b", ONE, 200, ""),
    ] {
        let answer = send(port, post(path, kind, body)).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {kind} {answer:?}");
        assert!(answer.text().contains(part), "{path} {kind} {answer:?}");
    }
    let get = hyper::Request::get("/v1/logs").header("host", "a");
    let answer = send(port, get.body(Default::default()).unwrap()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("allow")),
        (405, "POST")
    );
    let mut odd = post("/v1/logs", PROTO, ONE);
    odd.headers_mut()
        .insert("content-encoding", "br".parse().unwrap());
    let answer = send(port, odd).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("unsupported Content-Encoding"));
    assert_eq!(
        stand.metric("tailwater_receiver_rejected_requests", "http"),
        8.0
    );
    assert_eq!(stand.account(0).read.records, 1);
}

/// Guarantee: a request without records is a success by itself, in both forms.
#[tokio::test]
async fn empty_requests_are_a_success() {
    let stand = Stand::new(&both(""));
    stand.destination().admit(Admission::Closed);
    let answer = send(stand.http(), post("/v1/logs", PROTO, "")).await;
    assert_eq!(answer.status, 200);
    let answer = send(stand.http(), post("/v1/logs", JSON, "{}")).await;
    assert_eq!(
        (answer.status.as_u16(), &*answer.text()),
        (200, r#"{"partialSuccess":{}}"#)
    );
}

/// Guarantee: several destinations each get a request, and the answer waits for the last.
#[tokio::test]
async fn all_lanes_must_have_delivered() {
    let stand = Stand::with_lanes(&both(""), &["one", "two"]);
    stand.destinations[1].set(None);
    let request = tokio::spawn(send(stand.http(), post("/v1/logs", PROTO, ONE)));
    stand
        .until("both got it", |s| {
            s.destinations.iter().all(|d| d.records() == 1)
        })
        .await;
    stand
        .until("the first has it", |s| s.account(0).delivered.records == 1)
        .await;
    assert!(!request.is_finished());
    stand.destinations[1].set(Some(Outcome::Delivered));
    assert_eq!(request.await.unwrap().status, 200);
    assert_eq!(stand.account(1).delivered.records, 1);
    assert_eq!(
        stand.metric("otelcol_receiver_accepted_log_records", "http"),
        1.0
    );
}

/// Guarantee: pages that may send are answered as browsers expect, others get nothing of it.
#[tokio::test]
async fn browsers_are_told_what_is_allowed() {
    let stand = Stand::new(
        "{protocols: {http: {endpoint: '127.0.0.1:0', response_headers: {X-Own: v}, cors: \
         {allowed_origins: ['http://*.good.test'], allowed_headers: [x-key], \
         exposed_headers: [x-own], max_age: 60}}}}",
    );
    let ask = |origin: &str, headers: &str| {
        hyper::Request::options("/v1/logs")
            .header("host", "a")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", headers)
            .body(Default::default())
            .unwrap()
    };
    let page = "http://a.good.test";
    let answer = send(stand.http(), ask(page, "content-type,x-key")).await;
    assert_eq!(answer.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", page),
        ("access-control-allow-methods", "POST"),
        ("access-control-allow-headers", "content-type,x-key"),
        ("access-control-allow-credentials", "true"),
        ("access-control-max-age", "60"),
        ("x-own", "v"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    for refused in [ask("http://bad.test", ""), ask(page, "x-other")] {
        let answer = send(stand.http(), refused).await;
        assert_eq!(answer.header("access-control-allow-methods"), "");
    }
    let mut request = post("/v1/logs", PROTO, ONE);
    request
        .headers_mut()
        .insert("origin", page.parse().unwrap());
    let answer = send(stand.http(), request).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), page);
    assert_eq!(answer.header("access-control-expose-headers"), "x-own");
}

/// Guarantee: the same listener speaks HTTP/2.
#[tokio::test]
async fn http2_works_too() {
    let stand = Stand::new(&both(""));
    let client = GrpcClient::connect(stand.http()).await;
    let answer = client
        .call_at("/v1/logs", &[("content-type", PROTO)], ONE)
        .await;
    assert_eq!(answer.status, 200);
}

/// Guarantee: every signal, as protobuf and as JSON, with every compression, is counted item by item
/// under its own name.
#[tokio::test]
async fn all_signals_in_both_forms() {
    let stand = Stand::with_signals(&both(""), &Signal::ALL);
    let logs =
        r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"a"}}]}]}]}"#;
    let metrics = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","gauge":
        {"dataPoints":[{"asDouble":1},{"asInt":"2"}]}}]}]}]}"#;
    let traces = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[
        {"traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174","name":"s"}]}]}]}"#;
    let mut sent = 0;
    for (signal, path, json) in [
        (Signal::Logs, "/v1/logs", logs),
        (Signal::Metrics, "/v1/metrics", metrics),
        (Signal::Traces, "/v1/traces", traces),
    ] {
        let limits = Default::default();
        let proto = tailwater_pdata::otlp::json::to_proto(signal, json.as_bytes(), &limits);
        let proto = proto.unwrap();
        for (kind, plain) in [(JSON, json.as_bytes()), (PROTO, &proto[..])] {
            for encoding in crate::server::inflate::Encoding::ALL {
                let body = crate::server::inflate::tests::compress(encoding, plain);
                let mut request = post(path, kind, body);
                let name = encoding.name().parse().unwrap();
                request.headers_mut().insert("content-encoding", name);
                let answer = send(stand.http(), request).await;
                assert_eq!(answer.status, 200, "{path} {kind} {encoding:?} {answer:?}");
                sent += 1;
            }
        }
    }
    assert_eq!(sent, 36);
    let count = |name: &str| stand.metric(&format!("otelcol_receiver_accepted_{name}"), "http");
    assert_eq!(
        [count("log_records"), count("metric_points"), count("spans")],
        [12.0, 24.0, 12.0]
    );
    assert_eq!(stand.account(0).delivered.records, 48);
}

/// Guarantee: a destination that has no room for one signal takes the others.
#[tokio::test]
async fn signals_do_not_wait_for_each_other() {
    let stand = Stand::with_signals(&both(""), &Signal::ALL);
    stand.destination().close(Signal::Traces);
    let span = br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"s"}]}]}]}"#;
    let traces = tokio::spawn(send(stand.http(), post("/v1/traces", JSON, &span[..])));
    stand
        .until("the span is under way", |s| {
            s.metric("tailwater_receiver_in_flight_bytes", "otlp") > 0.0
        })
        .await;
    let answer = send(stand.http(), post("/v1/logs", PROTO, ONE)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(traces.await.unwrap().status, 503, "its own has no room");
    assert_eq!(stand.destination().records(), 1);
}
