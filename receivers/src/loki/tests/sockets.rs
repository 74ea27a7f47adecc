//! Pushes over sockets: what is answered to what.

use std::io::Write;

use hyper::Request;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE};
use tailwater_config::{Errors, KeyPath, parse};
use tailwater_pdata::Signal;
use tailwater_pipeline::{Admission, Outcome};

use super::{proto, snappy};
use crate::loki::LokiSettings;
use crate::server::stand::*;

const PATH: &str = "/loki/api/v1/push";
const PROTO: &str = "application/x-protobuf";
const JSON: &str = "application/json";
const TEXT: &str = r#"{"streams": [{"stream": {"job": "a"}, "values": [["1000000000", "one"]]}]}"#;

fn settings(yaml: &str) -> Result<LokiSettings, String> {
    let node = parse(yaml, "test.yaml").unwrap();
    let mut errors = Errors::new();
    let settings = LokiSettings::decode(&node, &KeyPath::from("receivers::loki"), &mut errors);
    settings.ok_or_else(|| errors.to_string())
}

impl Stand {
    /// A receiver of pushes at free ports; `more` is added to the options of HTTP.
    fn loki(more: &str, exporters: &[&str]) -> Stand {
        let yaml = format!(
            "{{protocols: {{grpc: {{endpoint: '127.0.0.1:0'}}, http: {{endpoint: '127.0.0.1:0'{more}}}}},
              use_incoming_timestamp: true}}"
        );
        let settings = settings(&yaml).unwrap_or_else(|e| panic!("{yaml}: {e}"));
        let build = |cx: &_, lanes: &[_]| settings.nodes(cx, lanes);
        let signals = [Signal::Logs];
        Stand::start("loki", build, Default::default(), exporters, &signals).unwrap()
    }
}

fn one() -> Vec<u8> {
    proto(&[(r#"{job="a"}"#, &[(1, 0, b"one", &[("m", "v")])])])
}

fn encoded(
    kind: &str,
    encoding: &str,
    body: Vec<u8>,
) -> Request<http_body_util::Full<bytes::Bytes>> {
    let mut request = post(PATH, kind, body);
    let headers = request.headers_mut();
    headers.insert(CONTENT_ENCODING, encoding.parse().unwrap());
    request
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// Guarantee: no answer before the entries are delivered, and then 204 without a body; accounts have each
/// once.
#[tokio::test]
async fn success_is_answered_when_entries_are_delivered() {
    let stand = Stand::loki("", &["one"]);
    stand.destination().remember();
    stand.destination().set(None);
    let streams = proto(&[
        (r#"{job="a"}"#, &[(1, 0, b"one", &[]), (2, 0, b"two", &[])]),
        (r#"{job="b"}"#, &[(3, 0, b"three", &[])]),
    ]);
    let request = tokio::spawn(send(stand.http(), post(PATH, PROTO, snappy(&streams))));
    stand
        .until("they came", |s| s.destination().records() == 3)
        .await;
    assert!(!request.is_finished(), "nothing is delivered yet");
    assert_eq!(stand.account(0).in_flight.records, 3);
    stand.destination().set(Some(Outcome::Delivered));
    let answer = request.await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.text()),
        (204, String::new())
    );
    let expect = ["0 1 one | job=a", "0 2 two | job=a", "0 3 three | job=b"];
    assert_eq!(stand.destination().texts(), expect);
    let account = stand.account(0);
    assert_eq!((account.read.records, account.delivered.records), (3, 3));
    let count = |what: &str| stand.metric(&format!("otelcol_receiver_{what}_log_records"), "http");
    assert_eq!((count("accepted"), count("refused")), (3.0, 0.0));
}

/// Guarantee: what clients send is read, in every form and compression that they use.
#[tokio::test]
async fn forms_that_clients_send() {
    let stand = Stand::loki("", &["one"]);
    stand.destination().remember();
    for request in [
        post(PATH, PROTO, snappy(&one())),
        encoded(PROTO, "snappy", snappy(&one())),
        encoded(PROTO, "gzip", gzip(&snappy(&one()))),
    ] {
        assert_eq!(send(stand.http(), request).await.status, 204);
    }
    for request in [
        post(PATH, JSON, TEXT),
        post(PATH, "application/json; charset=utf-8", TEXT),
        encoded(JSON, "gzip", gzip(TEXT.as_bytes())),
        // The collector takes it so, too.
        encoded(JSON, "snappy", TEXT.into()),
    ] {
        assert_eq!(send(stand.http(), request).await.status, 204);
    }
    let empty = [post(PATH, JSON, "{}"), post(PATH, PROTO, snappy(b""))];
    for request in empty {
        assert_eq!(send(stand.http(), request).await.status, 204);
    }
    let grpc = GrpcClient::connect(stand.grpc()).await;
    let answer = grpc
        .call_at("/logproto.Pusher/Push", &[], frame(0, &one()))
        .await;
    assert_eq!(answer.code(), 0, "{answer:?}");
    let with = "0 1 one | job=a m=v";
    let without = "0 1 one | job=a";
    let expect = [[with; 3].as_slice(), &[without; 4], &[with]].concat();
    assert_eq!(stand.destination().texts(), expect);
}

/// Guarantee: clients are told to come again for what may pass later, and nothing else: at other answers
/// they drop it.
#[tokio::test]
async fn answers_follow_outcomes() {
    let stand = Stand::loki("", &["one"]);
    let push = || send(stand.http(), post(PATH, PROTO, snappy(&one())));
    stand.destination().set(Some(Outcome::Refused));
    let answer = push().await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.header("content-type"), "text/plain");
    assert_eq!(answer.text(), "given up: 1 rejected");
    assert_eq!(answer.header("retry-after"), "");
    stand.destination().set(Some(Outcome::Retry));
    let answer = push().await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("retry-after"), "1");
    stand.destination().set(Some(Outcome::Filtered));
    assert_eq!(push().await.status, 204);
    stand.destination().admit(Admission::Closed);
    let answer = push().await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(stand.account(0).read.records, 3, "the last was not taken");
    let grpc = GrpcClient::connect(stand.grpc()).await;
    let call = grpc.call_at("/logproto.Pusher/Push", &[], frame(0, &one()));
    assert_eq!(call.await.code(), 14, "unavailable");
}

/// Guarantee: what is no push is refused, with a status that says why, and bombs before they inflate.
#[tokio::test]
async fn what_is_refused() {
    let stand = Stand::loki(", max_request_body_size: 100000", &["one"]);
    let bad = proto(&[("{a=b}", &[(1, 0, b"x", &[])])]);
    let bomb = vec![b'x'; 200_000];
    let large = proto(&[("{}", &[(1, 0, &bomb, &[])])]);
    for (request, status, part) in [
        (post(PATH, PROTO, "plain"), 400, "snappy"),
        (post(PATH, PROTO, one()), 400, "snappy"),
        (encoded(PROTO, "gzip", snappy(&one())), 400, "gzip"),
        (post(PATH, PROTO, snappy(&bad)), 400, "a quoted value"),
        (post(PATH, PROTO, snappy(&large)), 413, "more than 100000"),
        (
            encoded(PROTO, "gzip", gzip(&snappy(&large))),
            413,
            "more than 100000",
        ),
        (encoded(PROTO, "gzip", gzip(&bomb)), 413, "more than 100000"),
        (post(PATH, JSON, bomb.clone()), 413, "max_request_body_size"),
        (encoded(JSON, "gzip", gzip(&bomb)), 413, "more than 100000"),
        (post(PATH, JSON, "{"), 400, "EOF"),
        (encoded(JSON, "br", TEXT.into()), 400, "Content-Encoding"),
        (post(PATH, "text/plain", TEXT), 415, "supported"),
        (post("/api/prom/push", JSON, TEXT), 404, "not found"),
    ] {
        let kind = request.headers()[CONTENT_TYPE].clone();
        let answer = send(stand.http(), request).await;
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{kind:?} {part}: {answer:?}"
        );
        assert!(answer.text().contains(part), "{part}: {answer:?}");
        assert_eq!(answer.header("retry-after"), "");
    }
    let mut get = post(PATH, JSON, "");
    *get.method_mut() = hyper::Method::GET;
    assert_eq!(send(stand.http(), get).await.status, 405);
    let grpc = GrpcClient::connect(stand.grpc()).await;
    let export = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
    let answer = grpc.call_at(export, &[], frame(0, &one())).await;
    assert_eq!(answer.code(), 12, "unimplemented");
    let answer = grpc.call_at("/logproto.Pusher/Push", &[], frame(0, &bad));
    assert_eq!(answer.await.code(), 3, "invalid argument");
    assert_eq!(stand.account(0).read.records, 0);
}

/// Guarantee: a push that one of two destinations has is, when it comes again, given to the other alone.
#[tokio::test]
async fn a_push_that_comes_again_goes_to_who_lacks_it() {
    let stand = Stand::loki("", &["one", "two"]);
    stand.destinations[1].set(Some(Outcome::Retry));
    let push = || send(stand.http(), post(PATH, PROTO, snappy(&one())));
    assert_eq!(push().await.status, 503);
    stand.destinations[1].set(Some(Outcome::Delivered));
    assert_eq!(push().await.status, 204);
    let records = [0, 1].map(|lane| stand.destinations[lane].records());
    assert_eq!(records, [1, 2]);
}

/// Guarantee: options have the collector's defaults; what is unknown is refused.
#[test]
fn options_of_the_receiver() {
    let node = parse("protocols: {grpc: , http: }", "test.yaml").unwrap();
    let mut errors = Errors::new();
    let mut section = tailwater_config::Section::new(&node, "receivers::loki", &mut errors);
    let config = crate::loki::config::LokiConfig::decode(&mut section);
    section.finish();
    assert!(errors.is_empty() && !config.incoming_timestamp);
    let (grpc, http) = (config.server.grpc.unwrap(), config.server.http.unwrap());
    assert_eq!(grpc.listen.endpoint.to_string(), "localhost:3600");
    assert_eq!(http.listen.endpoint.to_string(), "localhost:3500");
    for (yaml, part) in [
        ("{}", "at least one of grpc and http"),
        ("{protocols: {http: {logs_url_path: /x}}}", "logs_url_path"),
        (
            "{protocols: {http: }, use_incoming_time: true}",
            "use_incoming_timestamp",
        ),
    ] {
        let errors = settings(yaml)
            .err()
            .unwrap_or_else(|| panic!("accepted: {yaml}"));
        assert!(errors.contains(part), "{yaml}: {errors}");
    }
}
